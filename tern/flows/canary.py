"""Showing that this worker reads a queue: the token of a canary is written down, and that is all."""

from tern.domain.canary import read_canary
from tern.ports import Ports


def answer(queue: object, token: object, who: str, ports: Ports, clock_s: float | None = None) -> None:
    """Answers a canary; `clock_s`, what this machine's clock says, is only told. Raises UsageError for a message that
    is none, StorageUnavailable when PostgreSQL is gone.
    """
    ports.store.answer_canary(*read_canary(queue, token), who, clock_s)

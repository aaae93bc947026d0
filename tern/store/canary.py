"""Durable steps of canaries: one row a queue, however often somebody asks."""

from collections.abc import Mapping
from dataclasses import dataclass

from tern.store.session import transaction
from tern.store.sql import text
from tern.store.step import Steps


@dataclass(frozen=True, slots=True)
class Answer:
    """The last worker that answered from a queue, and how long ago, in seconds."""

    token: str
    answered_by: str
    age_s: float


class CanarySteps(Steps):
    """The canaries of ports.SweepStore on PostgreSQL."""

    def answer_canary(self, queue: str, token: str, who: str) -> None:
        """See ports.SweepStore."""
        with transaction(self.engine) as tx:
            tx.execute(
                text(
                    "INSERT INTO worker_canaries (queue, token, answered_by) VALUES (:queue, :token, :who)"
                    " ON CONFLICT (queue) DO UPDATE SET token = excluded.token,"
                    " answered_by = excluded.answered_by, answered_at = excluded.answered_at"
                ),
                {"queue": queue, "token": token, "who": who},
            )

    def canaries(self) -> Mapping[str, Answer]:
        """The last answer from each queue."""
        with transaction(self.engine) as tx:
            rows = tx.execute(
                text(
                    "SELECT queue, token, answered_by,"
                    " extract(epoch FROM tern_clock() - answered_at)::float AS age_s FROM worker_canaries"
                )
            )
            return {row.queue: Answer(row.token, row.answered_by, row.age_s) for row in rows}

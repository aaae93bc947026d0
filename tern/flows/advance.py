"""Keeping one apply true to its operations: what never started and is stopped, what may start, its verdict (G14)."""

import logging

from tern.domain.identity import ApplyId
from tern.ports import Ports

_log = logging.getLogger("tern.verdict")


def advance(apply_id: str, ports: Ports) -> None:
    """Projects the apply, rings for what is admitted, and drives the effects of its verdict, once.

    Raises NotFound, StorageUnavailable.
    """
    for due in ports.store.advance_apply(ApplyId(apply_id)):
        ports.bells.dispatch(due)
    if (summary := ports.store.claim_verdict_effects(ApplyId(apply_id))) is not None:
        _log.info(summary)

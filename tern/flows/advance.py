"""Keeping one apply true to its operations: what never started and is stopped, what may start, its verdict (G14)."""

import logging

from tern.domain.scope import parse_apply_id
from tern.ports import Ports

_log = logging.getLogger("tern.verdict")


def advance(apply_id: object, ports: Ports) -> None:
    """Projects the apply, rings for what is admitted, and drives the effects of its verdict, once.

    Raises ScopeRefused for a message without an apply's id, NotFound, StorageUnavailable.
    """
    name = parse_apply_id(apply_id)
    for due in ports.store.advance_apply(name):
        ports.bells.dispatch(due)
    if (summary := ports.store.claim_verdict_effects(name)) is not None:
        _log.info(summary)

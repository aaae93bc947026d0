"""Keeping one apply true to its operations: what never started and is stopped, what may start, its verdict (G14)."""

import logging
from typing import assert_never

from tern.domain.scope import parse_apply_id
from tern.ports import Due, DueControl, Ports

AT_ONCE = 1_000
"""Operations settled in one transaction: few statements, and the apply's lock is not held for long."""

_log = logging.getLogger("tern.verdict")


def advance(apply_id: object, ports: Ports) -> None:
    """Carries out the wishes that need no call, projects the apply, rings for what is admitted, and drives the
    effects of its verdict, once.

    Raises ScopeRefused for a message without an apply's id, NotFound, StorageUnavailable.
    """
    name = parse_apply_id(apply_id)
    while ports.store.settle_uncalled(name, AT_ONCE) == AT_ONCE:
        pass
    for due in ports.store.advance_apply(name):
        match due:
            case Due():
                ports.bells.dispatch(due)
            case DueControl():
                ports.bells.control(due)
            case _:
                assert_never(due)
    if (summary := ports.store.claim_verdict_effects(name)) is not None:
        _log.info(summary)

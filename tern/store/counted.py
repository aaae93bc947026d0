"""The store of a process that counts: what claims and fenced writes come to. The durable steps themselves know nothing
of it.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from tern.metrics import CLAIMS, FENCED_WRITES
from tern.ports import Fenced, NotClaimed
from tern.store.store import PostgresStore

CLAIMING = {
    "claim_dispatch": "dispatch",
    "claim_delivery": "control",
    "begin_poll": "poll",
}
FENCED = (
    "withdraw_intent",
    "record_remote_id",
    "record_dispatched",
    "record_refused",
    "record_unanswered",
    "record_uncertain",
    "settle_undispatched",
    "record_sent",
    "record_volume",
    "record_undelivered",
    "record_delivery_refused",
    "hold_uncertain",
    "resume",
    "take_over",
    "record_look",
    "withdraw_start",
    "record_key_dead",
    "record_busy",
    "adopt_kept",
    "record_no_answer_by_key",
)


class CountedStore(PostgresStore):
    """PostgresStore, with each claim and each write under one counted by its outcome."""


def _count_claim(work: str, step: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(step)
    def counted(*given: Any, **named: Any) -> Any:
        found = step(*given, **named)
        CLAIMS.add(work, "not_claimed" if isinstance(found, NotClaimed) else "won")
        return found

    return counted


def _count_write(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(step)
    def counted(*given: Any, **named: Any) -> Any:
        found = step(*given, **named)
        if isinstance(found, Fenced):
            FENCED_WRITES.add(name, found.value)
        return found

    return counted


for _name, _work in CLAIMING.items():
    setattr(CountedStore, _name, _count_claim(_work, getattr(PostgresStore, _name)))
for _name in FENCED:
    for _outcome in Fenced:
        FENCED_WRITES.add(_name, _outcome.value, by=0)
    setattr(CountedStore, _name, _count_write(_name, getattr(PostgresStore, _name)))

"""A short history in which all is well, and the means to forge others from it."""

from dataclasses import replace
from typing import Any

from tests.faults.history import Apply, Asked, Change, Delivered, Done, History, Job, Operation, Recorded

SCOPE_A, SCOPE_B = "apl-1/A", "apl-1/B"
A = Operation(1, 1, SCOPE_A, "A", 0, "stopped", "a-1", 1)
B = Operation(2, 1, SCOPE_B, "B", 1, "stopped", None, 1)
KEY = A.key_of(1)
CLAIM = {
    "claim_token": "t1",
    "claim_owner": "w1",
    "claim_expires_at": "1970-01-01T00:01:00+00:00",
    "fence": 1,
}
FREE: dict[str, Any] = {"claim_token": None, "claim_owner": None, "claim_expires_at": None}


def row(state: str, parent: int = 1, **values: Any) -> dict[str, Any]:
    """A row of apply_operations as the audit sees it."""
    blank = {
        "dispatch_key": None,
        "dispatch_generation": 1,
        "dispatch_key_is_dead": False,
        "engine_resume_context": None,
        "fence": 0,
        **FREE,
    }
    return {**blank, "apply_id": parent, "state": state, **values}


def wrote(number: int, table: str, pk: int, old: dict[str, Any], new: dict[str, Any]) -> Change:
    """The write of transaction `number`, at second `number`."""
    return Change(number, float(number), float(number), number, table, pk, old, new)


def op(number: int, pk: int, old: dict[str, Any], new: dict[str, Any]) -> Change:
    return wrote(number, "apply_operations", pk, old, new)


def wish(number: int, pk: int, operation: int, verb: str, before: str, after: str) -> Change:
    old = {"operation_id": operation, "verb": verb, "state": before} if before else {}
    return wrote(
        number, "control_deliveries", pk, old, {"operation_id": operation, "verb": verb, "state": after}
    )


PENDING = row("pending")
CLAIMED = row("running", dispatch_key=KEY, **CLAIM)
KNOWN = {**CLAIMED, "engine_resume_context": "a-1"}
FOLLOWED = {**KNOWN, **FREE}
STOPPED = {**FOLLOWED, "state": "stopped"}
PARENT = {"operation_count": 2, "external_id": None}

# A was dispatched and stopped by its id, B was stopped before anything was sent to it.
TRUE = History(
    applies=(Apply(1, "apl-1", "stopped", 2, None),),
    operations=(A, B),
    changes=(
        wrote(1, "applies", 1, {}, {**PARENT, "state": "pending"}),
        op(1, 1, {}, PENDING),
        op(1, 2, {}, PENDING),
        op(3, 1, PENDING, CLAIMED),
        wrote(3, "applies", 1, {**PARENT, "state": "pending"}, {**PARENT, "state": "running"}),
        op(5, 1, CLAIMED, KNOWN),
        op(6, 1, KNOWN, FOLLOWED),
        wish(10, 1, 1, "stop", "", "pending"),
        wish(10, 2, 2, "stop", "", "pending"),
        op(12, 2, PENDING, row("stopped")),
        wish(12, 2, 2, "stop", "pending", "acknowledged"),
        op(20, 1, FOLLOWED, STOPPED),
        wish(20, 1, 1, "stop", "pending", "acknowledged"),
        wrote(20, "applies", 1, {**PARENT, "state": "running"}, {**PARENT, "state": "stopped"}),
    ),
    events=(
        Recorded(1, 1, 1, None, "accepted", "ann"),
        Recorded(2, 3, 1, 1, "claim", "w1", "", "pending", "running"),
        Recorded(3, 3, 1, None, "projected", "w1", "", "pending", "running"),
        Recorded(4, 5, 1, 1, "remote_id_stored", "w1", detail={"remote_id": "a-1", "generation": 1}),
        Recorded(5, 6, 1, 1, "adopt", "w1", "followed as a-1", "running", "running"),
        Recorded(6, 12, 1, 2, "withdraw_stopped", "bob", "why", "pending", "stopped"),
        Recorded(7, 20, 1, 1, "observe_stopped", "engine:A", "", "running", "stopped", {"remote_id": "a-1"}),
        Recorded(8, 20, 1, None, "verdict", "w1", "", "running", "stopped"),
        Recorded(9, 21, 1, None, "summary", "w1"),
    ),
    deliveries=(Delivered(1, 1, 1, "stop", "acknowledged"), Delivered(2, 1, 2, "stop", "acknowledged")),
    requests=frozenset({1}),
    reservations=((1, "A"),),
    calls=(
        Asked(4.0, "a", "Apply", "", KEY, SCOPE_A, 1),
        Asked(7.0, "a", "BatchProgress", cursors=(("a-1", SCOPE_A),)),
        Asked(15.0, "a", "Stop", "a-1", "", SCOPE_A, 2),
    ),
    effects=(
        Done(4.1, "a", "apply", "a-1", KEY, SCOPE_A),
        Done(15.1, "a", "stop", "a-1", KEY, SCOPE_A),
    ),
    jobs=(Job("a", "a-1", SCOPE_A, "stopped"),),
    acknowledged=(("apply", "apl-1"), ("request", "1")),
)


def with_change(number: int, changed: Change | None, *more: Change) -> History:
    """TRUE with the first change of that number replaced, or left out."""
    found = next(change for change in TRUE.changes if change.number == number)
    kept = [changed if change is found else change for change in TRUE.changes]
    return replace(TRUE, changes=(*(change for change in kept if change is not None), *more))


def with_event(number: int, **changed: Any) -> History:
    events = tuple(replace(event, **changed) if event.id == number else event for event in TRUE.events)
    return replace(TRUE, events=events)


def without_event(number: int) -> History:
    return replace(TRUE, events=tuple(event for event in TRUE.events if event.id != number))


def with_calls(*calls: Asked) -> History:
    return replace(TRUE, calls=(*TRUE.calls, *calls))


def with_effects(*effects: Done) -> History:
    return replace(TRUE, effects=(*TRUE.effects, *effects))


KEY_2 = A.key_of(2)

"""Rules of wishes: each has its row, its one effect and its true fate, and a stop wins."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tern.domain.states import ApplyState
from tests.faults.history import History
from tests.faults.rule import OPEN, WITHDRAWN, checks

_FORWARD = {
    "apply": "Apply",
    "start": "Start",
    "cutover": "Cutover",
    "revert": "Revert",
    "skip-revert": "SkipRevert",
    "volume": "Volume",
}
_CALLS = {"stop", "start", "cutover", "cancel", "revert", "skip-revert", "volume"}
"""What engines are asked for; retry, skip and release ask nothing of them."""


@checks("S13")
def acknowledged_requests_have_their_rows(history: History) -> Iterator[str]:
    """What a client was told to be accepted is there."""
    applies = {apply.identifier for apply in history.applies}
    for kind, name in history.acknowledged:
        if kind == "apply" and name not in applies:
            yield f"{name} was acknowledged and is not there"
        if kind == "request" and int(name) not in history.requests:
            yield f"request {name} was acknowledged and is not there"


@checks("S14")
def one_effect_per_request(history: History) -> Iterator[str]:
    """No wish is carried out twice."""
    scopes = {operation.id: operation.scope for operation in history.operations}
    allowed: Counter[tuple[str, str]] = Counter()
    for delivery in history.deliveries:
        allowed[scopes.get(delivery.operation_id, ""), delivery.verb] += 1
    for change in history.writes("control_deliveries"):
        if change.old.get("state") == "acknowledged" and change.new["state"] == "pending":
            allowed[scopes.get(change.new["operation_id"], ""), change.new["verb"]] += 1
    done = Counter(
        (one.operation, one.kind) for one in history.effects if one.kind in _CALLS and not one.is_duplicate
    )
    for (operation, verb), count in (done - allowed).items():
        asked = allowed[operation, verb]
        yield f"{operation} was asked for {asked} {verb} and has had {asked + count}"


@checks("S15")
def fates_are_true(history: History) -> Iterator[str]:
    """Acknowledged means that it happened, failed that it did not."""
    by_id = {operation.id: operation for operation in history.operations}
    created: dict[int, float] = {}
    closed: dict[int, float] = {}
    for change in history.writes("control_deliveries"):
        if not change.old:
            created[change.row] = change.at
        if change.new["state"] not in OPEN:
            closed[change.row] = change.at
    withdrawn = {event.operation_id for event in history.events if event.event in WITHDRAWN}
    for delivery in history.deliveries:
        operation = by_id[delivery.operation_id]
        effects = [
            one.at
            for one in history.effects
            if one.kind == delivery.verb and one.operation == operation.scope and not one.is_duplicate
        ]
        begun, ended = created.get(delivery.id, 0.0), closed.get(delivery.id, float("inf"))
        if delivery.state == "acknowledged" and delivery.verb in {"stop", "cancel", "cutover", "revert"}:
            if not any(at <= ended for at in effects) and delivery.operation_id not in withdrawn:
                yield f"{delivery.verb} of {operation.scope} was acknowledged and never happened"
        elif delivery.state == "failed" and any(begun <= at <= ended for at in effects):
            yield f"{delivery.verb} of {operation.scope} was called failed and happened"


@checks("S16")
def stop_wins(history: History) -> Iterator[str]:
    """No forward call begins under a stop in force, and none has an effect once the stop is acknowledged (G9)."""
    scopes = {operation.id: operation.scope for operation in history.operations}
    periods, silences = _stops(history)
    for number, scope in scopes.items():
        for call in history.calls:
            if call.operation != scope or call.method not in _FORWARD.values():
                continue
            for begin, end in periods.get(number, ()):
                if begin + history.in_flight_s < call.at < end:
                    yield f"{call.method} of {scope} began {call.at - begin:.3f} s after a stop"
        for one in history.effects:
            if one.operation != scope or one.kind not in _FORWARD or one.is_duplicate:
                continue
            for begin, end in silences.get(number, ()):
                if begin < one.at < end:
                    yield f"{one.kind} of {scope} took effect after its stop was acknowledged"


Periods = Mapping[int, list[tuple[float, float]]]


def _stops(history: History) -> tuple[Periods, Periods]:
    """Per operation, when a stop or cancel was in force, and when one was in force and acknowledged."""
    rows: dict[int, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    edges: dict[int, list[tuple[float, bool, bool]]] = defaultdict(list)
    for change in history.writes("control_deliveries"):
        wishes = rows[change.new["operation_id"]]
        wishes[change.row] = change.new
        forced = [
            wish
            for number, wish in wishes.items()
            if wish["verb"] in {"stop", "cancel"}
            and wish["state"] in {*OPEN, "acknowledged"}
            and (
                wish["verb"] == "cancel"
                or not any(
                    other["verb"] == "start" and key > number and other["state"] != "failed"
                    for key, other in wishes.items()
                )
            )
        ]
        heard = any(wish["state"] == "acknowledged" for wish in forced)
        edges[change.new["operation_id"]].append((change.at, bool(forced), heard))
    return (
        {key: _periods([(at, forced) for at, forced, _ in found]) for key, found in edges.items()},
        {key: _periods([(at, heard) for at, _, heard in found]) for key, found in edges.items()},
    )


def _periods(edges: list[tuple[float, bool]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    since: float | None = None
    for at, holds in edges:
        if holds and since is None:
            since = at
        elif not holds and since is not None:
            found.append((since, at))
            since = None
    if since is not None:
        found.append((since, float("inf")))
    return found


@checks("S17")
def unanswered_dispatch_is_resolved_first(history: History) -> Iterator[str]:
    """An operation with an intent is settled without a call only if its key is dead, or was never sent."""
    by_id = {operation.id: operation for operation in history.operations}
    withdrawals = {(event.xid, event.operation_id) for event in history.events if event.event in WITHDRAWN}
    sent: dict[str, list[float]] = defaultdict(list)
    for call in history.calls:
        if call.method == "Apply":
            sent[call.key].append(call.at)
    # The only sender heard that nothing came of it, and the key begins anew with a retry.
    refused = {(event.xid, event.operation_id) for event in history.events if event.event == "refuse"}
    answered: dict[int, float] = defaultdict(float)
    dead = {one.key for one in history.effects if one.kind == "forbid"}
    for change in history.writes("apply_operations"):
        if (change.xid, change.row) in refused:
            answered[change.row] = change.at
        if (change.xid, change.row) not in withdrawals or change.row not in by_id:
            continue
        if change.old["state"] == change.new["state"]:
            continue
        operation = by_id[change.row]
        key = operation.key_of(change.new["dispatch_generation"])
        if any(answered[change.row] < at < change.at for at in sent[key]) and key not in dead:
            yield f"{operation.scope} was settled without a call though its key had been sent"
        if change.new.get("dispatch_key") and change.new["dispatch_key"] not in dead:
            yield f"{operation.scope} was settled without a call while its intent stood"


@checks("G8")
def wishes_are_closed_at_rest(history: History) -> Iterator[str]:
    """A settled apply leaves no wish open."""
    if not history.at_rest:
        return
    settled = {apply.pk: apply for apply in history.applies if ApplyState(apply.state).is_settled}
    by_id = {operation.id: operation for operation in history.operations}
    for delivery in history.deliveries:
        operation = by_id[delivery.operation_id]
        if operation.apply_pk in settled and delivery.state in OPEN:
            yield f"{delivery.verb} of {operation.scope} is open under a settled apply"

"""What must hold whatever happened, as functions over a history (S1-S22). Each yields its violations in words.

    found = violations(read_history(database, ledgers, jobs))

S20 (the broker delivers nothing, the verdicts are the same) is a property of two runs, not of one history: every
other crash point recovers without a bell.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tern.domain.budget import is_spent
from tern.domain.policy import Copy
from tern.domain.projection import project
from tern.domain.states import SETTLED, SETTLED_APPLY, TRANSITIONS, ApplyState, Event, State
from tern.domain.tally import COPYING, PASSED, Standing, Tally
from tests.faults.history import History, Operation, Recorded, epoch

Checker = Callable[[History], Iterator[str]]
CHECKERS: dict[str, Checker] = {}

_EVENTS = frozenset(event.value for event in Event)
_OPEN = ("pending", "sent")
_NEEDS_ID = frozenset(
    {"waiting_for_cutover", "cutting_over", "revert_window", "reverting", "resuming", "completed", "reverted"}
)
_FORWARD = {"apply": "Apply", "start": "Start", "cutover": "Cutover"}
_WITHDRAWN = ("withdraw_stopped", "withdraw_cancelled")


def violations(history: History, *only: str) -> list[str]:
    """Everything that does not hold, each line with the name of its rule."""
    names = only or tuple(CHECKERS)
    return [f"{name}: {words}" for name in names for words in CHECKERS[name](history)]


def _checks(rule: str) -> Callable[[Checker], Checker]:
    def register(checker: Checker) -> Checker:
        CHECKERS[rule] = checker
        return checker

    return register


# Dispatch and remote ids


@_checks("S1")
def one_effect_per_generation(history: History) -> Iterator[str]:
    """Per key one job, and per operation never two."""
    jobs: dict[str, set[str]] = defaultdict(set)
    by_key: Counter[str] = Counter()
    for effect in history.effects:
        if effect.kind == "apply" and not effect.is_duplicate:
            by_key[effect.key] += 1
            jobs[effect.operation].add(f"{effect.engine}:{effect.remote_id}")
    yield from (f"key {key} started {count} jobs" for key, count in by_key.items() if count > 1)
    yield from (
        f"{operation} runs as {sorted(ids)}" for operation, ids in jobs.items() if operation and len(ids) > 1
    )


@_checks("S2")
def remote_id_is_written_once(history: History) -> Iterator[str]:
    """NULL, then x, then x for ever (G5)."""
    columns = (("apply_operations", "engine_resume_context"), ("applies", "external_id"))
    for table, column in columns:
        for change in history.writes(table):
            before, after = change.old.get(column), change.new.get(column)
            if before is not None and after != before:
                yield f"{table} {change.row}: {before} became {after}"
            if after == "":
                yield f"{table} {change.row}: an empty id"


@_checks("G1")
def remote_id_has_one_home(history: History) -> Iterator[str]:
    """In the apply's row of a single, in the operation's row of a multi, and no id for two operations."""
    counts = {apply.pk: apply.operation_count for apply in history.applies}
    for change in history.writes("apply_operations"):
        if change.new.get("engine_resume_context") and counts.get(change.new["apply_id"]) == 1:
            yield f"operation {change.row} of a single apply holds an id"
    for change in history.writes("applies"):
        if change.new.get("external_id") and change.new["operation_count"] != 1:
            yield f"apply {change.row} of {change.new['operation_count']} operations holds an id"
    held = Counter(
        (operation.deployment, operation.remote_id) for operation in history.operations if operation.remote_id
    )
    yield from (f"{where} is held by {count} operations" for where, count in held.items() if count > 1)


@_checks("S3")
def dependent_state_has_its_id(history: History) -> Iterator[str]:
    """A state that only a known remote job can have never stands without the id."""
    counts = {apply.pk: apply.operation_count for apply in history.applies}
    external: dict[int, str | None] = {}
    for change in history.changes:
        if change.table == "applies":
            external[change.row] = change.new.get("external_id")
        elif change.table == "apply_operations" and change.new["state"] in _NEEDS_ID:
            parent = change.new["apply_id"]
            single = counts.get(parent, 2) == 1
            if not (external.get(parent) if single else change.new.get("engine_resume_context")):
                yield f"operation {change.row} was {change.new['state']} without a remote id"


@_checks("S4")
def intent_precedes_apply(history: History) -> Iterator[str]:
    """Each Apply on the wire carries the key of its own operation, written down before."""
    by_scope = {operation.scope: operation for operation in history.operations}
    intents: dict[str, tuple[float, int]] = {}
    for change in history.writes("apply_operations"):
        if change.new.get("dispatch_key"):
            intents.setdefault(change.new["dispatch_key"], (change.at, change.row))
    for call in history.calls:
        if call.method != "Apply":
            continue
        operation = by_scope.get(call.operation)
        if operation is None:
            yield f"Apply for {call.operation or 'nobody'}, which does not exist"
            continue
        if call.key not in operation.keys:
            yield f"Apply for {call.operation} carried key {call.key or '(none)'}"
        written = intents.get(call.key)
        if written is None or written[0] > call.at or written[1] != operation.id:
            yield f"Apply for {call.operation} was sent without its intent"


@_checks("G4")
def stored_id_ends_dispatching(history: History) -> Iterator[str]:
    """Once the id is there, no Apply is begun."""
    known: dict[int, float] = {}
    for change in history.changes:
        if change.table == "apply_operations" and change.new.get("engine_resume_context"):
            known.setdefault(change.row, change.at)
        elif change.table == "applies" and change.new.get("external_id"):
            for operation in history.operations:
                if operation.apply_pk == change.row:
                    known.setdefault(operation.id, change.at)
    since = {operation.scope: known.get(operation.id, float("inf")) for operation in history.operations}
    for call in history.calls:
        if call.method == "Apply" and call.at > since.get(call.operation, float("inf")) + history.in_flight_s:
            yield f"Apply for {call.operation} though its id was there"


@_checks("S5")
def generation_follows_an_end(history: History) -> Iterator[str]:
    """A next generation only after the old key is dead, or a person has said so; and never over a started job."""
    by_id = {operation.id: operation for operation in history.operations}
    person = {
        (event.xid, event.operation_id)
        for event in history.events
        if event.event in {"requeue", "retry"} and event.before in {"uncertain", "failed"}
    }
    started = {one.key for one in history.effects if one.kind == "apply" and not one.is_duplicate}
    for change in history.writes("apply_operations"):
        if not change.old or change.new["dispatch_generation"] == change.old["dispatch_generation"]:
            continue
        if not change.old.get("dispatch_key_is_dead") and (change.xid, change.row) not in person:
            yield f"operation {change.row} got a new generation though its key lives"
        operation = by_id.get(change.row)
        if operation and operation.key_of(change.old["dispatch_generation"]) in started:
            yield f"{operation.scope} got a new generation over work that was started"


@_checks("S6")
def own_ids_only(history: History) -> Iterator[str]:
    """An engine hears only ids that it issued itself for that very operation (G2)."""
    issued = {(one.engine, one.remote_id, one.operation) for one in history.effects if one.kind == "apply"}
    for call in history.calls:
        if call.method in {"Health", "Resolve", "Apply", "Preview"}:
            continue
        if call.method == "BatchProgress":
            asked: tuple[tuple[str, str], ...] = call.cursors
        else:
            asked = ((call.remote_id, call.operation),)
        for remote_id, operation in asked:
            if (call.engine, remote_id, operation) not in issued:
                what = remote_id or "(none)"
                yield f"{call.method} at {call.engine} for {operation} carried {what}, never issued for it"


@_checks("S22")
def key_means_one_job(history: History) -> Iterator[str]:
    """Same key, same id, for ever; a dead key starts nothing afterwards."""
    ids: dict[str, str] = {}
    dead: set[str] = set()
    for effect in history.effects:
        if effect.kind == "forbid":
            dead.add(effect.key)
        if effect.kind != "apply":
            continue
        if ids.setdefault(effect.key, effect.remote_id) != effect.remote_id:
            yield f"key {effect.key} is {ids[effect.key]} and {effect.remote_id}"
        if effect.key in dead:
            yield f"key {effect.key} was forbidden and started {effect.remote_id}"


# Claims


@_checks("S7")
def drivers_write_under_their_claim(history: History) -> Iterator[str]:
    """What a driver writes about a dispatch, it writes as the one who holds the claim at that moment (G12)."""
    events: dict[tuple[int, int], list[Recorded]] = defaultdict(list)
    for event in history.events:
        if event.operation_id is not None:
            events[event.xid, event.operation_id].append(event)
    holder: dict[int, str | None] = {}
    for change in history.writes("apply_operations"):
        owner = change.old.get("claim_owner")
        for event in events.get((change.xid, change.row), ()):
            is_driver = event.event == "answer_lost" or (
                event.event in {"adopt", "refuse"} and event.before != "uncertain"
            )
            if event.event == "refuse" and owner is None:
                continue  # a poisoned row is settled by whoever finds it
            if is_driver and owner != event.who:
                yield f"operation {change.row}: {event.event} by {event.who}, the claim was {owner}'s"
        if change.old and change.new["fence"] < change.old["fence"]:
            yield f"operation {change.row}: the fence fell"
        claimed_now = change.new.get("claim_token")
        if claimed_now and claimed_now != change.old.get("claim_token"):
            if change.new["fence"] <= change.old.get("fence", 0):
                yield f"operation {change.row}: claimed without a higher fence"
            holder[change.row] = change.new.get("claim_owner")
    for event in history.events:
        if event.event == "remote_id_stored" and "generation" in event.detail:
            owner = _owner_at(history, event)
            if owner != event.who:
                yield f"operation {event.operation_id}: id stored by {event.who}, the claim was {owner}'s"


def _owner_at(history: History, event: Recorded) -> str | None:
    """Who held the claim when the event's transaction wrote."""
    owner: str | None = None
    own = max((change.number for change in history.changes if change.xid == event.xid), default=0)
    for change in history.writes("apply_operations"):
        if change.row != event.operation_id:
            continue
        if change.xid == event.xid:
            return change.old.get("claim_owner")
        if own and change.number > own:
            break
        owner = change.new.get("claim_owner")
    return owner


@_checks("S8")
def claims_never_overlap(history: History) -> Iterator[str]:
    """A claim is taken from nobody whose lease still runs, by the database's clock."""
    for change in history.writes("apply_operations"):
        before, after = change.old.get("claim_token"), change.new.get("claim_token")
        if before and after and before != after and epoch(change.old["claim_expires_at"]) > change.clock:
            left = epoch(change.old["claim_expires_at"]) - change.clock
            yield f"operation {change.row} was claimed by {change.new['claim_owner']}, {left:.1f} s too early"


# Verdicts


@_checks("S10")
def verdicts_have_evidence(history: History) -> Iterator[str]:
    """A settled operation rests on a sample of its own id, a definite refusal, or on nothing ever being sent."""
    by_id = {operation.id: operation for operation in history.operations}
    started = {one.operation for one in history.effects if one.kind == "apply" and not one.is_duplicate}
    last = {
        event.operation_id: event
        for event in history.events
        if event.event in _EVENTS and event.before != event.after and event.operation_id is not None
    }
    for operation_id, event in last.items():
        operation = by_id.get(operation_id)
        if operation is None or State(operation.state) not in SETTLED:
            continue
        if event.event.startswith("observe_"):
            if not event.who.startswith("engine:") or event.detail.get("remote_id") != operation.remote_id:
                yield f"{operation.scope} is {operation.state} by a sample of {event.detail.get('remote_id')}"
        elif event.event in {"refuse", "skip", *_WITHDRAWN}:
            if operation.scope in started:
                yield f"{operation.scope} is {operation.state} by {event.event}, and its change was started"
            if event.event == "refuse" and not event.why:
                yield f"{operation.scope} failed without a reason"


@_checks("S11")
def rows_say_what_engines_say(history: History) -> Iterator[str]:
    """At rest each operation is what its engine says, nothing runs that Tern does not know of."""
    if not history.at_rest:
        return
    jobs = {(job.operation, job.remote_id): job for job in history.jobs}
    known = {(operation.scope, operation.remote_id) for operation in history.operations}
    for operation in history.operations:
        if not operation.remote_id or not history.jobs:
            continue
        job = jobs.get((operation.scope, operation.remote_id))
        if job is None:
            yield f"{operation.scope} follows {operation.remote_id}, which no engine has"
        elif job.state != operation.state:
            yield f"{operation.scope} is {operation.state}, its engine says {job.state}"
    for job in history.jobs:
        if (job.operation, job.remote_id) not in known:
            yield f"{job.engine} runs {job.remote_id} for {job.operation}, and Tern does not follow it"


@_checks("G14")
def parent_is_the_projection(history: History) -> Iterator[str]:
    """At the end the apply's state is computed from its operations; and it was never settled over a live one."""
    by_apply: dict[int, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        by_apply[operation.apply_pk].append(operation)
    for apply in history.applies if history.at_rest else ():
        operations = sorted(by_apply[apply.pk], key=lambda operation: operation.position)
        tally = Tally.of(Standing(o.position, State(o.state)) for o in operations)
        projected = project(apply.policy, tally)
        if projected.state != apply.state or projected.skips_pending:
            yield f"{apply.identifier} is {apply.state}, its operations amount to {projected.state}"
    yield from _settled_over_a_live_one(history)


def _settled_over_a_live_one(history: History) -> Iterator[str]:
    states: dict[int, dict[int, str]] = defaultdict(dict)
    # A verdict stands when its transaction has ended: that is judged at the last write of each, and only for what it
    # wrote itself, because others may be in the middle of theirs.
    ends = {change.xid: change.number for change in history.changes}
    touched: dict[int, set[int]] = defaultdict(set)
    verdicts: dict[int, str] = {}
    settled = {state.value for state in SETTLED_APPLY}
    for change in history.changes:
        if change.table == "apply_operations":
            states[change.new["apply_id"]][change.row] = change.new["state"]
            touched[change.xid].add(change.new["apply_id"])
        elif change.table == "applies":
            verdicts[change.row] = change.new["state"]
            touched[change.xid].add(change.row)
        if ends[change.xid] != change.number:
            continue
        for parent in touched.pop(change.xid, ()):
            live = [key for key, state in states[parent].items() if _is_live(state)]
            if live and verdicts.get(parent) in settled:
                yield f"apply {parent} stood {verdicts[parent]} while operations {live} were live"


def _is_live(state: str) -> bool:
    return State(state) not in SETTLED


@_checks("S12")
def every_arrow_is_in_the_table(history: History) -> Iterator[str]:
    """Writes and events both follow TRANSITIONS; what is finished stays."""
    reachable = {state: set(arrows.values()) for state, arrows in TRANSITIONS.items()}
    for change in history.writes("apply_operations"):
        if not change.old:
            if change.new["state"] != "pending":
                yield f"operation {change.row} began as {change.new['state']}"
            continue
        before, after = State(change.old["state"]), State(change.new["state"])
        if before is not after and after not in reachable[before]:
            yield f"operation {change.row} went from {before} to {after}"
        if before is State.FAILED and after is not before and change.old.get("engine_resume_context"):
            yield f"operation {change.row} was failed with an id and became {after}"
    for event in history.events:
        if event.event in _EVENTS and event.operation_id is not None:
            arrows = TRANSITIONS[State(event.before)]
            if arrows.get(Event(event.event)) != event.after:
                yield f"event {event.id} says {event.before} -> {event.after} by {event.event}"
    for change in history.writes("applies"):
        before_state, after_state = change.old.get("state"), change.new["state"]
        if before_state and before_state != after_state and ApplyState(before_state).is_finished:
            yield f"apply {change.row} was {before_state} and became {after_state}"


@_checks("S21")
def every_change_has_its_event(history: History) -> Iterator[str]:
    """One event for each change of a state, in the same transaction."""
    moves: Counter[tuple[int, int, str, str]] = Counter()
    for change in history.writes("apply_operations"):
        if change.old and change.old["state"] != change.new["state"]:
            moves[change.xid, change.row, change.old["state"], change.new["state"]] += 1
    said: Counter[tuple[int, int, str, str]] = Counter(
        (event.xid, event.operation_id, event.before, event.after)
        for event in history.events
        if event.event in _EVENTS and event.operation_id is not None and event.before != event.after
    )
    for (_, row, before, after), count in (moves - said).items():
        yield f"operation {row}: {before} -> {after} happened {count} times without an event"
    for (_, row, before, after), count in (said - moves).items():
        yield f"operation {row}: {before} -> {after} was recorded {count} times and did not happen"
    verdicts = Counter(
        (change.xid, change.row, change.old["state"], change.new["state"])
        for change in history.writes("applies")
        if change.old and change.old["state"] != change.new["state"]
    )
    told = Counter(
        (event.xid, event.apply_pk, event.before, event.after)
        for event in history.events
        if event.event in {"verdict", "projected"}
    )
    for _, row, before, after in (verdicts - told) + (told - verdicts):
        yield f"apply {row}: {before} -> {after} and its event don't agree"


@_checks("G15")
def record_is_whole(history: History) -> Iterator[str]:
    """The chain of hashes holds, and each verdict has had its effects once."""
    yield from (f"event {event.id} breaks the chain" for event in history.events if not event.chain_holds)
    verdicts = Counter(event.apply_pk for event in history.events if event.event == "verdict")
    summaries = Counter(event.apply_pk for event in history.events if event.event == "summary")
    settled = {state.value for state in SETTLED_APPLY}
    for apply in history.applies:
        if summaries[apply.pk] > verdicts[apply.pk]:
            yield f"{apply.identifier}: {summaries[apply.pk]} summaries, {verdicts[apply.pk]} verdicts"
        if history.at_rest and apply.state in settled and not summaries[apply.pk]:
            yield f"{apply.identifier} is {apply.state} and nobody was told"


# Controls


@_checks("S13")
def acknowledged_requests_have_their_rows(history: History) -> Iterator[str]:
    """What a client was told to be accepted is there."""
    applies = {apply.identifier for apply in history.applies}
    for kind, name in history.acknowledged:
        if kind == "apply" and name not in applies:
            yield f"{name} was acknowledged and is not there"
        if kind == "request" and int(name) not in history.requests:
            yield f"request {name} was acknowledged and is not there"


@_checks("S14")
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
        (one.operation, one.kind)
        for one in history.effects
        if one.kind in {"stop", "start", "cutover", "cancel"} and not one.is_duplicate
    )
    for (operation, verb), count in (done - allowed).items():
        asked = allowed[operation, verb]
        yield f"{operation} was asked for {asked} {verb} and has had {asked + count}"


@_checks("S15")
def fates_are_true(history: History) -> Iterator[str]:
    """Acknowledged means that it happened, failed that it did not."""
    by_id = {operation.id: operation for operation in history.operations}
    created: dict[int, float] = {}
    closed: dict[int, float] = {}
    for change in history.writes("control_deliveries"):
        if not change.old:
            created[change.row] = change.at
        if change.new["state"] not in _OPEN:
            closed[change.row] = change.at
    withdrawn = {event.operation_id for event in history.events if event.event in _WITHDRAWN}
    for delivery in history.deliveries:
        operation = by_id[delivery.operation_id]
        effects = [
            one.at
            for one in history.effects
            if one.kind == delivery.verb and one.operation == operation.scope and not one.is_duplicate
        ]
        begun, ended = created.get(delivery.id, 0.0), closed.get(delivery.id, float("inf"))
        if delivery.state == "acknowledged" and delivery.verb in {"stop", "cancel", "cutover"}:
            if not any(at <= ended for at in effects) and delivery.operation_id not in withdrawn:
                yield f"{delivery.verb} of {operation.scope} was acknowledged and never happened"
        elif delivery.state == "failed" and any(begun <= at <= ended for at in effects):
            yield f"{delivery.verb} of {operation.scope} was called failed and happened"


@_checks("S16")
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
            and wish["state"] in {*_OPEN, "acknowledged"}
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


@_checks("S17")
def unanswered_dispatch_is_resolved_first(history: History) -> Iterator[str]:
    """An operation with an intent is settled without a call only if its key is dead, or was never sent."""
    by_id = {operation.id: operation for operation in history.operations}
    withdrawals = {(event.xid, event.operation_id) for event in history.events if event.event in _WITHDRAWN}
    sent: dict[str, float] = {}
    for call in history.calls:
        if call.method == "Apply":
            sent.setdefault(call.key, call.at)
    dead = {one.key for one in history.effects if one.kind == "forbid"}
    for change in history.writes("apply_operations"):
        if (change.xid, change.row) not in withdrawals or change.row not in by_id:
            continue
        if change.old["state"] == change.new["state"]:
            continue
        operation = by_id[change.row]
        key = operation.key_of(change.new["dispatch_generation"])
        if sent.get(key, float("inf")) < change.at and key not in dead:
            yield f"{operation.scope} was settled without a call though its key had been sent"
        if change.new.get("dispatch_key") and change.new["dispatch_key"] not in dead:
            yield f"{operation.scope} was settled without a call while its intent stood"


@_checks("S18")
def policy_holds(history: History) -> Iterator[str]:
    """Replayed event by event: who was let in, was let in by order, budget and failures."""
    applies = {apply.pk: apply for apply in history.applies}
    states = {
        apply.pk: {o.id: State.PENDING for o in history.operations if o.apply_pk == apply.pk}
        for apply in history.applies
    }
    positions = {operation.id: operation.position for operation in history.operations}
    for event in history.events:
        if event.event not in _EVENTS or event.operation_id is None or event.apply_pk not in applies:
            continue
        apply, now = applies[event.apply_pk], states[event.apply_pk]
        if event.event == "claim" and event.before == "pending":
            tally = Tally.of(Standing(positions[key], state) for key, state in now.items())
            if is_spent(apply.policy, tally):
                yield f"operation {event.operation_id} was started in a halted rollout"
            mine = positions[event.operation_id]
            ahead = [key for key, state in now.items() if positions[key] < mine and state not in PASSED]
            if apply.policy.copy is Copy.ROLLING and ahead:
                yield f"operation {event.operation_id} was started before {ahead} were through"
            busy, most = tally.count(*COPYING), apply.policy.max_parallel
            if apply.policy.copy is Copy.PARALLEL and most is not None and busy >= most:
                yield f"operation {event.operation_id} was started as number {busy + 1} of {most}"
        now[event.operation_id] = State(event.after)


@_checks("S19")
def one_live_change_per_target(history: History) -> Iterator[str]:
    """Two live applies never share a deployment, and what is live holds its target."""
    live: dict[str, set[int]] = defaultdict(set)
    for operation in history.operations:
        if _is_live(operation.state):
            live[operation.deployment].add(operation.apply_pk)
            if (operation.apply_pk, operation.deployment) not in history.reservations:
                yield f"{operation.scope} is {operation.state} and does not hold its target"
    yield from (
        f"{deployment} is worked on by applies {sorted(who)}"
        for deployment, who in live.items()
        if len(who) > 1
    )
    settled = {apply.pk for apply in history.applies if ApplyState(apply.state).is_settled}
    yield from (
        f"apply {pk} is settled and holds {deployment}"
        for pk, deployment in history.reservations
        if pk in settled
    )


@_checks("G8")
def wishes_are_closed_at_rest(history: History) -> Iterator[str]:
    """A settled apply leaves no wish open."""
    if not history.at_rest:
        return
    settled = {apply.pk: apply for apply in history.applies if ApplyState(apply.state).is_settled}
    by_id = {operation.id: operation for operation in history.operations}
    for delivery in history.deliveries:
        operation = by_id[delivery.operation_id]
        if operation.apply_pk in settled and delivery.state in _OPEN:
            yield f"{delivery.verb} of {operation.scope} is open under a settled apply"

"""Rules of verdicts: each has its evidence, its arrow and its event, and the parent is a function of its operations."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tern.domain.projection import project
from tern.domain.states import SETTLED, SETTLED_APPLY, TRANSITIONS, ApplyState, Event, State
from tern.domain.tally import Standing, Tally
from tests.faults.history import History, Operation
from tests.faults.rule import EVENTS, WITHDRAWN, checks, is_live


@checks("S10")
def verdicts_have_evidence(history: History) -> Iterator[str]:
    """A settled operation rests on a sample of its own id, a definite refusal, or on nothing ever being sent."""
    by_id = {operation.id: operation for operation in history.operations}
    started = {one.operation for one in history.effects if one.kind == "apply" and not one.is_duplicate}
    last = {
        event.operation_id: event
        for event in history.events
        if event.event in EVENTS and event.before != event.after and event.operation_id is not None
    }
    for operation_id, event in last.items():
        operation = by_id.get(operation_id)
        if operation is None or State(operation.state) not in SETTLED:
            continue
        if event.event.startswith("observe_"):
            if not event.who.startswith("engine:") or event.detail.get("remote_id") != operation.remote_id:
                yield f"{operation.scope} is {operation.state} by a sample of {event.detail.get('remote_id')}"
        elif event.event in {"refuse", "skip", *WITHDRAWN}:
            if operation.scope in started:
                yield f"{operation.scope} is {operation.state} by {event.event}, and its change was started"
            if event.event == "refuse" and not event.why:
                yield f"{operation.scope} failed without a reason"


@checks("S11")
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


@checks("G14")
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
            live = [key for key, state in states[parent].items() if is_live(state)]
            if live and verdicts.get(parent) in settled:
                yield f"apply {parent} stood {verdicts[parent]} while operations {live} were live"


@checks("S12")
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
        if event.event in EVENTS and event.operation_id is not None:
            arrows = TRANSITIONS[State(event.before)]
            if arrows.get(Event(event.event)) != event.after:
                yield f"event {event.id} says {event.before} -> {event.after} by {event.event}"
    parents = {operation.id: operation.apply_pk for operation in history.operations}
    asked = {
        parents[wish.operation_id] for wish in history.deliveries if wish.verb in {"start", "retry", "cancel"}
    }
    for change in history.writes("applies"):
        before_state, after_state = change.old.get("state"), change.new["state"]
        if before_state and before_state != after_state and ApplyState(before_state).is_finished:
            # A failed one may hold a stopped operation, or one to be tried again: it is not settled while a wish about
            # that one is open.
            if before_state == ApplyState.FAILED.value and change.row in asked:
                continue
            yield f"apply {change.row} was {before_state} and became {after_state}"


@checks("S21")
def every_change_has_its_event(history: History) -> Iterator[str]:
    """One event for each change of a state, in the same transaction."""
    moves: Counter[tuple[int, int, str, str]] = Counter()
    for change in history.writes("apply_operations"):
        if change.old and change.old["state"] != change.new["state"]:
            moves[change.xid, change.row, change.old["state"], change.new["state"]] += 1
    said: Counter[tuple[int, int, str, str]] = Counter(
        (event.xid, event.operation_id, event.before, event.after)
        for event in history.events
        if event.event in EVENTS and event.operation_id is not None and event.before != event.after
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


@checks("G15")
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

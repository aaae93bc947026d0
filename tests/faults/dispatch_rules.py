"""Rules of dispatches and remote ids: one job per operation, one home per id, nobody else's id on the wire."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf

from tern.domain.states import Event, State
from tests.faults.history import History
from tests.faults.rule import checks

_NEEDS_ID = frozenset(
    {"waiting_for_cutover", "cutting_over", "revert_window", "reverting", "resuming", "completed", "reverted"}
)


@checks("S1")
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


@checks("S2")
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


@checks("G1")
def remote_id_has_one_home(history: History) -> Iterator[str]:
    """In the apply's row of a single, in the operation's row of a multi, and no id for two operations."""
    counts = {apply.pk: apply.operation_count for apply in history.applies}
    for change in history.writes("apply_operations"):
        if change.new.get("engine_resume_context") and counts.get(change.new["apply_id"]) == 1:
            yield f"operation {change.row} of a single apply holds an id"
    for change in history.writes("applies"):
        if change.new.get("external_id") and change.new["operation_count"] != 1:
            yield f"apply {change.row} of {change.new['operation_count']} operations holds an id"
    held: dict[tuple[str, str], list[str]] = defaultdict(list)
    for operation in history.operations:
        if operation.remote_id:
            held[operation.deployment, operation.remote_id].append(operation.scope)
    yield from (
        f"{where} is held by {len(scopes)} operations"
        for where, scopes in held.items()
        if len(scopes) > 1 and not _was_given_out_again(history, where, scopes)
    )


def _was_given_out_again(history: History, where: tuple[str, str], scopes: Sequence[str]) -> bool:
    """Its engine itself gave it to each of them, and to none before those that had it were over."""
    issued: dict[str, float] = {}
    for one in history.effects:
        if one.kind == "apply" and (one.engine, one.remote_id) == where:
            issued.setdefault(one.operation, one.at)
    names = {operation.id: operation.scope for operation in history.operations}
    over: dict[str, float] = {}
    for change in history.writes("apply_operations"):
        if State(change.new["state"]).is_finished:
            over.setdefault(names[change.row], change.at)
    if not set(scopes) <= set(issued):
        return False
    ordered = sorted(scopes, key=lambda scope: issued[scope])
    return all(over.get(one, inf) <= issued[other] for one, other in pairwise(ordered))


@checks("S3")
def dependent_state_has_its_id(history: History) -> Iterator[str]:
    """A state that only a known remote job can have never stands without the id."""
    counts = {apply.pk: apply.operation_count for apply in history.applies}
    external: dict[int, str | None] = {}
    # By a person's word, who looked: without an id there is no job that could say so.
    said = {event.operation_id for event in history.events if event.event == Event.FINISH}
    for change in history.changes:
        if change.table == "applies":
            external[change.row] = change.new.get("external_id")
        elif change.table == "apply_operations" and change.new["state"] in _NEEDS_ID:
            if change.row in said and change.new["state"] == State.COMPLETED:
                continue
            parent = change.new["apply_id"]
            single = counts.get(parent, 2) == 1
            if not (external.get(parent) if single else change.new.get("engine_resume_context")):
                yield f"operation {change.row} was {change.new['state']} without a remote id"


@checks("S4")
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


@checks("G4")
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


@checks("S5")
def generation_follows_an_end(history: History) -> Iterator[str]:
    """A next generation only after the old key is dead, by its engine's own ledger or by our row, or a person has said
    so; and never over a started job.
    """
    by_id = {operation.id: operation for operation in history.operations}
    person = {
        (event.xid, event.operation_id)
        for event in history.events
        if event.event in {"requeue", "retry"} and event.before in {"uncertain", "failed"}
    }
    started = {one.key for one in history.effects if one.kind == "apply" and not one.is_duplicate}
    forbidden = {one.key for one in history.effects if one.kind == "forbid"}
    for change in history.writes("apply_operations"):
        if not change.old or change.new["dispatch_generation"] == change.old["dispatch_generation"]:
            continue
        operation = by_id.get(change.row)
        is_dead = change.old.get("dispatch_key_is_dead") or (
            operation is not None and operation.key_of(change.old["dispatch_generation"]) in forbidden
        )
        if not is_dead and (change.xid, change.row) not in person:
            yield f"operation {change.row} got a new generation though its key lives"
        if operation and operation.key_of(change.old["dispatch_generation"]) in started:
            yield f"{operation.scope} got a new generation over work that was started"


@checks("S6")
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


@checks("S22")
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

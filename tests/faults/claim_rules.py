"""Rules of claims: one driver at a time, in the order and the number that the policy lets in."""

from collections import defaultdict
from collections.abc import Iterator

from tern.domain.budget import is_spent
from tern.domain.policy import Copy
from tern.domain.states import State
from tern.domain.tally import COPYING, PASSED, Standing, Tally
from tests.faults.history import History, Operation, Recorded, epoch
from tests.faults.rule import EVENTS, checks, is_live


@checks("S7")
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
            if event.event == "adopt" and _was_kept(history, event):
                continue  # the rows decide whether it may still be followed
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
            if owner != event.who and not _was_kept(history, event):
                yield f"operation {event.operation_id}: id stored by {event.who}, the claim was {owner}'s"


def _was_kept(history: History, adopted: Recorded) -> bool:
    """The id had been written down before, when it could not be stored."""
    return any(
        event.event == "remote_id_kept"
        and event.id < adopted.id
        and event.operation_id == adopted.operation_id
        and event.detail.get("remote_id") == adopted.detail.get("remote_id") is not None
        for event in history.events
    )


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


@checks("S8")
def claims_never_overlap(history: History) -> Iterator[str]:
    """A claim is taken from nobody whose lease still runs, by the database's clock."""
    for change in history.writes("apply_operations"):
        before, after = change.old.get("claim_token"), change.new.get("claim_token")
        if before and after and before != after and epoch(change.old["claim_expires_at"]) > change.clock:
            left = epoch(change.old["claim_expires_at"]) - change.clock
            yield f"operation {change.row} was claimed by {change.new['claim_owner']}, {left:.1f} s too early"


@checks("S18")
def policy_holds(history: History) -> Iterator[str]:
    """Replayed event by event: who was let in, was let in by order, budget and failures."""
    applies = {apply.pk: apply for apply in history.applies}
    states = {
        apply.pk: {o.id: State.PENDING for o in history.operations if o.apply_pk == apply.pk}
        for apply in history.applies
    }
    positions = {operation.id: operation.position for operation in history.operations}
    waves = {operation.id: operation.wave for operation in history.operations}
    released: dict[int, int] = {}
    seen: set[int] = set()
    for event in history.events:
        if event.apply_pk not in applies:
            continue
        apply, now = applies[event.apply_pk], states[event.apply_pk]
        if event.event == "released":
            released[apply.pk] = int(event.detail["failures"])
            seen |= {key for key, state in now.items() if state is State.FAILED}
        if event.event not in EVENTS or event.operation_id is None:
            continue
        if event.event == "claim" and event.before == "pending":
            tally = Tally.of(
                (
                    Standing(positions[key], state, waves[key], was_seen=key in seen)
                    for key, state in now.items()
                ),
                released.get(apply.pk),
            )
            if is_spent(apply.policy, tally):
                yield f"operation {event.operation_id} was started in a halted rollout"
            mine = positions[event.operation_id]
            ahead = [key for key, state in now.items() if positions[key] < mine and state not in PASSED]
            if apply.policy.copy is Copy.ROLLING and ahead:
                yield f"operation {event.operation_id} was started before {ahead} were through"
            wave = waves[event.operation_id]
            early = [key for key, state in now.items() if waves[key] < wave and state not in PASSED]
            if early:
                yield f"operation {event.operation_id} was started before {early} of an earlier wave"
            busy, most = tally.within(wave).count(*COPYING), apply.policy.rules(wave).max_parallel
            if apply.policy.copy is not Copy.ROLLING and most is not None and busy >= most:
                yield f"operation {event.operation_id} was started as number {busy + 1} of {most}"
        now[event.operation_id] = State(event.after)
        failed = sum(
            state is State.FAILED and waves[key] == waves[event.operation_id] for key, state in now.items()
        )
        most_failed = apply.policy.rules(waves[event.operation_id]).max_failures + 1
        if apply.policy.strict and failed > most_failed and apply.pk not in released:
            yield f"{failed} operations failed, a strict rollout bears {most_failed}"
    yield from _let_in_out_of_order(history)
    yield from _cut_over_out_of_turn(history)


def _let_in_out_of_order(history: History) -> Iterator[str]:
    """In a barrier nobody starts before one ahead of it that has not even been let in. Of two that are let in,
    either may be claimed first.
    """
    operations = {operation.id: operation for operation in history.operations}
    barriers = {apply.pk for apply in history.applies if apply.policy.copy is Copy.BARRIER}
    outside = {operation.id for operation in history.operations if operation.apply_pk in barriers}
    for change in history.writes("apply_operations"):
        is_outside = change.new["state"] == "pending" and change.new.get("next_attempt_at") is None
        (outside.add if is_outside else outside.discard)(change.row)
        started = change.old.get("state") == "pending" and change.new["state"] == "running"
        mine = operations.get(change.row)
        if not started or mine is None or mine.apply_pk not in barriers:
            continue
        waiting = [
            key
            for key in sorted(outside)
            if operations[key].apply_pk == mine.apply_pk and operations[key].position < mine.position
        ]
        if waiting:
            yield f"operation {change.row} was started before {waiting}"


def _cut_over_out_of_turn(history: History) -> Iterator[str]:
    """In a barrier no cutover takes effect before all operations ahead of it are through."""
    by_scope = {operation.scope: operation for operation in history.operations}
    barriers = {apply.pk for apply in history.applies if apply.policy.copy is Copy.BARRIER}
    through: dict[int, float] = {}
    for change in history.writes("apply_operations"):
        if State(change.new["state"]) in PASSED:
            through.setdefault(change.row, change.at)
        else:
            through.pop(change.row, None)
    for effect in history.effects:
        operation = by_scope.get(effect.operation)
        if effect.kind != "cutover" or effect.is_duplicate or operation is None:
            continue
        if operation.apply_pk not in barriers:
            continue
        ahead = [
            other.scope
            for other in history.operations
            if other.apply_pk == operation.apply_pk
            and other.position < operation.position
            and through.get(other.id, float("inf")) > effect.at
        ]
        if ahead:
            yield f"{operation.scope} was cut over before {ahead} were through"


def _was_never_sent(operation: Operation) -> bool:
    return operation.state == "stopped" and operation.remote_id is None and operation.key is None


@checks("S19")
def one_live_change_per_target(history: History) -> Iterator[str]:
    """Two operations that may still act never share a target: what may act holds its own, what is finished nothing.
    What is stopped at its engine may be started there.
    """
    live: dict[str, set[int]] = defaultdict(set)
    for operation in history.operations:
        if is_live(operation.state) or (operation.state == "stopped" and operation.remote_id is not None):
            live[operation.deployment].add(operation.apply_pk)
            if (operation.apply_pk, operation.deployment) not in history.reservations:
                yield f"{operation.scope} is {operation.state} and does not hold its target"
    yield from (
        f"{deployment} is worked on by applies {sorted(who)}"
        for deployment, who in live.items()
        if len(who) > 1
    )
    scopes = {operation.id: operation.scope for operation in history.operations}
    for change in history.writes("apply_operations"):
        # A new one takes its target after its rows; a forged row need not tell.
        if change.old and is_live(change.new["state"]) and not change.new.get("holds_target", True):
            yield f"{scopes[change.row]} was {change.new['state']} at {change.clock} and did not hold its target"
    yield from (
        f"{operation.scope} is {operation.state} and holds its target"
        for operation in history.operations
        if (State(operation.state).is_finished or _was_never_sent(operation))
        and (operation.apply_pk, operation.deployment) in history.reservations
    )

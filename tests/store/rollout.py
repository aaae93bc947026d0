"""A made-up rollout, written into the rows as it is: any states, whoever may have brought them about."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from tern.domain.holds import HoldKind
from tern.domain.policy import Policy
from tern.domain.states import State
from tern.facts import ApplyFacts
from tern.store.reading import Reading
from tests.domain.rollouts import Member
from tests.world import World

_NUMBERS = count(1)
NEEDS_AN_ID = {
    State.WAITING_FOR_CUTOVER,
    State.CUTTING_OVER,
    State.REVERT_WINDOW,
    State.REVERTING,
    State.RESUMING,
    State.COMPLETED,
    State.REVERTED,
}


def write_rollout(
    world: World, policy: Policy, members: Sequence[Member], stuck: Sequence[str], released: int | None
) -> list[str]:
    """One apply over as many new deployments; returns their names in rollout order. `stuck` says by what each stuck
    member is held: drained, stop or reservation.
    """
    batch = next(_NUMBERS)
    names = [f"r{batch}-{place}" for place in range(len(members))]
    waves = [each.standing.wave for each in members]
    for place, name in enumerate(names):
        world.add(name, f"grpc://127.0.0.1:{batch}", place, offers=True)
        world.write(
            "UPDATE deployments SET labels = jsonb_build_object('wave', CAST(:wave AS text)) WHERE name = :name",
            wave=waves[place],
            name=name,
        )
    world.apply(*names, policy=policy)
    world.forget_bells()
    if released is not None:
        world.write(
            "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes, failures_released, created_at)"
            " SELECT id, 'release', 'bob', 'go on', '[]', :released, tern_clock() - interval '60 s' FROM applies"
            " WHERE apply_identifier = :apply",
            released=released,
            apply=world.last,
        )
    for name, member, how in zip(names, members, stuck, strict=True):
        write_member(world, name, member, how)
    return names


def write_member(world: World, name: str, member: Member, how: str) -> None:
    standing = member.standing
    state = standing.state
    is_single = world.apply_row().operation_count == 1
    may_have_id = standing.has_remote_id and state is not State.FAILED_RETRYABLE
    has_id = not is_single and (may_have_id or state in NEEDS_AN_ID)
    # What was released ended before the release, a minute ago; everything else after it.
    ended_s = (90.0 if standing.was_seen else 5.0) if state is State.FAILED else (standing.ended_s_ago or 0.0)
    values: dict[str, Any] = {
        "name": name,
        "state": state.value,
        "ended_s": ended_s if state.is_finished else None,
        "remote_id": f"{name}-1" if has_id else None,
        "due": standing.is_admitted or state is State.FAILED_RETRYABLE,
    }
    world.write(
        "UPDATE apply_operations SET state = :state, engine_resume_context = :remote_id,"
        " completed_at = tern_clock() - make_interval(secs => CAST(:ended_s AS float)),"
        " ended_after_request = CASE WHEN CAST(:ended_s AS float) > 60 THEN 0 END,"
        " next_attempt_at = CASE WHEN :due THEN tern_clock() - interval '1 s' END WHERE deployment = :name",
        **values,
    )
    if not member.is_stuck:
        return
    match how:
        case "drained":
            world.store.set_drained(name, drained=True)
        case "stop":
            world.write(
                "WITH r AS (INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
                " SELECT apply_id, 'stop', 'bob', 'wait', '[]' FROM apply_operations WHERE deployment = :name"
                " RETURNING id, apply_id) INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
                " SELECT r.id, r.apply_id, o.id, 'stop' FROM r JOIN apply_operations o ON o.deployment = :name",
                name=name,
            )
        case _:
            world.write(
                "INSERT INTO target_reservations AS t (environment, database, deployment, apply_id, operation_id)"
                " SELECT 'test', 'shop', :name, o.apply_id, o.id FROM apply_operations o WHERE o.deployment = :other"
                " ON CONFLICT ON CONSTRAINT target_reservations_one_live_apply_per_target"
                " DO UPDATE SET apply_id = excluded.apply_id, operation_id = excluded.operation_id",
                name=name,
                other=_another(world),
            )


def _another(world: World) -> str:
    """The deployment of another rollout, which holds what this one can't have."""
    name, last = f"other-{next(_NUMBERS)}", world.last
    world.add(name, f"grpc://127.0.0.1:{next(_NUMBERS)}", 0, offers=True)
    world.apply(name)
    world.forget_bells()
    world.last = last
    return name


def look_at(world: World) -> ApplyFacts:
    """What `tern explain` reads."""
    return Reading(world.database).apply(world.last)


def held_by_claim(words: str) -> set[str]:
    """The kinds of holds that a claim names when it turns somebody away."""
    return {kind.value for kind in HoldKind if f"{kind.value}: " in words}

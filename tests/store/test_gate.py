"""Holds through the store: what `tern explain` says is what the next tick does (§6)."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tern.domain.holds import HoldKind
from tern.domain.policy import Policy
from tern.domain.states import State
from tern.operation import OperationView
from tern.ports import DispatchClaimed, NotClaimed
from tern.view import apply_view
from tests.domain.rollouts import Member, members, policies
from tests.store.rollout import held_by_claim, look_at, write_rollout
from tests.world import World

ONE_TICK = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RELEASED = st.none() | st.integers(0, 2)


def written(
    world: World, data: st.DataObject, policy: Policy, released: int | None
) -> tuple[list[Member], dict[str, OperationView]]:
    """A random rollout in the rows, and what `explain` says of each of its operations."""
    drawn = data.draw(members(policy))
    how = [data.draw(st.sampled_from(["drained", "stop", "reservation"])) for _ in drawn]
    names = write_rollout(world, policy, drawn, how, released)
    view = apply_view(look_at(world))
    return drawn, {name: view.operation(name) for name in names}


@ONE_TICK
@given(data=st.data(), policy=policies(), released=RELEASED)
def test_no_hold_means_that_the_next_projection_lets_it_in(
    world: World, data: st.DataObject, policy: Policy, released: int | None
) -> None:
    """§6: about every operation outside, of any rollout in any state; and the other way round."""
    drawn, seen = written(world, data, policy, released)
    world.store.advance_apply(world.last)
    for member, (name, operation) in zip(drawn, seen.items(), strict=True):
        if member.standing.state is State.PENDING and not member.standing.is_admitted:
            row = world.operation(name)
            is_in = row.state == "pending" and row.next_attempt_at is not None
            assert is_in is (not operation.holds), (name, operation.holds, policy, drawn)


@ONE_TICK
@given(data=st.data(), policy=policies(), released=RELEASED)
def test_no_hold_means_that_the_next_claim_takes_it(
    world: World, data: st.DataObject, policy: Policy, released: int | None
) -> None:
    """§6: one that is let in, one that a stray bell is about, one that is tried again; with the same reasons."""
    _, seen = written(world, data, policy, released)
    claimable = [
        name for name, operation in seen.items() if operation.state in {State.PENDING, State.FAILED_RETRYABLE}
    ]
    if not claimable:
        return
    name = data.draw(st.sampled_from(claimable))
    answer = world.store.claim_dispatch(world.operation(name).id, world.name(name))
    holds = seen[name].holds
    assert isinstance(answer, DispatchClaimed) is (not holds), (name, answer, holds, policy)
    if isinstance(answer, NotClaimed):
        assert held_by_claim(answer.why) == {hold.kind.value for hold in holds}


@ONE_TICK
@given(data=st.data(), policy=policies(), released=RELEASED)
def test_whoever_the_claim_turns_away_is_let_in_again_when_its_turn_comes(
    world: World, data: st.DataObject, policy: Policy, released: int | None
) -> None:
    """CL4: nobody stands at the head of the queue who may not go, and nobody who may is forgotten."""
    drawn, seen = written(world, data, policy, released)
    for name, operation in seen.items():
        if operation.state is State.PENDING:
            world.store.claim_dispatch(world.operation(name).id, world.name(name))
    world.store.advance_apply(world.last)
    after = apply_view(look_at(world))
    for member, name in zip(drawn, seen, strict=True):
        operation = after.operation(name)
        if operation.state is not State.PENDING or member.is_stuck:
            continue
        rollout_holds = {hold.kind for hold in operation.holds} - {HoldKind.RESERVATION, HoldKind.STOP}
        assert operation.record.is_admitted is (not rollout_holds), (name, operation.holds)

"""Counting in one statement comes to the same as counting one by one."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tern.domain.tally import Group, Tally
from tern.holding import standing
from tern.store.tally import tally
from tests.domain.rollouts import members, policies
from tests.store.rollout import look_at, write_rollout
from tests.world import World

MakeWorld = Callable[..., World]


def ordered(counted: Tally) -> tuple[list[Group], int | None]:
    """Without the ages, which are measured a moment apart."""
    groups = [replace(group, ended_s_ago=None) for group in counted.groups]
    return sorted(groups, key=lambda group: (group.wave, group.state)), counted.released


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), policy=policies(), released=st.none() | st.integers(0, 2))
def test_the_statement_counts_like_a_person(
    world: World, data: st.DataObject, policy: object, released: int | None
) -> None:
    """§4: what the claim, the projection and explain look at is the same."""
    drawn = data.draw(members(policy))  # type: ignore[arg-type]
    how = [data.draw(st.sampled_from(["drained", "stop", "reservation"])) for _ in drawn]
    write_rollout(world, policy, drawn, how, released)  # type: ignore[arg-type]
    facts = look_at(world)
    with world.database.begin() as tx:
        counted = tally(tx, world.apply_row().id)
    assert ordered(counted) == ordered(Tally.of(map(standing, facts.operations), facts.released))
    ages = {(group.wave, group.state): group.ended_s_ago for group in counted.groups}
    for group in Tally.of(map(standing, facts.operations)).groups:
        there = ages[group.wave, group.state]
        assert (there is None) is (group.ended_s_ago is None)
        assert there is None or abs(there - (group.ended_s_ago or 0.0)) < 60

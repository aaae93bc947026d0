"""The claim that writes nothing about its apply is the one that would have written the same (G14)."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tern.domain.barrier import turn
from tern.domain.opening import opens_in_s
from tern.domain.policy import Policy
from tern.domain.projection import is_left_alone_by_claim, project
from tern.domain.states import ApplyState, State
from tern.domain.tally import Tally
from tests.domain.rollouts import Member, admit, let_in, members, policies, rollout


def claimed(standing: Sequence[Member], place: int) -> list[Member]:
    """The same with one operation that has been claimed."""
    return [
        replace(each, standing=replace(each.standing, state=State.RUNNING, is_admitted=False))
        if number == place
        else each
        for number, each in enumerate(standing)
    ]


def tally(standing: Sequence[Member], released: int | None) -> Tally:
    return Tally.of([each.standing for each in standing], released)


@given(data=st.data(), policy=policies(), released=st.none() | st.integers(0, 2))
def test_a_claim_changes_nothing_that_the_projection_writes(
    data: st.DataObject, policy: Policy, released: int | None
) -> None:
    """G14: state, admissions, turns and times are the same after it, wherever the store does not look again."""
    drawn = list(data.draw(members(policy)))
    # What the projection before this claim has let in is in.
    before = admit(drawn, let_in(policy, drawn, released))
    state = project(policy, tally(before, released)).state
    if not is_left_alone_by_claim(state):
        return
    for place, each in enumerate(before):
        may_go = each.standing.state is State.FAILED_RETRYABLE or each.standing.is_admitted
        if not may_go:
            continue
        after = claimed(before, place)
        assert project(policy, tally(after, released)).state is state
        assert not let_in(policy, after, released) - {
            each.standing.position for each in before if each.standing.is_admitted
        }
        assert turn(policy, tally(after, released)) == turn(policy, tally(before, released))
        if opens_in_s(policy, tally(before, released)) is None:
            assert opens_in_s(policy, tally(after, released)) is None


def test_only_what_runs_is_left_alone() -> None:
    """The control: a first claim makes a pending apply a running one."""
    assert [state for state in ApplyState if is_left_alone_by_claim(state)] == [
        ApplyState.RUNNING,
        ApplyState.RUNNING_DEGRADED,
    ]
    pending = Tally.of(rollout(State.PENDING, State.PENDING, admitted=[0]))
    assert project(Policy(), pending).state is ApplyState.PENDING

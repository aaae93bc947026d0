"""Rollouts as lists of operations, for tests of what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tern.domain.holds import HoldKind, OperationFacts, holds
from tern.domain.opening import opening
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.states import State
from tern.domain.tally import PASSED, Standing, Tally


@dataclass(frozen=True)
class Member:
    """One operation of a made-up rollout, with what holds it whatever the policy says."""

    standing: Standing
    is_stuck: bool = False


def rollout(*states: State, waves: Sequence[int] = (), admitted: Sequence[int] = ()) -> list[Standing]:
    """Operations in these states, in order; those at the places in `admitted` are let in."""
    return [
        Standing(place, state, waves[place] if waves else 0, is_admitted=place in admitted)
        for place, state in enumerate(states)
    ]


def facts_of(members: Sequence[Member], place: int, released: int | None = None) -> OperationFacts:
    """What holds() is asked about the operation at this place, found out one operation at a time."""
    me = members[place].standing
    outside = [
        each
        for each in members
        if each.standing.wave == me.wave
        and each.standing.state is State.PENDING
        and not each.standing.is_admitted
        and each.standing.position < me.position
    ]
    is_outside = me.state is State.PENDING and not me.is_admitted
    return OperationFacts(
        state=me.state,
        tally=Tally.of([each.standing for each in members], released),
        position=me.position,
        wave=me.wave,
        is_admitted=me.is_admitted,
        ahead=sum(not each.is_stuck for each in outside) if is_outside else 0,
        stuck_ahead="x" if is_outside and any(each.is_stuck for each in outside) else "",
        drained=members[place].is_stuck,
    )


def let_in(policy: Policy, members: Sequence[Member], released: int | None = None) -> set[int]:
    """Whom the next projection lets in, as the store's statement does it."""
    opened = opening(policy, Tally.of([each.standing for each in members], released))
    if opened is None:
        return set()
    outside = [
        each
        for each in members
        if each.standing.wave == opened.wave
        and each.standing.state is State.PENDING
        and not each.standing.is_admitted
    ]
    if opened.in_order:
        outside = outside[: opened.room]
        stuck = next((n for n, each in enumerate(outside) if each.is_stuck), len(outside))
        return {each.standing.position for each in outside[:stuck]}
    free = [each for each in outside if not each.is_stuck]
    return {each.standing.position for each in free[: opened.room]}


def admit(members: Sequence[Member], places: set[int]) -> list[Member]:
    return [
        replace(each, standing=replace(each.standing, is_admitted=True)) if place in places else each
        for place, each in enumerate(members)
    ]


def kinds(policy: Policy, facts: OperationFacts) -> set[HoldKind]:
    return {hold.kind for hold in holds(policy, facts)}


@st.composite
def policies(draw: st.DrawFn, waves: int | None = None) -> Policy:
    """Every policy that is no contradiction in itself."""
    copy = draw(st.sampled_from(Copy))
    bound = st.none() if copy is Copy.ROLLING else st.none() | st.integers(1, 3)
    on_failure = draw(st.sampled_from(OnFailure))
    count = draw(st.sampled_from([0, 0, 2, 3])) if waves is None else waves
    return Policy(
        copy=copy,
        on_failure=on_failure,
        cutover=draw(st.sampled_from(Cutover)),
        max_parallel=draw(bound),
        max_failures=draw(st.integers(0, 2)),
        strict=on_failure is not OnFailure.CONTINUE and draw(st.booleans()),
        waves=tuple(
            Wave(
                {"wave": str(number)},
                max_parallel=draw(bound),
                max_failures=draw(st.none() | st.integers(0, 2)),
                bake_s=draw(st.sampled_from([0.0, 60.0])) if number < count else 0.0,
            )
            for number in range(1, count + 1)
        ),
    )


@st.composite
def members(draw: st.DrawFn, policy: Policy) -> list[Member]:
    """Any operations of such a rollout, in any states; positions follow the waves. Mostly those of the waves before
    some wave are through, as they are in a rollout that nobody has meddled with.
    """
    count = len(policy.waves)
    size = draw(st.integers(max(1, count), 8))
    more = [draw(st.integers(1, count)) if count else 0 for _ in range(size - count)]
    waves = sorted([*range(1, count + 1), *more])
    under_way = draw(st.sampled_from([0, *waves]))
    calm = [State.PENDING] * 6 + [State.RUNNING, State.WAITING_FOR_CUTOVER, State.COMPLETED]
    likely = calm if draw(st.booleans()) else [State.PENDING] * 4 + list(State)
    through = [State.COMPLETED, State.COMPLETED, *PASSED]
    entering = [False, False, False, True]
    return [
        Member(
            Standing(
                place,
                (state := draw(st.sampled_from(through if waves[place] < under_way else likely))),
                waves[place],
                is_admitted=state is State.PENDING and draw(st.sampled_from(entering)),
                has_remote_id=state is not State.PENDING and draw(st.booleans()),
                was_seen=state is State.FAILED and draw(st.booleans()),
                ended_s_ago=draw(st.sampled_from([5.0, 90.0])) if state.is_finished else None,
            ),
            is_stuck=draw(st.sampled_from(entering)),
        )
        for place in range(size)
    ]

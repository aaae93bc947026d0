"""ApplyView: the one model of a rollout behind the command line, its JSON and the page. Pure.

What the rows say (facts.py) comes in; headline, blockers, holds and exit code come out, so that no two faces of Tern
can disagree. How it looks on a terminal is not here (cli/picture.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tern.blocking import (
    Blocker,
    blocker_of_stopped,
    blockers_of_outstanding,
    blockers_of_silence,
    blockers_of_uncertain,
)
from tern.cause import Cause, needs, troubles
from tern.domain.holds import ClearedBy, Hold, HoldKind
from tern.domain.policy import OnFailure
from tern.domain.states import ApplyState, State
from tern.domain.whole import Whole, whole
from tern.facts import ApplyFacts
from tern.holding import held
from tern.leftover import may_be_retried, ways_on
from tern.operation import OperationView, share
from tern.wave import WaveView, bakes_left_s, waves_of

UNTAKEN_AFTER_S = 15.0
"""A due operation that nobody took for so long means that no driver works."""

_OUTCOMES: Mapping[ApplyState, int] = {
    ApplyState.COMPLETED: 0,
    ApplyState.FAILED: 10,
    ApplyState.CANCELLED: 11,
    ApplyState.REVERTED: 11,
    ApplyState.STOPPED: 12,
    ApplyState.PAUSED: 13,
}
NEEDS_PERSON = 13
READY_FOR_CUTOVER = 14

_IN_THE_WAY = {HoldKind.ORDER, HoldKind.WAVE, HoldKind.BAKE}


@dataclass(frozen=True)
class ApplyView:
    """One rollout as every face of Tern shows it."""

    facts: ApplyFacts
    operations: tuple[OperationView, ...]
    blockers: tuple[Blocker, ...]

    @cached_property
    def _blockers_of(self) -> Mapping[str, Sequence[Blocker]]:
        found: dict[str, list[Blocker]] = defaultdict(list)
        for blocker in self.blockers:
            found[blocker.deployment].append(blocker)
        return found

    def blockers_of(self, deployment: str) -> Sequence[Blocker]:
        """Those of one deployment, without a walk through all: whoever asks asks for ten thousand."""
        return self._blockers_of.get(deployment, ())

    @cached_property
    def standing(self) -> Sequence[OperationView]:
        """Those that stand in the way of others until a person moves them, in rollout order."""
        return [each for each in self.operations if each.state in {State.STOPPED, State.UNCERTAIN}]

    @cached_property
    def may_be_retried(self) -> bool:
        """A retry would be taken at some of its operations."""
        return any(may_be_retried(each.record) for each in self.operations)

    @property
    def counts(self) -> Mapping[State, int]:
        """How many operations are in each state, in the order of the states."""
        counted = Counter(operation.state for operation in self.operations)
        return {state: counted[state] for state in State if counted[state]}

    @property
    def percent(self) -> int:
        """Of the whole rollout."""
        return whole([share(each) for each in self.operations], moves=False).percent

    @property
    def whole(self) -> Whole:
        """Percent, rate and end of all operations together."""
        moves = self.exit_code is None
        bakes_s = bakes_left_s(self.waves) if moves else 0.0
        return whole([share(each) for each in self.operations], bakes_s=bakes_s, moves=moves)

    @property
    def needs(self) -> tuple[Cause, ...]:
        """What only a person moves on: one entry for each cause, with the command for all of its operations."""
        return needs(self.facts.apply_id, self.operations, self.blockers)

    @property
    def troubles(self) -> tuple[Cause, ...]:
        """What does not go as it should, one entry for each cause."""
        return troubles(self.operations)

    @property
    def exit_code(self) -> int | None:
        """What `watch` and `wait` end with; None while something moves without a person."""
        if any(operation.moves_by_itself for operation in self.operations):
            return None
        settled = _OUTCOMES.get(self.facts.state)
        if settled is not None:
            return settled
        if any(operation.state is State.WAITING_FOR_CUTOVER for operation in self.operations):
            return READY_FOR_CUTOVER
        return NEEDS_PERSON

    @property
    def headline(self) -> str:
        """One sentence that says how it stands."""
        done = sum(operation.state is State.COMPLETED for operation in self.operations)
        total = len(self.operations)
        words = self.facts.state.value.replace("_", " ")
        if self.facts.state is ApplyState.COMPLETED:
            return f"completed on {'its deployment' if total == 1 else f'all {total:,} deployments'}"
        return f"{words}, {done:,} of {total:,} completed"

    @property
    def waves(self) -> tuple[WaveView, ...]:
        """The waves in their order; none in a rollout without."""
        return waves_of(self.facts)

    def operation(self, deployment: str) -> OperationView:
        """The operation of a deployment that is known to be there."""
        return next(each for each in self.operations if each.deployment == deployment)

    def as_json(self, chosen: Sequence[OperationView] | None = None) -> dict[str, object]:
        """The data of `get --json`. chosen: only these of its operations."""
        facts = self.facts
        return {
            "apply_id": facts.apply_id,
            "plan_id": facts.plan_id,
            "state": facts.state.value,
            "headline": self.headline,
            "environment": facts.environment,
            "database": facts.database,
            "caller": facts.caller,
            "reason": facts.reason,
            "policy": facts.policy.as_json(),
            "created_at": facts.created_at.isoformat(),
            "age_s": round(facts.age_s, 1),
            "state_age_s": round(facts.state_age_s, 1),
            "took_s": _rounded(facts.took_s),
            "operation_count": facts.operation_count,
            "counts": {state.value: count for state, count in self.counts.items()},
            "waves": [wave.as_json() for wave in self.waves],
            "percent": self.percent,
            "progress": self.whole.as_json(),
            "error": facts.error_message or None,
            "exit_code": self.exit_code,
            "operations": [
                operation.as_json() for operation in (self.operations if chosen is None else chosen)
            ],
            "blockers": [blocker.as_json() for blocker in self.blockers],
            "needs_you": [cause.as_json() for cause in self.needs],
            "troubles": [cause.as_json() for cause in self.troubles],
            "revision": facts.revision,
        }


def apply_view(facts: ApplyFacts) -> ApplyView:
    """Makes sense of one look."""
    operations = tuple(
        OperationView(f"{facts.apply_id}/{record.deployment}", record, found) for record, found in held(facts)
    )
    return ApplyView(facts, operations, tuple(_blockers(facts, operations)))


def _blockers(facts: ApplyFacts, operations: tuple[OperationView, ...]) -> Iterator[Blocker]:
    yield from _blockers_of_all(facts, operations)
    for operation in operations:
        record, scope = operation.record, operation.scope
        yield from _blockers_of_its_state(operation)
        yield from blockers_of_outstanding(record)
        yield from blockers_of_silence(record, scope, lost_contact=operation.lost_contact)
        if record.state.is_finished:
            ways = ways_on(scope, record, is_over=facts.state.is_settled)
            yield from (Blocker(record.deployment, *way) for way in ways)


def _blockers_of_its_state(operation: OperationView) -> Iterator[Blocker]:
    name = operation.deployment
    match operation.state:
        case State.PENDING:
            yield from _blockers_of_pending(operation)
        case State.UNCERTAIN:
            yield from blockers_of_uncertain(operation.record, operation.scope)
        case State.WAITING_FOR_CUTOVER:
            yield from _blockers_of_waiting(operation, {hold.kind: hold for hold in operation.holds})
        case State.STOPPED if any(hold.kind is HoldKind.STOP for hold in operation.holds):
            yield blocker_of_stopped(operation.record, operation.scope)
        case _ if operation.waits_for_undrain:
            command = f"tern deployments undrain {name}"
            yield Blocker(name, "its deployment is drained", command, "lets what waits there begin")
        case _:
            return


def _blockers_of_all(facts: ApplyFacts, operations: tuple[OperationView, ...]) -> Iterator[Blocker]:
    """A pause is about the whole rollout; it is shown with the failure that it comes from."""
    failed = next((each for each in operations if each.state is State.FAILED), None)
    is_held = any(hold.kind is HoldKind.FAILURES for each in operations for hold in each.holds)
    if failed is not None and is_held and facts.policy.on_failure is OnFailure.PAUSE:
        words = (
            f"failed, and the rollout is paused: {failed.record.error_words or 'its engine gave no reason'}"
        )
        command = f"tern release {facts.apply_id} --reason '…'"
        yield Blocker(failed.deployment, words, command, "lets the others go on, until the next failure")


def _blockers_of_waiting(operation: OperationView, kinds: Mapping[HoldKind, Hold]) -> Iterator[Blocker]:
    """One whose turn has not come is nobody's to move: what stands before it is."""
    if HoldKind.TURN in kinds:
        return
    name = operation.deployment
    if HoldKind.STOP in kinds:
        is_cancel = operation.record.stop_in_force == "cancel"
        # Of a cancel only a refused one is ever taken back.
        if not is_cancel or any(wish.was_refused for wish in operation.record.open_wishes):
            although = " --although-cancel-refused" if is_cancel else ""
            command = f"tern start {operation.scope}{although} --reason '…'"
            yield Blocker(name, kinds[HoldKind.STOP].detail, command, "lets it go on")
    elif any(hold.cleared_by is ClearedBy.FIX for hold in operation.holds):
        refused = kinds.get(HoldKind.REFUSED)
        words = "ready to cut over" if refused is None else refused.detail.split(";")[0]
        command = f"tern cutover {operation.scope} --reason '…'"
        yield Blocker(name, words, command, "lets the application see the change there")


def _blockers_of_pending(operation: OperationView) -> Iterator[Blocker]:
    name = operation.deployment
    for hold in operation.holds:
        if hold.kind is HoldKind.DRAINED and _is_next(operation):
            command = f"tern deployments undrain {name}"
            yield Blocker(name, "its deployment is drained", command, "lets the rollout go on there")
        elif hold.kind is HoldKind.STOP and operation.record.stop_in_force == "stop":
            command = f"tern start {operation.scope} --reason '…'"
            yield Blocker(name, hold.detail.split(";")[0], command, "lets it take its turn again")
    untaken_for_s = operation.record.untaken_for_s
    if not operation.holds and untaken_for_s is not None and untaken_for_s > UNTAKEN_AFTER_S:
        what = f"due for {untaken_for_s:.0f} s, and no worker has taken it"
        yield Blocker(name, what, "tern doctor", "says whether a worker runs")


def _is_next(operation: OperationView) -> bool:
    """Nothing but this hold and other fixable ones keeps it: what is ahead in the order is through."""
    return all(hold.kind not in _IN_THE_WAY or hold.cleared_by is ClearedBy.FIX for hold in operation.holds)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)

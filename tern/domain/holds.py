"""Every reason why an operation does not move. Admission and `tern explain` both call holds(); there is no second
opinion anywhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from tern.domain.barrier import Refusals, asks_again_in_s, is_its_turn
from tern.domain.budget import counted_failures, is_spent, strict_room
from tern.domain.counting import plural, verb
from tern.domain.doubt import Doubt, held_words
from tern.domain.opening import bakes_for_s, free_slots, waves_before
from tern.domain.outstanding import Outstanding
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.states import State
from tern.domain.tally import COPYING, UNDER_WAY, UNPASSED, Group, Tally
from tern.domain.timing import LOST_CONTACT_AFTER


class HoldKind(StrEnum):
    """Why an operation does not move."""

    STOP = "stop"
    RESERVATION = "reservation"
    SAME_TARGET = "same_target"
    CLAIMED = "claimed"
    DRAINED = "drained"
    FAILURES = "failures"
    STRICT = "strict"
    WAVE = "wave"
    BAKE = "bake"
    ORDER = "order"
    SLOTS = "slots"
    BACKOFF = "backoff"
    TURN = "turn"
    CUTOVER = "cutover"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"
    SILENT = "silent"
    OUTSTANDING = "outstanding"


class ClearedBy(StrEnum):
    """Who makes a hold go away: `fix` the reader, `wait` nobody (it clears by itself), `ask` somebody else."""

    FIX = "fix"
    WAIT = "wait"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason, in words; until_s is in how many seconds it clears by itself, where that is known."""

    kind: HoldKind
    detail: str
    cleared_by: ClearedBy
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds a target that an operation needs.

    name: the deployment under whose name it is held, perhaps another one that is, or may be, the same target.
    wait_s: of an operation that is finished, for how long a call may still act; None of one that is not.
    """

    name: str
    scope: str
    state: str
    wait_s: float | None = None

    @property
    def words(self) -> str:
        """The operation, where it stands, and how long it keeps what it holds where that is known."""
        if self.wait_s is None:
            return f"{self.scope} ({self.state})"
        return f"{self.scope} ({self.state}; a call there may act for {max(0.0, self.wait_s):.0f} s more)"

    @property
    def deployment(self) -> str:
        """Where the holder works."""
        return self.scope.partition("/")[2]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {"deployment": self.name, "held_by": self.scope, "state": self.state, "wait_s": self.wait_s}


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """What decides whether one operation moves now.

    tally counts the whole apply, this operation included. Times are seconds.
    """

    state: State
    tally: Tally
    position: int = 0
    wave: int = 0
    is_admitted: bool = False
    ahead: int = 0
    """Pending operations of its wave that are let in before it, when it is not let in itself."""
    stuck_ahead: str = ""
    """The first of its wave that stands before it outside and is held for a reason of its own."""
    before: str = ""
    """The first in the order that is not through, with its state; empty where nobody has to know."""
    before_in_wave: str = ""
    """The same, of its own wave."""
    stop_in_force: str | None = None
    """The verb, `stop` or `cancel`, that holds it and has not been superseded by a start."""
    wait_s: float = 0.0
    """Until next_attempt_at; not positive when due."""
    claimed_for_s: float = 0.0
    """How long another driver's claim still runs; not positive when free."""
    drained: bool = False
    drained_by: str = ""
    """Who drained its deployment, and why; empty where nobody kept that."""
    deployment: str = ""
    """Its own name, by which it tells its own target from the same one under another name."""
    blocked_by: Holding | None = None
    """Who keeps it from its target."""
    outstanding: Outstanding | None = None
    """What may still act at its target although no operation follows it."""
    wished: frozenset[str] = frozenset()
    """The verbs that are asked for and open."""
    refusals: Refusals = field(default_factory=Refusals)
    """Its cutovers that came to nothing."""
    silent_looks: int = 0
    """Looks in a row that got no usable answer."""
    silent_for_s: float | None = None
    """Since the last answer; None when there never was one."""
    error: str = ""
    """What is known about its trouble."""
    doubt: Doubt = Doubt.NONE
    """Whether its id may be its own work's at all."""
    scope: str = ""
    remote_id: str = ""
    unanswered: int = 0
    """Dispatches in a row, of whatever operation, that its deployment's engine left without an answer."""
    pauses_s: float = 0.0
    """Until the next one is tried because of that; not positive when it is."""
    busy: str = ""
    """What its engine says of who works at the target, where that is why the dispatch was put off."""


def holds(policy: Policy, facts: OperationFacts) -> tuple[Hold, ...]:
    """All reasons why the operation stands where it stands. Of a pending or retryable one, none means: it goes.

    A retryable one keeps its slot and its place in the order, so those rules apply to pending ones only. What works
    at its engine is held by nobody; that its engine is silent, or that a driver has it just now, is said all the same.
    """
    match facts.state:
        case State.PENDING:
            return (*_gates(facts), *_rollout(policy, facts), *_backoff(facts), *_pause(facts))
        case State.FAILED_RETRYABLE:
            return (*_gates(facts), *_drained(facts), *_backoff(facts), *_pause(facts))
        case State.WAITING_FOR_CUTOVER:
            return (*_cutover(policy, facts), *_claim(facts), *_silence(facts))
        case State.UNCERTAIN:
            words = facts.error or "nobody here can tell whether the engine did it"
            if facts.remote_id and facts.doubt is not Doubt.NONE:
                words = f"{words}; {held_words(facts.doubt, facts.scope, facts.remote_id)}"
            return (Hold(HoldKind.UNCERTAIN, words, ClearedBy.FIX), *_claim(facts))
        case State.STOPPED | State.RESUMING if "start" in facts.wished and (
            facts.drained or facts.outstanding
        ):
            return (*_outstanding(facts), *_drained(facts), *_claim(facts))
        case State.STOPPED:
            if facts.wished & {"start", "cancel", "skip"}:
                return tuple(_claim(facts))
            return (
                Hold(HoldKind.STOP, "it was stopped and waits for a start", ClearedBy.FIX),
                *_target(facts),
                *_outstanding(facts),
                *_drained(facts),
                *_claim(facts),
            )
        case _ if facts.state.is_live:
            return (*_claim(facts), *_silence(facts))
        case _:
            return ()


def holds_all_behind(policy: Policy, wave: int, found: tuple[Hold, ...]) -> bool:
    """Whether the next pending operation of the wave is held by the very same, where these hold one that stands right
    before it, is let in or not as that one is, and isn't the first of all: what depends on the place in the order holds
    already. Thousands wait alike.
    """
    depends = {HoldKind.STRICT} if policy.strict else set()
    if policy.copy is Copy.ROLLING:
        depends.add(HoldKind.ORDER)
    elif policy.rules(wave).max_parallel is not None:
        depends.add(HoldKind.SLOTS)
    return depends <= {hold.kind for hold in found}


def _gates(facts: OperationFacts) -> Iterator[Hold]:
    if facts.stop_in_force is not None:
        yield Hold(HoldKind.STOP, f"an operator's {facts.stop_in_force} covers it", ClearedBy.FIX)
    yield from _target(facts)
    yield from _outstanding(facts)
    yield from _claim(facts)


def _outstanding(facts: OperationFacts) -> Iterator[Hold]:
    """Something was sent to its target that nobody follows: before that is settled nothing begins there (G4, G13)."""
    if facts.outstanding is not None:
        yield Hold(HoldKind.OUTSTANDING, facts.outstanding.words, ClearedBy.FIX)


def _target(facts: OperationFacts) -> Iterator[Hold]:
    """Somebody else holds what it would work on, under its own name or under another one (G13)."""
    holder = facts.blocked_by
    if holder is None:
        return
    cleared_by = ClearedBy.ASK if holder.wait_s is None else ClearedBy.WAIT
    if holder.name == holder.deployment == facts.deployment:
        words = f"its target is held by {holder.words}"
        yield Hold(HoldKind.RESERVATION, words, cleared_by, holder.wait_s)
        return
    twin = holder.deployment if holder.name == facts.deployment else holder.name
    words = f"its target is, or may be, the same as that of {twin}, and held by {holder.words}"
    yield Hold(HoldKind.SAME_TARGET, words, cleared_by, holder.wait_s)


def _claim(facts: OperationFacts) -> Iterator[Hold]:
    if facts.claimed_for_s > 0:
        yield Hold(HoldKind.CLAIMED, "a driver is working on it", ClearedBy.WAIT, facts.claimed_for_s)


def _drained(facts: OperationFacts) -> Iterator[Hold]:
    """No new work begins there; what runs goes on."""
    if facts.drained:
        by = f" by {facts.drained_by}" if facts.drained_by else ""
        yield Hold(
            HoldKind.DRAINED, f"its deployment is drained{by}: no new work begins there", ClearedBy.ASK
        )


def _backoff(facts: OperationFacts) -> Iterator[Hold]:
    if facts.wait_s > 0 and facts.busy:
        yield Hold(HoldKind.BACKOFF, f"{facts.busy}; it is asked again", ClearedBy.WAIT, facts.wait_s)
    elif facts.wait_s > 0:
        how = "under another key" if facts.state is State.PENDING else "and settled or repeated under its key"
        words = f"the engine gave no usable answer; the dispatch is tried again after a pause, {how}"
        yield Hold(HoldKind.BACKOFF, words, ClearedBy.WAIT, facts.wait_s)


def _pause(facts: OperationFacts) -> Iterator[Hold]:
    if facts.pauses_s > 0:
        dispatches = plural(facts.unanswered, "dispatch", "dispatches")
        words = f"its engine left {dispatches} in a row without an answer; the next waits a little"
        yield Hold(HoldKind.SILENT, words, ClearedBy.WAIT, facts.pauses_s)


def _silence(facts: OperationFacts) -> Iterator[Hold]:
    if not facts.silent_looks:
        return
    if facts.silent_for_s is None:
        since = "ever"
    else:
        since = (
            f"for {facts.silent_for_s:.0f} s" if facts.silent_for_s >= 0 else "since the clock was set back"
        )
    words = f"its engine has not answered {since}, {plural(facts.silent_looks, 'try', 'tries')} in a row"
    words += f" ({facts.error})" if facts.error else ""
    lost = facts.silent_looks >= LOST_CONTACT_AFTER
    yield Hold(HoldKind.SILENT, words, ClearedBy.ASK if lost else ClearedBy.WAIT)


def _rollout(policy: Policy, facts: OperationFacts) -> Iterator[Hold]:
    """Whether the rollout lets a pending operation in. opening() says the same of all at once."""
    tally, wave = facts.tally, facts.wave
    yield from _drained(facts)
    if is_spent(policy, tally):
        yield _spent(policy, tally)
    if _is_full(facts, strict_room(policy, tally, wave)):
        yield _strict(policy, tally, wave)
    if missing := waves_before(tally, wave):
        is_not = verb(missing, "is", "are")
        words = f"{missing} of earlier waves {is_not} not through: {_first(facts)} comes before it"
        yield _in_the_way(HoldKind.WAVE, words, tally, lambda group: group.wave < wave)
    elif (left := bakes_for_s(policy, tally, wave)) > 0:
        yield Hold(HoldKind.BAKE, "the wave before it is through and bakes", ClearedBy.WAIT, left)
    yield from _order(policy, facts)
    if policy.copy is not Copy.ROLLING and _is_full(facts, free_slots(policy, tally, wave)):
        yield Hold(HoldKind.SLOTS, _slots(policy, facts), ClearedBy.WAIT)


def _slots(policy: Policy, facts: OperationFacts) -> str:
    """Who has the slots. One that nobody uses yet is kept for those who come first, and is not said to be taken."""
    most = policy.rules(facts.wave).max_parallel or 0
    own = facts.tally.within(facts.wave)
    copying = own.count(*COPYING)
    words = [f"{copying} {verb(copying, 'does', 'do')} now"] if copying else []
    words += [f"{own.admitted} {verb(own.admitted, 'is', 'are')} next"] if own.admitted else []
    if copying + own.admitted < most:
        words.append("others of its wave come before it")
    return f"{most} may copy at once: {', '.join(words)}"


def _is_full(facts: OperationFacts, room: int | None) -> bool:
    """No room for it: those that are let in before it take what there is. One that is in has taken its own already."""
    if room is None:
        return False
    return room < 0 if facts.is_admitted else room <= facts.ahead


def _spent(policy: Policy, tally: Tally) -> Hold:
    failed = tally.count(State.FAILED)
    if policy.on_failure is OnFailure.PAUSE:
        words = f"{failed} failed, more than are borne: the rollout is paused until somebody releases it"
    else:
        words = f"{failed} failed, more than are borne: the rollout is halted"
    return Hold(HoldKind.FAILURES, words, ClearedBy.FIX)


def _strict(policy: Policy, tally: Tally, wave: int) -> Hold:
    own = tally.within(wave)
    failed = counted_failures(tally, wave)
    words = (
        f"strict: {failed} failed and {own.count(*UNDER_WAY) + own.admitted + own.resumable} that may still fail are as"
        f" many as {policy.rules(wave).max_failures} borne failures allow"
    )
    # Stopped work that may still fail keeps its place in the budget until a person starts or cancels it.
    by_itself = own.count(*UNDER_WAY) + own.admitted > 0
    return Hold(HoldKind.STRICT, words, ClearedBy.WAIT if by_itself else ClearedBy.FIX)


def _order(policy: Policy, facts: OperationFacts) -> Iterator[Hold]:
    """Within its wave; what stands before the wave is the wave's matter."""
    position, wave = facts.position, facts.wave
    match policy.copy:
        case Copy.ROLLING:
            first = facts.tally.within(wave).first(*UNPASSED)
            if first is not None and first < position:
                words = f"{facts.before_in_wave or 'another one'} comes before it in the order"
                yield _in_the_way(
                    HoldKind.ORDER,
                    words,
                    facts.tally,
                    lambda group: group.wave == wave and group.first < position,
                )
            elif facts.tally.within(wave).count(*UNDER_WAY):
                words = "another one of its wave is under way, and rolling is one after the other"
                yield _in_the_way(HoldKind.ORDER, words, facts.tally, lambda group: group.wave == wave)
        case Copy.BARRIER:
            if facts.stuck_ahead:
                words = f"{facts.stuck_ahead} begins before it and is held"
                yield Hold(HoldKind.ORDER, words, ClearedBy.WAIT)
        case Copy.PARALLEL:
            pass


def _in_the_way(kind: HoldKind, words: str, tally: Tally, stands_before: Callable[[Group], bool]) -> Hold:
    """What stands before it clears by itself, unless a person has to move it first."""
    needs_person = any(
        group.state in {State.STOPPED, State.UNCERTAIN} and stands_before(group) for group in tally.groups
    )
    return Hold(kind, words, ClearedBy.FIX if needs_person else ClearedBy.WAIT)


def _first(facts: OperationFacts) -> str:
    return facts.before or "another one"


def _cutover(policy: Policy, facts: OperationFacts) -> Iterator[Hold]:
    """Why an operation that waits for its cutover does not have it yet."""
    if facts.stop_in_force is not None:
        yield Hold(HoldKind.STOP, f"an operator's {facts.stop_in_force} covers it", ClearedBy.FIX)
    yield from _target(facts)
    in_turn = is_its_turn(policy, facts.tally, facts.position)
    if not in_turn:
        words = f"cutovers follow the order, and {_first(facts)} comes before it"
        yield _in_the_way(HoldKind.TURN, words, facts.tally, lambda group: group.first < facts.position)
    if "cutover" in facts.wished or not policy.defers_cutover:
        return
    if is_spent(policy, facts.tally):
        yield _spent(policy, facts.tally)
    elif policy.cutover is Cutover.MANUAL:
        yield Hold(HoldKind.CUTOVER, "it is ready; a person says when it cuts over", ClearedBy.FIX)
    elif facts.refusals.count and in_turn:
        yield _refused(facts.refusals)


def _refused(refusals: Refusals) -> Hold:
    times = plural(refusals.count, "time")
    words = f"its engine refused the cutover {times} ({refusals.words or 'without a reason'})"
    again_s = asks_again_in_s(refusals)
    if again_s is None:
        return Hold(HoldKind.REFUSED, words, ClearedBy.FIX)
    return Hold(HoldKind.REFUSED, words, ClearedBy.WAIT, max(0.0, again_s))

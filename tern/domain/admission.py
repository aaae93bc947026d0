"""Where each verb is welcome: whether a wish is written down for one operation, with every unmet condition."""

from dataclasses import dataclass, replace
from typing import assert_never

from tern.domain.budget import is_spent
from tern.domain.control import ADJUSTABLE, CONTRARY, MOMENT, Receipt, ReceiptLine, Verb
from tern.domain.policy import OnFailure, Policy
from tern.domain.states import ApplyState, State
from tern.domain.tally import Tally

_AT_THE_ENGINE = "its engine may have work of it; `tern cancel {scope} --reason '…'` ends that for good"


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """What decides whether a wish is taken for one operation."""

    state: State
    has_remote_id: bool
    deployment: str = ""
    was_never_dispatched: bool = False
    """Nothing was sent, or its key is dead."""
    stop_in_force: str | None = None
    """The stop, skip or cancel that covers it."""
    open_request: int | None = None
    """The request by which the same verb is on its way already."""
    open_volume: int | None = None
    """What that request asks for, where the verb is volume."""
    revival_open: bool = False
    """A start or a retry is on its way, so that `stopped` or `failed` won't last."""
    contrary_open: bool = False
    """A wish that excludes this one is on its way."""
    target_holder: str | None = None
    """Another apply that holds the target, where this one no longer does."""
    comes_before: str = ""
    """The operations whose cutovers come before its own, in words, where cutovers follow an order."""
    rollout_is_over: bool = True
    """It holds its targets no more, so that another one may have them."""
    scope: str = ""
    plan_id: str = ""
    reviewed_together: int = 0
    """How many targets the plan was reviewed for; such a plan goes to no other set of them. 0 for any."""
    place: str = ""
    """Environment and database, as options of the command line."""


def admit(verb: Verb, facts: AdmissionFacts, volume: int | None = None) -> ReceiptLine:
    """Whether a wish is written down for an operation; every unmet condition is in the reason."""
    if facts.open_request is not None:
        request = f"request {facts.open_request}"
        if verb is Verb.VOLUME and volume != facts.open_volume:
            why = f"a volume of {facts.open_volume} is on its way, by {request}; ask again when it is through"
            return ReceiptLine(facts.deployment, Receipt.REFUSED, why)
        return ReceiptLine(facts.deployment, Receipt.ALREADY, f"a {verb} is on its way, by {request}")
    outcome, reason = _known_already(verb, facts) or (Receipt.ACCEPTED, "")
    if outcome is Receipt.ACCEPTED and (why_not := _unmet(verb, facts)):
        outcome, reason = Receipt.REFUSED, "; ".join(why_not)
    return ReceiptLine(facts.deployment, outcome, reason)


def admit_release(state: ApplyState, policy: Policy, tally: Tally) -> ReceiptLine:
    """Whether a rollout is opened again: only where more have failed than it bears, and once for each such pause."""
    if state.is_settled:
        return ReceiptLine("", Receipt.TOO_LATE, f"it is {state}")
    if is_spent(policy, tally):
        return ReceiptLine("", Receipt.ACCEPTED)
    if is_spent(policy, replace(tally, released=None)):
        return ReceiptLine("", Receipt.ALREADY, "that pause has been released")
    why = [f"it is {state}, and no failure holds it"]
    if policy.on_failure is OnFailure.CONTINUE:
        why.append("it goes on whatever fails: its policy says continue")
    return ReceiptLine("", Receipt.REFUSED, "; ".join(why))


def _known_already(verb: Verb, facts: AdmissionFacts) -> tuple[Receipt, str] | None:
    """What needs no wish: it is so already, or can't be so any more. None where the wish means something."""
    state, said = facts.state, f"it is {facts.state}"
    already, too_late = (Receipt.ALREADY, said), (Receipt.TOO_LATE, said)
    match verb:
        case Verb.STOP:
            if state.is_live or facts.revival_open:
                return None
            return already if state is State.STOPPED else too_late
        case Verb.CANCEL:
            if state is State.CANCELLED:
                return already
            return too_late if state.is_finished and not facts.revival_open else None
        case Verb.START:
            if state.is_finished:
                return too_late
            return already if state.is_live and facts.stop_in_force is None else None
        case Verb.CUTOVER:
            if state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}:
                return already
            return too_late if state.is_finished else None
        case Verb.RETRY:
            if state is State.FAILED or state in {State.STOPPED, State.UNCERTAIN}:
                return None
            return already if state.is_live else too_late
        case Verb.SKIP:
            if state is State.SKIPPED:
                return already
            return too_late if state.is_finished and state is not State.FAILED else None
        case Verb.REVERT:
            if state in {State.REVERTING, State.REVERTED}:
                return already
            return too_late if state.is_finished else None
        case Verb.SKIP_REVERT:
            if state is State.COMPLETED:
                return already
            return too_late if state.is_finished or state is State.REVERTING else None
        case Verb.VOLUME:
            return too_late if state.is_finished else None
        case Verb.RELEASE:
            # Asked of an apply; an operation has no say in it.
            return None
        case _:
            assert_never(verb)


def _unmet(verb: Verb, facts: AdmissionFacts) -> list[str]:
    """All that speaks against a wish that would mean something."""
    state = facts.state
    why: list[str] = []
    if facts.stop_in_force is not None and _is_kept_back(verb, facts.stop_in_force):
        why.append(_covers(facts.stop_in_force))
    if verb in CONTRARY and facts.contrary_open:
        why.append(f"a {CONTRARY[verb]} is on its way")
    if verb in MOMENT and state is not MOMENT[verb]:
        why.append(f"it is {state}, not {_said(MOMENT[verb])}")
    if verb is Verb.CUTOVER and facts.comes_before:
        why.append(f"cutovers follow the order, and before it come {facts.comes_before}")
    if verb in {Verb.START, Verb.RETRY} and facts.target_holder is not None:
        why.append(f"its target is held by {facts.target_holder}")
    if verb is Verb.RETRY:
        why += _against_a_retry(facts)
    if verb is Verb.SKIP:
        why += _against_a_skip(facts)
    if verb is Verb.VOLUME and not (state in ADJUSTABLE and facts.has_remote_id):
        why.append(f"it is {state}, and no engine works on it")
    return why


def _is_kept_back(verb: Verb, stop: str) -> bool:
    """A start supersedes a stop; nothing supersedes a cancel or a skip. A stopped operation may be skipped."""
    if verb in {Verb.START, Verb.SKIP}:
        return stop != Verb.STOP.value
    return verb.is_forward


def _covers(stop: str) -> str:
    if stop == Verb.STOP.value:
        return "a stop covers it that no start has superseded"
    return f"a {stop} covers it, and that is permanent"


def _against_a_retry(facts: AdmissionFacts) -> list[str]:
    """Only what failed, and has no id at its engine, is tried again here (D18)."""
    match facts.state:
        case State.UNCERTAIN:
            return [f"it is uncertain: `tern resolve {facts.scope} --as …` says what became of it"]
        case State.STOPPED:
            return [f"it is stopped: `tern start {facts.scope} --reason '…'` resumes it"]
        case _ if facts.has_remote_id:
            when = "" if facts.rollout_is_over else "once this rollout is over, "
            return [f"it has a remote id, which is never replaced; {when}{_new_apply(facts)}"]
        case _:
            return []


def _new_apply(facts: AdmissionFacts) -> str:
    """What leads to the same change at that deployment alone, ready to copy."""
    again = f"--deployments {facts.deployment} --reason 'again after {facts.scope}'"
    if facts.reviewed_together > 1:
        return (
            f"its plan was reviewed for {facts.reviewed_together} targets together, so plan the change for it alone"
            f" (`tern get {facts.scope}` shows the statements): tern apply --ddl FILE {facts.place} {again}"
        )
    return f"a new apply does it: tern apply --plan {facts.plan_id} {again}"


def _against_a_skip(facts: AdmissionFacts) -> list[str]:
    """Only what was never at an engine can be left behind without asking it."""
    if facts.state is State.FAILED:
        tries = "" if facts.has_remote_id else f"; `tern retry {facts.scope} --reason '…'` tries it again"
        return [f"it failed, and nothing waits for it any more{tries}"]
    if facts.state in {State.PENDING, State.STOPPED} and facts.was_never_dispatched:
        return []
    return [f"it is {facts.state}, and {_AT_THE_ENGINE.format(scope=facts.scope)}"]


def _said(state: State) -> str:
    return {
        State.WAITING_FOR_CUTOVER: "waiting for its cutover",
        State.REVERT_WINDOW: "in its revert window",
    }.get(state, state.value)

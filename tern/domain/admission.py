"""Where each verb is welcome: whether a wish is written down for one operation, with every unmet condition."""

from dataclasses import dataclass, replace
from typing import assert_never

from tern.domain.budget import is_spent
from tern.domain.control import (
    ADJUSTABLE,
    CONTRARY,
    LIVE_FOR_THE_APPLICATION,
    MOMENT,
    Receipt,
    ReceiptLine,
    Verb,
)
from tern.domain.doubt import Doubt, held_words, is_held
from tern.domain.policy import OnFailure, Policy
from tern.domain.states import ApplyState, State
from tern.domain.tally import Tally

_REVIVALS = frozenset({Verb.START, Verb.RETRY})


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """What decides whether a wish is taken for one operation."""

    state: State
    has_remote_id: bool
    remote_id: str = ""
    doubt: Doubt = Doubt.NONE
    """Whether the id may be its own work's at all."""
    although_foreign: str = ""
    """The id that the wish names, to be halted although it is other work."""
    open_although: str = ""
    """The id that the same verb names which is on its way already."""
    deployment: str = ""
    was_never_dispatched: bool = False
    """Nothing was sent, or its key is dead."""
    never_sent: bool = False
    """No driver ever claimed it for its engine."""
    drained: bool = False
    """Its deployment takes no new work."""
    stop_in_force: str | None = None
    """The stop, skip or cancel that covers it."""
    cancel_was_refused: bool = False
    """The cancel that covers it was sent, and its engine's last answer was a refusal."""
    although_cancel_refused: bool = False
    """Who asks for a start knows of that."""
    open_request: int | None = None
    """The request by which the same verb is on its way already."""
    is_overtaken: bool = False
    """That one, but its contrary was asked for since: a stop before a start, a start before a stop."""
    open_volume: int | None = None
    """What that request asks for, where the verb is volume."""
    open_verbs: frozenset[Verb] = frozenset()
    """All that is on its way."""
    target_holder: str | None = None
    """Another apply that holds the target, where this one no longer does."""
    carried_on_by: str | None = None
    """The follow-up that does its rest, and may act or has completed."""
    is_partly_done: bool = False
    """It has failed, and a person who looked has said that some of its statements are in."""
    is_all_done: bool = False
    """It has failed, and each of its statements is in, so that nothing is left."""
    is_asked_to_end: bool = False
    """It has failed, what was sent for it may still act, and a cancel of that is open."""
    comes_before: str = ""
    """The operations whose cutovers come before its own, in words, where cutovers follow an order."""
    scope: str = ""

    @property
    def is_revived(self) -> bool:
        """A start or a retry is on its way, so that `stopped` or `failed` won't last."""
        return bool(self.open_verbs & _REVIVALS)


@dataclass(frozen=True, slots=True)
class _Way:
    """A verb that leads out, as a phrase around its command. It is told only where that verb is taken."""

    verb: Verb
    phrase: str
    option: str = ""

    def command(self, facts: AdmissionFacts) -> str:
        """Ready to copy."""
        return f"`tern {self.verb} {facts.scope}{self.option} --reason '…'`"


@dataclass(frozen=True, slots=True)
class _Against:
    """One condition that is not met, and what leads out."""

    why: str
    ways: tuple[_Way, ...] = ()

    def told(self, facts: AdmissionFacts) -> str:
        """With every way out that is open in this very state."""
        open_ways = [way for way in self.ways if _is_taken(way, facts)]
        ways = [way.phrase.format(command=way.command(facts)) for way in open_ways]
        return self.why + (": " if ways else "") + ", ".join(ways)


def admit(verb: Verb, facts: AdmissionFacts, volume: int | None = None) -> ReceiptLine:
    """Whether a wish is written down for an operation; every unmet condition is in the reason."""
    if facts.although_foreign and (wrong := _wrongly_named(facts)):
        return ReceiptLine(facts.deployment, Receipt.REFUSED, wrong)
    if facts.open_request is not None and facts.although_foreign and not facts.open_although:
        why = f"the {verb} of request {facts.open_request} goes out to {facts.remote_id} although it is other work"
        return ReceiptLine(facts.deployment, Receipt.ACCEPTED, why)
    if facts.open_request is not None and not facts.is_overtaken:
        request = f"request {facts.open_request}"
        if verb is Verb.VOLUME and volume != facts.open_volume:
            why = f"a volume of {facts.open_volume} is on its way, by {request}; ask again when it is through"
            return ReceiptLine(facts.deployment, Receipt.REFUSED, why)
        return ReceiptLine(facts.deployment, Receipt.ALREADY, f"a {verb} is on its way, by {request}")
    if (outcome := _known_already(verb, facts)) is not None:
        return ReceiptLine(facts.deployment, outcome, f"it is {facts.state}", facts.state, facts.never_sent)
    if against := _unmet(verb, facts):
        why = "; ".join(each.told(facts) for each in against)
        return ReceiptLine(facts.deployment, Receipt.REFUSED, why)
    return ReceiptLine(facts.deployment, Receipt.ACCEPTED, _said_of_doubt(verb, facts))


def _is_taken(way: _Way, facts: AdmissionFacts) -> bool:
    """Whether the verb of a way out is welcome here, or just on its way."""
    asked = replace(facts, although_cancel_refused=bool(way.option))
    if _known_already(way.verb, asked) is not None:
        return False
    return not _unmet(way.verb, asked)


def _wrongly_named(facts: AdmissionFacts) -> str:
    """A person says of an id that it is other work: so it has to be that operation's, and in that doubt."""
    if facts.doubt is not Doubt.FOREIGN:
        return (
            f"nothing says that {facts.remote_id or 'its id'} is other work; ask without --although-foreign"
        )
    if facts.although_foreign != facts.remote_id:
        return f"its id is {facts.remote_id}, not {facts.although_foreign}"
    return ""


def _said_of_doubt(verb: Verb, facts: AdmissionFacts) -> str:
    """A halt is taken down in any doubt, and says what it waits for."""
    if not verb.is_halting or not facts.remote_id or facts.doubt is Doubt.NONE:
        return ""
    if facts.although_foreign:
        return f"it goes out to {facts.remote_id} although that is other work"
    return held_words(facts.doubt, facts.scope, facts.remote_id)


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


def _known_already(verb: Verb, facts: AdmissionFacts) -> Receipt | None:
    """What needs no wish: it is so already, or can't be so any more. None where the wish means something."""
    state, already, too_late = facts.state, Receipt.ALREADY, Receipt.TOO_LATE
    match verb:
        case Verb.STOP:
            if state.is_live or facts.is_revived:
                return None
            return already if state is State.STOPPED else too_late
        case Verb.CANCEL:
            if state is State.CANCELLED:
                return already
            return too_late if state.is_finished and not facts.is_revived else None
        case Verb.START:
            if state.is_finished:
                return too_late
            if facts.remote_id and facts.doubt is not Doubt.NONE:
                return None
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


def _unmet(verb: Verb, facts: AdmissionFacts) -> list[_Against]:
    """All that speaks against a wish that would mean something."""
    state = facts.state
    against: list[_Against] = []
    if facts.stop_in_force is not None and _is_kept_back(verb, facts):
        against.append(_covers(facts))
    if verb.is_forward and facts.remote_id and is_held(facts.doubt, may_halt_all_the_same=False):
        against.append(_Against(held_words(facts.doubt, facts.scope, facts.remote_id)))
    if verb.is_halting and state in LIVE_FOR_THE_APPLICATION:
        against.append(_LIVE if state is State.REVERT_WINDOW else _GOES_BACK)
    if verb in CONTRARY and CONTRARY[verb] in facts.open_verbs:
        against.append(_Against(f"a {CONTRARY[verb]} is on its way"))
    if verb in MOMENT and state is not MOMENT[verb]:
        against.append(_Against(f"it is {state}, not {_said(MOMENT[verb])}"))
    if verb is Verb.CUTOVER and facts.comes_before:
        against.append(_Against(f"cutovers follow the order, and before it come {facts.comes_before}"))
    if verb in _REVIVALS and facts.carried_on_by is not None:
        how = f"`tern get {facts.carried_on_by}` says how far that is"
        against.append(_Against(f"it is carried on by {facts.carried_on_by}, and {how}"))
    if verb in _REVIVALS and facts.target_holder is not None:
        against.append(_Against(f"its target is held by {facts.target_holder}"))
    if verb is Verb.START and facts.drained and state is State.STOPPED:
        opens = f"`tern deployments undrain {facts.deployment}` opens it"
        against.append(_Against(f"its deployment is drained, and {opens}"))
    if verb is Verb.RETRY and facts.carried_on_by is None:
        # Else what is left is the follow-up's, and nothing that is said of this one leads on.
        against += _against_a_retry(facts)
    if verb is Verb.SKIP:
        against += _against_a_skip(facts)
    if verb is Verb.VOLUME and not (state in ADJUSTABLE and facts.has_remote_id):
        against.append(_Against(f"it is {state}, and no engine works on it"))
    return against


_LIVE = _Against(
    "it is in its revert window, where the change is live and nothing is left to be stopped",
    (
        _Way(Verb.REVERT, "{command} takes the change back"),
        _Way(Verb.SKIP_REVERT, "{command} keeps it for good"),
    ),
)
_GOES_BACK = _Against(
    "it is reverting: a revert was asked for, nothing is left to be stopped, and skip-revert comes too late; it ends by"
    " itself"
)


def _is_kept_back(verb: Verb, facts: AdmissionFacts) -> bool:
    """A start supersedes a stop, and a refused cancel where its asker says so; nothing supersedes a skip. A stopped
    operation may be skipped.
    """
    stop = facts.stop_in_force
    if verb is Verb.START and stop == Verb.CANCEL.value:
        return not (facts.cancel_was_refused and facts.although_cancel_refused)
    if verb in {Verb.START, Verb.SKIP}:
        return stop != Verb.STOP.value
    return verb.is_forward


def _covers(facts: AdmissionFacts) -> _Against:
    if facts.stop_in_force == Verb.STOP.value:
        ways = (_Way(Verb.START, "{command} does"),)
        return _Against("a stop covers it that no start has superseded", ways)
    why = f"a {facts.stop_in_force} covers it, and that is permanent"
    if facts.stop_in_force != Verb.CANCEL.value or not facts.cancel_was_refused:
        return _Against(why)
    phrase = "its engine refused it, and {command} takes it back"
    return _Against(why, (_Way(Verb.START, phrase, " --although-cancel-refused"),))


def _against_a_retry(facts: AdmissionFacts) -> list[_Against]:
    """Only what failed, and has no id at its engine, is tried again here (D18)."""
    match facts.state:
        case State.UNCERTAIN:
            return [_Against(f"it is uncertain: `tern resolve {facts.scope} --as …` says what became of it")]
        case State.STOPPED:
            return [_Against("it is stopped", (_Way(Verb.START, "{command} resumes it"),))]
        case _ if facts.is_all_done:
            return [
                _Against("all of its statements are done, so nothing is left to be tried again or carried on")
            ]
        case _ if facts.has_remote_id:
            rest = f"`tern apply --rest-of {facts.scope}` carries on what is left there"
            return [_Against(f"it has a remote id, which is never replaced; {rest}")]
        case _ if facts.is_partly_done:
            rest = f"`tern apply --rest-of {facts.scope}` carries on what is left there"
            return [_Against(f"some of its statements are done, and a retry would run all of them; {rest}")]
        case _ if facts.doubt is Doubt.TAKEN:
            why = "its engine gave an id of what was sent for it to another operation as well"
            return [
                _Against(
                    f"{why}: first `tern resolve {facts.scope} --as same-work --reason '…'`, if it is its own"
                )
            ]
        case _ if facts.is_asked_to_end:
            settles = (
                f"`tern deployments settle {facts.deployment} --reason '…'` does once its engine answers"
            )
            why = "what was sent for it is outstanding, and a cancel of that is open, which would end a retry as well"
            return [_Against(f"{why}: a look that finds it ended settles it, or {settles}")]
        case _:
            return []


def _against_a_skip(facts: AdmissionFacts) -> list[_Against]:
    """Only what was never at an engine can be left behind without asking it."""
    if facts.state is State.FAILED:
        why = "it failed, and nothing waits for it any more"
        return [_Against(why, (_Way(Verb.RETRY, "{command} tries it again"),))]
    if facts.state in {State.PENDING, State.STOPPED} and facts.was_never_dispatched:
        return []
    why = f"it is {facts.state}, and its engine may have work of it"
    return [_Against(why, (_Way(Verb.CANCEL, "{command} ends that for good"),))]


def _said(state: State) -> str:
    return {
        State.WAITING_FOR_CUTOVER: "waiting for its cutover",
        State.REVERT_WINDOW: "in its revert window",
    }.get(state, state.value)

"""What each event of the record says to a person: the one table for `tern logs` and `tern audit`. Pure.

The record itself, its JSON and the log of the workers keep the names of the events: those are for programs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tern.domain.control import Delivery, Verb
from tern.domain.states import ApplyState, Event, State


@dataclass(frozen=True, slots=True)
class Told:
    """An event in words. by_person: somebody asked for it, or said it. in_audit: it is asked, or decided; the rest is
    what came of that, and belongs into the timeline alone. is_detail: another line beside it says the same.
    """

    words: str
    by_person: bool = False
    in_audit: bool = False
    is_detail: bool = False


_ARROWS: Final[Mapping[Event, Told]] = {
    Event.CLAIM: Told("a worker hands it to its engine"),
    Event.ANSWER_LOST: Told("its engine gave no usable answer; the same is tried again"),
    Event.REFUSE: Told("it was refused"),
    Event.LOSE_TRACK: Told("nobody can tell what became of it at its engine"),
    Event.WITHDRAW_STOPPED: Told("stopped, before anything ran at its engine", by_person=True),
    Event.WITHDRAW_CANCELLED: Told("cancelled, before anything ran at its engine", by_person=True),
    Event.SKIP: Told("left behind for good"),
    Event.RESUME: Told("its engine is asked to go on", by_person=True),
    Event.RESUME_REFUSED: Told("its engine refused to go on"),
    Event.RESUME_WITHDRAWN: Told("stopped again, before its engine was asked to go on"),
    Event.REQUEUE: Told("it waits for its turn again"),
    Event.RETRY: Told("it is tried again, and waits for its turn", by_person=True),
    Event.ADOPT: Told("its work at the engine is followed", is_detail=True),
    Event.REPEAT: Told("the same is sent once more", by_person=True),
    Event.END: Told("by a person's word, nothing of it runs any more", by_person=True, in_audit=True),
    Event.FINISH: Told("by a person's word, all of it is in", by_person=True, in_audit=True),
    Event.OBSERVE_RUNNING: Told("it runs at its engine"),
    Event.OBSERVE_WAITING_FOR_CUTOVER: Told("ready to cut over"),
    Event.OBSERVE_CUTTING_OVER: Told("cutting over"),
    Event.OBSERVE_REVERT_WINDOW: Told("live for the application, and can be reverted"),
    Event.OBSERVE_REVERTING: Told("being taken back"),
    Event.OBSERVE_COMPLETED: Told("completed"),
    Event.OBSERVE_FAILED: Told("failed"),
    Event.OBSERVE_STOPPED: Told("stopped"),
    Event.OBSERVE_CANCELLED: Told("cancelled"),
    Event.OBSERVE_REVERTED: Told("taken back"),
}
_OTHERS: Final[Mapping[str, Told]] = {
    "accepted": Told("the rollout was accepted", by_person=True, in_audit=True),
    "projected": Told("the rollout is {after}"),
    "verdict": Told("the rollout is {after}", in_audit=True),
    "summary": Told("its end was made known", is_detail=True),
    "released": Told("the pause was opened", by_person=True),
    "carried_on": Told("what is left of it is done by another rollout", by_person=True, in_audit=True),
    "remote_id_stored": Told("its engine took it"),
    "remote_id_kept": Told("its engine's answer came late, and was written down"),
    "remote_id_conflict": Told("its engine named another id than before, which was not taken"),
    "remote_id_taken": Told("its engine gave its id to another one as well"),
    "same_work": Told("by a person's word, the job of its id is this work", by_person=True, in_audit=True),
    "in_doubt": Told("what its engine says of its id is about other work"),
    "contradicted": Told("its engine says otherwise than what is known here"),
    "given_up": Told("by a person's word, its engine is gone", by_person=True, in_audit=True),
    "statement_settled": Told("a person said whether a statement is in", by_person=True, in_audit=True),
    "statements_told": Told("its engine said what became of its statements"),
    "outstanding_seen": Told("what was sent, and is followed no more, was seen at its engine"),
    "outstanding_same_job": Told("what was sent, and is followed no more, is this very job"),
    "outstanding_settled": Told("what was sent, and was followed no more, can act no more"),
    "outstanding_cancel_sent": Told("its engine was asked to end what is followed no more", by_person=True),
    "deployment_set": Told("its deployment was changed", by_person=True, in_audit=True),
    "deployment_drained": Told("its deployment was closed for new work", by_person=True, in_audit=True),
    "deployment_opened": Told("its deployment was opened for new work", by_person=True, in_audit=True),
    "deployment_removed": Told("its deployment was removed", by_person=True, in_audit=True),
}
_OF_VERBS: Final[Mapping[str, str]] = {
    "sent": "its engine was asked to {verb}",
    "unanswered": "its engine did not answer the {verb}; it is asked again",
    "refused": "its engine refused the {verb}; it is asked again",
    "unresolved": "the {verb} waits: what was sent before it has no answer yet",
    "looked": "its engine was asked where it is, for the {verb}",
    "withdrawn": "the {verb} was taken back before its engine was asked",
    Delivery.ACKNOWLEDGED.value: "the {verb} is done",
    Delivery.FAILED.value: "the {verb} came to nothing",
    Delivery.MOOT.value: "the {verb} was overtaken by something else",
    Delivery.TOO_LATE.value: "the {verb} came too late",
}
TELLINGS: Final[Mapping[str, Told]] = {
    **{event.value: told for event, told in _ARROWS.items()},
    **_OTHERS,
    **{
        f"{verb}_{end}": Told(words.format(verb=verb), by_person=True)
        for verb in Verb
        for end, words in _OF_VERBS.items()
    },
}
"""Every event that there is."""

ARROWS: Final = frozenset(event.value for event in Event)
"""Those that say that an operation is somewhere else than before."""

FATES: Final[Mapping[str, str]] = {
    Delivery.PENDING.value: "its engine has not been asked yet",
    Delivery.SENT.value: "its engine was asked, and it has not come about yet",
    Delivery.ACKNOWLEDGED.value: "done",
    Delivery.FAILED.value: "came to nothing",
    Delivery.MOOT.value: "overtaken by something else",
    Delivery.TOO_LATE.value: "too late",
}
"""What came of what was asked for, at one deployment."""

STATES: Final[Mapping[str, str]] = {
    **{state.value: state.value.replace("_", " ") for state in (*State, *ApplyState)},
    State.PENDING.value: "waiting",
    State.WAITING_FOR_CUTOVER.value: "ready to cut over",
    State.REVERT_WINDOW.value: "in its revert window",
    State.FAILED_RETRYABLE.value: "being tried again",
    ApplyState.RUNNING_DEGRADED.value: "running, though something failed or was left out",
}
"""Where something stands, within a sentence."""


def told_of(event: str) -> Told:
    """An event in words; of one that another version wrote, its name."""
    return TELLINGS.get(event) or Told(event.replace("_", " "))


def sentence(event: str, after: str) -> str:
    """What happened. after: the state that it led to."""
    return told_of(event).words.format(after=STATES.get(after, after.replace("_", " ")))


def is_by_person(event: str, why: str) -> bool:
    """Somebody asked for it; or said what became of an operation, by whatever arrow that leads on."""
    return told_of(event).by_person or why.startswith("resolved as ")


def is_in_audit(event: str, why: str) -> bool:
    """It was asked, said or decided; everything else only came of that."""
    return told_of(event).in_audit or why.startswith("resolved as ")

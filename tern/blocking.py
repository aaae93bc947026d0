"""What only a person moves on at one operation, whatever its rollout is at. Pure.

The other blockers, which depend on the rollout, are in view.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tern.domain.answer import GONE, answers, fitting, fitting_gone
from tern.domain.doubt import Doubt
from tern.domain.hint import Hint, cause_of, hint_of
from tern.domain.outstanding import Outstanding
from tern.facts import OperationRecord


@dataclass(frozen=True, slots=True)
class Blocker:
    """Something that only a person moves on, with the command that does and what it would do."""

    deployment: str
    what: str
    command: str
    consequence: str

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "deployment": self.deployment,
            "what": self.what,
            "command": self.command,
            "consequence": self.consequence,
        }


def matters(blockers: Sequence[Blocker]) -> tuple[tuple[Blocker, ...], ...]:
    """What is one matter with several ways out, together, so that it is told once."""
    found: dict[tuple[str, str], list[Blocker]] = {}
    for blocker in blockers:
        found.setdefault((blocker.deployment, blocker.what), []).append(blocker)
    return tuple(map(tuple, found.values()))


def blockers_of_silence(record: OperationRecord, scope: str, *, lost_contact: bool) -> Iterator[Blocker]:
    """Nobody there has been heard for so long that a person may say so; or what can be mended, by its cause."""
    name = record.deployment
    if record.unheard.is_gone and not record.state.is_finished:
        # First, because nothing is lost by it: a database often outlives the machine of its engine.
        what = f"its engine may be gone: {record.unheard.words}"
        command = f"tern deployments set {name} --address ADDRESS --same-engine --reason '…'"
        yield Blocker(name, what, command, "follows its work where an engine serves the same database by now")
        for command, consequence in answers(scope, fitting_gone(), GONE, option=" --engine-is-gone"):
            yield Blocker(name, what, command, consequence)
    if lost_contact:
        words, hint = record.poll_error or "its engine does not answer", hint_of_silence(record, scope)
        for command, consequence in hint.ways:
            yield Blocker(name, f"lost contact: {words} ({hint.what})", command, consequence)


def hint_of_silence(record: OperationRecord, scope: str) -> Hint:
    """Why nobody at its engine is heard, as far as its last look or dispatch tells, and what helps."""
    return hint_of(cause_of(record.poll_error or record.error_message), record.deployment, scope)


def blockers_of_outstanding(record: OperationRecord) -> Iterator[Blocker]:
    """At the operation whose it is, and at the one that waits for it."""
    for each in outstanding_of(record):
        for command, consequence in each.ways:
            yield Blocker(record.deployment, each.words, command, consequence)


def outstanding_of(record: OperationRecord) -> tuple[Outstanding, ...]:
    """What of it may still act although it follows it no more, and what of whomever it waits for; each once."""
    found = {each.call_id: each for each in (*record.outstanding, *filter(None, [record.held_by]))}
    return tuple(found.values())


def blockers_of_uncertain(record: OperationRecord, scope: str) -> Iterator[Blocker]:
    """The answers that fit now; and where its id turned out to be other work's, how to halt that. While a call may be
    answered nobody's word is taken, so none is printed.
    """
    name = record.deployment
    if record.word_in_s > 0:
        return
    what = f"uncertain: {record.error_message or 'nobody here can tell whether the engine did it'}"
    fit = fitting(has_remote_id=record.remote_id is not None, doubt=record.doubt)
    for command, consequence in answers(scope, fit):
        yield Blocker(name, what, command, consequence)
    if record.remote_id and record.doubt is Doubt.FOREIGN:
        command = f"tern stop {scope} --although-foreign={record.remote_id} --reason '…'"
        words = f"stops the job {record.remote_id} there, which is other work"
        yield Blocker(name, "its engine has other work under its id", command, words)


def blocker_of_stopped(record: OperationRecord, scope: str) -> Blocker:
    """A start is refused while somebody has its target, and under a drain, so what opens that is named first."""
    name, command = record.deployment, f"tern start {scope} --reason '…'"
    if (holder := record.blocked_by) is not None:
        what, why = f"stopped, and its target is held by {holder.words}", "says what moves that one on"
        return Blocker(name, what, f"tern explain {holder.scope}", why)
    if record.drained:
        opens = f"opens it; then it is resumed with: {command}"
        return Blocker(
            name, "stopped, and its deployment is drained", f"tern deployments undrain {name}", opens
        )
    return Blocker(name, "stopped", command, "resumes it where it was stopped")

"""What only a person moves on where an engine is silent, refuses us, or may still act on its own. Pure.

The other blockers, which depend on the rollout, are in view.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tern.domain.answer import PRINTED, fitting_gone, other_answers
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
    """Nobody there has been heard for so long that a person may say so; or somebody was, who refuses us."""
    if record.unheard.is_gone and not record.state.is_finished:
        # First, because nothing is lost by it: a database often outlives the machine of its engine.
        yield Blocker(
            record.deployment,
            f"its engine may be gone: {record.unheard.words}",
            f"tern deployments set {record.deployment} --address ADDRESS --same-engine --reason '…'",
            "follows its work where an engine serves the same database by now",
        )
        command = f"tern resolve {scope} --engine-is-gone --as {PRINTED} --reason '…'"
        consequence = (
            "frees its target in the books; what was sent stays outstanding, and holds whoever comes next;"
            f" say {other_answers(fitting_gone())}"
        )
        yield Blocker(
            record.deployment, f"its engine may be gone: {record.unheard.words}", command, consequence
        )
    elif lost_contact and not record.unheard.tries:
        words = record.poll_error or "its engine refuses us"
        command = f"tern deployments set {record.deployment} --token-ref REF --reason '…'"
        consequence = "mends the credentials, if they are it; --tls-ca, --tls-cert and --tls-key likewise"
        yield Blocker(record.deployment, f"lost contact: {words}", command, consequence)


def blockers_of_outstanding(record: OperationRecord) -> Iterator[Blocker]:
    """At the operation whose it is, and at the one that waits for it."""
    for each in outstanding_of(record):
        for command, consequence in each.ways:
            yield Blocker(record.deployment, each.words, command, consequence)


def outstanding_of(record: OperationRecord) -> tuple[Outstanding, ...]:
    """What of it may still act although it follows it no more, and what of whomever it waits for; each once."""
    found = {each.call_id: each for each in (*record.outstanding, *filter(None, [record.held_by]))}
    return tuple(found.values())

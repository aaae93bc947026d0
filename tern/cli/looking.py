"""Which operations a look is about: the selectors of the verbs, a cause, and by what they are grouped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tern.cause import chosen_by
from tern.cli.selection import read_selection, selection_options
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ApplyId
from tern.domain.selection import Member, Selection
from tern.domain.subject import Subject
from tern.grouping import WAVE, Grouped, grouped
from tern.operation import OperationView
from tern.view import ApplyView

if TYPE_CHECKING:
    from tern.store.reading import Reading

Command = Callable[..., Any]

by_option = click.option(
    "--by", default="", metavar="LABEL|wave", help="One line for each value of this label, or for each wave."
)
_cause_option = click.option(
    "--cause", default="", metavar="ID", help="Those of one cause, by its id in --json and in explain."
)


def looking_options(command: Command) -> Command:
    """The selectors of every verb, and `--cause`."""
    return selection_options(_cause_option(command))


@dataclass(frozen=True, slots=True)
class Look:
    """What was asked for."""

    selection: Selection
    cause: str

    @classmethod
    def read(cls, subject: Subject, *, cause: str, **selectors: Any) -> "Look":
        """Raises UsageError where selectors contradict each other."""
        return cls(read_selection(subject, **selectors), cause)

    @property
    def chooses(self) -> bool:
        """Something was asked for beside a whole apply, or one of its operations."""
        return self.selection.is_made or bool(self.cause)

    def chosen(self, view: ApplyView, reading: "Reading") -> tuple[OperationView, ...]:
        """Those that are meant, in rollout order; raises NotFound for a name, or a cause, that is not there."""
        labels = reading.labels(view.facts.apply_id) if self.selection.labels else {}
        found = self._selected(view, labels)
        if self.cause:
            of_cause = chosen_by(self.cause, view.needs, view.troubles)
            if of_cause is None:
                what = f"{view.facts.apply_id} has no cause {self.cause!r} now"
                step = f"`tern explain {view.facts.apply_id}` shows the causes that there are."
                raise NotFound(what, next_step=step)
            found &= of_cause
        return tuple(each for each in view.operations if each.deployment in found)

    def _selected(self, view: ApplyView, labels: Mapping[str, Mapping[str, str]]) -> frozenset[str]:
        members = [
            Member(each.deployment, each.state, labels.get(each.deployment, {}), each.record.wave)
            for each in view.operations
        ]
        try:
            return frozenset(self.selection.choose(view.facts.apply_id, members))
        except Refused as refused:
            if refused.reason == "SELECTION_EMPTY":
                # Nobody asked for anything to be done: that there is none is the answer.
                return frozenset()
            raise


def labels_by(by: str, apply_id: ApplyId, reading: "Reading") -> Mapping[str, Mapping[str, str]]:
    """What has to be read, once, to group by it."""
    return {} if by in {"", WAVE} else reading.labels(apply_id)


def grouped_by(view: ApplyView, by: str, labels: Mapping[str, Mapping[str, str]]) -> Grouped | None:
    """The groups; None where none were asked for."""
    return grouped(view, by, labels) if by else None


def names_of(chosen: Sequence[OperationView]) -> str:
    """One name a line, for `xargs` and `--deployment -`."""
    return "".join(f"{each.deployment}\n" for each in chosen)

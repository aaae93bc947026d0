"""Which operations of an apply a control is about: the same selectors on every verb."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tern.cli.address import read_labels
from tern.cli.subject import Subject
from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.states import State
from tern.facts import ApplyFacts, OperationRecord

Command = Callable[..., Any]


def selection_options(command: Command) -> Command:
    """`--deployment`, `-l`, `--state`, `--all`, `--except`."""
    for option in (
        click.option(
            "--except", "excepted", multiple=True, metavar="NAME", help="But not these. Repeatable."
        ),
        click.option("--all", "everywhere", is_flag=True, help="Every operation of the apply, explicitly."),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice([each.value for each in State]),
            help="Those in this state. Repeatable.",
        ),
        click.option(
            "--label", "-l", "labels", multiple=True, metavar="KEY=VALUE", help="Those with this label."
        ),
        click.option(
            "--deployment",
            "deployments",
            multiple=True,
            metavar="NAME",
            help="Those, by name. Repeatable; a,b works.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for, before the apply was looked at."""

    deployments: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    states: frozenset[State] = frozenset()
    everywhere: bool = False
    excepted: frozenset[str] = frozenset()

    @property
    def is_made(self) -> bool:
        """Something narrows the apply down, or says outright that all of it is meant."""
        return bool(self.deployments or self.labels or self.states or self.everywhere or self.excepted)

    @property
    def is_explicit(self) -> bool:
        """It says which operations go forward; taking some away says nothing about the others."""
        return bool(self.deployments or self.labels or self.states or self.everywhere)

    @classmethod
    def read(
        cls,
        subject: Subject,
        deployments: Sequence[str],
        labels: Sequence[str],
        states: Sequence[str],
        excepted: Sequence[str],
        *,
        everywhere: bool,
    ) -> "Selection":
        """Raises UsageError where selectors contradict each other."""
        named = tuple(
            dict.fromkeys(name.strip() for each in deployments for name in each.split(",") if name.strip())
        )
        made = cls(
            named or ((subject.deployment,) if subject.deployment else ()),
            read_labels(labels),
            frozenset(State(state) for state in states),
            everywhere,
            frozenset(name.strip() for each in excepted for name in each.split(",") if name.strip()),
        )
        narrowed = bool(named or labels or states)
        if subject.deployment and (narrowed or everywhere or made.excepted):
            what = f"{subject.scope} names its operation; no other selector fits"
            raise UsageError(what)
        if everywhere and narrowed:
            what = "--all means every operation; it can't be narrowed down by --deployment, -l or --state"
            raise UsageError(what)
        return made

    def choose(
        self, facts: ApplyFacts, labels_of: Callable[[], Mapping[str, Mapping[str, str]]]
    ) -> tuple[str, ...]:
        """The deployments meant, in rollout order; raises NotFound and Refused. Labels are only read where asked."""
        known = {record.deployment for record in facts.operations}
        unknown = [name for name in (*self.deployments, *sorted(self.excepted)) if name not in known]
        if unknown:
            what = f"{facts.apply_id} has no operation on {', '.join(unknown)}"
            raise NotFound(what, next_step=f"`tern get {facts.apply_id}` shows them.")
        labels = labels_of() if self.labels else {}
        chosen = tuple(record.deployment for record in facts.operations if self._wants(record, labels))
        if not chosen:
            what = f"no operation of {facts.apply_id} was selected"
            states = sorted({record.state.value for record in facts.operations})
            raise Refused(what, why=(f"its operations are {', '.join(states)}",), reason="SELECTION_EMPTY")
        return chosen

    def _wants(self, record: OperationRecord, labels: Mapping[str, Mapping[str, str]]) -> bool:
        return (
            (not self.deployments or record.deployment in self.deployments)
            and (not self.states or record.state in self.states)
            and (not self.labels or self.labels.items() <= dict(labels.get(record.deployment, {})).items())
            and record.deployment not in self.excepted
        )

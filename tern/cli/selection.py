"""The selectors that every control has, read into a choice of operations (domain/selection.py)."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from tern.cli.address import read_labels
from tern.domain.errors import UsageError
from tern.domain.selection import Selection
from tern.domain.states import State
from tern.domain.subject import Subject

Command = Callable[..., Any]
FROM_STDIN = "-"

expect_option = click.option(
    "--expect",
    "expected",
    type=click.IntRange(min=0),
    metavar="N",
    help="Refuse, and write nothing, unless it is accepted for so many; --dry-run says the number.",
)


def selection_options(command: Command) -> Command:
    """`--deployment`, `-l`, `--wave`, `--state`, `--all`, `--except`."""
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
            metavar="STATE",
            help="Those in this state, for example failed. Repeatable.",
        ),
        click.option("--wave", type=click.IntRange(min=1), metavar="N", help="Those of this wave."),
        click.option(
            "--label", "-l", "labels", multiple=True, metavar="KEY=VALUE", help="Those with this label."
        ),
        click.option(
            "--deployment",
            "deployments",
            multiple=True,
            metavar="NAME",
            help="Those, by name. Repeatable; a,b works, and - reads them from standard input.",
        ),
    ):
        command = option(command)
    return command


def read_selection(
    subject: Subject,
    deployments: Sequence[str] = (),
    labels: Sequence[str] = (),
    states: Sequence[str] = (),
    excepted: Sequence[str] = (),
    *,
    wave: int | None = None,
    everywhere: bool = False,
) -> Selection:
    """Raises UsageError where selectors contradict each other."""
    named = _names(deployments)
    if subject.deployment and (named or labels or states or everywhere or excepted or wave is not None):
        what = f"{subject.scope} names its operation; no other selector fits"
        raise UsageError(what)
    return Selection(
        named or ((subject.deployment,) if subject.deployment else ()),
        read_labels(labels),
        frozenset(State(state) for state in states),
        everywhere,
        frozenset(_names(excepted)),
        wave,
    )


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """Names as they are typed; `-` reads them from standard input. No name, of whatever origin, never means all."""
    typed = [each for each in given if each != FROM_STDIN]
    piped = sys.stdin.read().split() if FROM_STDIN in given else []
    named = tuple(
        dict.fromkeys(name.strip() for each in (*typed, *piped) for name in each.split(",") if name.strip())
    )
    if given and not named:
        what = f"no name of a deployment {'came through the pipe' if FROM_STDIN in given else 'was given'}"
        step = "Look at what stands before the pipe, or in the variable; --all means every operation."
        raise UsageError(what, next_step=step)
    return named

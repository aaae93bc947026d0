"""The options that say how a rollout goes, and a rollout's policy in words."""

from collections.abc import Callable, Iterator, Mapping
from shlex import quote
from typing import Any

import click
from click.core import ParameterSource

from tern.cli.wave import EXAMPLE, read_waves
from tern.cli.words import duration
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave

Command = Callable[..., Any]


def policy_options(command: Command) -> Command:
    """`--copy`, `--cutover`, `--on-failure`, `--max-parallel`, `--max-failures`, `--strict`, `--wave`,
    `--revert-window`.
    """
    for option in (
        click.option(
            "--revert-window",
            "enable_revert",
            is_flag=True,
            help="Engines keep a window after the cutover in which the change can be taken back.",
        ),
        click.option(
            "--wave",
            "waves",
            multiple=True,
            metavar="SELECTOR[;…]",
            help=f"One wave after the other: labels, names or *, with its own bounds, for example '{EXAMPLE}'.",
        ),
        click.option(
            "--strict",
            is_flag=True,
            help="Let one in only while failures and those under way are no more than --max-failures.",
        ),
        click.option(
            "--max-failures",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="So many are borne; one more is what --on-failure is about.",
        ),
        click.option("--max-parallel", type=click.IntRange(min=1), help="At most so many copy at once."),
        click.option(
            "--on-failure",
            type=click.Choice([each.value for each in OnFailure]),
            default="halt",
            show_default=True,
            help="What a failure too many does to deployments that have not started: they never do, they go on, or"
            " they wait for `tern release`.",
        ),
        click.option(
            "--cutover",
            type=click.Choice([each.value for each in Cutover]),
            default="auto",
            show_default=True,
            help="Whether a person says when the application gets to see the change.",
        ),
        click.option(
            "--copy",
            type=click.Choice([each.value for each in Copy]),
            default="rolling",
            show_default=True,
            help="One after the other; copies overlapping and cutovers in order; or all at the same time.",
        ),
    ):
        command = option(command)
    return command


def read_policy(options: Mapping[str, Any]) -> Policy:
    """From what was typed; raises UsageError for waves that can't be read."""
    return Policy(
        copy=Copy(options["copy"]),
        on_failure=OnFailure(options["on_failure"]),
        cutover=Cutover(options["cutover"]),
        max_parallel=options["max_parallel"],
        max_failures=options["max_failures"],
        strict=options["strict"],
        waves=read_waves(options["waves"]),
        enable_revert=options["enable_revert"],
    )


def said_policy(options: Mapping[str, Any]) -> Policy | None:
    """What was typed; None where nothing was, which leaves it to the plan that was reviewed, or to the defaults.

    Raises UsageError for waves that can't be read.
    """
    context = click.get_current_context()
    said = (context.get_parameter_source(name) for name in options)
    return None if all(source is ParameterSource.DEFAULT for source in said) else read_policy(options)


def typed_again(options: Mapping[str, Any]) -> str:
    """What was typed of it, to be copied behind a command; empty where nothing was."""
    context = click.get_current_context()
    words: list[str] = []
    for name, value in options.items():
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        option = {"enable_revert": "--revert-window", "waves": "--wave"}.get(
            name, f"--{name.replace('_', '-')}"
        )
        if isinstance(value, bool):
            words += [option] if value else []
        else:
            words += [
                f"{option} {quote(str(each))}" for each in (value if isinstance(value, tuple) else (value,))
            ]
    return " ".join(words)


def policy_words(policy: Policy) -> Iterator[str]:
    """What a person has to know of it, the usual left out."""
    yield policy.copy.value
    if policy.max_parallel is not None:
        yield f"{policy.max_parallel} at once"
    yield f"{policy.on_failure.value} on failure"
    if policy.max_failures or policy.strict:
        yield f"{policy.max_failures} borne" + (", strictly" if policy.strict else "")
    if policy.cutover is Cutover.MANUAL:
        yield "manual cutover"
    if policy.waves:
        yield f"{len(policy.waves)} waves"


def wave_words(wave: Wave) -> str:
    """One wave, with the bounds of its own."""
    words = [wave.selector]
    if wave.max_parallel is not None:
        words.append(f"{wave.max_parallel} at once")
    if wave.max_failures is not None:
        words.append(f"{wave.max_failures} borne")
    if wave.bake_s:
        words.append(f"bakes {duration(wave.bake_s)}")
    return ", ".join(words)

"""`tern help` and `tern version`: what people type before they have read anything."""

import textwrap
from collections.abc import Callable, Sequence

import click

from tern.cli.exit_codes import EXIT_CODES
from tern.domain.errors import UsageError

WIDEST = 100


@click.command(name="help")
@click.argument("words", nargs=-1, metavar="[COMMAND …]")
@click.pass_context
def help_(context: click.Context, /, words: Sequence[str]) -> None:
    """Say what tern, or one COMMAND of it, does. `tern help exit-codes` lists what a command ends with."""
    if len(words) == 1 and words[0] in TOPICS:
        click.echo(TOPICS[words[0]]())
        return
    found = context.find_root()
    command: click.Command = found.command
    for position, word in enumerate(words):
        if not isinstance(command, click.Group):
            what = f"{found.command_path} has no commands of its own, and {word!r} is none"
            raise UsageError(what, next_step=f"{found.command_path} --help")
        name, inner, _ = command.resolve_command(found, list(words[position:]))
        if name is None or inner is None:
            what = f"there is no command {word!r}"
            raise UsageError(what, next_step=f"{found.command_path} --help")
        command, found = inner, click.Context(inner, info_name=name, parent=found)
    click.echo(command.get_help(found))


@click.command()
def version() -> None:
    """Say which version this is."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - costs as much as the rest of the help

    click.echo(f"tern {installed('tern')}")


def exit_codes() -> str:
    """The table as it is shown on a terminal."""
    lines = ["What a command ends with:", ""]
    for code, means in EXIT_CODES.items():
        first, *more = textwrap.wrap(means.replace("`", ""), WIDEST - 6)
        lines += [f"{code:>5}  {first}", *(f"       {line}" for line in more)]
    return "\n".join(lines)


TOPICS: dict[str, Callable[[], str]] = {"exit-codes": exit_codes}

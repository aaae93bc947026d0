"""The one shape in which anything that went wrong is told: what, why, what stayed unchanged, what to do next."""

import logging
import os
import re
import traceback
from collections.abc import Mapping
from difflib import get_close_matches

import click

from tern.cli.envelope import write_document
from tern.cli.words import printable
from tern.domain.errors import TernError, UsageError, storage_unavailable
from tern.domain.redaction import without_secrets
from tern.domain.text import within
from tern.ports import StorageUnavailable

_WORDS: Mapping[int, str] = {
    2: "can't read that",
    3: "not found",
    4: "not allowed",
    5: "refused",
    69: "unreachable",
    75: "try again",
    78: "not set up",
}
_USAGE = 2
_QUOTED = re.compile(r"'([^']+)' is not one of")


class UnexpectedError(TernError):
    """A mistake in Tern itself, or in what it stands on."""


def tell(error: Exception, *, as_json: bool, stays: bool = False, command: str = "tern") -> int:
    """Writes the error to stderr, and with `--json` as the one document on stdout; returns the exit code.

    A process that stays writes a log, and its last word is a line of it: one JSON object where that is wanted.
    command: as far as it could be read, for an error that does not know where it happened.
    """
    shaped = _without_secrets(_shaped(error, command))
    if stays and os.environ.get("TERN_LOG_FORMAT") == "json":
        _log(shaped, error)
        return shaped.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(f"{error.message}\n", err=True)
    if debugging():
        click.echo(without_secrets("".join(traceback.format_exception(error))), err=True)
    if as_json:
        write_document(
            "error",
            {
                "reason": shaped.reason,
                "what": shaped.what,
                "why": list(shaped.why),
                "unchanged": shaped.unchanged,
                "next": shaped.next_step,
                "exit_code": shaped.exit_code,
            },
        )
    click.echo(render(shaped), err=True, color=None if not os.environ.get("NO_COLOR") else False)
    return shaped.exit_code


def _log(shaped: TernError, error: Exception) -> None:
    """One line; the traceback of what nobody expected is in it, with its secrets taken out."""
    from tern.observe import configure  # noqa: PLC0415 - only where something went wrong

    configure("json")
    fields = {
        "reason": shaped.reason,
        "why": list(shaped.why),
        "unchanged": shaped.unchanged,
        "next": shaped.next_step,
        "exit_code": shaped.exit_code,
    }
    trace = error if debugging() or isinstance(shaped, UnexpectedError) else None
    logging.getLogger("tern").critical(shaped.what, exc_info=trace, extra={"fields": fields})


def render(error: TernError) -> str:
    """The error as lines of text. What was typed, or said by an engine, does nothing to the terminal."""
    word = click.style(_WORDS.get(error.exit_code, "failed"), fg="red", bold=True)
    lines = [f"{word}: {printable(error.what)}"]
    lines += [f"  {'why:' if n == 0 else '':<11}{printable(line)}" for n, line in enumerate(error.why)]
    if error.unchanged:
        lines.append(f"  {'unchanged:':<11}{printable(error.unchanged)}")
    if error.next_step:
        lines.append(f"  {'next:':<11}{printable(error.next_step)}")
    return "\n".join(lines)


def debugging() -> bool:
    """Whether somebody wants to see tracebacks; read without the settings, which may be what is wrong."""
    return os.environ.get("TERN_DEBUG", "").lower() in {"1", "true", "yes", "on"}


def _without_secrets(error: TernError) -> TernError:
    """A driver's words may repeat the address that it was given."""
    error.what, error.unchanged = without_secrets(error.what), without_secrets(error.unchanged)
    error.why, error.next_step = tuple(map(without_secrets, error.why)), without_secrets(error.next_step)
    return error


def _shaped(error: Exception, command: str) -> TernError:
    match error:
        case TernError():
            return error
        case StorageUnavailable():
            return storage_unavailable(*((str(error),) if str(error) else ()))
        case click.ClickException():
            return _usage(error, command)
        case UnicodeEncodeError():
            # Bytes of the command line that are no text; no server takes them, and so nothing was written.
            return UsageError("what was given is not UTF-8 text", next_step="tern --help")
        case _:
            words = within(" ".join(str(error).split()), 300)
            return UnexpectedError(
                f"{type(error).__name__}: {words}" if words else type(error).__name__,
                unchanged="",
                next_step="Set TERN_DEBUG=1 to see where, and report it.",
            )


class _UnreadableError(TernError):
    exit_code = _USAGE
    default_reason = "USAGE"


def _usage(error: click.ClickException, command: str) -> TernError:
    if isinstance(error, click.UsageError) and error.ctx:
        command = error.ctx.command_path
    match error:
        case click.exceptions.NoArgsIsHelpError():
            first = "tern doctor" if command == "tern" else f"{command} --help"
            return _UnreadableError(f"{command} needs a command", next_step=first)
        case click.NoSuchOption() | click.exceptions.NoSuchCommand() if error.possibilities:
            prefix = f"{command} " if isinstance(error, click.exceptions.NoSuchCommand) else ""
            meant = " or ".join(f"{prefix}{each}" for each in error.possibilities)
            why: tuple[str, ...] = (f"did you mean {meant}?",)
            message = error.message
        case click.BadParameter(param=click.Parameter(type=click.Choice() as choice)):
            message = error.format_message()
            why = _similar(message, [str(each) for each in choice.choices])
        case _:
            message, why = error.format_message(), ()
    what = message[:1].lower() + message[1:].rstrip(".")
    return _UnreadableError(what, why=why, next_step=f"{command} --help")


def _similar(message: str, choices: list[str]) -> tuple[str, ...]:
    """What may have been meant by a word that is none of the choices; click quotes it first."""
    found = _QUOTED.search(message)
    near = get_close_matches(found[1].lower(), choices, n=1) if found else []
    return (f"did you mean {near[0]}?",) if near else ()

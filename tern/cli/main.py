"""The door: finds the command, runs it, and turns whatever comes out into one error shape and one exit code.

Nothing heavy is imported here, so that `tern --help` answers at once; a command's module comes with the command.
"""

import errno
import gc
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn, TextIO

import click

from tern.cli import symbols
from tern.native import keep_quiet

INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141
UNWRITABLE = 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Entry(NamedTuple):
    """Where a command lives and what the list says about it."""

    family: str
    module: str
    name: str
    short_help: str


COMMANDS: Mapping[str, Entry] = {
    "demo": Entry("Start here", "local", "demo", "A real change on three real databases, on this machine."),
    "up": Entry("Start here", "local", "up", "PostgreSQL, Valkey, worker, beat, Flower until Ctrl-C."),
    "doctor": Entry("Start here", "doctor", "doctor", "What is set up, what answers, what to do next."),
    "deployments": Entry("Change", "deployments", "deployments", "The places that a change can go."),
    "plan": Entry("Change", "plan", "plan", "What a change would do on each target; changes nothing."),
    "apply": Entry("Change", "apply", "apply", "Roll a change out."),
    "ls": Entry("Look", "listing", "ls", "The newest applies."),
    "get": Entry("Look", "show", "get", "One apply, now."),
    "watch": Entry("Look", "watch", "watch", "One apply until it settles or needs you."),
    "wait": Entry("Look", "watch", "wait", "Wait silently for one outcome."),
    "explain": Entry("Look", "explain", "explain", "All reasons why something does not move."),
    "logs": Entry("Look", "logs", "logs", "Who did what, when, and what came of it."),
    "enqueued": Entry(
        "Look", "enqueued", "enqueued", "What became of a key, for those who enqueue by message."
    ),
    "audit": Entry(
        "Look", "audit", "audit", "Who asked for what, what came of it, and whether the record holds."
    ),
    "stop": Entry("Control", "control", "stop", "Halt, so that it can be resumed."),
    "start": Entry("Control", "control", "start", "Resume what was stopped."),
    "cutover": Entry("Control", "control", "cutover", "Let the application see the change."),
    "cancel": Entry("Control", "control", "cancel", "End it for good."),
    "retry": Entry("Control", "control", "retry", "Try again what failed without an id."),
    "skip": Entry("Control", "control", "skip", "Leave a deployment behind."),
    "release": Entry("Control", "control", "release", "Let a paused rollout go on, once."),
    "revert": Entry("Control", "control", "revert", "Take a change back in its revert window."),
    "skip-revert": Entry("Control", "control", "skip_revert", "Close the revert window early."),
    "volume": Entry("Control", "control", "volume", "How hard engines work, 1 to 11."),
    "resolve": Entry("Control", "resolve", "resolve", "Say what became of an uncertain operation."),
    "serve": Entry("Run", "serve", "serve", "Tern's door for other services, over gRPC."),
    "engine": Entry("Run", "engine", "engine", "The PostgreSQL engine of one deployment."),
    "worker": Entry("Run", "process", "worker", "A worker that drives rollouts."),
    "beat": Entry("Run", "process", "beat", "The regular bells."),
    "flower": Entry("Run", "process", "flower", "The page that shows the workers."),
    "proto": Entry("Run", "proto", "proto", "The contracts: .proto files for other languages."),
    "db": Entry("Run", "db", "db", "Tern's own database: upgrade, current, check, downgrade."),
    "help": Entry("Help", "help", "help_", "What a command does; `tern help exit-codes`."),
    "version": Entry("Help", "help", "version", "Which version this is."),
}
# What other tools call it, where the spelling alone does not lead there.
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("status", "show", "describe", "info"), "get"),
    **dict.fromkeys(("list", "applies", "ps"), "ls"),
    **dict.fromkeys(("pause", "halt"), "stop"),
    **dict.fromkeys(("resume", "unpause"), "start"),
    **dict.fromkeys(("abort", "kill", "delete"), "cancel"),
    **dict.fromkeys(("rollback", "undo"), "revert"),
    **dict.fromkeys(("continue", "unblock"), "release"),
    **dict.fromkeys(("run", "rollout", "deploy"), "apply"),
    **dict.fromkeys(("migrate", "upgrade"), "db"),
    **dict.fromkeys(("why", "reasons"), "explain"),
    **dict.fromkeys(("events", "history"), "logs"),
    **dict.fromkeys(("targets", "deployment"), "deployments"),
    **dict.fromkeys(("check", "health"), "doctor"),
    "follow": "watch",
}

STAY = {("worker",), ("beat",), ("flower",), ("serve",), ("engine", "serve")}
"""Those that run until they are told to end, and whose stderr is a log."""


class LazyGroup(click.Group):
    """Lists its commands from the table above and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(f"tern.cli.{entry.module}"), entry.name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises NoSuchCommand with what may have been meant: click knows only of commands that are imported."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            meant = _ELSEWHERE.get(error.command_name.lower()) or _looks_at(error.command_name)
            similar = [meant] if meant else list(COMMANDS)
            found = click.exceptions.NoSuchCommand(error.command_name, possibilities=similar, ctx=ctx)
            if meant:
                found.possibilities = [meant]  # type: ignore[misc]
            raise found from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By family, so that a newcomer finds the beginning."""
        del ctx
        width = max(len(name) for name in COMMANDS)
        for family in dict.fromkeys(entry.family for entry in COMMANDS.values()):
            with formatter.section(family):
                formatter.write_dl(
                    [
                        (name.ljust(width), entry.short_help)
                        for name, entry in COMMANDS.items()
                        if entry.family == family
                    ]
                )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`tern COMMAND --help` says more. Looking never touches anything; going is always explicit.",
)
@click.version_option(package_name="tern", message="tern %(version)s")
def tern() -> None:
    """Rolls one reviewed schema change out to many deployments, and never guesses."""


def _looks_at(word: str) -> str:
    """An id alone is looked at; empty for any other word."""
    verbs = {"apl": "get", "pln": "plan show"}
    return next((f"{verb} {word}" for kind, verb in verbs.items() if word.startswith(f"{kind}-")), "")


class _Terminated(BaseException):
    """SIGTERM came; whatever was being waited for goes on without us."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and ends the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    keep_quiet()
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        symbols.use(stream)
    signal.signal(signal.SIGTERM, _raise_terminated)
    # A look at ten thousand operations makes a million objects that all stay: to search them for cycles is in vain.
    gc.set_threshold(200_000)
    try:
        code = run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # `tern ls | head`: nobody reads on.
        code = PIPE_CLOSED
        _leave(sys.stdout)
    except OSError as error:
        # A full disk: of what was asked for, only the answer is lost.
        code = UNWRITABLE
        _leave(sys.stdout)
        try:
            click.echo(f"failed: the answer can't be written: {error.strerror}", err=True)
        except OSError:
            _leave(sys.stderr)
    sys.exit(code)


def _open_what_is_closed() -> None:
    """`tern ls >&-`: what is said there is for nobody, and no failure."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115


def _leave(stream: TextIO) -> None:
    """The interpreter's own last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(words: Sequence[str]) -> int:
    """The exit code of one command line; whatever goes wrong is told on stderr."""
    try:
        answer = tern.main(list(words), prog_name="tern", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except _Terminated:
        return TERMINATED
    except SystemExit:
        # Click's way out when nobody reads stdout any more, and its only one here.
        return PIPE_CLOSED
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:
            # It was no file of ours that could not be written, but the answer.
            raise
        return _told(error, words)
    except Exception as error:  # noqa: BLE001 - the last line of defence: never a traceback at a user
        return _told(error, words)
    return answer if isinstance(answer, int) else 0


def _told(error: Exception, words: Sequence[str]) -> int:
    from tern.cli.failure import tell  # noqa: PLC0415 - only where something went wrong

    command = " ".join(["tern", *([words[0]] if words and words[0] in COMMANDS else [])])
    stays = tuple(words[:1]) in STAY or tuple(words[:2]) in STAY
    return tell(error, as_json="--json" in words, stays=stays, command=command)


def _raise_terminated(_number: int, _frame: object) -> NoReturn:
    raise _Terminated

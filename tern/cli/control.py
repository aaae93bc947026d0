"""`tern stop | start | cutover | cancel | retry | skip | release | revert | skip-revert | volume`: wishes.

Accepted is not done; each operation gets its own answer.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from tern.cli import reach
from tern.cli import receipt as receipts
from tern.cli.envelope import json_option, talk, write_document
from tern.cli.seconds import Seconds
from tern.cli.selection import expect_option, read_selection, selection_options
from tern.cli.words import plural
from tern.domain.control import VOLUMES, Receipt, Verb
from tern.domain.errors import UsageError
from tern.domain.selection import Selection
from tern.domain.states import ApplyState
from tern.domain.subject import Subject
from tern.facts import ApplyFacts
from tern.ports import Asked, StorageUnavailable, WishReceipt
from tern.store.reading import Reading

TIMED_OUT = 124
LOOK_EVERY_S = 0.5

_HELP: Mapping[Verb, str] = {
    Verb.STOP: "Halt an apply or some of its operations, so that they can be resumed. A whole apply needs no selector.",
    Verb.START: "Resume operations that were stopped. With several operations, say which: AP/DEPLOYMENT, --all, …",
    Verb.CUTOVER: "Let the application see the change, where it is ready. With several operations, say which.",
    Verb.CANCEL: "End an apply or some of its operations for good. A whole apply needs no selector.",
    Verb.RETRY: "Try failed operations again that no engine gave an id, each in its turn. One that has an id needs a"
    " new apply: the answer says which command.",
    Verb.SKIP: "Leave deployments behind for good that nothing was ever sent to, so that the others go on.",
    Verb.RELEASE: "Let a rollout go on that failures have paused. It opens this pause, once: the next failure too many"
    " pauses it again.",
    Verb.REVERT: "Take the change back, where it is in its revert window. With several operations, say which.",
    Verb.SKIP_REVERT: "Close the revert window early, so that the change stays. With several operations, say which.",
    Verb.VOLUME: f"Set how hard engines work: LEVEL is {VOLUMES[0]} (a whisper) to {VOLUMES[-1]} (all they have).",
}

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Typed:
    """One control as it was typed."""

    verb: Verb
    subject: Subject
    selection: Selection
    reason: str
    dry_run: bool
    waits: bool
    timeout: float | None
    as_json: bool
    expected: int | None = None
    volume: int | None = None


def _command(verb: Verb) -> click.Command:
    @click.command(name=verb.value, help=_HELP[verb])
    @click.argument("subject", metavar="AP" if verb is Verb.RELEASE else "AP[/DEPLOYMENT]")
    @_arguments_of(verb)
    @click.option("--reason", required=True, help="Why; it stands in the record.")
    @click.option("--dry-run", is_flag=True, help="Answer for each operation, write nothing.")
    @click.option("--wait", "waits", is_flag=True, help="Until the effect has been observed everywhere.")
    @click.option(
        "--timeout",
        type=Seconds(),
        metavar="SECONDS",
        help="How long --wait waits; then the exit code is 124.",
    )
    @json_option
    def command(subject: str, **options: Any) -> int:
        named = Subject.read(subject)
        selectors = ("deployments", "labels", "states", "excepted", "everywhere", "wave")
        chosen = {name: options.pop(name) for name in selectors if name in options}
        selection = read_selection(named, **chosen)
        if not str(options["reason"]).strip():
            what = f"a {verb} needs a reason"
            raise UsageError(what, next_step="Say why with --reason.")
        if options["timeout"] is not None and not options["waits"]:
            what = "--timeout is for --wait"
            raise UsageError(what)
        return _ask(_Typed(verb, named, selection, **options))

    return command


def _arguments_of(verb: Verb) -> Callable[[Command], Command]:
    """What not every verb has: a level for volume, and operations to choose for all but release."""

    def add(command: Command) -> Command:
        if verb is Verb.RELEASE:
            return command
        level = click.argument("volume", metavar="LEVEL", type=click.IntRange(VOLUMES[0], VOLUMES[-1]))
        command = selection_options(expect_option(command))
        return level(command) if verb is Verb.VOLUME else command

    return add


stop = _command(Verb.STOP)
start = _command(Verb.START)
cutover = _command(Verb.CUTOVER)
cancel = _command(Verb.CANCEL)
retry = _command(Verb.RETRY)
skip = _command(Verb.SKIP)
release = _command(Verb.RELEASE)
revert = _command(Verb.REVERT)
skip_revert = _command(Verb.SKIP_REVERT)
volume = _command(Verb.VOLUME)


def _ask(typed: _Typed) -> int:
    from tern.flows.accept import ask  # noqa: PLC0415

    asked = Asked(
        typed.verb,
        typed.subject.apply_id,
        typed.selection,
        reach.caller(),
        typed.reason,
        dry_run=typed.dry_run,
        expected=typed.expected,
        volume=typed.volume,
    )
    receipt = ask(asked, reach.ports(ringing=not typed.dry_run))
    if typed.dry_run or not typed.waits:
        return _answer(typed, receipt, {})
    accepted = receipts.count(receipt.lines, Receipt.ACCEPTED)
    if accepted and not typed.as_json:
        talk(f"{typed.verb} accepted for {plural(accepted, 'operation')}; waiting for its effect")
    fates = _wait(typed, reach.reading(), receipt)
    if fates is None:
        talk(f"not observed within {typed.timeout:g} s; the wish stays open: tern get {asked.apply_id}")
        _answer(typed, receipt, {})
        return TIMED_OUT
    return _answer(typed, receipt, fates)


def _wait(typed: _Typed, reading: Reading, receipt: WishReceipt) -> Mapping[str, str] | None:
    """Each operation's fate once nothing of the wish is open any more; None when time is up."""
    concerned = {
        line.deployment for line in receipt.lines if line.outcome in {Receipt.ACCEPTED, Receipt.ALREADY}
    }
    deadline = None if typed.timeout is None else time.monotonic() + typed.timeout
    while True:
        try:
            fates = _fates(typed.verb, reading.apply(typed.subject.apply_id), concerned)
        except StorageUnavailable:
            fates = None
        if fates is not None:
            return fates
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(LOOK_EVERY_S)


def _fates(verb: Verb, facts: ApplyFacts, concerned: set[str]) -> Mapping[str, str] | None:
    """What became of the wish, None while some of it is open."""
    if verb is Verb.RELEASE:
        return None if concerned and facts.state is ApplyState.PAUSED else {}
    wishes = {
        record.deployment: [wish for wish in record.wishes if wish.verb is verb]
        for record in facts.operations
        if record.deployment in concerned
    }
    if any(wish.fate.is_open for each in wishes.values() for wish in each):
        return None
    return {name: each[-1].fate.value for name, each in wishes.items() if each}


def _answer(typed: _Typed, receipt: WishReceipt, fates: Mapping[str, str]) -> int:
    """Writes the receipt; the exit code says whether all, some or none was taken."""
    apply_id = typed.subject.apply_id
    if typed.as_json:
        write_document(
            "receipt",
            {
                "request_id": receipt.request_id,
                "apply_id": apply_id,
                "verb": typed.verb.value,
                "volume": typed.volume,
                "reason": typed.reason,
                "actor": reach.caller(),
                "dry_run": typed.dry_run,
                **receipts.as_json(receipt.lines, fates),
            },
        )
    else:
        title = f"{typed.verb} of {apply_id}"
        receipts.show(title, receipt.lines, fates, whole=apply_id, dry_run=typed.dry_run)
        if receipt.request_id is not None and not fates:
            click.echo(f"Accepted is not done yet. Next: tern watch {apply_id}")
    return receipts.exit_code(receipt.lines, was_selected=typed.selection.is_made, fates=fates)

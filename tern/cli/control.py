"""`tern stop | start | cutover | cancel | retry | skip | release | revert | skip-revert | volume`: wishes.

Accepted is not done; each operation gets its own answer.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from tern.cli import reach
from tern.cli import receipt as receipts
from tern.cli.envelope import json_option, talk, write_document
from tern.cli.receipt import EXIT_CODES
from tern.cli.seconds import Seconds
from tern.cli.selection import expect_option, read_selection, selection_options
from tern.cli.words import plural
from tern.domain.control import VOLUMES, Receipt, Verb
from tern.domain.ending import Ending, Seen, answered, ending, exit_code, is_followed, release_ending
from tern.domain.errors import UsageError
from tern.domain.selection import Selection
from tern.domain.states import ApplyState, State
from tern.domain.subject import Subject
from tern.domain.timing import LOST_CONTACT_AFTER
from tern.facts import ApplyFacts, OperationRecord, WishFacts
from tern.ports import Asked, StorageUnavailable, WishReceipt
from tern.store.reading import Reading

TIMED_OUT = 124
LOOK_EVERY_S = 0.5
MOST_NAMED = 6

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
    although_cancel_refused: bool = False
    although_foreign: str = ""
    outstanding: bool = False


def _command(verb: Verb) -> click.Command:
    @click.command(name=verb.value, help=_HELP[verb], epilog=EXIT_CODES)
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


_although_option = click.option(
    "--although-cancel-refused",
    is_flag=True,
    help="Take back a cancel too whose engine refused it; any other cancel is permanent.",
)


_foreign_option = click.option(
    "--although-foreign",
    default="",
    metavar="ID",
    help="Send it although the operation's id turned out to be other work's: that id.",
)


_outstanding_option = click.option(
    "--outstanding",
    is_flag=True,
    help="End what was sent and is followed no more, by its own id; not the operation.",
)


def _arguments_of(verb: Verb) -> Callable[[Command], Command]:
    """What not every verb has: a level for volume, and operations to choose for all but release."""

    def add(command: Command) -> Command:
        if verb is Verb.RELEASE:
            return command
        level = click.argument("volume", metavar="LEVEL", type=click.IntRange(VOLUMES[0], VOLUMES[-1]))
        command = selection_options(expect_option(command))
        if verb is Verb.START:
            command = _although_option(command)
        if verb.is_halting:
            command = _foreign_option(command)
        if verb is Verb.CANCEL:
            command = _outstanding_option(command)
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
        although_cancel_refused=typed.although_cancel_refused,
        although_foreign=typed.although_foreign,
        outstanding=typed.outstanding,
    )
    receipt = ask(asked, reach.ports(ringing=not typed.dry_run))
    if typed.dry_run or not typed.waits:
        return _answer(typed, receipt)
    accepted = receipts.count(receipt.lines, Receipt.ACCEPTED)
    if accepted and not typed.as_json:
        talk(f"{typed.verb} accepted for {plural(accepted, 'operation')}; waiting for its effect")
    waited = _wait(typed, reach.reading(), receipt)
    if waited is None:
        talk(f"not observed within {typed.timeout:g} s; the wish stays open: tern get {asked.apply_id}")
        _answer(typed, receipt)
        return TIMED_OUT
    return _answer(typed, receipt, waited)


@dataclass(frozen=True, slots=True)
class _Waited:
    """What became of the wish, by deployment: the fate of its delivery, and what it came to."""

    fates: Mapping[str, str]
    endings: Mapping[str, Ending]
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why nobody knows, where nobody does."""


def _wait(typed: _Typed, reading: Reading, receipt: WishReceipt) -> _Waited | None:
    """What became of the wish, once no operation is on its way any more; None when time is up."""
    deadline = None if typed.timeout is None else time.monotonic() + typed.timeout
    while True:
        try:
            facts = reading.apply(typed.subject.apply_id)
            waited = (
                _look_outstanding(facts, receipt) if typed.outstanding else _look(typed.verb, facts, receipt)
            )
        except StorageUnavailable:
            waited = None
        if waited is not None:
            return waited
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(LOOK_EVERY_S)


def _look(verb: Verb, facts: ApplyFacts, receipt: WishReceipt) -> _Waited | None:
    """None while an operation is on its way."""
    endings = {line.deployment: answered(verb, line) for line in receipt.lines}
    followed = {line.deployment for line in receipt.lines if is_followed(verb, line)}
    if verb is Verb.RELEASE:
        found = release_ending(receipt.request_id, facts.state, facts.release) if followed else None
        if found is not None:
            endings |= dict.fromkeys(followed, found)
        return None if followed and found is None else _Waited({}, endings)
    is_held = facts.state is ApplyState.PAUSED or facts.state.is_settled
    fates: dict[str, str] = {}
    unknown: dict[str, str] = {}
    for record in facts.operations:
        if record.deployment not in followed:
            continue
        wish = _wish_of(verb, record, receipt.request_id)
        seen = Seen(
            record.state,
            None if wish is None else wish.fate,
            never_sent=record.attempt == 0,
            lost_contact=record.poll_failures >= LOST_CONTACT_AFTER,
            is_held=is_held,
        )
        found = ending(verb, seen)
        if found is None:
            return None
        endings[record.deployment] = found
        if found is Ending.UNKNOWN:
            unknown[record.deployment] = (
                "it is uncertain, and nobody here can tell whether it runs"
                if record.state is State.UNCERTAIN
                else f"its engine does not answer, and {record.state} is only the last that is known of it"
            )
        if wish is not None:
            fates[record.deployment] = wish.fate.value
    return _Waited(fates, endings, unknown)


def _look_outstanding(facts: ApplyFacts, receipt: WishReceipt) -> _Waited | None:
    """None while anything of them is outstanding that was asked to end."""
    endings = {
        line.deployment: Ending.NOT_DONE if line.outcome is Receipt.REFUSED else Ending.DONE
        for line in receipt.lines
    }
    asked = {name for name, ending_ in endings.items() if ending_ is Ending.DONE}
    if any(record.outstanding for record in facts.operations if record.deployment in asked):
        return None
    return _Waited({}, endings)


def _wish_of(verb: Verb, record: OperationRecord, request_id: int | None) -> WishFacts | None:
    """The wish that was accepted here, or else the one that it was linked to."""
    wishes = [wish for wish in record.wishes if wish.verb is verb]
    own = [wish for wish in wishes if wish.request_id == request_id]
    return next(reversed(own or wishes), None)


def _answer(typed: _Typed, receipt: WishReceipt, waited: _Waited | None = None) -> int:
    """Writes the receipt; the exit code says whether all, some or none was taken, or what came of it."""
    apply_id = typed.subject.apply_id
    fates = {} if waited is None else waited.fates
    endings = {} if waited is None else waited.endings
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
                **receipts.as_json(receipt.lines, fates, endings),
            },
        )
    else:
        title = f"{typed.verb} of {apply_id}"
        receipts.show(
            title,
            receipt.lines,
            fates,
            whole=apply_id,
            dry_run=typed.dry_run,
            expects=typed.verb is not Verb.RELEASE,
        )
        if receipt.request_id is not None and not typed.waits:
            click.echo(f"Accepted is not done yet. Next: {_next(typed, receipt)}")
    if waited is not None:
        if waited.unknown and not typed.as_json:
            name, why = next(iter(waited.unknown.items()))
            more = f" (and at {len(waited.unknown) - 1:,} more)" if len(waited.unknown) > 1 else ""
            talk(
                f"what came of it at {name}{more} is unknown: {why}; look there: tern explain {apply_id}/{name}"
            )
        return _ends_with(typed, waited.endings, fates)
    return _ends_with(typed, {line.deployment: answered(typed.verb, line) for line in receipt.lines}, {})


def _next(typed: _Typed, receipt: WishReceipt) -> str:
    """What shows its effect: a rollout that is over is not followed any more, one operation of it can be looked at."""
    apply_id = typed.subject.apply_id
    if not typed.outstanding:
        return f"tern watch {apply_id}"
    first = next((line.deployment for line in receipt.lines if line.outcome is Receipt.ACCEPTED), "")
    return f"tern get {apply_id}/{first}" if first else f"tern get {apply_id}"


def _ends_with(typed: _Typed, endings: Mapping[str, Ending], fates: Mapping[str, str]) -> int:
    """The exit code, and beside it in words why it is none of 0."""
    code = exit_code(endings.values())
    against = [name or typed.subject.apply_id for name, each in endings.items() if each is Ending.NOT_DONE]
    if against and not typed.as_json:
        more = f" and {len(against) - MOST_NAMED:,} more" if len(against) > MOST_NAMED else ""
        what = "did not come about" if fates or typed.waits else "was not taken"
        apply_id = typed.subject.apply_id
        subject = apply_id if against[0] == apply_id else f"{apply_id}/{against[0]}"
        talk(
            f"exit code {code}: the {typed.verb} {what} at {', '.join(against[:MOST_NAMED])}{more};"
            f" where it stands, and what is taken there: tern explain {subject}"
        )
    return code

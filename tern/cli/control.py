"""`tern stop | start | cutover | cancel`: wishes. Accepted is not done; each operation gets its own answer."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tern.cli import reach
from tern.cli.envelope import json_option, talk, write_document
from tern.cli.selection import read_selection, selection_options
from tern.cli.words import one_line, plural
from tern.domain.control import Delivery, Receipt, ReceiptLine, Verb
from tern.domain.errors import UsageError
from tern.domain.selection import Selection
from tern.domain.subject import Subject
from tern.ports import Asked, StorageUnavailable, WishReceipt
from tern.store.reading import Reading

REFUSED = 5
PARTLY = 6
TIMED_OUT = 124
LOOK_EVERY_S = 0.5
MOST_LISTED = 20

_MARKS: Mapping[Receipt, str] = {
    Receipt.ACCEPTED: "✔",
    Receipt.ALREADY: "✔",
    Receipt.REFUSED: "✖",
    Receipt.TOO_LATE: "⊘",
}
_HELP: Mapping[Verb, str] = {
    Verb.STOP: "Halt an apply or some of its operations, so that they can be resumed. A whole apply needs no selector.",
    Verb.START: "Resume operations that were stopped. With several operations, say which: AP/DEPLOYMENT, --all, …",
    Verb.CUTOVER: "Let the application see the change, where it is ready. With several operations, say which.",
    Verb.CANCEL: "End an apply or some of its operations for good. A whole apply needs no selector.",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """One control as it was typed."""

    verb: Verb
    subject: Subject
    selection: Selection
    reason: str
    expected: int | None
    dry_run: bool
    waits: bool
    timeout: float | None
    as_json: bool


def _command(verb: Verb) -> click.Command:
    @click.command(name=verb.value, help=_HELP[verb])
    @click.argument("subject", metavar="AP[/DEPLOYMENT]")
    @selection_options
    @click.option("--reason", required=True, help="Why; it stands in the record.")
    @click.option("--dry-run", is_flag=True, help="Answer for each operation, write nothing.")
    @click.option(
        "--expect", "expected", type=click.IntRange(min=0), help="Refuse unless so many are selected."
    )
    @click.option("--wait", "waits", is_flag=True, help="Until the effect has been observed everywhere.")
    @click.option(
        "--timeout", type=click.FloatRange(min=0), help="Seconds for --wait; then the exit code is 124."
    )
    @json_option
    def command(
        subject: str,
        *,
        deployments: Sequence[str],
        labels: Sequence[str],
        states: Sequence[str],
        excepted: Sequence[str],
        everywhere: bool,
        **options: Any,
    ) -> int:
        named = Subject.read(subject)
        selection = read_selection(named, deployments, labels, states, excepted, everywhere=everywhere)
        if options["timeout"] is not None and not options["waits"]:
            what = "--timeout is for --wait"
            raise UsageError(what)
        return _ask(_Asked(verb, named, selection, **options))

    return command


stop = _command(Verb.STOP)
start = _command(Verb.START)
cutover = _command(Verb.CUTOVER)
cancel = _command(Verb.CANCEL)


def _ask(asked: _Asked) -> int:
    from tern.flows.accept import ask  # noqa: PLC0415

    wish = Asked(
        asked.verb,
        asked.subject.apply_id,
        asked.selection,
        reach.caller(),
        asked.reason,
        dry_run=asked.dry_run,
        expected=asked.expected,
    )
    receipt = ask(wish, reach.ports(ringing=not asked.dry_run))
    if asked.dry_run or not asked.waits:
        return _answer(asked, receipt, {})
    if not asked.as_json:
        accepted = plural(_count(receipt, Receipt.ACCEPTED), "operation")
        talk(f"{asked.verb} accepted for {accepted}; waiting for its effect")
    fates = _wait(asked, reach.reading(), receipt)
    if fates is None:
        talk(f"not observed within {asked.timeout:g} s; the wish stays open: tern get {wish.apply_id}")
        _answer(asked, receipt, {})
        return TIMED_OUT
    return _answer(asked, receipt, fates)


def _wait(asked: _Asked, reading: Reading, receipt: WishReceipt) -> Mapping[str, str] | None:
    """Each operation's fate once nothing of the wish is open any more; None when time is up."""
    concerned = {
        line.deployment for line in receipt.lines if line.outcome in {Receipt.ACCEPTED, Receipt.ALREADY}
    }
    deadline = None if asked.timeout is None else time.monotonic() + asked.timeout
    while True:
        try:
            facts = reading.apply(asked.subject.apply_id)
        except StorageUnavailable:
            facts = None
        if facts is not None:
            wishes = {
                record.deployment: [wish for wish in record.wishes if wish.verb is asked.verb]
                for record in facts.operations
                if record.deployment in concerned
            }
            if not any(wish.fate.is_open for each in wishes.values() for wish in each):
                return {name: each[-1].fate.value for name, each in wishes.items() if each}
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(LOOK_EVERY_S)


def _answer(asked: _Asked, receipt: WishReceipt, fates: Mapping[str, str]) -> int:
    """Writes the receipt; the exit code says whether all, some or none was taken."""
    code = _exit_code(asked, receipt, fates)
    if asked.as_json:
        write_document("receipt", _json(asked, receipt, fates))
        return code
    _list(asked, receipt, fates)
    return code


def _exit_code(asked: _Asked, receipt: WishReceipt, fates: Mapping[str, str]) -> int:
    taken = _count(receipt, Receipt.ACCEPTED) + _count(receipt, Receipt.ALREADY)
    refused = _count(receipt, Receipt.REFUSED)
    late = _count(receipt, Receipt.TOO_LATE)
    # Of a whole apply, what has finished is left alone without being asked for.
    missed = refused + (late if asked.selection.is_made else 0)
    failed = sum(fate == Delivery.FAILED for fate in fates.values())
    if not taken:
        return REFUSED
    return PARTLY if missed or failed else 0


def _count(receipt: WishReceipt, outcome: Receipt) -> int:
    return sum(line.outcome is outcome for line in receipt.lines)


def _json(asked: _Asked, receipt: WishReceipt, fates: Mapping[str, str]) -> dict[str, object]:
    return {
        "request_id": receipt.request_id,
        "apply_id": asked.subject.apply_id,
        "verb": asked.verb.value,
        "reason": asked.reason,
        "actor": reach.caller(),
        "dry_run": asked.dry_run,
        **{outcome.value: _count(receipt, outcome) for outcome in Receipt},
        "targets": [
            {
                "deployment": line.deployment,
                "outcome": line.outcome.value,
                "reason": line.reason or None,
                "fate": fates.get(line.deployment),
            }
            for line in receipt.lines
        ],
    }


def _list(asked: _Asked, receipt: WishReceipt, fates: Mapping[str, str]) -> None:
    conditional = "would be " if asked.dry_run else ""
    width = max((len(line.deployment) for line in receipt.lines), default=0)
    # Exceptions first: what was not taken is what has to be read.
    ordered = sorted(receipt.lines, key=lambda line: line.outcome is Receipt.ACCEPTED)
    for line in ordered[:MOST_LISTED]:
        click.echo(_line(line, width, conditional, fates))
    if len(ordered) > MOST_LISTED:
        click.echo(f"… {len(ordered) - MOST_LISTED:,} more")
    counts = ", ".join(
        f"{number:,} {conditional if outcome is Receipt.ACCEPTED else ''}{outcome.value.replace('_', ' ')}"
        for outcome in Receipt
        if (number := _count(receipt, outcome))
    )
    click.echo(f"{asked.verb} of {asked.subject.apply_id}: {counts}")
    if asked.dry_run:
        click.echo("Nothing was written.")
    elif receipt.request_id is not None and not fates:
        click.echo(f"Accepted is not done yet. Next: tern watch {asked.subject.apply_id}")


def _line(line: ReceiptLine, width: int, conditional: str, fates: Mapping[str, str]) -> str:
    word = line.outcome.value.replace("_", " ")
    said = f"{_MARKS[line.outcome]} {line.deployment:<{width}}  {conditional if word == 'accepted' else ''}{word}"
    fate = fates.get(line.deployment, "")
    reason = f": {one_line(line.reason)}" if line.reason else ""
    return f"{said}{reason}{', ' + fate if fate else ''}"

"""`tern resolve`: a person who looked says what became of uncertain operations."""

from collections.abc import Mapping
from typing import Any

import click

from tern.cli import reach, receipt
from tern.cli.envelope import json_option, write_document
from tern.cli.selection import expect_option, read_selection, selection_options
from tern.domain.control import Receipt, ReceiptLine
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.selection import Selection
from tern.domain.subject import Subject
from tern.ports import Ports, Resolved

CONSEQUENCES: Mapping[Resolved, str] = {
    Resolved.NOT_STARTED: "it waits for its turn again; the old key is never used again",
    Resolved.ENDED: "it counts as failed",
    Resolved.REMOTE_ID: "it is followed by that remote id from now on",
    Resolved.REPEAT_APPLY: "the same dispatch is repeated, with the same key",
}


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option(
    "--as",
    "found",
    required=True,
    metavar="not-started|ended|remote-id=R|repeat-apply",
    help="What you found at the engine.",
)
@selection_options
@click.option("--reason", required=True, help="How you know; it stands in the record.")
@click.option("--dry-run", is_flag=True, help="Answer for each operation, write nothing.")
@expect_option
@json_option
def resolve(
    subject: str,
    *,
    found: str,
    reason: str,
    dry_run: bool,
    expected: int | None,
    as_json: bool,
    **selectors: Any,
) -> int:
    """Say what became of operations that nobody here can judge. With several operations, say which.

    Look at the engine first: `not-started` after a dispatch that did start would run the change twice.
    """
    named = Subject.read(subject)
    selection = read_selection(named, **selectors)
    answer, remote_id = _read(found)
    if not selection.is_explicit:
        what = f"{subject} is a whole apply, and this is about operations that somebody looked at"
        raise UsageError(what, next_step=f"Name one: {subject}/DEPLOYMENT; or say --state uncertain.")
    ports = reach.ports(ringing=not dry_run)
    names = _chosen(ports, named, selection, expected)
    if remote_id is not None and len(names) > 1:
        what = f"a remote id is one operation's, and {len(names)} are selected"
        raise UsageError(what)
    if len(names) == 1 and not dry_run:
        # One is refused in the words of the rule; several get one outcome each.
        _resolve(ports, names[0], answer, remote_id, reason, dry_run=False)
        lines: tuple[ReceiptLine, ...] = (ReceiptLine(names[0].deployment, Receipt.ACCEPTED),)
    else:
        lines = tuple(_outcome(ports, name, answer, remote_id, reason, dry_run=dry_run) for name in names)
    _tell(named, answer, remote_id, reason, lines, dry_run=dry_run, as_json=as_json)
    return receipt.exit_code(lines, was_selected=True, fates={})


def _read(found: str) -> tuple[Resolved, RemoteId | None]:
    word, _, value = found.partition("=")
    try:
        answer = Resolved(word)
    except ValueError:
        what = f"{found!r} is no answer"
        raise UsageError(
            what, why=(f"it is one of {', '.join(Resolved)}; remote-id=R names the id",)
        ) from None
    return answer, RemoteId(value.strip()) if value.strip() else None


def _chosen(
    ports: Ports, named: Subject, selection: Selection, expected: int | None
) -> tuple[ScopeName, ...]:
    chosen = selection.choose(named.apply_id, ports.store.members(named.apply_id))
    if expected is not None and len(chosen) != expected:
        what = f"{len(chosen)} operation{'' if len(chosen) == 1 else 's'} selected, not {expected}"
        raise Refused(what, why=(", ".join(chosen[: receipt.MOST_LISTED]),), reason="EXPECTATION_MISSED")
    return tuple(ScopeName(named.apply_id, name) for name in chosen)


def _outcome(
    ports: Ports, name: ScopeName, answer: Resolved, remote_id: RemoteId | None, reason: str, *, dry_run: bool
) -> ReceiptLine:
    try:
        _resolve(ports, name, answer, remote_id, reason, dry_run=dry_run)
    except Refused as refusal:
        return ReceiptLine(name.deployment, Receipt.REFUSED, "; ".join([refusal.what, *refusal.why]))
    return ReceiptLine(name.deployment, Receipt.ACCEPTED)


def _resolve(
    ports: Ports, name: ScopeName, answer: Resolved, remote_id: RemoteId | None, reason: str, *, dry_run: bool
) -> None:
    from tern.flows import accept  # noqa: PLC0415

    accept.resolve(name, answer, remote_id, reach.caller(), reason, ports, dry_run=dry_run)


def _tell(
    named: Subject,
    answer: Resolved,
    remote_id: RemoteId | None,
    reason: str,
    lines: tuple[ReceiptLine, ...],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if as_json:
        scope = str(named.scope or named.apply_id)
        found = {"scope": scope, "as": answer.value, "remote_id": remote_id, "reason": reason}
        write_document("resolved", {**found, "dry_run": dry_run, **receipt.as_json(lines, {})})
        return
    title = f"resolve of {named.apply_id} as {answer.value}"
    receipt.show(title, lines, {}, whole=named.apply_id, dry_run=dry_run)
    if any(line.outcome is Receipt.ACCEPTED for line in lines) and not dry_run:
        click.echo(f"From now on: {CONSEQUENCES[answer]}. Next: tern watch {named.apply_id}")

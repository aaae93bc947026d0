"""`tern resolve`: a person who looked says what became of uncertain operations."""

import time
from collections.abc import Sequence
from typing import Any

import click

from tern.cli import reach, receipt
from tern.cli.envelope import json_option, write_document
from tern.cli.receipt import EXIT_CODES
from tern.cli.selection import expect_option, read_selection, selection_options
from tern.cli.words import one_line
from tern.domain.answer import CONSEQUENCES, GONE
from tern.domain.command import resolve_command
from tern.domain.control import Receipt, ReceiptLine
from tern.domain.ending import Ending, exit_code
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.statement import StatementAnswer, read_statements
from tern.domain.subject import Subject
from tern.leftover import after_a_word
from tern.ports import Answered, Ports, Resolved
from tern.view import apply_view

ASK_AGAIN_S = 0.2


@click.command(epilog=EXIT_CODES)
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option(
    "--as",
    "found",
    default="",
    metavar="not-started|ended|completed|remote-id=R|repeat-apply|same-work",
    help="What you found at the engine.",
)
@click.option(
    "--statement",
    "statements",
    multiple=True,
    metavar="N=done|not-done",
    help="Of an operation that is over: whether its statement N, of unknown effect, is in. Repeatable.",
)
@click.option(
    "--taken-from",
    default="",
    metavar="AP/DEPLOYMENT",
    help="With remote-id=R: the operation that the id was taken for. Its work is given up as failed.",
)
@click.option(
    "--engine-is-gone",
    is_flag=True,
    help="Nobody there can be asked any more: ten tries in ten minutes had no usable answer. With ended, completed or"
    " not-started; what was sent stays outstanding, and nothing is sent to that target before it is settled.",
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
    statements: Sequence[str],
    taken_from: str,
    engine_is_gone: bool,
    reason: str,
    dry_run: bool,
    expected: int | None,
    as_json: bool,
    **selectors: Any,
) -> int:
    """Say what became of operations that nobody here can judge. With several operations, say which.

    Look at the engine first: `not-started` after a dispatch that did start would run the change twice.
    With --statement, say of one operation that is over whether single statements are in: all that are named, or none.
    """
    if bool(found) == bool(statements):
        what = "either --as says what became of operations, or --statement of one operation's statements"
        raise UsageError(what)
    named = Subject.read(subject)
    selection = read_selection(named, **selectors)
    if statements:
        if taken_from or engine_is_gone or expected is not None or any(selectors.values()):
            what = "--statement is about one operation, AP/DEPLOYMENT, and takes no selector"
            raise UsageError(what)
        return _settle(Subject.read_operation(subject), statements, reason, dry_run=dry_run, as_json=as_json)
    answer, remote_id = _read(found)
    asked = Answered(
        named.apply_id,
        selection,
        answer,
        remote_id,
        reach.caller(),
        reason,
        dry_run=dry_run,
        expected=expected,
        engine_is_gone=engine_is_gone,
        taken_from=Subject.read_operation(taken_from) if taken_from else None,
    )
    if engine_is_gone and named.scope is None and expected is None and not dry_run:
        what = "that the engines of several operations are gone is said with --expect, or of one at a time"
        raise UsageError(what, next_step=f"This prints how many: {resolve_command(asked, '--dry-run')}")
    lines = _answer(asked, reach.ports(ringing=not dry_run))
    _tell(named, asked, lines, as_json=as_json)
    return exit_code(Ending.DONE if line.outcome is Receipt.ACCEPTED else Ending.NOT_DONE for line in lines)


def _settle(name: ScopeName, said: Sequence[str], reason: str, *, dry_run: bool, as_json: bool) -> int:
    answer = StatementAnswer(name, read_statements(said), reach.caller(), reason, dry_run)
    from tern.flows import accept  # noqa: PLC0415

    line = accept.settle_statements(answer, reach.ports(ringing=False))
    if as_json:
        effects = [
            {"number": number, "as": effect.value} for number, effect in sorted(answer.effects.items())
        ]
        found: dict[str, object] = {
            "scope": str(name),
            "as": None,
            "remote_id": None,
            "reason": reason,
            "engine_is_gone": False,
            "statements": effects,
        }
        write_document("resolved", {**found, "dry_run": dry_run, **receipt.as_json((line,), {})})
        return 0
    told = ", ".join(f"{number} {effect}" for number, effect in sorted(answer.effects.items()))
    receipt.show(
        f"statements of {name}: {told}", (line,), {}, whole=name.apply_id, dry_run=dry_run, expects=False
    )
    if not dry_run:
        view = apply_view(reach.reading().operation(name))
        click.echo(one_line(after_a_word(str(name), view.operation(name.deployment).record)))
    return 0


def _answer(asked: Answered, ports: Ports) -> tuple[ReceiptLine, ...]:
    """Where an engine that swallows everything is to be stopped as well, it is nearly always being called: the moment
    between two calls is waited for, because nobody could type at it.
    """
    from tern.flows import accept  # noqa: PLC0415

    settings = reach.settings()
    ends_at = time.monotonic() + settings.lease_seconds + settings.rpc_deadline_seconds
    while True:
        try:
            return accept.answer(asked, ports)
        except Refused as refused:
            is_called = refused.reason == "CALL_UNDER_WAY" and asked.engine_is_gone
            if not is_called or time.monotonic() > ends_at:
                raise
            time.sleep(ASK_AGAIN_S)


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


def _tell(named: Subject, asked: Answered, lines: tuple[ReceiptLine, ...], *, as_json: bool) -> None:
    answer, dry_run = asked.found, asked.dry_run
    if as_json:
        scope = str(named.scope or named.apply_id)
        found: dict[str, object] = {
            "scope": scope,
            "as": answer.value,
            "remote_id": asked.remote_id,
            "reason": asked.reason,
            "engine_is_gone": asked.engine_is_gone,
            "statements": [],
        }
        write_document("resolved", {**found, "dry_run": dry_run, **receipt.as_json(lines, {})})
        return
    title = f"resolve of {named.apply_id} as {answer.value}"
    receipt.show(title, lines, {}, whole=named.apply_id, dry_run=dry_run)
    if any(line.outcome is Receipt.ACCEPTED for line in lines) and not dry_run:
        what = GONE[answer] if asked.engine_is_gone else CONSEQUENCES[answer]
        click.echo(f"From now on: {what}. Next: tern watch {named.apply_id}")

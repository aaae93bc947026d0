"""`tern get`: one apply, or one of its operations, as it is now or as it was at a time. Reads only."""

from collections.abc import Iterator

import click
from rich.text import Text

from tern.blocking import outstanding_of
from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.past import show_past
from tern.cli.picture import hold_words, operation_line, picture, show, table_lines
from tern.cli.words import ago, duration, one_line, until_words
from tern.domain.control import Delivery
from tern.domain.drift import warnings
from tern.domain.holds import Hold
from tern.domain.moment import read_moment
from tern.domain.subject import Subject
from tern.facts import OperationRecord, WishFacts
from tern.view import ApplyView, OperationView, apply_view


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option("--at", default="", metavar="TIME", help="As it was then: RFC 3339, or 10m ago.")
@json_option
def get(subject: str, *, at: str, as_json: bool) -> None:
    """Show one apply, or one operation of it, as it is now; with --at, as the record tells that it was."""
    asked = Subject.read(subject)
    reading = reach.reading()
    if at:
        if asked.scope:
            reading.operation(asked.scope)
        past = reach.record().as_of(asked.apply_id, read_moment(at, reading.clock()))
        show_past(past, asked.deployment, as_json=as_json)
        return
    facts = reading.operation(asked.scope) if asked.scope else reading.apply(asked.apply_id)
    view = apply_view(facts)
    operation = view.operation(asked.deployment) if asked.deployment else None
    if as_json:
        kind, data = ("operation", operation.as_json()) if operation else ("apply", view.as_json())
        write_document(kind, data, observed_at=facts.observed_at)
    else:
        lines = operation_picture(view, operation) if operation else _with_change(view)
        show(lines, wraps=operation is not None)


def _with_change(view: ApplyView) -> list[Text]:
    """The rollout, and below its title which plan and statement it is about: `tern plan show` has the whole of it."""
    lines = picture(view)
    statements = view.operations[0].record.tables if view.operations else ()
    if statements:
        size = f" ({len(statements):,} statements)" if len(statements) > 1 else ""
        lines.insert(2, Text(f"  {view.facts.plan_id}{size}: {one_line(statements[0].ddl)}", "dim"))
    return lines


def operation_picture(view: ApplyView, operation: OperationView) -> list[Text]:
    """One operation with everything that is known about it."""
    record = operation.record
    lines = [Text(operation.scope, "bold"), _headline(operation)]
    facts = [
        ("place", f"{record.position + 1} of {len(view.operations)} in the order"),
        *([("wave", str(record.wave))] if record.wave else []),
        ("target", record.target),
        ("remote id", record.remote_id or "none yet"),
        ("attempts", str(record.attempt)),
        ("in this state", duration(record.state_age_s)),
        ("last seen", "never" if record.sampled_age_s is None else ago(record.sampled_age_s)),
    ]
    if record.carries_on:
        facts.append(("carries on", record.carries_on))
    if record.carried_on is not None:
        facts.append(("carried on", record.carried_on.words.removeprefix("carried on ")))
    elif record.follow_ups:
        facts.append(("carried on", _in_vain(record)))
    facts += [("since then", each.words) for each in record.since_then]
    facts += [("before it", each.words) for each in record.earlier if each.scope != record.carries_on]
    if record.volume is not None:
        facts.append(("volume", str(record.volume)))
    if record.error_message:
        facts.append((_whose(record), one_line(record.error_message)))
    if operation.lost_contact:
        facts.append(("contact", f"lost after {record.poll_failures} tries: {one_line(record.poll_error)}"))
    # What came to nothing stays to be seen until somebody asks again: its words may say what helps.
    failed = [wish for wish in record.wishes[-1:] if wish.fate is Delivery.FAILED]
    facts += [("asked for", _asked_for(wish)) for wish in (*record.open_wishes, *failed)]
    if record.foretold is not None:
        facts += [("foretold", one_line(words)) for words in warnings([record.foretold])]
    lines += [Text.assemble((f"    {name:<14}", "dim"), value) for name, value in facts]
    lines.append(Text())
    if record.poll_failures and record.sampled_age_s is not None and operation.state.is_live:
        # Its engine is silent: what it said last must not look like what it says.
        lines.append(Text(f"    as last seen, {ago(record.sampled_age_s)}", "yellow"))
    lines += table_lines(record.tables, 4)
    lines += [
        Text.assemble(
            (f"    {hold.cleared_by.value:<6}", "bold"), one_line(_once(hold, record)), _until(hold)
        )
        for hold in operation.holds
    ]
    lines += _outstanding(record)
    return lines


def _headline(operation: OperationView) -> Text:
    """Without what stands in full below it: an error, and what holds it."""
    record = operation.record
    line = operation_line(operation, len(operation.deployment), brief=True)
    for told in (record.error_words, operation.holds[0].detail if operation.holds else ""):
        if told and line.plain.endswith(one_line(told)):
            line.right_crop(len(one_line(told)))
            line.rstrip()
    return line


def _whose(record: OperationRecord) -> str:
    """Whose words they are: a person's are never shown as an engine's."""
    if record.is_said_by_a_person:
        return "a person says"
    return "engine says" if record.error_reason == "ENGINE_FAILED" else "why"


def _until(hold: Hold) -> str:
    return "" if hold.until_s is None else f", {until_words(hold.kind, hold.until_s)}"


def _once(hold: Hold, record: OperationRecord) -> str:
    """A reason without the words that stand above it already."""
    words = hold_words(hold, record)
    for told in filter(None, (record.error_message, record.poll_error)):
        words = words.replace(f" ({told})", "")
        if words.startswith(told):
            words = f"nobody here can tell what became of it; above is why{words.removeprefix(told)}"
    return words


def _outstanding(record: OperationRecord) -> Iterator[Text]:
    """What may still act although nothing follows it, and how that is settled or ended."""
    for each in outstanding_of(record):
        yield Text()
        yield Text.assemble(("    outstanding   ", "yellow"), one_line(each.words))
        yield Text(f"                  since {duration(each.age_s)}", "dim")
        for command, consequence in each.ways:
            yield Text(f"      {command}", "bold")
            yield Text(f"        {consequence}", "dim")
        if not each.ways:
            yield Text("      it is looked at again and again until it has ended", "dim")


def _in_vain(record: OperationRecord) -> str:
    return f"in vain by {', '.join(record.follow_ups)}"


def _asked_for(wish: WishFacts) -> str:
    said = f": {one_line(wish.engine_words)}" if wish.engine_words else ""
    return (
        f"{wish.verb} by {wish.caller}, {ago(wish.age_s)}: {one_line(wish.reason)} ({wish.fate.value}{said})"
    )

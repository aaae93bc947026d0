"""`tern get`: one apply, or one of its operations, as it is now or as it was at a time. Reads only."""

from collections.abc import Iterator
from typing import Any

import click
from rich.text import Text

from tern.blocking import outstanding_of
from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.looking import Look, by_option, grouped_by, labels_by, looking_options, names_of
from tern.cli.past import show_past
from tern.cli.picture import hold_words, operation_line, show, table_lines
from tern.cli.screen import lines_of_screen, listing, picture
from tern.cli.words import ago, duration, one_line, until_words
from tern.domain.control import Delivery
from tern.domain.drift import warnings
from tern.domain.errors import UsageError
from tern.domain.holds import Hold
from tern.domain.moment import read_moment
from tern.domain.subject import Subject
from tern.facts import OperationRecord, WishFacts
from tern.operation import OperationView
from tern.view import ApplyView, apply_view


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option("--at", default="", metavar="TIME", help="As it was then: RFC 3339, or 10m ago.")
@by_option
@looking_options
@click.option("--names", "only_names", is_flag=True, help="Nothing but the names, one a line.")
@json_option
def get(subject: str, *, at: str, by: str, only_names: bool, as_json: bool, **selectors: Any) -> None:
    """Show one apply, or one operation of it, as it is now; with --at, as the record tells that it was.

    An apply takes one screen, however many deployments it has. With selectors, each that they mean has its line.
    """
    asked = Subject.read(subject)
    look = Look.read(asked, **selectors)
    _refuse_mixed(asked, look, at=at, by=by, only_names=only_names, as_json=as_json)
    reading = reach.reading()
    if at:
        if asked.scope:
            reading.operation(asked.scope)
        past = reach.record().as_of(asked.apply_id, read_moment(at, reading.clock()))
        show_past(past, asked.deployment, as_json=as_json)
        return
    facts = reading.operation(asked.scope) if asked.scope else reading.apply(asked.apply_id)
    view = apply_view(facts)
    if asked.deployment:
        operation = view.operation(asked.deployment)
        if as_json:
            write_document("operation", operation.as_json(), observed_at=facts.observed_at)
        else:
            show(operation_picture(view, operation), wraps=True)
        return
    chosen = look.chosen(view, reading) if look.chooses else view.operations
    groups = grouped_by(view, by, labels_by(by, asked.apply_id, reading))
    if only_names:
        click.echo(names_of(chosen), nl=False)
    elif as_json:
        data = view.as_json(chosen)
        write_document("apply", data | (groups.as_json() if groups else {}), observed_at=facts.observed_at)
    elif look.chooses:
        show(listing(view, chosen))
    else:
        show(picture(view, also=_change(view), grouped=groups, height=lines_of_screen()))


def _change(view: ApplyView) -> list[Text]:
    """Which plan and statement it is about: `tern plan show` has the whole of it."""
    statements = view.operations[0].record.tables if view.operations else ()
    if not statements:
        return _carries_on(view)
    size = f" ({len(statements):,} statements)" if len(statements) > 1 else ""
    return [Text(f"  {view.facts.plan_id}{size}: {one_line(statements[0].ddl)}", "dim"), *_carries_on(view)]


def _carries_on(view: ApplyView) -> list[Text]:
    """Whose rest it does."""
    scopes = [each.record.carries_on for each in view.operations if each.record.carries_on]
    found = dict.fromkeys(scope.partition("/")[0] for scope in scopes)
    return [Text(f"  carries on {', '.join(found)}", "dim")] if found else []


def _refuse_mixed(asked: Subject, look: Look, *, at: str, by: str, only_names: bool, as_json: bool) -> None:
    """Raises UsageError for what has no meaning together."""
    if at and ((look.chooses and not asked.deployment) or look.cause or by or only_names):
        what = "--at shows an apply, or one operation, as it was; it takes no selector, --by or --names"
        raise UsageError(what)
    if asked.deployment and (by or only_names or look.cause):
        what = f"{asked.scope} names its operation; --by, --cause and --names are about a whole apply"
        raise UsageError(what)
    if only_names and (by or as_json):
        what = "--names writes nothing but names"
        raise UsageError(what)
    if by and look.chooses:
        what = "--by shows all of an apply in groups; a selector shows each that it means"
        raise UsageError(what)


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
            # What stood before it on the line was parted from it.
            line.right_crop(len(line.plain) - len(line.plain.rstrip(" ,")))
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

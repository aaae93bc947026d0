"""`tern audit`: who asked for what, what came of it, and the proof that the record is whole. Reads only."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, write_document, write_line
from tern.cli.logs import later_lines
from tern.cli.picture import show
from tern.cli.words import duration, one_line, plural
from tern.domain.errors import UsageError
from tern.domain.moment import read_moment
from tern.domain.subject import Subject
from tern.domain.telling import FATES, is_by_person, is_in_audit, sentence
from tern.doors.record import Entry, Fate, Verification, Verified

BROKEN = 10
MOST_AT_ONCE = 100_000
MOST_TOLD = 20
MOST_FATES = 5


@click.command()
@click.argument("subject", metavar="[AP[/DEPLOYMENT]]", default="")
@click.option(
    "--verify", is_flag=True, help="Compute every hash again; ends with 10 if anything is not as written."
)
@click.option("--verb", "what", default="", metavar="WORD", help="Only this verb or event, as stop or claim.")
@click.option("--caller", "who", default="", metavar="NAME", help="Only what this one asked for or did.")
@click.option("--since", default="", metavar="TIME", help="Only from then on: RFC 3339, or 2h ago.")
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_AT_ONCE),
    default=1_000,
    show_default=True,
    help="The newest so many.",
)
@click.option("--jsonl", is_flag=True, help="One JSON document a line.")
@json_option
def audit(
    subject: str, *, verify: bool, what: str, who: str, since: str, limit: int, jsonl: bool, as_json: bool
) -> int:
    """Show who asked for what of which, why and when, and what came of it. What happened in between is `tern logs`'.

    Without an apply, of all of them; so does --verify, with --since only those that were accepted since then.
    """
    asked = Subject.read(subject) if subject else None
    if as_json and jsonl:
        wrong = "--json writes one document; a stream is --jsonl"
        raise UsageError(wrong)
    if verify:
        if (asked and (asked.deployment or since)) or what or who or jsonl:
            wrong = "--verify looks at whole records: of an apply, of all, or of those --since a time"
            raise UsageError(wrong)
        return _verify(asked, _moment(since), as_json=as_json)
    reading = reach.reading()
    facts = None
    if asked:
        facts = reading.operation(asked.scope) if asked.scope else reading.apply(asked.apply_id)
    entries = reach.record().entries(
        asked.apply_id if asked else None,
        deployment=asked.deployment or "" if asked else "",
        what=what,
        who=who,
        since=_moment(since),
        limit=limit,
    )
    more = [f"only the newest {limit} are shown; --limit shows more"] if len(entries) == limit else []
    if as_json:
        about = asked.apply_id if asked else None
        data = {"apply_id": about, "entries": [entry.as_json() for entry in entries]}
        write_document("audit", data, warnings=more)
    elif jsonl:
        for entry in entries:
            write_line("audit_entry", entry.as_json())
    else:
        show(_lines(entries, names_applies=asked is None, shows_all=bool(what)), wraps=True)
        if facts is not None and asked is not None:
            show(later_lines(facts, asked.deployment), wraps=True)
        for line in more:
            click.echo(line, err=True)
    return 0


def _moment(text: str) -> datetime | None:
    return read_moment(text, reach.reading().clock()) if text else None


def _lines(entries: Sequence[Entry], *, names_applies: bool, shows_all: bool) -> Iterator[Text]:
    """What was asked and decided, with what came of it. shows_all: also what merely happened, as somebody chose it."""
    chosen = [
        entry
        for entry in entries
        if shows_all or entry.kind == "request" or is_in_audit(entry.what, entry.why)
    ]
    for entry in chosen:
        line = Text(f"{entry.at:%Y-%m-%d %H:%M:%S}  ", "dim")
        line.append(f"{entry.apply_id}  " if names_applies else "")
        if entry.kind == "request":
            line.append(f"{one_line(entry.who)} asked to {entry.what} {_of_which(entry)}", "bold yellow")
        else:
            by_person = is_by_person(entry.what, entry.why)
            line.append(f"{one_line(entry.who)}: " if by_person else "", "bold")
            line.append(sentence(entry.what, entry.after))
            line.append(f", at {entry.deployment}" if entry.deployment else "", "bold")
        if entry.why:
            line.append(f"  {one_line(entry.why)}")
        yield line
        yield from _what_came_of_it(entry)


def _of_which(entry: Entry) -> str:
    """The deployments that it was asked of; all of a rollout where the answer is the whole one's."""
    names = [str(line.get("deployment")) for line in entry.outcomes if line.get("deployment")]
    if not names:
        return "the rollout"
    if len(names) > MOST_FATES:
        return plural(len(names), "deployment")
    return ", ".join(names)


def _what_came_of_it(entry: Entry) -> Iterator[Text]:
    indent = " " * 21
    against = [line for line in entry.outcomes if line.get("outcome") != "accepted"]
    for line in against[:MOST_FATES]:
        word = str(line.get("outcome") or "").replace("_", " ")
        reason = f": {one_line(str(line['reason']))}" if line.get("reason") else ""
        yield Text(f"{indent}{line.get('deployment') or 'the rollout'}: {word}{reason}")
    if len(against) > MOST_FATES:
        yield Text(f"{indent}… and {len(against) - MOST_FATES:,} more not taken either; --json has all")
    for fate in entry.fates[:MOST_FATES]:
        yield Text(f"{indent}{fate.deployment}: {_fate(fate)}", "dim")
    if len(entry.fates) > MOST_FATES:
        yield Text(f"{indent}… and on {plural(len(entry.fates) - MOST_FATES, 'more deployment')}", "dim")


def _fate(fate: Fate) -> str:
    words = FATES.get(fate.state, fate.state.replace("_", " "))
    if fate.after_s is not None:
        words += f" after {duration(fate.after_s)}"
    return words + (f", {one_line(fate.engine_words)}" if fate.engine_words else "")


def _verify(asked: Subject | None, since: datetime | None, *, as_json: bool) -> int:
    record = reach.record()
    names = (asked.apply_id,) if asked else record.applies(since)
    checked = Verification(tuple(record.verify(name) for name in names))
    if as_json:
        write_document("audit_verified", _json(checked.records[0]) if asked else _all_json(checked))
    elif asked:
        show(_verdict(checked.records[0]), wraps=True)
    else:
        show(_all_verdicts(checked), wraps=True)
    return BROKEN if checked.broken else 0


def _all_json(checked: Verification) -> dict[str, object]:
    return {
        "ok": not checked.broken,
        "applies": len(checked.records),
        "chains": sum(found.chains for found in checked.records),
        "events": checked.events,
        "requests": sum(found.requests for found in checked.records),
        "seal": checked.seal,
        "broken": [_json(found) for found in checked.broken],
    }


def _all_verdicts(checked: Verification) -> Iterator[Text]:
    for found in checked.broken:
        yield from _verdict(found)
    records = f"{plural(len(checked.records), 'record')}, {plural(checked.events, 'event')}"
    if checked.broken:
        yield Text.assemble(("✖ ", "red"), f"{len(checked.broken)} of {records} are not as they were written")
        return
    yield Text.assemble(("✔ ", "green"), f"all are as they were written: {records}")
    yield Text(f"  seal {checked.seal}", "dim")


def _json(found: Verified) -> dict[str, object]:
    return {
        "apply_id": found.apply_id,
        "ok": not found.findings,
        "chains": found.chains,
        "events": found.events,
        "requests": found.requests,
        "seal": found.seal,
        "findings": [
            {
                "chain": chain or None,
                "fault": finding.fault.value,
                "event_id": finding.event_id,
                "number": finding.number,
                "detail": finding.detail,
            }
            for chain, finding in found.findings
        ],
    }


def _verdict(found: Verified) -> Iterator[Text]:
    counts = f"{plural(found.events, 'event')} in {plural(found.chains, 'chain')}, {plural(found.requests, 'request')}"
    if not found.findings:
        yield Text.assemble(("✔ ", "green"), f"the record of {found.apply_id} is as it was written: {counts}")
        yield Text(f"  seal {found.seal}", "dim")
        yield Text("  Kept elsewhere, the seal also shows whether somebody rewrote all of it since.", "dim")
        return
    yield Text.assemble(
        ("✖ ", "red"),
        f"the record of {found.apply_id} is not as it was written: {plural(len(found.findings), 'fault')}",
    )
    for chain, finding in found.findings[:MOST_TOLD]:
        place = chain or "the apply's own"
        event = "" if finding.event_id is None else f", event {finding.event_id} (number {finding.number})"
        yield Text.assemble(
            (f"    {finding.fault.value:<10}", "bold"), f"{place}{event}: {one_line(finding.detail)}"
        )
    if len(found.findings) > MOST_TOLD:
        yield Text(f"    … and {len(found.findings) - MOST_TOLD} more; --json has all of them")
    yield Text(
        f"  {counts} were looked at. Compare with a backup before anything is concluded from it.", "dim"
    )

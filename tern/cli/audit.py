"""`tern audit`: who asked for what, what came of it, and the proof that the record is whole. Reads only."""

from collections.abc import Iterator, Sequence

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, write_document, write_line
from tern.cli.picture import show
from tern.cli.words import duration, one_line, plural
from tern.domain.errors import UsageError
from tern.domain.moment import read_moment
from tern.domain.subject import Subject
from tern.record import Entry, Fate, Verified

BROKEN = 10
MOST_AT_ONCE = 100_000
MOST_TOLD = 20
MOST_FATES = 5


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
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
    """Show who asked for what, why and when, from where to where it led, and what came of it."""
    asked = Subject.read(subject)
    if as_json and jsonl:
        wrong = "--json writes one document; a stream is --jsonl"
        raise UsageError(wrong)
    if verify:
        if asked.deployment or what or who or since or jsonl:
            wrong = "--verify looks at the whole record of an apply"
            raise UsageError(wrong, next_step=f"tern audit {asked.apply_id} --verify")
        return _verify(asked, as_json=as_json)
    reading = reach.reading()
    if asked.scope:
        reading.operation(asked.scope)
    entries = reach.record().entries(
        asked.apply_id,
        deployment=asked.deployment or "",
        what=what,
        who=who,
        since=read_moment(since, reading.clock()) if since else None,
        limit=limit,
    )
    more = [f"only the newest {limit} are shown; --limit shows more"] if len(entries) == limit else []
    if as_json:
        data = {"apply_id": asked.apply_id, "entries": [entry.as_json() for entry in entries]}
        write_document("audit", data, warnings=more)
    elif jsonl:
        for entry in entries:
            write_line("audit_entry", entry.as_json())
    else:
        show(_lines(entries), wraps=True)
        for line in more:
            click.echo(line, err=True)
    return 0


def _lines(entries: Sequence[Entry]) -> Iterator[Text]:
    width = max((len(entry.deployment) for entry in entries), default=0)
    for entry in entries:
        line = Text(f"{entry.at:%Y-%m-%d %H:%M:%S}  ", "dim")
        line.append(f"{entry.deployment:<{width}}  " if width else "", "bold")
        if entry.kind == "request":
            line.append(f"asked to {entry.what}", "bold yellow")
        else:
            line.append(entry.what.replace("_", " "))
        if entry.before != entry.after and entry.after:
            line.append(f"  {entry.before or 'new'} → {entry.after}".replace("_", " "), "cyan")
        line.append(f"  by {one_line(entry.who)}", "dim")
        if entry.why:
            line.append(f"  {one_line(entry.why)}")
        yield line
        yield from _what_came_of_it(entry, width)


def _what_came_of_it(entry: Entry, width: int) -> Iterator[Text]:
    indent = " " * (23 + width)
    for line in entry.outcomes:
        if line.get("outcome") != "accepted":
            yield Text(
                f"{indent}{line.get('deployment')}: {line.get('outcome')} {line.get('reason') or ''}".rstrip()
            )
    for fate in entry.fates[:MOST_FATES]:
        yield Text(f"{indent}{fate.deployment}: {_fate(fate)}", "dim")
    if len(entry.fates) > MOST_FATES:
        yield Text(f"{indent}… and on {plural(len(entry.fates) - MOST_FATES, 'more deployment')}", "dim")


def _fate(fate: Fate) -> str:
    words = fate.state.replace("_", " ")
    if fate.after_s is not None:
        words += f" after {duration(fate.after_s)}"
    return words + (f", {one_line(fate.engine_words)}" if fate.engine_words else "")


def _verify(asked: Subject, *, as_json: bool) -> int:
    found = reach.record().verify(asked.apply_id)
    if as_json:
        write_document("audit_verified", _json(found))
    else:
        show(_verdict(found), wraps=True)
    return BROKEN if found.findings else 0


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

"""`tern logs`: the record of an apply or of one operation, and on request the engine's own. Reads only."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, talk, write_document, write_line
from tern.cli.main import INTERRUPTED
from tern.cli.picture import show
from tern.cli.words import SET_BACK, duration, one_line
from tern.domain.errors import Refused, Unreachable, UsageError
from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok
from tern.domain.outcome import Refused as Declined
from tern.domain.subject import Subject
from tern.domain.telling import ARROWS, STATES, is_by_person, sentence, told_of
from tern.facts import ApplyFacts, Attempt, Happened
from tern.store.reading import Reading

LOOK_EVERY_S = 1.0
MOST_AT_ONCE = 10_000
MOST_LATER = 8
LONGEST_TRANSACTION_S = 60.0

Standing = dict[str, datetime]
"""Since when each deployment is where it is; the rollout itself under the empty name."""


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_AT_ONCE),
    default=100,
    show_default=True,
    help="The newest so many.",
)
@click.option("--follow", "-f", "follows", is_flag=True, help="And what happens from now on, until Ctrl-C.")
@click.option(
    "--engine", "of_engine", is_flag=True, help="What the engine itself has written about the operation."
)
@click.option("--jsonl", is_flag=True, help="One JSON document a line.")
@json_option
def logs(subject: str, *, limit: int, follows: bool, of_engine: bool, jsonl: bool, as_json: bool) -> int:
    """Show what happened, when, and how long it took. Who asked for what, and what came of it, is `tern audit`'s."""
    asked = Subject.read(subject)
    if as_json and (follows or jsonl):
        what = "--json writes one document; a stream is --jsonl"
        raise UsageError(what)
    if of_engine:
        return _of_engine(asked, limit, as_json=as_json or jsonl)
    reading = reach.reading()
    facts = reading.operation(asked.scope) if asked.scope else reading.apply(asked.apply_id)
    events = reading.events(asked.apply_id, deployment=asked.deployment, limit=limit)
    if as_json:
        told = [_json(event) for event in events]
        later = [each.as_json() for each in came_later(facts, asked.deployment)]
        write_document("logs", {"apply_id": asked.apply_id, "events": told, "later": later})
        return 0
    stood: Standing = {}
    _say(events, jsonl=jsonl, stood=stood)
    if not (jsonl or follows):
        show(later_lines(facts, asked.deployment), wraps=True)
    return _follow(reading, asked, events, stood, jsonl=jsonl) if follows else 0


def came_later(facts: ApplyFacts, deployment: str | None) -> tuple[Attempt, ...]:
    """Who came to its targets once it was over there: no event of its own, and all the same what became of it."""
    chosen = [each for each in facts.operations if deployment in {None, each.deployment}]
    return tuple(attempt for each in chosen for attempt in each.later)


def later_lines(facts: ApplyFacts, deployment: str | None) -> Iterator[Text]:
    """The same below a record, the first few."""
    found = came_later(facts, deployment)
    for attempt in found[:MOST_LATER]:
        yield Text.assemble(("since then           ", "dim"), attempt.words)
    if len(found) > MOST_LATER:
        yield Text(
            f"                     … and {len(found) - MOST_LATER:,} more; --json has all of them", "dim"
        )


def _follow(
    reading: Reading, asked: Subject, events: Sequence[Happened], stood: Standing, *, jsonl: bool
) -> int:
    after, seen = 0, {event.event_id for event in events}
    if events:
        after = _settled(events, events[0].event_id - 1)
    try:
        while True:
            time.sleep(LOOK_EVERY_S)
            found = reading.events(
                asked.apply_id, deployment=asked.deployment, limit=MOST_AT_ONCE, after=after
            )
            _say([event for event in found if event.event_id not in seen], jsonl=jsonl, stood=stood)
            after = _settled(found, after)
            seen = {event.event_id for event in found if event.event_id > after}
    except KeyboardInterrupt:
        talk("")
        return INTERRUPTED


def _settled(events: Sequence[Happened], before: int) -> int:
    """The id up to which nothing more can appear. Operations write their events side by side, so one may be
    committed after another of a higher id; but none is longer under way than a transaction may be.
    """
    return max((event.event_id for event in events if event.age_s > LONGEST_TRANSACTION_S), default=before)


def _of_engine(asked: Subject, limit: int, *, as_json: bool) -> int:
    name = Subject.read_operation(str(asked.scope or asked.apply_id))
    ports = reach.ports()
    facts = reach.reading().operation(name)
    record = next(each for each in facts.operations if each.deployment == name.deployment)
    if record.remote_id is None:
        what = f"{name} has no remote id: its engine knows nothing of it yet"
        raise Refused(what, unchanged="Nothing was sent to any engine.", reason="NO_REMOTE_ID")
    (deployment,) = ports.store.load_deployments([name.deployment])
    call = RemoteCall(name, record.remote_id, facts.environment, record.fence)
    answer = ports.engines.of(deployment).logs(call, limit)
    if not isinstance(answer, Ok):
        what = f"the engine of {name.deployment} gave no log"
        if isinstance(answer, Declined):
            raise Refused(what, why=(one_line(answer.message),), reason=answer.reason or "ENGINE_REFUSED")
        raise Unreachable(what, why=(one_line(answer.message),))
    if as_json:
        lines = [{"at": x.at, "level": x.level, "event": x.event, "message": x.message} for x in answer.value]
        write_document("engine_logs", {"scope": str(name), "remote_id": record.remote_id, "lines": lines})
        return 0
    show(
        [
            Text.assemble((f"{x.at}  {x.level:<7} ", "dim"), f"{x.event}  {one_line(x.message)}")
            for x in answer.value
        ]
    )
    return 0


def _say(events: Sequence[Happened], *, jsonl: bool, stood: Standing | None = None) -> None:
    if jsonl:
        for event in events:
            write_line("event", _json(event))
        return
    width = max((len(event.deployment) for event in events), default=0)
    show(timeline(events, width, {} if stood is None else stood), wraps=True)


def timeline(events: Sequence[Happened], width: int, stood: Standing) -> Iterator[Text]:
    """What happened, when, and how long what is over by it had lasted. stood: since when each is where it is."""
    for event in events:
        lasted = None
        if event.event == "accepted":
            stood[""] = event.at
        elif event.event in ARROWS and event.after != event.before:
            before = stood.get(event.deployment) or stood.get("")
            lasted = None if before is None else (event.at - before).total_seconds()
            stood[event.deployment] = event.at
        if not told_of(event.event).is_detail or event.after != event.before:
            yield _line(event, width, lasted)


def _line(event: Happened, width: int, lasted: float | None) -> Text:
    line = Text(f"{event.at:%Y-%m-%d %H:%M:%S}  ", "dim")
    line.append(f"{event.deployment:<{width}}  " if width else "", "bold")
    line.append(sentence(event.event, event.after))
    if lasted is not None:
        line.append(f", after {duration(lasted)} {STATES.get(event.before, event.before)}", "cyan")
    if is_by_person(event.event, event.why):
        line.append(f"  by {one_line(event.who)}", "dim")
    if event.why:
        line.append(f"  {one_line(event.why)}")
    if event.age_s < 0:
        line.append(f"  {SET_BACK}", "yellow")
    return line


def _json(event: Happened) -> dict[str, object]:
    return {
        "event_id": event.event_id,
        "at": event.at.isoformat(),
        "age_s": round(event.age_s, 1),
        "deployment": event.deployment or None,
        "event": event.event,
        "who": event.who,
        "why": event.why or None,
        "before": event.before or None,
        "after": event.after or None,
    }

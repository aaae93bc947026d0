"""`tern explain`: all reasons at once why something does not move, and who can change each. Reads only."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from tern.blocking import outstanding_of
from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.looking import Look, looking_options
from tern.cli.picture import details, hold_words, show, sign_of
from tern.cli.screen import listing, picture
from tern.cli.show import operation_picture
from tern.cli.words import SET_BACK, duration, one_line, plural, until_words
from tern.domain.holds import ClearedBy, Hold, HoldKind
from tern.domain.states import State
from tern.domain.subject import Subject
from tern.operation import OperationView
from tern.view import ApplyView, apply_view
from tern.ways import as_json as ways_as_json
from tern.ways import ways_of, ways_of_all

MOST_NAMED = 6
LEGEND: Mapping[ClearedBy, str] = {
    ClearedBy.FIX: "a command on this page moves it",
    ClearedBy.WAIT: "it goes away by itself",
    ClearedBy.ASK: "whoever looks after that has to move it",
}


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@looking_options
@json_option
def explain(subject: str, *, as_json: bool, **selectors: Any) -> None:
    """Say why an apply, or one operation, stands where it stands. With selectors, of each that they mean."""
    asked = Subject.read(subject)
    look = Look.read(asked, **selectors)
    reading = reach.reading()
    facts = reading.operation(asked.scope) if asked.scope else reading.apply(asked.apply_id)
    view = apply_view(facts)
    chosen = (view.operation(asked.deployment),) if asked.deployment else view.operations
    if look.chooses:
        chosen = look.chosen(view, reading)
    if as_json:
        write_document("explanation", _json(view, chosen), observed_at=facts.observed_at)
    elif asked.deployment:
        show([*operation_picture(view, chosen[0]), Text(), *_verdict(view, chosen[0])], wraps=True)
    elif look.chooses:
        show(_each(view, chosen), wraps=True)
    else:
        show([*picture(view, steps=False, explains=True), Text(), *_reasons(view)], wraps=True)


def _json(view: ApplyView, chosen: tuple[OperationView, ...]) -> dict[str, object]:
    names = {operation.deployment for operation in chosen}
    return {
        "apply_id": view.facts.apply_id,
        "state": view.facts.state.value,
        "headline": view.headline,
        "operations": [
            {**operation.as_json(), "ways": ways_as_json(ways_of(view, operation))} for operation in chosen
        ],
        "blockers": [blocker.as_json() for blocker in view.blockers if blocker.deployment in names],
        "needs_you": [cause.as_json() for cause in view.needs if not names.isdisjoint(cause.deployments)],
        "troubles": [cause.as_json() for cause in view.troubles if not names.isdisjoint(cause.deployments)],
    }


def _each(view: ApplyView, chosen: Sequence[OperationView]) -> Iterator[Text]:
    """Every chosen one with what holds it and its own commands, however many."""
    lines = listing(view, chosen)
    yield from lines[: len(lines) - len(chosen)] if chosen else lines
    for operation, line in zip(chosen, lines[-len(chosen) :], strict=True) if chosen else ():
        yield line
        for hold in operation.holds:
            yield Text(f"      {hold.cleared_by.value:<5} {one_line(hold_words(hold, operation.record))}")
        for blocker in view.blockers_of(operation.deployment):
            yield Text(f"      {blocker.command}", "bold", overflow="fold")
            yield Text(f"        {blocker.consequence}", "dim")


def _verdict(view: ApplyView, operation: OperationView) -> Iterator[Text]:
    """One sentence, and every command that leads on."""
    if operation.state.is_finished:
        yield from _of_one_that_is_over(view, operation)
    elif operation.holds:
        yield Text(f"  {plural(len(operation.holds), 'reason')} above.")
        marks = dict.fromkeys(hold.cleared_by for hold in operation.holds)
        yield Text(
            "  " + "   ".join(f"{mark.value}: {LEGEND[mark]}" for mark in ClearedBy if mark in marks), "dim"
        )
    elif operation.moves_by_itself and operation.state is not State.PENDING:
        says = "; above is what its engine says" if operation.under_way and operation.under_way.detail else ""
        yield Text(f"  Tern holds nothing back{says}.")
    else:
        due = operation.record.due_for_s
        if due is not None and due < 0:
            yield Text(f"  Nothing holds it, and it is due in {duration(-due)}: {SET_BACK}.")
        else:
            waited = f", since {duration(due)}" if due is not None else ""
            yield Text(f"  Nothing holds it: the next free worker takes it{waited}.")
    # Each with what it is about stands above.
    shown = {command for each in outstanding_of(operation.record) for command, _ in each.ways}
    for command, consequence in ways_of(view, operation):
        if command not in shown:
            yield Text(f"  {command}", "bold")
            yield Text(f"    {one_line(consequence)}", "dim")


def _of_one_that_is_over(view: ApplyView, operation: OperationView) -> Iterator[Text]:
    """How it ended, and who has it now; what a person can do about it follows."""
    record, state = operation.record, operation.state.value
    if record.open_wishes:
        asked = ", ".join(f"a {wish.verb}" for wish in record.open_wishes)
        yield Text(f"  It is {state}; {asked} of it is on its way.")
    elif any(not command.startswith("tern get ") for command, _ in ways_of(view, operation)):
        yield Text(f"  It is {state}; nothing moves it by itself any more.")
    else:
        yield Text(f"  It is {state}; nothing moves it any more.")
    if (carried := record.carried_on) is not None:
        yield Text(f"  It is {one_line(carried.words)}.")


def _of_what_is_over(view: ApplyView) -> Iterator[Text]:
    """What failed, and whether somebody has to do something about it."""
    failed = [
        each for each in view.operations if each.state is State.FAILED and each.record.carried_on is None
    ]
    for operation in failed[:MOST_NAMED]:
        yield Text.assemble(("  ✖ ", "red"), (operation.deployment, "bold"), f"  {details(operation)}")
    asked = [each.deployment for each in view.operations if each.record.open_wishes]
    if asked:
        more = f" and {len(asked) - MOST_NAMED:,} more" if len(asked) > MOST_NAMED else ""
        yield Text(f"  {view.headline}; asked for and on its way: {', '.join(asked[:MOST_NAMED])}{more}.")
    elif view.blockers:
        yield Text(f"  {view.headline}; nothing moves by itself: above is what needs you.")
    else:
        yield Text(f"  {view.headline}; it is over, and nothing moves it any more.")
    if len(failed) > 1 or not view.blockers:
        for command, consequence in ways_of_all(view):
            yield Text(f"  {command}", "bold")
            yield Text(f"    {consequence}, of all at once", "dim")


def _reasons(view: ApplyView) -> Iterator[Text]:
    """Each reason once, with the deployments that it holds: the same height for 3 and for 10,000."""
    held: dict[tuple[str, ClearedBy, str], list[OperationView]] = defaultdict(list)
    until: dict[tuple[str, ClearedBy, str], float] = {}
    for operation in view.operations:
        for hold in operation.holds:
            key = (hold.kind.value, hold.cleared_by, _same_for_many(hold, operation))
            held[key].append(operation)
            if hold.until_s is not None:
                until[key] = max(until.get(key, 0.0), hold.until_s)
    if not held:
        if view.facts.state.is_settled:
            yield from _of_what_is_over(view)
            return
        moving = [operation for operation in view.operations if operation.moves_by_itself]
        words = ", ".join(f"{each.deployment} ({sign_of(each).word})" for each in moving[:MOST_NAMED])
        yield Text(f"  Tern holds nothing back. Under way: {words or 'nothing'}")
        behind = [(each, ways) for each in moving if each.under_way and (ways := ways_of(view, each))]
        for each, ways in behind[:MOST_NAMED]:
            said = "" if each.under_way is None else one_line(each.under_way.detail)
            yield Text.assemble("  ", (each.deployment, "bold"), f"  {said}")
            for command, consequence in ways:
                yield Text(f"  {command}", "bold")
                yield Text(f"    {consequence}", "dim")
        return
    yield Text("  Why it stands where it stands", "bold")
    order = list(ClearedBy)
    for key, operations in sorted(held.items(), key=lambda each: (order.index(each[0][1]), -len(each[1]))):
        kind, cleared_by, detail = key
        clears = f", {until_words(HoldKind(kind), until[key])}" if key in until else ""
        line = Text(f"  {cleared_by.value:<5}", "bold yellow" if cleared_by is ClearedBy.FIX else "bold")
        line.append(one_line(detail) + clears)
        yield line
        names = ", ".join(each.deployment for each in operations[:MOST_NAMED])
        more = f" and {len(operations) - MOST_NAMED:,} more" if len(operations) > MOST_NAMED else ""
        yield Text(f"       {names}{more}", "dim")
    marks = dict.fromkeys(key[1] for key in held)
    yield Text("  " + "   ".join(f"{mark.value}: {LEGEND[mark]}" for mark in order if mark in marks), "dim")


def _same_for_many(hold: Hold, operation: OperationView) -> str:
    """The reason without what differs from one deployment to the next."""
    return (
        "its engine does not answer" if hold.kind is HoldKind.SILENT else hold_words(hold, operation.record)
    )

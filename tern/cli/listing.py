"""`tern ls`: the newest applies, one line each. Reads only."""

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import APPLY_SIGNS, SIGNS, ago, one_line
from tern.domain.states import SETTLED_APPLY, ApplyState, State
from tern.facts import ApplyLine


@click.command()
@click.option("--environment", "-e", default="", help="Only those of this environment.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([each.value for each in ApplyState]),
    help="Only those. Repeatable.",
)
@click.option("--live", is_flag=True, help="Only those without a verdict.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@json_option
def ls(*, environment: str, states: tuple[str, ...], live: bool, limit: int, as_json: bool) -> None:
    """List the newest applies, newest first."""
    wanted = [ApplyState(state) for state in states] or None
    if live:
        wanted = [state for state in wanted or ApplyState if state not in SETTLED_APPLY]
    found = reach.reading().applies(environment=environment, states=wanted, limit=limit)
    if as_json:
        write_document("applies", {"applies": [_json(line) for line in found]})
        return
    if not found:
        click.echo("There is no apply here. Next: tern apply --help")
        return
    width = max(len(line.apply_id) for line in found)
    show([_line(line, width) for line in found])


def _json(line: ApplyLine) -> dict[str, object]:
    return {
        "apply_id": line.apply_id,
        "environment": line.environment,
        "database": line.database,
        "state": line.state.value,
        "operation_count": line.operation_count,
        "counts": {state.value: line.counts[state] for state in State if state in line.counts},
        "caller": line.caller,
        "reason": line.reason,
        "created_at": line.created_at.isoformat(),
        "age_s": round(line.age_s, 1),
        "carries_on": line.carries_on,
        "follow_ups": list(line.follow_ups),
    }


def _line(line: ApplyLine, width: int) -> Text:
    sign = APPLY_SIGNS[line.state]
    text = Text(f"{sign.symbol} ", sign.style)
    text.append(line.apply_id.ljust(width), "bold")
    text.append(f"  {sign.word:<17}", sign.style)
    text.append(f" {line.counts.get(State.COMPLETED, 0)}/{line.operation_count} ", "")
    broken = [state for state in (State.FAILED, State.UNCERTAIN, State.STOPPED) if state in line.counts]
    text.append("".join(f"{SIGNS[state].symbol} {line.counts[state]} " for state in broken), "yellow")
    text.append(f" {line.database} in {line.environment}  {ago(line.age_s)}  ", "dim")
    text.append(one_line(line.reason), "dim")
    return text

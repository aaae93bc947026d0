"""An apply as it was: what its events tell, and nothing that they don't."""

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from tern.cli.envelope import write_document
from tern.cli.picture import show
from tern.cli.words import APPLY_SIGNS, SIGNS, duration, one_line, plural
from tern.domain.states import State
from tern.doors.record import PastApply, PastOperation

NOT_TOLD = ("percent", "rows_copied", "rows_total", "eta_s", "error", "holds", "tables")
"""What no event holds, in the names of `get --json`."""
FOLDED_ABOVE = 40


def show_past(past: PastApply, deployment: str | None, *, as_json: bool) -> None:
    """The whole apply, or one of its operations."""
    chosen = [each for each in past.operations if deployment in {None, each.deployment}]
    if as_json:
        write_document("apply_at", _json(past, chosen), observed_at=past.at)
    else:
        show(_lines(past, chosen, deployment), wraps=True)


def _json(past: PastApply, chosen: list[PastOperation]) -> dict[str, object]:
    counts = Counter(each.state.value for each in past.operations)
    return {
        "apply_id": past.apply_id,
        "at": past.at.isoformat(),
        "environment": past.environment,
        "database": past.database,
        "state": past.state.value,
        "operation_count": len(past.operations),
        "counts": dict(counts),
        "created_at": past.created_at.isoformat(),
        "caller": past.caller,
        "reason": past.reason,
        "operations": [
            {
                "deployment": each.deployment,
                "position": each.position,
                "state": each.state.value,
                "since": None if each.since is None else each.since.isoformat(),
                "remote_id": each.remote_id,
                "attempt": each.attempt,
                "who": each.who or None,
                "why": each.why or None,
            }
            for each in chosen
        ],
        "open_requests": [
            {
                "request_id": wish.request_id,
                "verb": wish.verb,
                "caller": wish.caller,
                "reason": wish.reason,
                "asked_at": wish.asked_at.isoformat(),
                "operations": wish.operations,
            }
            for wish in past.wishes
        ],
        "not_told": list(NOT_TOLD),
    }


def _lines(past: PastApply, chosen: list[PastOperation], deployment: str | None) -> Iterator[Text]:
    sign = APPLY_SIGNS[past.state]
    yield Text.assemble(
        (past.apply_id, "bold"),
        f"  as it was at {past.at:%Y-%m-%d %H:%M:%S} UTC  ",
        (f"{sign.symbol} {sign.word}", sign.style),
    )
    age = duration((past.at - past.created_at).total_seconds())
    yield Text(
        f"  {past.database} in {past.environment}, {age} after it was accepted for {past.caller}:"
        f" {one_line(past.reason)}",
        "dim",
    )
    yield Text()
    folded = len(chosen) > FOLDED_ABOVE
    width = max(len(each.deployment) for each in chosen)
    for each in chosen:
        if not folded or each.state not in {State.PENDING, State.COMPLETED, State.SKIPPED}:
            yield _operation(past, each, width, in_full=deployment is not None)
    if folded:
        counts = Counter(SIGNS[each.state].word for each in chosen)
        yield Text("  " + ", ".join(f"{number} {word}" for word, number in counts.most_common()), "dim")
    for wish in past.wishes:
        yield Text(
            f"  open: {wish.verb} on {plural(wish.operations, 'operation')} by {wish.caller}: {one_line(wish.reason)}",
            "yellow",
        )
    yield Text()
    yield Text(
        "  Percent, rows and what engines said in between are in no event, so they are not shown.", "dim"
    )


def _operation(past: PastApply, each: PastOperation, width: int, *, in_full: bool) -> Text:
    sign = SIGNS[each.state]
    line = Text.assemble("  ", (sign.symbol, sign.style), f" {each.deployment:<{width}}  {sign.word}")
    if each.since is not None:
        line.append(f"  for {duration((past.at - each.since).total_seconds())}", "dim")
    if each.remote_id:
        line.append(f"  as {each.remote_id}", "dim")
    if each.why and (
        in_full or each.state in {State.FAILED, State.STOPPED, State.UNCERTAIN, State.CANCELLED}
    ):
        line.append(f"  {one_line(each.why)}")
    return line

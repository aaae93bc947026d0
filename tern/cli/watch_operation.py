"""`tern watch AP/DEP` and `tern wait AP/DEP`: following one operation to its own end, whatever becomes of its siblings.

Following a whole apply is in watch.py, which hands in how to look.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from tern.blocking import matters
from tern.cli.envelope import talk, write_document, write_line
from tern.cli.main import INTERRUPTED
from tern.cli.picture import console, details, draws_again, harmless, show, sign_of
from tern.cli.show import operation_picture
from tern.cli.words import duration, one_line
from tern.domain.control import Verb
from tern.domain.ending import Seen, exit_code, stopped
from tern.domain.holds import ClearedBy, HoldKind
from tern.domain.identity import ScopeName
from tern.domain.states import State
from tern.operation import OperationView
from tern.view import NEEDS_PERSON, READY_FOR_CUTOVER, ApplyView

TIMED_OUT = 124
STEP_PERCENT = 10
_MARGIN_LINES = 3
_OUTCOMES: Mapping[State, int] = {
    State.COMPLETED: 0,
    State.FAILED: 10,
    State.CANCELLED: 11,
    State.REVERTED: 11,
    # Left behind: the change is not there, and nobody will bring it.
    State.SKIPPED: 11,
    State.STOPPED: 12,
}


Looks = Callable[[Callable[[float], None] | None], Iterator[ApplyView]]
"""One look after the other at an operation's apply. What is handed in is told for how many seconds nothing was seen."""


def outcome_code(view: ApplyView, operation: OperationView) -> int | None:
    """What following one operation ends with; None while something moves it, or what it waits for, without a person."""
    if operation.moves_by_itself:
        return None
    if (settled := _OUTCOMES.get(operation.state)) is not None:
        return settled
    turn = [hold for hold in operation.holds if hold.kind is HoldKind.TURN]
    # Before its turn nobody is asked to say that it cuts over.
    if view.exit_code is None and all(hold.cleared_by is ClearedBy.WAIT for hold in turn or operation.holds):
        # Its siblings move, and with them what it waits for.
        return None
    is_ready = operation.state is State.WAITING_FOR_CUTOVER and not turn
    return READY_FOR_CUTOVER if is_ready else NEEDS_PERSON


def wait_operation(scope: ScopeName, looks: Iterator[ApplyView], wanted: str, *, as_json: bool) -> int | None:
    """Waits without a word; None where the looks ended before the outcome was there."""
    last: tuple[ApplyView, OperationView] | None = None
    for view in looks:
        last = (view, view.operation(scope.deployment))
        code = _code(*last, wanted)
        if code is not None:
            _tell_end(*last, as_json=as_json)
            return code
    if as_json and last is not None:
        _tell_end(*last, as_json=True)
    return None


def _code(view: ApplyView, operation: OperationView, wanted: str) -> int | None:
    """What the wait ends with; None while it goes on."""
    code = outcome_code(view, operation)
    if wanted != "stopped":
        return (code or 0) if _is_there(operation, wanted, code) or code is not None else None
    stops = [wish.fate for wish in operation.record.wishes if wish.verb is Verb.STOP]
    seen = Seen(operation.state, stops[-1] if stops else None, lost_contact=operation.lost_contact)
    found = stopped(seen, anybody_asked=bool(stops), moves=code is None)
    return None if found is None else exit_code([found])


def _is_there(operation: OperationView, wanted: str, code: int | None) -> bool:
    match wanted:
        case "completed":
            return operation.state is State.COMPLETED
        case "settled":
            return operation.state.is_settled and code is not None
        case "ready":
            return code == READY_FOR_CUTOVER
        case _:
            return code == NEEDS_PERSON


def _tell_end(view: ApplyView, operation: OperationView, *, as_json: bool) -> None:
    if as_json:
        write_document("operation", operation.as_json(), observed_at=view.facts.observed_at)
    else:
        click.echo(end_words(view, operation))


def end_words(view: ApplyView, operation: OperationView) -> str:
    """What it came to, in one sentence."""
    if operation.state.is_settled:
        said = one_line(operation.record.error_message)
        return f"{operation.scope} is {operation.state.value}{f': {said}' if said else ''}."
    if outcome_code(view, operation) == READY_FOR_CUTOVER:
        return f"{operation.scope} is ready to cut over: a person says when."
    state = operation.state.value.replace("_", " ")
    return f"{operation.scope} is {state}, and somebody must act: tern explain {operation.scope}"


def follow_operation(scope: ScopeName, looks: Looks, *, jsonl: bool) -> int:
    """Shows the operation until nothing moves it without a person; returns its outcome's exit code."""
    try:
        if jsonl:
            return _stream(scope, looks)
        return _redraw(scope, looks) if draws_again(console()) else _tell(scope, looks)
    except KeyboardInterrupt:
        talk(f"\nThe rollout goes on. Come back with: tern watch {scope}{' --jsonl' if jsonl else ''}")
        return INTERRUPTED


def _redraw(scope: ScopeName, looks: Looks) -> int:
    out = console()
    lines: list[Text] = []
    said, code = "", 0
    try:
        with Live(console=out, auto_refresh=False, transient=True, vertical_overflow="crop") as live:

            def show_silence(seconds: float) -> None:
                note = f"  PostgreSQL has not answered for {duration(seconds)}; what stands here is older"
                live.update(_frame(lines, note, out.height), refresh=True)

            for view in looks(show_silence):
                operation = view.operation(scope.deployment)
                lines = operation_picture(view, operation)
                live.update(_frame(lines, "", out.height), refresh=True)
                if (found := outcome_code(view, operation)) is not None:
                    said, code = end_words(view, operation), found
                    break
            live.update(Text())
    except KeyboardInterrupt:
        # The live picture goes with its frame; what was seen last stays.
        show(lines, wraps=True)
        raise
    show([*lines, Text(), Text(f"  {said}")], wraps=True)
    return code


def _frame(lines: list[Text], note: str, height: int) -> Group:
    room = max(height - _MARGIN_LINES, 4)
    shown = [line.copy() for line in lines[:room]]
    shown += [
        Text(),
        Text(note or "  Ctrl-C leaves the rollout alone.", "yellow" if note else "dim"),
    ]
    for line in map(harmless, shown):
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*shown)


def _tell(scope: ScopeName, looks: Looks) -> int:
    """One line for each change, for logs and pipes."""
    said: tuple[str, ...] = ()
    for view in looks(_say_silence):
        operation = view.operation(scope.deployment)
        at = f"{view.facts.observed_at:%H:%M:%S}"
        if (now := _milestone(operation)) != said:
            said = now
            sign = sign_of(operation)
            click.echo(f"{at}  {scope}  {sign.symbol} {sign.word}  {details(operation)}".rstrip())
        if (code := outcome_code(view, operation)) is None:
            continue
        for ways in matters(view.blockers_of(scope.deployment)):
            commands = ", or ".join(way.command for way in ways)
            click.echo(f"{at}  {scope}  needs you: {one_line(ways[0].what)}: {commands}")
        click.echo(end_words(view, operation))
        return code
    return 0


def _stream(scope: ScopeName, looks: Looks) -> int:
    last: tuple[str, ...] = ()
    for view in looks(None):
        operation = view.operation(scope.deployment)
        if (now := _milestone(operation)) != last:
            last = now
            moment = view.facts.observed_at.isoformat()
            write_line("operation", {"observed_at": moment, "data": operation.as_json()})
        if (code := outcome_code(view, operation)) is not None:
            return code
    return 0


def _milestone(operation: OperationView) -> tuple[str, ...]:
    """What is worth a line of its own: a new state, every tenth of the way, a new reason to wait, a new request."""
    sign = sign_of(operation)
    tenth = str(operation.percent // STEP_PERCENT) if operation.state is State.RUNNING else ""
    held = [hold.kind.value for hold in operation.holds if hold.kind is not HoldKind.CLAIMED]
    asked = [wish.verb.value for wish in operation.record.open_wishes]
    # Numbers in what an engine says of a statement change all the time; its words are the news, such as a lock's.
    under_way = operation.under_way
    says = "" if under_way is None else re.sub(r"[\d.,]+", "", f"{under_way.state} {under_way.detail}")
    return (sign.symbol, sign.word, tenth, says, *held, *asked)


def _say_silence(seconds: float) -> None:
    talk(f"PostgreSQL has not answered for {duration(seconds)}; still trying")

"""`tern watch` and `tern wait`: following an apply. Both only look; ending them leaves the rollout alone."""

import time
from collections.abc import Callable, Iterator

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, talk, write_document, write_line
from tern.cli.looking import by_option, grouped_by, labels_by
from tern.cli.main import INTERRUPTED
from tern.cli.picture import console, draws_again, harmless, outcome_words, show
from tern.cli.screen import lines_of_screen, picture
from tern.cli.seconds import Seconds
from tern.cli.telling import Teller, milestone
from tern.cli.watch_operation import follow_operation, wait_operation
from tern.cli.words import duration
from tern.domain.control import Delivery, Verb
from tern.domain.ending import NONE_DONE, PARTLY_DONE, UNKNOWN, Seen, exit_code, stopped
from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId
from tern.domain.subject import Subject
from tern.facts import OperationRecord
from tern.grouping import Grouped
from tern.ports import StorageUnavailable
from tern.store.reading import Reading
from tern.view import READY_FOR_CUTOVER, ApplyView, apply_view

INTERVAL_S = 1.0
LARGE = 1_000
"""Above so many operations a look costs more, so it is taken less often."""
TIMED_OUT = 124
_MARGIN_LINES = 2


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option("--jsonl", is_flag=True, help="One JSON document a line for each change that is seen.")
@by_option
def watch(subject: str, *, jsonl: bool, by: str) -> int:
    """Follow an apply, or one operation of it, until it settles or needs you; end with its outcome's exit code.

    Ctrl-C leaves the rollout alone.
    """
    asked = Subject.read(subject)
    if asked.scope is None:
        return follow(asked.apply_id, jsonl=jsonl, by=by)
    if by:
        what = f"{asked.scope} names its operation; --by is about a whole apply"
        raise UsageError(what)
    reading = reach.reading()
    reading.operation(asked.scope)
    return follow_operation(
        asked.scope, lambda told: _looks(reading, asked.apply_id, on_silence=told), jsonl=jsonl
    )


@click.command()
@click.argument("subject", metavar="AP[/DEPLOYMENT]")
@click.option(
    "--for",
    "wanted",
    type=click.Choice(["completed", "settled", "stopped", "paused", "ready"]),
    default="settled",
    show_default=True,
)
@click.option("--timeout", type=Seconds(), help="Seconds; then the exit code is 124.")
@json_option
def wait(subject: str, *, wanted: str, timeout: float | None, as_json: bool) -> int:
    """Wait without a word until an apply, or one operation of it, is where you want it, or can't get there by itself.

    Ends with the outcome's exit code, also where it is what you waited for: 13 is paused, 14 ready to cut over, and a
    person has to act on either. With --for stopped 0 where all have come to stand, as `tern stop --wait` does.
    """
    asked = Subject.read(subject)
    reading = reach.reading()
    deadline = None if timeout is None else time.monotonic() + timeout
    looks = _looks(reading, asked.apply_id, deadline=deadline)
    if asked.scope is not None:
        reading.operation(asked.scope)
        found = wait_operation(asked.scope, looks, wanted, as_json=as_json)
        if found is None:
            talk(f"{asked.scope} was not {wanted} within {timeout:g} s; the rollout goes on.")
        return TIMED_OUT if found is None else found
    view = None
    code = None
    for view in looks:
        code = _code(view, wanted)
        if code is not None:
            break
    else:
        talk(f"{asked.apply_id} was not {wanted} within {timeout:g} s; the rollout goes on.")
        if as_json and view is not None:
            write_document("apply", view.as_json(), observed_at=view.facts.observed_at)
        return TIMED_OUT
    if as_json:
        write_document("apply", view.as_json(), observed_at=view.facts.observed_at)
    else:
        click.echo(outcome_words(view))
    if code and not as_json:
        talk(_why(view, wanted, code))
    return code or 0


def _why(view: ApplyView, wanted: str, code: int) -> str:
    """The exit code in words; one that isn't 0 may be just what was waited for."""
    words = {
        13: "a person has to act",
        14: "it is ready to cut over, and a person says when",
        NONE_DONE: "none of it has come to stand",
        PARTLY_DONE: "some of it has come to stand, and some has not",
        UNKNOWN: "of some of it nobody can tell whether it stands",
    }.get(code, f"it is {view.facts.state.value.replace('_', ' ')}")
    waited = (
        f", which is what was waited for ({wanted})"
        if wanted != "settled" and _is_there(view, wanted)
        else ""
    )
    return f"exit code {code}: {words}{waited}"


def _code(view: ApplyView, wanted: str) -> int | None:
    """What the wait ends with; None while it goes on. Whether all stand is told by the rule of every verb."""
    if wanted != "stopped":
        return (view.exit_code or 0) if _is_there(view, wanted) or view.exit_code is not None else None
    fates = {each.deployment: _newest_stop(each.record) for each in view.operations}
    endings = [
        stopped(
            Seen(each.state, fates[each.deployment], lost_contact=each.lost_contact),
            anybody_asked=any(fates.values()),
            moves=view.exit_code is None,
        )
        for each in view.operations
    ]
    found = [each for each in endings if each is not None]
    return exit_code(found) if len(found) == len(endings) else None


def _newest_stop(record: OperationRecord) -> Delivery | None:
    """What became of the last stop of it; None where nobody asked for one."""
    return next((wish.fate for wish in reversed(record.wishes) if wish.verb is Verb.STOP), None)


def follow(apply_id: ApplyId, *, jsonl: bool = False, by: str = "") -> int:
    """Shows the apply until nothing moves without a person; returns the outcome's exit code."""
    reading = reach.reading()
    # The first look is outside: an apply that is not there is no broken watch.
    reading.apply(apply_id)
    try:
        if jsonl:
            return _stream(reading, apply_id)
        return _redraw(reading, apply_id, by) if draws_again(console()) else _tell(reading, apply_id)
    except KeyboardInterrupt:
        talk(f"\nThe rollout goes on. Come back with: tern watch {apply_id}{' --jsonl' if jsonl else ''}")
        return INTERRUPTED


def _redraw(reading: Reading, apply_id: ApplyId, by: str) -> int:
    out = console()
    labels = labels_by(by, apply_id, reading)
    with Live(console=out, auto_refresh=False, transient=True, vertical_overflow="crop") as live:

        def show_silence(seconds: float) -> None:
            silence = f"  PostgreSQL has not answered for {duration(seconds)}; what stands here is older"
            live.update(_frame(view, silence, grouped_by(view, by, labels)), refresh=True)

        view = apply_view(reading.apply(apply_id))
        try:
            for view in _looks(reading, apply_id, on_silence=show_silence):
                live.update(_frame(view, "", grouped_by(view, by, labels)), refresh=True)
                if view.exit_code is not None:
                    break
        except KeyboardInterrupt:
            # The live picture goes with its frame; what was seen last stays.
            live.update(Text())
            live.stop()
            show(picture(view, steps=False, height=lines_of_screen()))
            raise
    show(picture(view, height=lines_of_screen()))
    return view.exit_code or 0


def _frame(view: ApplyView, note: str, groups: Grouped | None) -> Group:
    lines = picture(view, steps=False, grouped=groups, height=lines_of_screen() - _MARGIN_LINES)
    lines.append(Text())
    lines.append(Text(note or "  Ctrl-C leaves the rollout alone.", "yellow" if note else "dim"))
    for line in map(harmless, lines):
        if line.overflow != "fold":
            line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _tell(reading: Reading, apply_id: ApplyId) -> int:
    """One line for each change of the whole and for each exception, for logs and pipes."""
    teller = Teller()
    for view in _looks(reading, apply_id, on_silence=_say_silence):
        for line in teller.lines(view):
            click.echo(line)
        if view.exit_code is not None:
            click.echo(outcome_words(view))
            return view.exit_code
    return 0


def _stream(reading: Reading, apply_id: ApplyId) -> int:
    """A document for each change. Of many deployments each is long, so there is one whenever a line would be told."""
    last: tuple[object, ...] = ()
    teller = Teller()
    for view in _looks(reading, apply_id):
        if len(view.operations) <= LARGE:
            now = (view.facts.state, *(milestone(operation) for operation in view.operations))
            is_new, last = now != last, now
        else:
            is_new = bool(teller.lines(view)) or view.exit_code is not None
        if is_new:
            moment = view.facts.observed_at.isoformat()
            write_line("apply", {"observed_at": moment, "data": view.as_json()})
        if view.exit_code is not None:
            return view.exit_code
    return 0


def _say_silence(seconds: float) -> None:
    talk(f"PostgreSQL has not answered for {duration(seconds)}; still trying")


def _looks(
    reading: Reading,
    apply_id: ApplyId,
    *,
    deadline: float | None = None,
    on_silence: Callable[[float], None] | None = None,
) -> Iterator[ApplyView]:
    """A look a second until the deadline. A database that is away for a while ends no watch."""
    silent_since: float | None = None
    while True:
        began = time.monotonic()
        pause = INTERVAL_S
        try:
            view = apply_view(reading.apply(apply_id))
            silent_since = None
            pause = INTERVAL_S if len(view.operations) <= LARGE else 5 * INTERVAL_S
            yield view
        except StorageUnavailable:
            silent_since = silent_since or began
            if on_silence is not None:
                on_silence(time.monotonic() - silent_since)
        rest = began + pause - time.monotonic()
        if deadline is not None:
            rest = min(rest, deadline - time.monotonic())
            if rest <= 0 and time.monotonic() >= deadline:
                return
        time.sleep(max(0.0, rest))


def _is_there(view: ApplyView, wanted: str) -> bool:
    match wanted:
        case "settled":
            return view.facts.state.is_settled
        case "ready":
            return view.exit_code == READY_FOR_CUTOVER
        case _:
            return view.facts.state.value == wanted

"""A rollout on one screen: headline, what needs a person, what goes wrong, the slowest, the folded rest.

The same lines for `get`, for `explain` and for each frame of `watch`, and never more than fit a small terminal, with
3 deployments or with 10,000: what is alike is one entry, the most numerous first, and what has no room is counted
beside the command that lists it.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

from rich.text import Text

from tern.cause import Cause, Kind
from tern.cli.picture import (
    NAME_WIDTH,
    console,
    next_steps,
    operation_line,
    step_line,
    step_that_lists,
    subtitle,
    table_lines,
    title,
    wave_line,
    word_width,
)
from tern.cli.words import HOUR, LOCKED, LOST_CONTACT, MINUTE, SIGNS, Sign, count, key_first, one_line, plural
from tern.domain.drift import warnings
from tern.domain.states import State
from tern.domain.whole import Weight, Whole
from tern.grouping import Grouped
from tern.operation import OperationView
from tern.view import ApplyView

LINES = 23
"""What a terminal of 24 lines shows above its prompt."""
COLUMNS = 80
_LEAST_LINES = 14
DETAILED_UP_TO = 20
"""So many deployments have a line each, where that fits."""
MOST_CAUSES = 20
MOST_NAMED = 3
MOST_STRAYS = 3
MOST_TABLES = 6
MOST_WAVES = 4
MOST_MOVING = 8
_LEAST_BELOW = 4
_MARGINS = 4
_TITLE = Text("  Needs you", "bold yellow")
_BAR = 20
_LEAST_BAR = 8
_WHOLE_ABOVE = 10
_CLOSE = 0.1

_REST = (State.COMPLETED, State.PENDING, State.SKIPPED, State.CANCELLED, State.REVERTED)
_TOLD_BY_NEED = {Kind.STOPPED, Kind.READY, Kind.UNCERTAIN, Kind.LOST_CONTACT}
"""What such an operation needs says all that is the matter with it."""
KIND_SIGNS: Mapping[Kind, Sign] = {
    Kind.FAILED: SIGNS[State.FAILED],
    Kind.UNCERTAIN: SIGNS[State.UNCERTAIN],
    Kind.LOST_CONTACT: LOST_CONTACT,
    Kind.STOPPED: SIGNS[State.STOPPED],
    Kind.RETRYING: SIGNS[State.FAILED_RETRYABLE],
    Kind.LOCK: LOCKED,
    Kind.HELD: SIGNS[State.PENDING],
    Kind.READY: SIGNS[State.WAITING_FOR_CUTOVER],
}


def picture(
    view: ApplyView,
    *,
    steps: bool = True,
    explains: bool = False,
    also: Sequence[Text] = (),
    grouped: Grouped | None = None,
    height: int = LINES,
) -> list[Text]:
    """The whole rollout in so many lines. Where it explains, nothing of what needs a person is left out for its height,
    but for the sheer number of causes. also: what stands below its title.
    """
    top = [title(view), subtitle(view), *also]
    if view.facts.error_message and view.facts.state.is_settled:
        where, colon, said = one_line(view.facts.error_message).partition(": ")
        top.append(Text(f"  {where}{colon}{key_first(said)}", "red"))
    if len(view.operations) > 1 and not view.facts.state.is_finished:
        top.append(_whole_line(view.whole))
    is_detailed = len(view.operations) <= DETAILED_UP_TO and grouped is None
    needed, wrong = view.needs, view.troubles
    end = [Text(), *next_steps(view, lists=not is_detailed)] if steps else []
    if not is_detailed and height_of([*top, *end]) + 2 * len(needed) + len(wrong) + _MARGINS > height:
        # The usual steps are known by heart; what is wrong is not.
        end = [Text(), step_line(*step_that_lists(view), width=0)] if steps else []
    end = end if len(end) > 1 else []
    room = height - height_of([*top, *end]) - 1
    detailed = [*_detailed(view), *_strays(view)] if is_detailed else []
    folded = _LEAST_BELOW if grouped else len(_folded(view, needed, wrong, _LEAST_BELOW))
    if explains:
        needs = _all_needs(needed)
    else:
        # Each deployment on its line, where that leaves every entry its own; else what is alike together.
        beside = _needs_within(needed, room - height_of(detailed) - 1) if is_detailed else None
        needs = _first_needs(view, needed, room - folded - 1) if beside is None else beside
    if needs:
        needs = [Text(), *needs]
    room = max(_LEAST_BELOW, room - height_of(needs))
    if grouped is not None:
        below = list(group_lines(grouped, room))
    elif is_detailed and height_of(detailed) <= room:
        below = detailed
    else:
        below = _folded(view, needed, wrong, room, explains=explains)
    return [*top, *needs, *([Text(), *below] if below else []), *end]


def lines_of_screen() -> int:
    """How many lines there are above the prompt; of a terminal that is higher, no more are used."""
    out = console()
    return max(_LEAST_LINES, min(LINES, out.height - 1)) if out.is_terminal else LINES


def height_of(lines: Sequence[Text], width: int = COLUMNS) -> int:
    """How many lines of a terminal they take: commands wrap, everything else is cut off at its edge."""
    return sum(max(1, -(-line.cell_len // width)) if line.overflow == "fold" else 1 for line in lines)


def whole_words(whole: Whole) -> str:
    """Percent, rate and end of the whole; an end that is not known is said not to be."""
    by = whole.percent_by.value
    if whole.percent_by is Weight.ROWS and whole.rows_known_for < whole.operations:
        by = "known rows"
    words = [f"{whole.percent} % by {by}"]
    if whole.done_per_minute is not None:
        rate = whole.done_per_minute
        words.append(f"{rate:,.0f} done/min" if rate >= _WHOLE_ABOVE else f"{rate:.1f} done/min")
    if whole.rows_per_s is not None:
        words.append(f"{count(round(whole.rows_per_s))} rows/s")
    words.append("end not known" if whole.eta_s is None else f"about {between(*whole.eta_s)} left")
    return ", ".join(words)


def between(low: float, high: float) -> str:
    """A length of time that is only about known, in one unit: `12 to 15 min`."""
    unit, size = ("s", 1.0) if high < 2 * MINUTE else ("min", MINUTE) if high < 2 * HOUR else ("h", HOUR)
    first, last = low / size, high / size
    if unit == "h":
        return f"{first:.1f} h" if last - first < _CLOSE else f"{first:.1f} to {last:.1f} h"
    return f"{ceil(last)} {unit}" if ceil(first) == ceil(last) else f"{ceil(first)} to {ceil(last)} {unit}"


def _whole_line(whole: Whole) -> Text:
    words = whole_words(whole)
    room = COLUMNS - len(words) - 6
    if room < _LEAST_BAR:
        return Text(f"  {words}")
    return Text.assemble("  ", (_bar(whole.percent, min(_BAR, room)), "cyan"), f"  {words}")


def _bar(percent: int, width: int = _BAR) -> str:
    full = percent * width // 100
    return f"[{'#' * full}{'-' * (width - full)}]"


def _all_needs(needed: Sequence[Cause]) -> list[Text]:
    """Every entry with every way out of it."""
    if not needed:
        return []
    shown = [line for cause in needed[:MOST_CAUSES] for line in _need(cause, len(cause.ways))]
    return [_TITLE.copy(), *shown, *_more(needed[MOST_CAUSES:], "--json has all of them")]


def _needs_within(needed: Sequence[Cause], room: int) -> list[Text] | None:
    """Every entry, with as much of each as there is room for: every way out, else the first, else without what that
    would do; None where even that has no room.
    """
    if not needed:
        return []
    for ways, says in ((max(len(cause.ways) for cause in needed), True), (1, True), (1, False)):
        lines = [_TITLE.copy(), *(line for cause in needed for line in _need(cause, ways, says=says))]
        if height_of(lines) <= room:
            return lines
    return None


def _first_needs(view: ApplyView, needed: Sequence[Cause], room: int) -> list[Text]:
    """As many entries as there is room for, and how many more there are; one at least."""
    if (lines := _needs_within(needed, room)) is not None:
        return lines
    lines = [_TITLE.copy()]
    for place, cause in enumerate(needed):
        entry = _need(cause, 1, says=False)
        # A line is kept for those that are not shown.
        if place and height_of([*lines, *entry]) > room - (place < len(needed) - 1):
            return [*lines, *_more(needed[place:], f"tern explain {view.facts.apply_id}")]
        lines += entry
    return lines


def _need(cause: Cause, ways: int, *, says: bool = True) -> list[Text]:
    line = Text("  ! ", "bold yellow")
    if cause.count == 1:
        line.append(cause.deployments[0], "bold")
        line.append(f"  {one_line(cause.what)}")
    else:
        line.append(plural(cause.count, "deployment"), "bold")
        line.append(f"  {one_line(cause.what)}")
        line.append(f"  ({named(cause)})", "dim")
    lines = [line]
    for command, consequence in cause.ways[:ways]:
        lines.append(_command(command))
        if says:
            lines.append(Text(f"    {consequence}", "dim"))
    return lines


def _command(command: str) -> Text:
    return Text(f"    {command}", "bold", overflow="fold")


def _more(left: Sequence[Cause], where: str) -> list[Text]:
    """Those for which there is no room, and where they are."""
    if not left:
        return []
    what = f"{plural(len(left), 'more cause')}, {plural(sum(each.count for each in left), 'deployment')}"
    return [Text(f"    and {what}: {where}", "dim")]


def named(cause: Cause) -> str:
    """The first few of whom it concerns."""
    more = f" and {cause.count - MOST_NAMED:,} more" if cause.count > MOST_NAMED else ""
    return ", ".join(cause.deployments[:MOST_NAMED]) + more


def _detailed(view: ApplyView) -> Iterator[Text]:
    width = min(NAME_WIDTH, max((len(each.deployment) for each in view.operations), default=0))
    words = word_width(view.operations)
    moving = [each for each in view.operations if each.state in {State.RUNNING, State.CUTTING_OVER}]
    waves = {wave.number: wave for wave in view.waves}
    for operation in view.operations:
        if (wave := waves.pop(operation.record.wave, None)) is not None:
            yield wave_line(wave)
        follows = operation in moving[:2] and len(operation.record.tables) > 1
        yield operation_line(operation, width, words, brief=follows)
        if follows:
            yield from table_lines(operation.record.tables[:MOST_TABLES])


def _folded(
    view: ApplyView, needed: Sequence[Cause], found: Sequence[Cause], room: int, *, explains: bool = False
) -> list[Text]:
    """What goes wrong by its causes, then the slowest, then how many there are of the others."""
    told = {name for cause in needed for name in cause.deployments}
    wrong = [
        cause
        for cause in found
        if not (Kind(cause.kind) in _TOLD_BY_NEED and told.issuperset(cause.deployments))
    ]
    in_trouble = {name for cause in found for name in cause.deployments}
    moving = [
        each for each in view.operations if each.state not in _REST and each.deployment not in in_trouble
    ]
    # The slowest first: the end of the rollout depends on them.
    moving.sort(key=lambda each: (each.percent, each.record.position))
    strays = _strays(view)
    open_waves = [wave for wave in view.waves if wave.through < wave.operations or wave.bakes_for_s]
    left = room - 1
    waves = [wave_line(wave) for wave in open_waves[: max(0, min(MOST_WAVES, left // 3))]]
    left -= len(waves)
    if len(strays) > max(0, left // 3):
        strays = []
    left -= len(strays)
    most = MOST_CAUSES if explains else left if len(wrong) <= left else max(1, left - 1)
    causes = wrong[:most]
    shown = moving[: max(0, min(MOST_MOVING, left - len(causes) - (len(causes) < len(wrong))))]
    known = {each.deployment: each for each in view.operations}
    alone = [known[cause.deployments[0]] for cause in causes if cause.count == 1]
    width = min(NAME_WIDTH, max((len(each.deployment) for each in (*alone, *shown)), default=0))
    words = word_width([*alone, *shown])
    lines = [*waves]
    for cause in causes:
        one = known[cause.deployments[0]]
        lines.append(operation_line(one, width, words) if cause.count == 1 else trouble_line(cause))
        if explains and cause.count > 1:
            lines.append(
                Text(
                    f"      tern get {view.facts.apply_id} --cause {cause.cause_id}", "bold", overflow="fold"
                )
            )
    lines += _more(wrong[len(causes) :], f"tern explain {view.facts.apply_id}")
    lines += [operation_line(each, width, words) for each in shown]
    return [*lines, *_rest_line(view, len(moving) - len(shown)), *strays]


def trouble_line(cause: Cause) -> Text:
    """Several operations with the same trouble."""
    sign = KIND_SIGNS[Kind(cause.kind)]
    line = Text(f"  {sign.symbol} ", sign.style)
    line.append(f"{cause.count:,} {sign.word}", sign.style)
    if (what := key_first(one_line(cause.what))) not in {sign.word, cause.kind.replace("_", " ")}:
        line.append(f"  {what}")
    line.append(f"  ({named(cause)})", "dim")
    return line


def _rest_line(view: ApplyView, hidden: int) -> list[Text]:
    """How many there are of those that have no line."""
    counts = view.counts
    folded = [f"… {hidden:,} more under way"] if hidden else []
    folded += [
        f"{SIGNS[state].symbol} {counts[state]:,} {SIGNS[state].word}" for state in _REST if state in counts
    ]
    return [Text("  " + "   ".join(folded))] if folded else []


def group_lines(grouped: Grouped, room: int) -> Iterator[Text]:
    """One line for each label's value, or wave; where there are too many, those that are through come last."""
    groups = list(grouped.groups)
    if len(groups) > room:
        groups.sort(key=lambda group: group.percent == 100)  # noqa: PLR2004
    shown = groups if len(groups) <= room else groups[: room - 1]
    width = min(NAME_WIDTH, max((len(group.name) for group in shown), default=0))
    for group in shown:
        done = group.counts.get(State.COMPLETED, 0)
        words = [f"{done:,} of {group.operations:,} completed"]
        words += [
            f"{number:,} {SIGNS[state].word}"
            for state, number in group.counts.items()
            if state is not State.COMPLETED
        ]
        bar = _bar(group.percent, _BAR // 2)
        line = Text.assemble(
            f"  {one_line(group.name)[:width]:<{width}}  ", (bar, "cyan"), f" {group.percent:>3} %  "
        )
        line.append(", ".join(words))
        yield line
    if len(groups) > len(shown):
        yield Text(f"  … and {len(groups) - len(shown):,} more: --json has all of them", "dim")


def listing(view: ApplyView, chosen: Sequence[OperationView]) -> list[Text]:
    """Every chosen one on a line of its own, however many."""
    width = max((len(each.deployment) for each in chosen), default=0)
    words = word_width(chosen)
    lines = [title(view), Text()]
    if not chosen:
        return [*lines, Text("  none of its operations is meant by that", "dim")]
    return [*lines, *(operation_line(each, width, words) for each in chosen)]


def _strays(view: ApplyView) -> list[Text]:
    """Targets whose engines foretold something else, or nothing, and that are not through yet."""
    told = [
        words
        for operation in view.operations
        if operation.record.foretold is not None and not operation.state.is_finished
        for words in warnings([operation.record.foretold])
    ]
    lines = [Text()] if told else []
    lines += [Text(f"  ! before it began: {one_line(words)}", "yellow") for words in told[:MOST_STRAYS]]
    if len(told) > MOST_STRAYS:
        lines.append(Text(f"  … and {len(told) - MOST_STRAYS:,} more; --json has all of them", "dim"))
    return lines

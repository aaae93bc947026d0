"""A rollout told line by line, for logs and pipes: each change of the whole, and each exception.

Of a few deployments every step is told. Of many, what has one cause is told once and again when it has doubled, so
that ten thousand failures are a dozen lines and not ten thousand; the last lines have all the counts.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tern.cause import Cause, Kind, trouble
from tern.cli import symbols
from tern.cli.picture import details, sign_of
from tern.cli.screen import DETAILED_UP_TO, KIND_SIGNS, MOST_CAUSES, named, trouble_line, whole_words
from tern.cli.words import SIGNS, one_line, plural
from tern.domain.likeness import alike
from tern.domain.states import State
from tern.operation import OperationView
from tern.view import ApplyView

STEP_PERCENT = 10
WHOLE_STEP_PERCENT = 5
EVERY_S = 60.0
"""Where anything has changed, the whole is told after so long, whatever its percent."""
NAMED_UP_TO = 5
"""So many of one cause are told one by one, if they come one by one."""
_FAMILIAR_CAUSES = 40
"""Causes beyond so many are told by their kind alone: words that never repeat must not become lines without end."""
_SILENT_START = f"{symbols.WAITING} waiting"
"""Everything waits at first; that needs no line for each deployment."""


@dataclass(slots=True)
class _Told:
    """How many were concerned so far, and how many when it was last said."""

    seen: int = 0
    said: int = 0


@dataclass(slots=True)
class Teller:
    """Remembers what was said of one apply."""

    _headline: str = ""
    _steps: dict[str, str] = field(default_factory=dict)
    _whole: tuple[object, ...] = ()
    _counts: Mapping[State, int] = field(default_factory=dict)
    _whole_at: datetime | None = None
    _troubled: dict[str, Cause] = field(default_factory=dict)
    _told: dict[tuple[str, str], _Told] = field(default_factory=lambda: defaultdict(_Told))

    def lines(self, view: ApplyView) -> list[str]:
        """What is new since the look before; with the end, all that needs a person."""
        at = f"{view.facts.observed_at:%H:%M:%S}"
        is_few = len(view.operations) <= DETAILED_UP_TO
        found = [*self._each(view)] if is_few else [*self._of_whole(view), *self._exceptions(view)]
        found += self._needs(view)
        return [f"{at}  {line}".rstrip() for line in found]

    def _each(self, view: ApplyView) -> Iterator[str]:
        if view.headline != self._headline:
            self._headline = view.headline
            yield f"{view.facts.apply_id}  {view.headline}"
        for operation in view.operations:
            now = milestone(operation)
            if self._steps.get(operation.deployment, _SILENT_START) != now:
                self._steps[operation.deployment] = now
                yield _line_of(operation)

    def _of_whole(self, view: ApplyView) -> Iterator[str]:
        whole, at = view.whole, view.facts.observed_at
        now = (view.facts.state, whole.percent // WHOLE_STEP_PERCENT)
        is_late = self._whole_at is not None and (at - self._whole_at).total_seconds() >= EVERY_S
        if now != self._whole or (is_late and view.counts != self._counts):
            self._whole, self._whole_at, self._counts = now, at, view.counts
            others = [
                f"{number:,} {SIGNS[state].word}"
                for state, number in view.counts.items()
                if state not in {State.COMPLETED, State.PENDING}
            ]
            pace = [] if view.facts.state.is_finished else [whole_words(whole)]
            yield f"{view.facts.apply_id}  {'; '.join([', '.join([view.headline, *others]), *pace])}"

    def _exceptions(self, view: ApplyView) -> Iterator[str]:
        is_over = view.exit_code is not None
        known = {each.deployment: each for each in view.operations}
        troubled: dict[str, Cause] = {}
        for cause in view.troubles:
            before = self._troubled
            new = [
                name
                for name in cause.deployments
                if name not in before or before[name].cause_id != cause.cause_id
            ]
            troubled |= dict.fromkeys(cause.deployments, cause)
            yield from self._say(self._key(cause), new, cause, known, is_over=is_over)
        recovered: dict[str, list[str]] = defaultdict(list)
        for name, cause in self._troubled.items():
            if name not in troubled:
                recovered[cause.kind].append(name)
        self._troubled = troubled
        for kind, names in recovered.items():
            yield from self._say_recovered(kind, names, known)

    def _key(self, cause: Cause) -> tuple[str, str]:
        key = (cause.kind, cause.cause_id)
        return key if key in self._told or len(self._told) < _FAMILIAR_CAUSES else (cause.kind, "")

    def _say(
        self,
        key: tuple[str, str],
        new: Sequence[str],
        cause: Cause,
        known: Mapping[str, OperationView],
        *,
        is_over: bool,
    ) -> Iterator[str]:
        told = self._told[key]
        told.seen += len(new)
        if new and told.seen <= NAMED_UP_TO and len(new) < NAMED_UP_TO:
            told.said = told.seen
            yield from (_line_of(known[name]) for name in new)
        elif told.seen >= 2 * told.said > 0 or (told.seen > told.said and (is_over or not told.said)):
            told.said = told.seen
            yield trouble_line(cause).plain.strip() if key[1] else _of_other_reasons(told.seen, cause)

    def _say_recovered(
        self, kind: str, names: Sequence[str], known: Mapping[str, OperationView]
    ) -> Iterator[str]:
        told = self._told["recovered", kind]
        told.seen += len(names)
        word = KIND_SIGNS[Kind(kind)].word
        if told.seen <= NAMED_UP_TO and len(names) < NAMED_UP_TO:
            told.said = told.seen
            yield from (f"{_line_of(known[name])}  (no longer {word})" for name in names)
        elif told.seen >= 2 * told.said:
            told.said = told.seen
            yield f"{plural(told.seen, 'deployment')} so far no longer {word}  ({_some(names)})"

    def _needs(self, view: ApplyView) -> Iterator[str]:
        """While it goes on, what is new and when it has doubled; at its end, all of it."""
        is_over = view.exit_code is not None
        needed = view.needs
        for cause in needed[:MOST_CAUSES]:
            told = self._told["needs", cause.cause_id]
            if is_over or cause.count >= max(1, 2 * told.said):
                told.said = cause.count
                yield _need(cause)
        if is_over and len(needed) > MOST_CAUSES:
            more = plural(len(needed) - MOST_CAUSES, "more cause")
            yield f"and {more}: tern explain {view.facts.apply_id}"


def milestone(operation: OperationView) -> str:
    """What is worth a line of its own: a new state, every tenth of the way, and what keeps it from going on."""
    sign = sign_of(operation)
    tenth = f" {operation.percent // STEP_PERCENT}" if operation.state is State.RUNNING else ""
    found = trouble(operation)
    keeps = found is not None and found[0] in {Kind.HELD, Kind.LOCK, Kind.RETRYING}
    why = f" {alike(found[1], (operation.deployment,))}" if found and keeps else ""
    return f"{sign.symbol} {sign.word}{'' if why else tenth}{why}"


def _line_of(operation: OperationView) -> str:
    sign = sign_of(operation)
    return f"{operation.deployment}  {sign.symbol} {sign.word}  {details(operation)}".rstrip()


def _of_other_reasons(number: int, cause: Cause) -> str:
    sign = KIND_SIGNS[Kind(cause.kind)]
    newest = f"{cause.deployments[-1]}: {one_line(cause.what)}"
    return f"{sign.symbol} {number:,} {sign.word} for still other reasons, the newest {newest}"


def _need(cause: Cause) -> str:
    commands = ", or ".join(command for command, _ in cause.ways)
    if cause.count == 1:
        return f"{cause.deployments[0]}  needs you: {one_line(cause.what)}: {commands}"
    return (
        f"{plural(cause.count, 'deployment')}  need you: {one_line(cause.what)}  ({named(cause)}): {commands}"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_UP_TO:,} more" if len(names) > NAMED_UP_TO else ""
    return ", ".join(names[:NAMED_UP_TO]) + more

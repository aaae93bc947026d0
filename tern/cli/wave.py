"""`--wave`, as it is typed: a selector, and settings behind semicolons.

    --wave 'region=canary;max_parallel=1;max_failures=0;bake=10m' --wave 'a,b;bake=1h' --wave '*'

A selector is labels that must all be there (`region=eu,tier=1`), names (`a,b`, in this order), or `*` for whoever is
left. Times are seconds, or carry one of the units s, m, h, d.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tern.domain.errors import UsageError
from tern.domain.policy import Wave

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SETTINGS = ("max_parallel", "max_failures", "bake")
EXAMPLE = "region=canary;max_parallel=1;max_failures=0;bake=10m"


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of what was typed, and the character at which it begins, counted from 1."""

    text: str
    at: int

    @property
    def name(self) -> str:
        return self.text.partition("=")[0].strip()

    @property
    def value(self) -> str | None:
        """What stands behind the first `=`; None without one."""
        _, sign, value = self.text.partition("=")
        return value.strip() if sign else None

    def wrong(self, words: str) -> str:
        """One reason, with the place that it is about."""
        return f"character {self.at}, {self.text.strip()!r}: {words}"


def read_waves(typed: Sequence[str]) -> tuple[Wave, ...]:
    """The waves in their order; raises UsageError with every place that can't be read."""
    waves, why = [], []
    for number, text in enumerate(typed, start=1):
        wrong: list[str] = []
        wave = _read(text, wrong)
        why += [f"wave {number}, {words}" for words in wrong]
        waves.append(wave)
    if why:
        what = "the waves can't be read"
        raise UsageError(what, why=tuple(why), next_step=f"For example --wave '{EXAMPLE}' --wave '*'.")
    return tuple(wave for wave in waves if wave is not None)


def _read(text: str, wrong: list[str]) -> Wave | None:
    selector, *settings = _split(text, ";", 1)
    labels, names = _selected(selector, wrong)
    given: dict[str, float] = {}
    for part in settings:
        if part.name not in _SETTINGS:
            wrong.append(part.wrong(f"a wave has {', '.join(_SETTINGS)}"))
        elif part.name in given:
            wrong.append(part.wrong(f"{part.name} is given twice"))
        elif (number := _number(part, wrong)) is not None:
            given[part.name] = number
    if wrong:
        return None
    most, borne = given.get("max_parallel"), given.get("max_failures")
    return Wave(
        labels=labels,
        deployments=names,
        max_parallel=None if most is None else int(most),
        max_failures=None if borne is None else int(borne),
        bake_s=given.get("bake", 0.0),
    )


def _selected(selector: _Part, wrong: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Labels or names; neither for `*`."""
    if selector.text.strip() == "*":
        return {}, ()
    parts = list(_split(selector.text, ",", selector.at))
    labels: dict[str, str] = {}
    names: list[str] = []
    for part in parts:
        if not part.text.strip():
            wrong.append(f"character {part.at}: a label, a name or * is missing")
        elif part.value is None:
            names.append(part.name)
        elif not part.name or not part.value:
            wrong.append(part.wrong("a label is written key=value"))
        elif part.name in labels:
            wrong.append(part.wrong(f"{part.name} is asked for twice"))
        else:
            labels[part.name] = part.value
    if labels and names:
        wrong.append(selector.wrong("a wave selects by labels or by names, not by both"))
    return labels, tuple(names)


def _number(part: _Part, wrong: list[str]) -> float | None:
    value = part.value or ""
    if part.name == "bake":
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value)
        if found is None:
            wrong.append(part.wrong("a time is a number and s, m, h or d, such as 10m"))
            return None
        return float(found[1]) * _SECONDS[found[2]]
    least = 1 if part.name == "max_parallel" else 0
    if not value.isdecimal() or not value.isascii() or int(value) < least:
        wrong.append(part.wrong(f"{part.name} is a whole number from {least}"))
        return None
    return float(value)


def _split(text: str, sign: str, at: int) -> Iterator[_Part]:
    for piece in text.split(sign):
        yield _Part(piece, at + len(piece) - len(piece.lstrip()))
        at += len(piece) + 1

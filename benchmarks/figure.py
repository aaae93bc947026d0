"""One line of the table: what was measured, beside what, and whether it is enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a figure stands to its target."""

    MET = "met"
    MISSED = "MISSED"
    UNKNOWN = "not measured"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its unit and, where there is one, the target for it.

    at_least / at_most: the target. `beside` says in words what it was compared with, in the same run.
    """

    name: str
    value: float | None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    beside: str = ""

    @property
    def verdict(self) -> Verdict:
        """Met, missed, or nothing to say."""
        if self.at_least is None and self.at_most is None:
            return Verdict.NONE
        if self.value is None:
            return Verdict.UNKNOWN
        enough = (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )
        return Verdict.MET if enough else Verdict.MISSED

    @property
    def target(self) -> str:
        """The target in words; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else ""


def table(title: str, figures: Sequence[Figure]) -> str:
    """The figures under each other."""
    lines = ["", title]
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:,.2f}"
        line = f"  {figure.name:<46} {value:>12} {figure.unit:<14} {figure.target:<10} {figure.verdict.value:<12}"
        lines.append(f"{line} {figure.beside}".rstrip())
    return "\n".join(lines)

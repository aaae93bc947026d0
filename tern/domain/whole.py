"""How far a whole rollout is, how fast it goes and how long it will still take. Pure.

A number that nobody can know is None, never a guess: no rate before something was done, no end before there is a rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

WINDOW_S = 600.0
"""The rate is that of the last ten minutes, or of all the time since the first operation began, whichever is less."""
FEWEST_DONE = 3
"""A rate of fewer says nothing about the others."""


class Weight(StrEnum):
    """What the percent of the whole counts: rows where they are known, else each operation alike."""

    ROWS = "rows"
    OPERATIONS = "operations"


@dataclass(frozen=True, slots=True)
class Share:
    """One operation as far as the whole is concerned. Times are seconds.

    goes_on: it gets to its end without a person. is_under_way: it has begun. begun_s_ago, done_s_ago: since its start
    and, of one that completed, since its end.
    """

    percent: int
    goes_on: bool = False
    is_under_way: bool = False
    is_done: bool = False
    rows_copied: int | None = None
    rows_total: int | None = None
    eta_s: float | None = None
    begun_s_ago: float | None = None
    done_s_ago: float | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """What is said of all of them together. eta_s: from and to, alike where only one figure leads there."""

    percent: int
    percent_by: Weight
    rows_known_for: int
    operations: int
    rows_copied: int | None = None
    rows_total: int | None = None
    rows_per_s: float | None = None
    done_per_minute: float | None = None
    eta_s: tuple[float, float] | None = None

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        low, high = (None, None) if self.eta_s is None else self.eta_s
        return {
            "percent": self.percent,
            "percent_by": self.percent_by.value,
            "rows_known_for": self.rows_known_for,
            "rows_copied": self.rows_copied,
            "rows_total": self.rows_total,
            "rows_per_s": _rounded(self.rows_per_s),
            "done_per_minute": _rounded(self.done_per_minute),
            "eta_low_s": _rounded(low),
            "eta_high_s": _rounded(high),
        }


def whole(shares: Sequence[Share], *, bakes_s: float = 0.0, moves: bool = True) -> Whole:
    """All of them together. bakes_s: for how long waves still wait between others; moves: something is at work."""
    known = [each for each in shares if each.rows_total is not None]
    rows = sum(each.rows_total or 0 for each in known)
    # One whose rows nobody has counted yet weighs what the others weigh on average.
    usual = rows / len(known) if known else 0.0
    by_rows = usual > 0
    weights = [_weight(each, usual) if by_rows else 1.0 for each in shares]
    done = sum(each.percent * weight for each, weight in zip(shares, weights, strict=True))
    percent = int(done / sum(weights)) if shares else 0
    if percent == 100 and not all(each.percent == 100 for each in shares):  # noqa: PLR2004
        percent = 99
    return Whole(
        percent,
        Weight.ROWS if by_rows else Weight.OPERATIONS,
        len(known) if by_rows else 0,
        len(shares),
        sum(each.rows_copied or 0 for each in known) if by_rows else None,
        rows if by_rows else None,
        _rows_per_s(shares),
        _done_per_minute(shares, WINDOW_S) if moves else None,
        _eta_s(shares, bakes_s) if moves else None,
    )


def _weight(share: Share, usual: float) -> float:
    return usual if share.rows_total is None else max(1.0, float(share.rows_total))


def _rows_per_s(shares: Sequence[Share]) -> float | None:
    """As their engines say it: what is left of those that say how long they will take."""
    said = [
        ((each.rows_total or 0) - (each.rows_copied or 0)) / each.eta_s
        for each in shares
        if each.is_under_way and each.rows_total is not None and each.eta_s
    ]
    return sum(max(0.0, each) for each in said) if said else None


def _done_per_minute(shares: Sequence[Share], window_s: float) -> float | None:
    """Operations a minute in the newest part of the time since the first began; None of too few."""
    begun = max((each.begun_s_ago for each in shares if each.begun_s_ago is not None), default=0.0)
    within = min(window_s, begun)
    done = sum(each.done_s_ago is not None and each.done_s_ago <= within for each in shares)
    return done * 60.0 / within if within > 0 and done >= FEWEST_DONE else None


def _eta_s(shares: Sequence[Share], bakes_s: float) -> tuple[float, float] | None:
    """Until all that gets there by itself is there."""
    left = [each for each in shares if each.goes_on and not each.is_done]
    if not left:
        return None
    said = [each.eta_s for each in left if each.is_under_way and each.eta_s is not None]
    rates = [_done_per_minute(shares, window) for window in (WINDOW_S, float("inf"))]
    ends = [len(left) * 60.0 / rate for rate in rates if rate]
    if len(said) == len(left):
        # Nobody is still to begin, so the slowest decides.
        ends = [float(max(said))]
    if not ends:
        return None
    least = float(max(said, default=0.0))
    return max(least, min(ends)) + bakes_s, max(least, *ends) + bakes_s


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)

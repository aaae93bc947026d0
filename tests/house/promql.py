"""As much of Prometheus as docs/alerts.yml asks for: samples over time, expressions, and how long each has to hold.

Written after its documentation: an instant selector takes the newest sample of five minutes; rate() and increase() need
two samples, count what fell as a restart, and extrapolate to the ends of their window. What it can't read it refuses.
"""

import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.samples import Sample

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Point = tuple[float, float]

STALE_S = 300.0
SCRAPE_S = 15.0
_UNITS = {"s": 1, "m": 60, "h": 3600}
_TOKEN = re.compile(
    r'\s*(?:(?P<number>[0-9.]+(?![0-9a-z]))|(?P<span>[0-9]+[smh])|(?P<text>"[^"]*")|(?P<word>[A-Za-z_:][\w:]*)'
    r"|(?P<sign>=~|!=|!~|==|>=|<=|[-+*/><=(){}\[\],]))"
)


@dataclass
class History:
    """What was scraped, and when. `now` is the time of the last scrape."""

    now: float = 0.0
    series: dict[tuple[str, Labels], list[Point]] = field(default_factory=dict)
    _last: list[tuple[str, Labels, float]] = field(default_factory=list)

    def scrape(self, samples: Iterable[Sample], **target: str) -> None:
        """One scrape, an interval after the last one; `target` is what Prometheus adds to each series."""
        self.now += SCRAPE_S
        self._last = [
            (sample.name, frozenset({**sample.labels, **target}.items()), float(sample.value))
            for sample in samples
        ]
        self._keep()

    def hold(self, seconds: float, step: "Callable[[], Iterable[Sample]] | None" = None) -> None:
        """So many seconds of scrapes that tell the same, or what `step` gives each time."""
        for _ in range(math.ceil(seconds / SCRAPE_S)):
            if step is not None:
                self.scrape(step())
            else:
                self.now += SCRAPE_S
                self._keep()

    def _keep(self) -> None:
        for name, labels, value in self._last:
            self.series.setdefault((name, labels), []).append((self.now, value))


def fires(expression: str, history: History, for_s: float, *, since: float = 0.0) -> bool:
    """Whether the alarm has fired at some time of the history: its expression held that long without a gap, at each
    evaluation of one label set. `since`: evaluated from then on.
    """
    tree = _Parser(expression).whole()
    pending: dict[Labels, float] = {}
    at = since + SCRAPE_S
    while at <= history.now:
        found = tree(history, at)
        pending = {labels: pending.get(labels, at) for labels in found}
        if any(at - since >= for_s for since in pending.values()):
            return True
        at += SCRAPE_S
    return False


Node = Callable[[History, float], Vector]


@dataclass(frozen=True)
class _Selector:
    """A series by name and labels, perhaps over a window."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    window_s: float = 0.0

    def points(self, history: History, at: float) -> dict[Labels, list[Point]]:
        window = self.window_s or STALE_S
        found = {}
        for (name, labels), points in history.series.items():
            if name == self.name and all(_matches(dict(labels), each) for each in self.matchers):
                inside = [point for point in points if at - window < point[0] <= at]
                # A target that is gone leaves the vector at once: its next scrape marks its series as stale.
                is_there = inside and (self.window_s or inside[-1][0] > at - SCRAPE_S)
                if is_there:
                    found[labels] = inside
        return found

    def __call__(self, history: History, at: float) -> Vector:
        assert not self.window_s, "a range is no vector"
        return {labels: points[-1][1] for labels, points in self.points(history, at).items()}


def _matches(labels: dict[str, str], matcher: tuple[str, str, str]) -> bool:
    label, how, wanted = matcher
    is_it = (
        labels.get(label, "") == wanted
        if "~" not in how
        else bool(re.fullmatch(wanted, labels.get(label, "")))
    )
    return is_it != how.startswith("!")


class _Parser:
    def __init__(self, expression: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(expression.rstrip()):
            found = _TOKEN.match(expression, place)
            assert found is not None, f"not known: {expression[place:]}"
            self._tokens.append((str(found.lastgroup), found[found.lastgroup or 0]))
            place = found.end()

    def whole(self) -> Node:
        tree = self._or()
        assert not self._tokens, f"left over: {self._tokens}"
        return tree

    def _next(self, *wanted: str) -> str:
        kind, text = self._tokens.pop(0)
        assert not wanted or text in wanted or kind in wanted, f"{text}, not {wanted}"
        return text

    def _sees(self, *texts: str) -> bool:
        return bool(self._tokens) and self._tokens[0][1] in texts

    def _or(self) -> Node:
        left = self._and()
        while self._sees("or"):
            self._next()
            left = _joined(left, self._and())
        return left

    def _and(self) -> Node:
        left = self._compared()
        while self._sees("and"):
            self._next()
            self._next("on")
            left = _both(left, self._names(), self._compared())
        return left

    def _compared(self) -> Node:
        left = self._one()
        if self._sees(">", "<", "=="):
            sign, number = self._next(), float(self._next("number"))
            return _compared(left, sign, number)
        return left

    def _one(self) -> Node:
        if self._sees("("):
            self._next()
            inside = self._or()
            self._next(")")
            return inside
        name = self._next("word")
        match name:
            case "sum" | "max" | "min":
                kept: tuple[str, ...] = ()
                if self._sees("by"):
                    self._next()
                    kept = self._names()
                return _aggregated(name, kept, self._argument())
            case "absent":
                inside = self._argument()
                return lambda history, at: {} if inside(history, at) else {frozenset(): 1.0}
            case "rate" | "increase":
                selector = self._argument()
                assert isinstance(selector, _Selector)
                return _growth(name, selector)
            case "time":
                for sign in "()-":
                    self._next(sign)
                inside = self._one()
                return lambda history, at: {
                    labels: at - value for labels, value in inside(history, at).items()
                }
            case "histogram_quantile":
                self._next("(")
                share = float(self._next("number"))
                self._next(",")
                inside = self._or()
                self._next(")")
                return lambda history, at: _quantile(share, inside(history, at))
            case _:
                return self._selector(name)

    def _argument(self) -> Node:
        self._next("(")
        inside = self._or()
        self._next(")")
        return inside

    def _names(self) -> tuple[str, ...]:
        self._next("(")
        names = [self._next("word")]
        while self._sees(","):
            self._next()
            names.append(self._next("word"))
        self._next(")")
        return tuple(names)

    def _selector(self, name: str) -> _Selector:
        matchers = []
        if self._sees("{"):
            self._next()
            while not self._sees("}"):
                label, how = self._next("word"), self._next("=", "=~", "!=", "!~")
                matchers.append((label, how, self._next("text").strip('"')))
                if self._sees(","):
                    self._next()
            self._next()
        window = 0.0
        if self._sees("["):
            self._next()
            window = _seconds(self._next("span"))
            self._next("]")
        return _Selector(name, tuple(matchers), window)


def _seconds(span: str) -> float:
    return float(span[:-1]) * _UNITS[span[-1]]


def _joined(left: Node, right: Node) -> Node:
    return lambda history, at: {**right(history, at), **left(history, at)}


def _both(left: Node, names: tuple[str, ...], right: Node) -> Node:
    def about(labels: Labels) -> Labels:
        return frozenset(each for each in labels if each[0] in names)

    def run(history: History, at: float) -> Vector:
        there = {about(labels) for labels in right(history, at)}
        return {labels: value for labels, value in left(history, at).items() if about(labels) in there}

    return run


def _compared(left: Node, sign: str, number: float) -> Node:
    holds = {">": operator.gt, "<": operator.lt, "==": operator.eq}[sign]
    return lambda history, at: {
        labels: value for labels, value in left(history, at).items() if holds(value, number)
    }


def _aggregated(name: str, kept: tuple[str, ...], inside: Node) -> Node:
    how = {"sum": sum, "max": max, "min": min}[name]

    def run(history: History, at: float) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in inside(history, at).items():
            groups.setdefault(frozenset((k, v) for k, v in labels if k in kept), []).append(value)
        return {labels: float(how(values)) for labels, values in groups.items()}

    return run


def _growth(name: str, selector: _Selector) -> Node:
    def run(history: History, at: float) -> Vector:
        found = {}
        for labels, points in selector.points(history, at).items():
            if len(points) > 1:
                grown = _grown(points, at - selector.window_s, at)
                found[labels] = grown / selector.window_s if name == "rate" else grown
        return found

    return run


def _grown(points: list[Point], begin: float, end: float) -> float:
    """Prometheus's own way to the ends of the window: as far as half a step beyond the outermost samples, or to them
    where the ends are that near; and never below zero.
    """
    grown = points[-1][1] - points[0][1]
    for before, after in itertools.pairwise(points):
        if after[1] < before[1]:
            grown += before[1]
    covered = points[-1][0] - points[0][0]
    step = covered / (len(points) - 1)
    to_begin, to_end = points[0][0] - begin, end - points[-1][0]
    if to_begin >= step * 1.1:
        to_begin = step / 2
    if grown > 0 and points[0][1] >= 0:
        to_begin = min(to_begin, covered * points[0][1] / grown)
    if to_end >= step * 1.1:
        to_end = step / 2
    return grown * (covered + to_begin + to_end) / covered


def _quantile(share: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"].replace("+Inf", "inf"))
        groups.setdefault(frozenset(each for each in labels if each[0] != "le"), []).append((bound, count))
    return {labels: _quantile_of(share, sorted(found)) for labels, found in groups.items()}


def _quantile_of(share: float, buckets: list[tuple[float, float]]) -> float:
    total = buckets[-1][1]
    if total == 0:
        return math.nan
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower

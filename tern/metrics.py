"""What this process counts: standard library and domain only, a fraction of a microsecond each, no id and no name of a
deployment.

Names and labels are a promise to people's dashboards; a test pins them. What is told about the database is not here
but is asked at each scrape (store/gauge.py); how it is told is the exporter's part (exporter.py).
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tern.domain.states import SETTLED_APPLY

Labels = tuple[str, ...]

RPC_BOUNDS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTROL_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Counter:
    """A number that only grows, one per combination of labels."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = tuple(labels)
        self._counts: dict[Labels, int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: int = 1) -> None:
        """One more, or so many. By 0 it is there from the beginning: an alarm sees its first one as a rise."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + by

    def read(self) -> Mapping[Labels, int]:
        """What was counted so far."""
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True, slots=True)
class Spread:
    """How measurements lie: how many fell under each bound (the last one has none), and their sum in seconds."""

    counts: tuple[int, ...]
    sum_s: float

    def cumulative(self, bounds_s: Sequence[float]) -> Iterator[tuple[str, int]]:
        """Bound and number of measurements that are not above it, as Prometheus wants to have them."""
        total = 0
        for bound, count in zip((*map(str, bounds_s), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


class Distribution:
    """Measurements in seconds, one spread per combination of labels."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], bounds_s: Sequence[float]) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = tuple(labels)
        self.bounds_s = tuple(bounds_s)
        self._spreads: dict[Labels, tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def observe(self, seconds: float, *labels: str) -> None:
        """One more measurement."""
        place = bisect_left(self.bounds_s, seconds)
        with self._lock:
            counts, total = self._of(labels)
            counts[place] += 1
            total[0] += seconds

    def begin(self, *labels: str) -> None:
        """Tells of no measurement yet, for the same reason as a counter that is added 0."""
        with self._lock:
            self._of(labels)

    def _of(self, labels: Labels) -> tuple[list[int], list[float]]:
        spread = self._spreads.get(labels)
        if spread is None:
            spread = self._spreads[labels] = ([0] * (len(self.bounds_s) + 1), [0.0])
        return spread

    def read(self) -> Mapping[Labels, Spread]:
        """What was measured so far."""
        with self._lock:
            return {
                labels: Spread(tuple(counts), total[0]) for labels, (counts, total) in self._spreads.items()
            }


TRANSITIONS = Counter(
    "tern_transitions", "Changes of an operation's state that this process committed.", ("before", "after")
)
VERDICTS = Counter("tern_verdicts", "Verdicts over whole applies that this process committed.", ("state",))
CLAIMS = Counter(
    "tern_claims",
    "Attempts to claim work: won, or not_claimed because it is held, driven by another or not due.",
    ("work", "outcome"),
)
FENCED_WRITES = Counter(
    "tern_fenced_writes",
    "Writes under a claim: done, or lost because the claim was no longer ours.",
    ("step", "outcome"),
)
BELLS = Counter(
    "tern_bells",
    "Messages sent to workers: rung, or failed because the broker did not take them.",
    ("outcome",),
)
CONTROL_SECONDS = Distribution(
    "tern_control_seconds",
    "From an accepted wish to each stage of its fate on one operation.",
    ("verb", "stage"),
    CONTROL_BOUNDS_S,
)
RPC_SECONDS = Distribution(
    "tern_rpc_seconds", "Calls to engines, by method and gRPC status.", ("method", "code"), RPC_BOUNDS_S
)

# What alarms ask for is there before it happens for the first time (docs/alerts.yml). A single failed call more or less
# makes no alarm, and all methods with all codes would be a thousand lines a scrape, so calls begin with the first.
for _state in sorted(SETTLED_APPLY):
    VERDICTS.add(_state.value, by=0)
for _outcome in ("rung", "failed"):
    BELLS.add(_outcome, by=0)
CONTROL_SECONDS.begin("stop", "acknowledged")

COUNTERS = (TRANSITIONS, VERDICTS, CLAIMS, FENCED_WRITES, BELLS)
DISTRIBUTIONS = (CONTROL_SECONDS, RPC_SECONDS)

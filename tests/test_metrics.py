"""What a process counts, and every name that dashboards rely on."""

import threading
from pathlib import Path

from tern.metrics import COUNTERS, DISTRIBUTIONS, Counter, Distribution

ROOT = Path(__file__).parents[1]


def test_names_and_labels_are_these() -> None:
    """A change here breaks somebody's dashboard: add, and never rename."""
    assert {counter.name: counter.labels for counter in COUNTERS} == {
        "tern_transitions": ("before", "after"),
        "tern_verdicts": ("state",),
        "tern_claims": ("work", "outcome"),
        "tern_fenced_writes": ("step", "outcome"),
        "tern_bells": ("outcome",),
    }
    assert {each.name: each.labels for each in DISTRIBUTIONS} == {
        "tern_control_seconds": ("verb", "stage"),
        "tern_rpc_seconds": ("method", "code"),
    }


def test_threads_lose_no_count() -> None:
    counter, spread = Counter("c", "", ("who",)), Distribution("d", "", ("who",), (1.0,))

    def work() -> None:
        for _ in range(2_000):
            counter.add("me")
            spread.observe(0.5, "me")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read() == {("me",): 16_000}
    assert spread.read()[("me",)].counts == (16_000, 0)


def test_measurements_are_told_cumulatively() -> None:
    spread = Distribution("d", "", (), (0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        spread.observe(seconds)
    found = spread.read()[()]
    assert list(found.cumulative(spread.bounds_s)) == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert round(found.sum_s, 2) == 7.65

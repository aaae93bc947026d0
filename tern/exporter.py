"""Telling Prometheus: what this process counted, and what the database says at the moment of the scrape.

Imported only where TERN_METRICS_PORT is set; prometheus_client costs more than the rest of a command's start.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from tern.metrics import COUNTERS, DISTRIBUTIONS
from tern.ports import StorageUnavailable
from tern.store.gauge import Gauges

_log = logging.getLogger("tern.metrics")
FRESH_S = 2.0
"""Scrapes that come closer together share one look at the database."""


class Counted(Collector):
    """What tern.metrics holds."""

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        build = GaugeMetricFamily("tern_build_info", "Which Tern this is; always 1.", labels=("version",))
        build.add_metric([version("tern")], 1)
        yield build
        for counter in COUNTERS:
            told = CounterMetricFamily(counter.name, counter.meaning, labels=counter.labels)
            for labels, count in counter.read().items():
                told.add_metric(labels, count)
            yield told
        for distribution in DISTRIBUTIONS:
            spread = HistogramMetricFamily(
                distribution.name, distribution.meaning, labels=distribution.labels
            )
            for labels, found in distribution.read().items():
                spread.add_metric(labels, list(found.cumulative(distribution.bounds_s)), found.sum_s)
            yield spread


class Asked(Collector):
    """What the database says. `look` may raise StorageUnavailable: then there is only tern_database_up 0."""

    def __init__(self, look: Callable[[], Gauges]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._seen: Gauges | None = None

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        seen = self._fresh()
        yield GaugeMetricFamily(
            "tern_database_up", "1 if Tern's PostgreSQL answered this scrape.", value=int(seen is not None)
        )
        if seen is not None:
            yield from _gauges(seen)

    def describe(self) -> Iterator[Metric]:
        """Nothing is asked when the exporter starts: the database may come later."""
        return iter(())

    def _fresh(self) -> Gauges | None:
        with self._lock:
            if time.monotonic() - self._looked_at >= FRESH_S:
                try:
                    self._seen = self._look()
                except StorageUnavailable as error:
                    self._seen = None
                    _log.warning("metrics go without the database: %s", error)
                self._looked_at = time.monotonic()
            return self._seen


class Exporter:
    """A port of this process that answers scrapes. `close` gives back what `look` needs."""

    def __init__(
        self, address: str, port: int, look: Callable[[], Gauges], close: Callable[[], None] = lambda: None
    ) -> None:
        self._close = close
        registry = CollectorRegistry(auto_describe=False)
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, Counted(), Asked(look)):
            registry.register(collector)
        self._server, self._thread = start_http_server(port, address, registry)
        self.port = self._server.server_port

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._close()


def _gauges(seen: Gauges) -> Iterator[Metric]:
    for name, meaning, label, values in (
        ("tern_applies", "Applies that are under way, by state.", "state", seen.applies),
        ("tern_operations", "Operations of applies that are under way, by state.", "state", seen.operations),
        (
            "tern_oldest_due_seconds",
            "By how much the oldest due work of a kind is overdue.",
            "work",
            seen.oldest_due_s,
        ),
        ("tern_unacknowledged_deliveries", "Open wishes, one per operation.", "verb", seen.open_requests),
        (
            "tern_oldest_unacknowledged_seconds",
            "Age of the oldest open wish.",
            "verb",
            seen.oldest_request_s,
        ),
        (
            "tern_open_claims",
            "Claims on operations: held, or expired and not taken over.",
            "state",
            seen.claims,
        ),
        (
            "tern_outstanding_calls",
            "Calls that may still act although no operation follows them, by why.",
            "why",
            seen.outstanding,
        ),
        ("tern_sweep_age_seconds", "Since the last finished sweep, by anybody.", "sweep", seen.sweep_age_s),
    ):
        told = GaugeMetricFamily(name, meaning, labels=(label,))
        for key, value in values.items():
            told.add_metric([key], value)
        yield told
    yield GaugeMetricFamily(
        "tern_out_of_contact_operations", "Operations whose last ten looks failed.", value=seen.out_of_contact
    )

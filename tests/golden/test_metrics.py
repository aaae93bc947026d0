"""What a scrape is told, by name, type, labels and meaning: dashboards and alarms are made of it."""

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from tern import metrics
from tern.exporter import Asked, Counted
from tern.store.gauge import Gauges
from tests.golden.golden import hold

GAUGES = Gauges(
    applies={"running": 1},
    operations={"running": 2},
    out_of_contact=1,
    outstanding={"given_up": 1},
    oldest_due_s={"dispatch": 1.0},
    open_requests={"stop": 1},
    oldest_request_s={"stop": 3.0},
    claims={"held": 1, "expired": 0},
    oldest_expired_claim_s=0.0,
    sweep_age_s={"reconcile": 1.0},
)


def document(families: Iterable[Metric]) -> dict[str, object]:
    """Name and type as keys, since a type that changes breaks every question about it; the meaning beside it."""
    return {
        f"{family.name} ({family.type})": {
            "meaning": family.documentation,
            "labels": {
                label: True
                for sample in family.samples
                for label in sample.labels
                if label not in {"le", "version"}
            },
        }
        for family in families
    }


def test_no_metric_and_no_label_is_gone() -> None:
    # Counted once, so that each shows its labels; no test relies on how often something was counted in all.
    for counter in metrics.COUNTERS:
        counter.add(*counter.labels, by=0)
    for spread in metrics.DISTRIBUTIONS:
        spread.observe(0.0, *spread.labels)
    families = [*Counted().collect(), *Asked(lambda: GAUGES).collect()]
    hold("metrics", {"exposition": {"kind": "metrics", "families": document(families)}})


def test_the_bounds_of_what_is_measured_are_these() -> None:
    """A histogram whose bounds change can't be compared with itself of last week."""
    assert metrics.RPC_SECONDS.bounds_s == (
        0.002,
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
        2.5,
        5.0,
        10.0,
    )
    assert metrics.CONTROL_SECONDS.bounds_s == (
        *(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0),
        *(10.0, 30.0, 60.0, 300.0, 1800.0),
    )

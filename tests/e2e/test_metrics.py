"""The metrics of a real worker, scraped while it works and after it was asked to end."""

import http.client

from tern.local.embedded import free_port
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for


def scrape(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def test_a_worker_counts_what_it_did_and_tells_what_is_there(fleet: Fleet, make_world: MakeWorld) -> None:
    """Counters of this process, gauges of the database; nobody's name."""
    world = make_world("A", "B", complete_after_polls=2)
    port = free_port()
    worker = fleet.worker(TERN_METRICS_PORT=str(port))
    world.apply("A", "B")
    wait_for(lambda: bool(world.apply_row().state == "completed"), fleet.picture)
    # The gauges of the last look may be two seconds old.
    wait_for(lambda: 'tern_verdicts_total{state="completed"} 1.0' in scrape(port), fleet.picture)
    told = scrape(port)
    for line in (
        'tern_transitions_total{after="running",before="pending"} 2.0',
        'tern_rpc_seconds_count{code="OK",method="Apply"} 2.0',
        'tern_claims_total{outcome="won",work="dispatch"} 2.0',
        "tern_database_up 1.0",
        "process_resident_memory_bytes",
    ):
        assert line in told, line
    assert str(world.last) not in told
    assert worker.terminate() == 0


def test_a_port_that_is_taken_keeps_no_worker_from_working(fleet: Fleet, make_world: MakeWorld) -> None:
    world = make_world("A", complete_after_polls=1)
    port = free_port()
    fleet.worker(TERN_METRICS_PORT=str(port))
    wait_for(lambda: "tern_build_info" in scrape(port), fleet.picture)
    second = fleet.worker(TERN_METRICS_PORT=str(port))
    wait_for(lambda: "no metrics" in second.output() and "ready" in second.output(), fleet.picture)
    world.apply("A")
    wait_for(lambda: bool(world.apply_row().state == "completed"), fleet.picture)
    assert second.is_running

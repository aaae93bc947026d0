"""What a scrape is told: this process's counts, the database's state, and no name of anybody's deployment."""

import inspect
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tern import exporter, metrics
from tern.domain.control import Verb
from tern.exporter import Exporter
from tern.ports import Ports, StorageUnavailable
from tern.store.counted import CLAIMING, FENCED, CountedStore
from tern.store.gauge import Gauges, read_gauges
from tern.store.store import PostgresStore
from tests.faults.behaviour import fail
from tests.flows.conftest import database, make_world, world
from tests.flows.steps import engine_says, running, settle
from tests.world import World

__all__ = ["database", "make_world", "world"]

TOLD = {
    "tern_build_info": {"version"},
    "tern_transitions": {"before", "after"},
    "tern_verdicts": {"state"},
    "tern_claims": {"work", "outcome"},
    "tern_fenced_writes": {"step", "outcome"},
    "tern_bells": {"outcome"},
    "tern_control_seconds": {"verb", "stage", "le"},
    "tern_rpc_seconds": {"method", "code", "le"},
    "tern_database_up": set(),
    "tern_applies": {"state"},
    "tern_operations": {"state"},
    "tern_oldest_due_seconds": {"work"},
    "tern_unacknowledged_deliveries": {"verb"},
    "tern_oldest_unacknowledged_seconds": {"verb"},
    "tern_open_claims": {"state"},
    "tern_sweep_age_seconds": {"sweep"},
    "tern_out_of_contact_operations": set(),
}


@pytest.fixture
def expose() -> Iterator[Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]]]:
    """Opens a port for scrapes and returns what scrapes it."""
    opened: list[Exporter] = []

    def open_port(look: Callable[[], Gauges]) -> Callable[[], list[Sample]]:
        exporter = Exporter("127.0.0.1", 0, look)
        opened.append(exporter)

        def scrape() -> list[Sample]:
            with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            return [
                sample
                for family in text_string_to_metric_families(text)
                if family.name.startswith("tern_")
                for sample in family.samples
            ]

        return scrape

    yield open_port
    for each in opened:
        each.close()


def value(samples: list[Sample], name: str, **labels: str) -> float:
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def counted(world: World) -> Ports:
    """A worker whose store counts."""
    store = CountedStore(world.database, owner="counted", lease_s=world.lease_s)
    return Ports(store, world.ports.engines, world.bells, world.ports.chance)


def test_a_scrape_tells_what_is_under_way(
    world: World, expose: Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]]
) -> None:
    """Every name, its labels, and values that are those of the rows."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    world.pass_time(42)
    samples = expose(partial(read_gauges, world.database))()
    assert value(samples, "tern_database_up") == 1
    assert value(samples, "tern_operations", state="running") == 2
    assert value(samples, "tern_applies", state="running") == 1
    assert value(samples, "tern_unacknowledged_deliveries", verb="stop") == 1
    assert 42 <= value(samples, "tern_oldest_unacknowledged_seconds", verb="stop") < 60
    assert 40 <= value(samples, "tern_oldest_due_seconds", work="control") < 60
    assert value(samples, "tern_sweep_age_seconds", sweep="reconcile") == float("inf")
    world.sweep()
    assert value(expose(partial(read_gauges, world.database))(), "tern_sweep_age_seconds") < 5


def test_names_and_labels_are_these_and_no_deployment_is_named(
    world: World, expose: Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]]
) -> None:
    """Ten thousand deployments are as many lines as three."""
    running(world, "A", "B", "C")
    world.ask(Verb.STOP)
    settle(world, counted(world))
    samples = expose(partial(read_gauges, world.database))()
    found: dict[str, set[str]] = {}
    for sample in samples:
        name = (
            sample.name.removesuffix("_total")
            .removesuffix("_bucket")
            .removesuffix("_sum")
            .removesuffix("_count")
        )
        found.setdefault(name, set()).update(sample.labels)
    # A family without a sample says nothing yet; none may say more than was promised.
    assert {name: labels for name, labels in found.items() if labels - TOLD.get(name, set())} == {}
    assert found.keys() <= TOLD.keys()
    names = {"A", "B", "C", str(world.last), str(world.remote_id("A"))}
    assert not names & {label for sample in samples for label in sample.labels.values()}


def test_a_stop_is_counted_and_timed_by_stage(world: World) -> None:
    """From its acceptance to the call, and to its observed effect."""
    running(world, "A")
    before = metrics.CONTROL_SECONDS.read()
    moved = metrics.TRANSITIONS.read().get(("running", "stopped"), 0)
    verdicts = metrics.VERDICTS.read().get(("stopped",), 0)
    world.ask(Verb.STOP, "A")
    world.pass_time(3)
    settle(world)
    for stage in ("sent", "acknowledged"):
        spread, earlier = metrics.CONTROL_SECONDS.read()[("stop", stage)], before.get(("stop", stage))
        assert sum(spread.counts) == 1 + (0 if earlier is None else sum(earlier.counts))
        assert spread.sum_s - (0.0 if earlier is None else earlier.sum_s) >= 3
    assert metrics.TRANSITIONS.read()[("running", "stopped")] == moved + 1
    assert metrics.VERDICTS.read()[("stopped",)] == verdicts + 1


def test_a_step_that_is_rolled_back_is_not_counted(world: World) -> None:
    """Counted is what was committed."""
    running(world, "A")
    before = metrics.TRANSITIONS.read()
    world.write(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = 'disk_full'; END $$"
    )
    world.write(
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON apply_operations DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    world.engines["A"].set_state(str(world.remote_id("A")), "completed")
    with pytest.raises(Exception, match="disk full"):
        world.do("progress", world.operation("A").id, str(world.name("A")))
    assert metrics.TRANSITIONS.read() == before


def test_claims_and_writes_under_them_are_counted_by_outcome(world: World) -> None:
    """G12: won, not claimed, done; and lost, where somebody else took over meanwhile."""
    parts = counted(world)
    world.apply("A")
    claims, writes = metrics.CLAIMS.read(), metrics.FENCED_WRITES.read()
    operation, scope = world.operation("A").id, world.name("A")
    claimed = parts.store.claim_dispatch(operation, scope)
    again = parts.store.claim_dispatch(operation, scope)
    assert (type(claimed).__name__, type(again).__name__) == ("DispatchClaimed", "NotClaimed")
    world.write("UPDATE apply_operations SET claim_token = 'another'")
    assert parts.store.record_uncertain(claimed.claim, "hm").value == "lost"  # type: ignore[union-attr]
    now = metrics.CLAIMS.read()
    for outcome in ("won", "not_claimed"):
        assert now[("dispatch", outcome)] == claims.get(("dispatch", outcome), 0) + 1
    lost = ("record_uncertain", "lost")
    assert metrics.FENCED_WRITES.read()[lost] == writes.get(lost, 0) + 1


def test_no_claim_and_no_write_under_one_goes_uncounted() -> None:
    """A durable step that is added later is counted too, or this says so."""
    answers = {
        name: str(inspect.signature(step).return_annotation)
        for name, step in inspect.getmembers(PostgresStore, inspect.isfunction)
        if not name.startswith("_")
    }
    assert {name for name, answer in answers.items() if "Fenced" in answer} == set(FENCED)
    claims = {name for name, answer in answers.items() if "NotClaimed" in answer}
    # A look needs no lease, so there is nothing to win; neither does a question about a key, or what is outstanding.
    assert claims - {"begin_look", "begin_key_look", "begin_outstanding_look"} == set(CLAIMING)


def test_calls_are_timed_by_method_and_code(world: World) -> None:
    """G10: what could not be answered is told apart from what was."""

    def count(method: str, code: str) -> int:
        found = metrics.RPC_SECONDS.read().get((method, code))
        return 0 if found is None else sum(found.counts)

    before = count("Apply", "OK"), count("Apply", "UNAVAILABLE")
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.run(until=lambda: world.remote_id("A") is not None)
    assert (count("Apply", "OK"), count("Apply", "UNAVAILABLE")) == (before[0] + 1, before[1] + 1)


def test_without_a_database_the_scrape_still_answers(
    expose: Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]],
) -> None:
    def gone() -> Gauges:
        message = "connection refused"
        raise StorageUnavailable(message)

    samples = expose(gone)()
    assert value(samples, "tern_database_up") == 0
    assert value(samples, "tern_build_info") == 1
    assert not [sample for sample in samples if sample.name == "tern_operations"]


def test_scrapes_that_come_together_share_one_look(
    world: World, expose: Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]]
) -> None:
    looks: list[None] = []

    def look() -> Gauges:
        looks.append(None)
        return read_gauges(world.database)

    scrape = expose(look)
    for _ in range(5):
        scrape()
    assert len(looks) < 5


MOVED = {
    name for name in TOLD if name not in {each.name for each in (*metrics.COUNTERS, *metrics.DISTRIBUTIONS)}
} - {"tern_build_info"}


def test_each_gauge_is_moved_by_what_it_is_about(
    world: World, expose: Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]]
) -> None:
    """One thing of each kind is wrong, and each gauge says which and for how long; in an idle house none does."""
    idle = expose(partial(read_gauges, world.database))()
    assert {s.name for s in idle if s.name in MOVED and s.value not in {0.0, float("inf")}} == {
        "tern_database_up"
    }
    running(world, "A", "B", "C")
    for name, columns in (
        (
            "A",
            (
                "poll_failures = 10, next_attempt_at = tern_clock() - interval '50.1 s',"
                " first_rung_at = tern_clock() - interval '50 s'"
            ),
        ),
        ("B", "claim_token = 't', claim_owner = 'w', claim_expires_at = tern_clock() + interval '90 s'"),
        ("C", "claim_token = 't', claim_owner = 'w', claim_expires_at = tern_clock()"),
    ):
        world.write(
            f"UPDATE apply_operations SET {columns}, next_poll_at = tern_clock() - interval '20 s',"
            " claim_began_at = tern_clock() - interval '1 hour' WHERE deployment = :name",
            name=name,
        )
    world.ask(Verb.STOP, "A")
    world.pass_time(30)
    world.ask(Verb.CANCEL, "B")
    world.store.begin_sweep("reconcile", "w")
    world.store.finish_sweep("reconcile", "w")
    world.pass_time(10)
    samples = expose(partial(read_gauges, world.database))()
    wanted = {
        ("tern_applies", "running"): 1,
        ("tern_operations", "running"): 3,
        ("tern_out_of_contact_operations", ""): 1,
        ("tern_open_claims", "held"): 1,
        ("tern_open_claims", "expired"): 1,
        ("tern_oldest_due_seconds", "dispatch"): 90,
        ("tern_oldest_due_seconds", "control"): 40,
        ("tern_oldest_due_seconds", "poll"): 60,
        ("tern_unacknowledged_deliveries", "stop"): 1,
        ("tern_unacknowledged_deliveries", "cancel"): 1,
        ("tern_oldest_unacknowledged_seconds", "stop"): 40,
        ("tern_oldest_unacknowledged_seconds", "cancel"): 10,
        ("tern_sweep_age_seconds", "reconcile"): 10,
        ("tern_database_up", ""): 1,
    }
    found = {
        (sample.name, "".join(sample.labels.values())): sample.value
        for sample in samples
        if sample.name in MOVED and sample.value not in {0.0, float("inf")}
    }
    assert found.keys() == wanted.keys()
    assert {name for name, _ in wanted} == MOVED
    # What is counted is exact; what is measured is as old as this test is slow.
    assert {
        each: found[each] - wanted[each] for each in wanted if not 0 <= found[each] - wanted[each] < 9
    } == {}


@pytest.mark.parametrize(
    ("verb", "state", "stage"),
    [
        (Verb.STOP, "completed", "too_late"),
        (Verb.CUTOVER, "failed", "too_late"),
        (Verb.CANCEL, "", "acknowledged"),
    ],
)
def test_every_end_of_a_wish_is_counted_under_its_own_name(
    world: World, verb: Verb, state: str, stage: str
) -> None:
    running(world, "A")
    if verb is Verb.CUTOVER:
        engine_says(world, "A", "waiting_for_cutover")
    before = _ends(verb, stage)
    world.ask(verb, "A")
    if state:
        world.forget_bells()
        engine_says(world, "A", state)
    settle(world)
    assert _ends(verb, stage) == before + 1


def _ends(verb: Verb, stage: str) -> int:
    found = metrics.CONTROL_SECONDS.read().get((verb.value, stage))
    return 0 if found is None else sum(found.counts)


def test_a_database_that_goes_away_takes_its_gauges_with_it(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    expose: Callable[[Callable[[], Gauges]], Callable[[], list[Sample]]],
) -> None:
    """What was true once is no answer: an alarm on a gauge must not sleep through an outage."""
    monkeypatch.setattr(exporter, "FRESH_S", 0.0)
    running(world, "A")
    is_away = threading.Event()

    def look() -> Gauges:
        if is_away.is_set():
            message = "connection refused"
            raise StorageUnavailable(message)
        return read_gauges(world.database)

    scrape = expose(look)
    assert value(scrape(), "tern_operations", state="running") == 1
    is_away.set()
    samples = scrape()
    assert value(samples, "tern_database_up") == 0
    assert not [sample for sample in samples if sample.name == "tern_operations"]
    is_away.clear()
    assert value(scrape(), "tern_database_up") == 1

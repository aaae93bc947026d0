"""Each alarm of docs/alerts.yml, played through with what the exporter tells: once it must ring, once it must not."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.samples import Sample

from tern.exporter import Asked, Counted
from tern.metrics import BELLS, CONTROL_SECONDS, FENCED_WRITES, RPC_SECONDS, VERDICTS
from tern.ports import StorageUnavailable
from tern.store.gauge import Gauges
from tests.house.promql import SCRAPE_S, History, fires
from tests.house.test_alerts import SERIES, selectors

ROOT = Path(__file__).parents[2]
MINUTE = 60.0
_RULE = re.compile(r"- alert: (\w+)\n(?:\s+#.*\n)*\s+expr: (.+)\n(?:\s+for: (\d+)m\n)?")
RULES = {
    name: (expression, MINUTE * float(minutes or 0))
    for name, expression, minutes in _RULE.findall((ROOT / "docs/alerts.yml").read_text())
}
IDLE = Gauges(
    applies={},
    operations={},
    out_of_contact=0,
    oldest_due_s={"dispatch": 0.0, "control": 0.0, "poll": 0.0},
    open_requests={},
    oldest_request_s={},
    claims={"held": 0, "expired": 0},
    oldest_expired_claim_s=0.0,
    sweep_age_s={"reconcile": 1.0, "progress": 1.0},
)


class House:
    """One worker that is scraped: its counters are this process's, its database says what `gauges` says."""

    def __init__(self) -> None:
        self.history = History()
        self.gauges: Gauges | None = IDLE
        self.is_seen = True
        self.started_at = -3_600.0
        self.hold(5 * MINUTE)

    def told(self) -> list[Sample]:
        def look() -> Gauges:
            if self.gauges is None:
                message = "connection refused"
                raise StorageUnavailable(message)
            return self.gauges

        if not self.is_seen:
            return []
        families = (*Counted().collect(), *Asked(look).collect())
        started = Sample("process_start_time_seconds", {}, self.started_at)
        return [*(sample for family in families for sample in family.samples), started]

    def hold(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """So long, with something that happens before each scrape."""
        for _ in range(round(seconds / SCRAPE_S)):
            each()
            self.history.scrape(self.told(), instance="worker-1")

    def say(self, seconds: float, **columns: object) -> None:
        """The database says this for so long, and is idle again."""
        self.gauges = replace(IDLE, **columns)  # type: ignore[arg-type]
        self.hold(seconds)
        self.gauges = IDLE
        self.hold(MINUTE)

    def vanish(self, seconds: float) -> None:
        self.is_seen = False
        self.hold(seconds)
        self.is_seen = True
        self.hold(MINUTE)

    def lose_database(self, seconds: float) -> None:
        self.gauges = None
        self.hold(seconds)
        self.gauges = IDLE
        self.hold(MINUTE)

    def verdict(self, state: str) -> None:
        VERDICTS.add(state)
        self.hold(2 * MINUTE)

    def stop_takes(self, seconds: float) -> None:
        CONTROL_SECONDS.observe(seconds, "stop", "acknowledged")
        self.hold(15 * MINUTE)


def _fails_calls(code: str) -> Callable[[], None]:
    def happen() -> None:
        for _ in range(3):
            RPC_SECONDS.observe(0.01, "Progress", code)

    return happen


Story = Callable[[House], None]

RINGS: dict[str, tuple[Story, ...]] = {
    "TernIsNotSeen": (lambda house: house.vanish(4 * MINUTE),),
    "TernDatabaseUnreachable": (lambda house: house.lose_database(2 * MINUTE),),
    "TernNobodySweeps": (
        lambda house: house.say(2 * MINUTE, sweep_age_s={"reconcile": 45.0, "progress": 1.0}),
        lambda house: house.say(
            2 * MINUTE, sweep_age_s={"reconcile": float("inf"), "progress": float("inf")}
        ),
    ),
    "TernWorkIsNotTaken": (
        lambda house: house.say(3 * MINUTE, oldest_due_s={"dispatch": 90.0, "control": 0.0, "poll": 0.0}),
        lambda house: house.say(3 * MINUTE, oldest_due_s={"dispatch": 0.0, "control": 0.0, "poll": 90.0}),
    ),
    "TernStopUnacknowledged": (
        lambda house: house.say(2 * MINUTE, oldest_request_s={"stop": 130.0}),
        lambda house: house.say(2 * MINUTE, oldest_request_s={"cancel": 130.0, "stop": 1.0}),
    ),
    "TernUncertain": (lambda house: house.say(3 * MINUTE, operations={"uncertain": 1}),),
    "TernRolloutFailed": (lambda house: house.verdict("failed"),),
    "TernRolloutPaused": (lambda house: house.say(6 * MINUTE, applies={"paused": 1}),),
    "TernEngineDoesNotAnswer": (lambda house: house.say(16 * MINUTE, operations={"failed_retryable": 1}),),
    "TernLostContact": (lambda house: house.say(6 * MINUTE, out_of_contact=1),),
    "TernClaimsExpire": (lambda house: house.say(3 * MINUTE, claims={"held": 1, "expired": 1}),),
    "TernClaimsAreLost": (
        lambda house: house.hold(25 * MINUTE, lambda: FENCED_WRITES.add("record_look", "lost")),
    ),
    "TernBrokerTakesNoBells": (lambda house: house.hold(11 * MINUTE, lambda: BELLS.add("failed")),),
    "TernEngineCallsFail": (
        lambda house: house.hold(25 * MINUTE, _fails_calls("UNAVAILABLE")),
        lambda house: house.hold(25 * MINUTE, _fails_calls("NOT_SENT")),
    ),
    "TernStopsAreSlow": (lambda house: house.stop_takes(200.0),),
}
IS_QUIET: dict[str, tuple[Story, ...]] = {
    "TernIsNotSeen": (lambda house: house.vanish(MINUTE),),
    "TernDatabaseUnreachable": (lambda house: house.lose_database(MINUTE / 2),),
    "TernNobodySweeps": (
        lambda house: house.say(10 * MINUTE, sweep_age_s={"reconcile": 9.0, "progress": 400.0}),
        lambda house: house.lose_database(10 * MINUTE),
    ),
    "TernWorkIsNotTaken": (
        lambda house: house.say(MINUTE, oldest_due_s={"dispatch": 90.0, "control": 0.0, "poll": 0.0}),
        lambda house: house.say(10 * MINUTE, oldest_due_s={"dispatch": 40.0, "control": 0.0, "poll": 0.0}),
    ),
    "TernStopUnacknowledged": (
        lambda house: house.say(10 * MINUTE, oldest_request_s={"cutover": 9_000.0, "stop": 60.0}),
    ),
    "TernUncertain": (
        lambda house: house.say(MINUTE, operations={"uncertain": 1}),
        lambda house: house.say(10 * MINUTE, operations={"running": 9}),
    ),
    "TernRolloutFailed": (
        lambda house: house.verdict("completed"),
        lambda house: house.verdict("stopped"),
        lambda house: house.vanish(5 * MINUTE),
    ),
    "TernRolloutPaused": (
        lambda house: house.say(3 * MINUTE, applies={"paused": 1}),
        lambda house: house.say(10 * MINUTE, applies={"running": 1}),
    ),
    "TernEngineDoesNotAnswer": (lambda house: house.say(10 * MINUTE, operations={"failed_retryable": 1}),),
    "TernLostContact": (lambda house: house.say(4 * MINUTE, out_of_contact=1),),
    "TernClaimsExpire": (
        lambda house: house.say(MINUTE, claims={"held": 1, "expired": 1}),
        lambda house: house.say(10 * MINUTE, claims={"held": 9, "expired": 0}),
    ),
    "TernClaimsAreLost": (
        lambda house: house.hold(25 * MINUTE, lambda: FENCED_WRITES.add("record_look", "done")),
        lambda house: (FENCED_WRITES.add("record_look", "lost", by=20), house.hold(25 * MINUTE))[1],
    ),
    "TernBrokerTakesNoBells": (
        lambda house: house.hold(11 * MINUTE, lambda: BELLS.add("rung")),
        lambda house: (BELLS.add("failed"), house.hold(11 * MINUTE))[1],
    ),
    "TernEngineCallsFail": (
        lambda house: house.hold(25 * MINUTE, _fails_calls("OK")),
        lambda house: house.hold(2 * MINUTE, _fails_calls("UNAVAILABLE")),
    ),
    "TernStopsAreSlow": (lambda house: house.stop_takes(3.0),),
}
TOLD = [(name, story) for name, stories in RINGS.items() for story in stories]
UNTOLD = [(name, story) for name, stories in IS_QUIET.items() for story in stories]


def rings(name: str, history: History) -> bool:
    return fires(*RULES[name][:1], history, RULES[name][1])


def test_each_alarm_is_played_through_both_ways() -> None:
    assert RULES.keys() == RINGS.keys() == IS_QUIET.keys()


@pytest.mark.parametrize(("name", "story"), TOLD, ids=[name for name, _ in TOLD])
def test_an_alarm_rings_for_what_it_is_about(name: str, story: Story) -> None:
    house = House()
    assert not rings(name, house.history)
    story(house)
    assert rings(name, house.history)


@pytest.mark.parametrize(("name", "story"), UNTOLD, ids=[name for name, _ in UNTOLD])
def test_an_alarm_is_quiet_for_what_it_is_not_about(name: str, story: Story) -> None:
    house = House()
    story(house)
    assert not rings(name, house.history)


def test_a_quiet_house_rings_for_nothing() -> None:
    house = House()
    house.hold(40 * MINUTE)
    assert [name for name in RULES if rings(name, house.history)] == []


def test_a_failure_that_was_counted_before_the_first_scrape_rings() -> None:
    """A worker that has just started; its series begins at 1, which is no rise."""
    house = House()
    VERDICTS.add("failed")
    house.started_at = house.history.now
    for _ in range(4):
        house.history.scrape(house.told(), instance="worker-2")
    assert rings("TernRolloutFailed", house.history)
    assert not fires(RULES["TernRolloutFailed"][0].partition(" or ")[0], house.history, 0)


def test_a_worker_that_starts_anew_rings_for_no_old_failure() -> None:
    """Its counters fall to zero, which is no rise either."""
    house = House()
    VERDICTS.add("failed", by=3)
    house.hold(30 * MINUTE)
    anew = [each._replace(value=0.0) if each.name == "tern_verdicts_total" else each for each in house.told()]
    begun = house.history.now
    for _ in range(20):
        house.history.scrape(anew, instance="worker-1")
    assert not fires(RULES["TernRolloutFailed"][0], house.history, 0, since=begun)


FRESH = (
    "import json, tern.store.counted; from tern.exporter import Counted;"
    " print(json.dumps([[s.name, s.labels, s.value] for f in Counted().collect() for s in f.samples]))"
)
"""A process in which nothing has happened yet."""
BEGINS_WITH_THE_FIRST = {"tern_rpc_seconds"}
"""Alarms about rates of many a minute, which one more or less does not change."""


def test_what_alarms_count_is_there_before_it_happens_for_the_first_time() -> None:
    """Otherwise the first one is no rise, and the alarm for it never rings."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    counted = [
        (name, series, labels)
        for name, (expression, _) in RULES.items()
        for series, labels in selectors(expression)
        if series != SERIES[series] and SERIES[series] not in BEGINS_WITH_THE_FIRST
    ]
    assert len(counted) >= 4
    for name, series, labels in counted:
        born = [
            value
            for each, found, value in told
            if each == series and all(found.get(label) in wanted for label, wanted in labels.items())
        ]
        assert born, (name, series, labels)
        assert set(born) == {0.0}

"""What is set up, what answers, what helps: with each part there, and with each part missing."""

import importlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from psycopg.conninfo import make_conninfo

from tern.cli import brokering, checkup
from tern.domain.canary import QUEUES
from tern.domain.control import Verb
from tern.domain.silence import LONGEST_PAUSE_S, CallKind
from tern.domain.timing import OWN_SWEEP
from tern.engine.identity import EngineIdentity
from tern.engine.server import serve
from tern.flows.canary import answer
from tern.store import trouble
from tern.store.canary import Answer as CanaryAnswer
from tern.store.database import Database
from tests.cli.conftest import Answer, Tern
from tests.faults.behaviour import altered, fail
from tests.flows.steps import PARALLEL, running
from tests.world import World

ALWAYS = {"python", "settings", "postgresql", "server", "clock", "broker"}
LOOKED_AT = (
    ALWAYS
    | {f"queue {name}" for name in QUEUES}
    | {
        "broker state",
        "worker clocks",
        "beat",
        "claims",
        "wishes",
        "uncertain",
        "outstanding",
        "rollouts",
        "silent engines",
        "engines",
    }
)


@pytest.fixture(autouse=True)
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster of these tests is thrown away and may forget, which another test looks at."""
    right = trouble.server
    monkeypatch.setattr(trouble, "server", lambda database: replace(right(database), forgets=False))
    monkeypatch.setattr(brokering, "CANARY_PATIENCE_S", 1.0)


@pytest.fixture
def worker(world: World, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The queues that somebody reads: what is taken out of this set has no reader."""
    monkeypatch.setenv("TERN_BROKER_URL", broker_url)
    read: set[str] = set(QUEUES)

    def release(token: str) -> None:
        for queue in read:
            answer(queue, token, "host:7", world.ports)

    canary = importlib.import_module("tasks.canary")
    monkeypatch.setattr(canary, "release", release)
    return read


def findings(done: Answer) -> dict[str, dict[str, Any]]:
    return {finding["about"]: finding for finding in done.data["findings"]}


def unwell(done: Answer) -> dict[str, str]:
    return {about: finding["next"] for about, finding in findings(done).items() if not finding["ok"]}


def test_nothing_set_up_says_what_to_set(bare: Tern) -> None:
    done = bare("doctor")
    assert (done.code, "tern up" in done.out) == (78, True)


def test_a_variable_that_nothing_reads_is_named(bare: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever misspelt a setting believes that it is set."""
    monkeypatch.setenv("TERN_POOLSIZE", "4")
    monkeypatch.setenv("TERN_TOKEN_FRA", "a secret that a deployment names")
    done = bare("doctor")
    assert "TERN_POOLSIZE is set, and nothing reads it" in done.out
    assert "Did you mean TERN_POOL_SIZE?" in done.out
    assert "TERN_TOKEN_FRA" not in done.out


def test_everything_well(world: World, tern: Tern, worker: set[str]) -> None:
    world.sweep()
    done = tern("doctor", "--json")
    assert (done.code, unwell(done)) == (0, {})
    assert set(findings(done)) == LOOKED_AT
    assert findings(done)["queue control"]["said"].startswith("host:7 answered within")
    assert "Everything is well." in tern("doctor").out


def test_a_queue_that_nobody_reads_is_named(world: World, tern: Tern, worker: set[str]) -> None:
    """Proved by a canary for each, and not by a worker that says that it is there."""
    world.sweep()
    worker.remove("dispatch")
    done = tern("doctor", "--json")
    assert (done.code, unwell(done)) == (69, {"queue dispatch": "tern worker -Q dispatch"})


def test_a_worker_that_hears_nothing_is_not_taken_for_a_missing_one(
    world: World, tern: Tern, worker: set[str]
) -> None:
    """Its clock, or a certificate, keeps it from the broker, and it sweeps for itself: another would do no better."""
    world.store.begin_sweep("reconcile", f"{OWN_SWEEP}host:7")
    world.store.finish_sweep("reconcile", f"{OWN_SWEEP}host:7")
    worker.clear()
    found = findings(tern("doctor", "--json"))["queue dispatch"]
    assert "the worker host:7 is at work without the broker" in found["said"]
    assert "log" in found["next"]
    # As long as one queue is heard, those that are not lack a reader.
    worker.add("control")
    assert unwell(tern("doctor", "--json"))["queue dispatch"] == "tern worker -Q dispatch"


def test_an_old_answer_proves_nothing(world: World, tern: Tern, worker: set[str]) -> None:
    world.sweep()
    for queue in QUEUES:
        answer(queue, "0" * 24, "host:7", world.ports)
    world.pass_time(60)
    world.sweep()
    worker.clear()
    assert set(unwell(tern("doctor", "--json"))) == {f"queue {name}" for name in QUEUES}


def test_a_broker_that_takes_no_message_is_said(
    world: World, tern: Tern, worker: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_token: str) -> None:
        message = "OOM command not allowed"
        raise ConnectionError(message)

    monkeypatch.setattr(importlib.import_module("tasks.canary"), "release", refuse)
    world.sweep()
    done = tern("doctor", "--json")
    assert done.code == 69
    assert "OOM" in findings(done)["queues"]["said"]


def test_a_broker_that_hangs_is_not_waited_for(
    world: World, tern: Tern, worker: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("tasks.canary"), "release", lambda _token: time.sleep(20))
    world.sweep()
    begun = time.monotonic()
    done = tern("doctor", "--json")
    assert time.monotonic() - begun < 15
    assert "took no message" in findings(done)["queues"]["said"]


def test_without_a_broker_the_rest_is_looked_at(world: World, tern: Tern) -> None:
    world.sweep()
    done = tern("doctor", "--json")
    assert (done.code, set(unwell(done))) == (69, {"broker"})
    assert "workers sweep for themselves" in tern("doctor").out


def test_without_a_database_that_is_all_that_is_said(
    bare: Tern, monkeypatch: pytest.MonkeyPatch, broker_url: str
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/tern")
    monkeypatch.setenv("TERN_BROKER_URL", broker_url)
    done = bare("doctor", "--json")
    assert done.code == 69
    assert set(findings(done)) == {"python", "settings", "postgresql", "broker"}
    assert unwell(done) == {"postgresql": "Check TERN_DATABASE_URL."}


def test_a_database_that_is_not_migrated(
    bare: Tern, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", database_url)
    assert "tern db upgrade" in bare("doctor").out


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"forgets": True}, "a power cut loses"),
        ({"is_replica": True}, "it is a replica"),
        ({"is_read_only": True}, "it is read-only"),
        ({"is_unbounded": True}, "a pooler drops"),
        ({"version": 140_000}, "older than 15"),
    ],
)
def test_a_server_that_can_t_keep_the_truth(
    wrong: dict[str, Any], words: str, world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = trouble.server
    monkeypatch.setattr(trouble, "server", lambda database: replace(well(database), **wrong))
    done = tern("doctor", "--json")
    assert (done.code, words in findings(done)["server"]["said"]) == (78, True)


def test_the_server_itself_is_asked(world: World) -> None:
    """The control run: what this throw-away cluster says of itself."""
    found = trouble.server(world.database)
    assert found.version >= 150_000
    assert (found.is_replica, found.is_read_only) == (False, False)
    assert abs(found.clock_s - time.time()) < 60


def test_a_pooler_that_ignores_our_options_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """PgBouncer with `ignore_startup_parameters = options`, without which it takes no connection of ours."""
    assert not trouble.server(world.database).is_unbounded
    monkeypatch.setattr("tern.store.database.SERVER_SETTINGS", {})
    world.database.dispose()
    assert trouble.server(world.database).is_unbounded


def test_a_clock_that_differs_is_told_and_hurts_nobody(world: World, tern: Tern, worker: set[str]) -> None:
    world.pass_time(7200)
    world.sweep()
    done = tern("doctor", "--json")
    assert done.code == 0
    assert "behind PostgreSQL" in findings(done)["clock"]["said"]


def test_a_clock_that_was_set_back_is_told(world: World, tern: Tern, worker: set[str]) -> None:
    """§11: what was written lies ahead; everything goes on, and nobody says that everything is well."""
    world.apply("A")
    world.sweep()
    world.pass_time(-3600)
    done = tern("doctor", "--json")
    assert done.code == 13
    assert "was set back" in findings(done)["clock"]["said"]
    world.sweep()
    # sweeps have mended what decides; the record still tells
    assert "59 min" in findings(tern("doctor", "--json"))["clock"]["said"]
    world.pass_time(3600)
    assert findings(tern("doctor", "--json"))["clock"]["ok"]


def test_a_worker_whose_clock_differs_is_told(
    world: World, tern: Tern, worker: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """§11: its clock decides nothing, and makes its logs hard to read."""

    def release(token: str) -> None:
        answer("sweep", token, "host:7", world.ports, time.time() - 7200)

    monkeypatch.setattr(importlib.import_module("tasks.canary"), "release", release)
    world.sweep()
    found = findings(tern("doctor", "--json"))
    assert found["worker clocks"]["said"] == "the clock of worker host:7 is 2 h 00 min behind PostgreSQL's"
    assert found["worker clocks"]["ok"] is False
    assert "NTP" in found["worker clocks"]["next"]
    # The worker is there; nobody is to start another one.
    assert found["queue sweep"]["ok"]
    monkeypatch.setattr(importlib.import_module("tasks.canary"), "release", lambda _token: None)
    world.pass_time(60)
    assert "has a wrong clock" in findings(tern("doctor", "--json"))["queue sweep"]["said"]


def test_a_clock_that_is_a_little_off_is_told_and_well(world: World) -> None:
    for ahead_s, is_well, words in (
        (1.0, True, "agree"),
        (20.0, True, "20 s ahead"),
        (-70.0, False, "1 min"),
    ):
        found = brokering.clocks([CanaryAnswer("t", "host:7", 1.0, ahead_s)])
        assert (found.is_well, words in found.said) == (is_well, True), found


def test_a_broker_that_throws_messages_away_is_told(
    world: World, tern: Tern, worker: set[str], broker_url: str
) -> None:
    """By its own word; and one that keeps them, or forgets only what may be forgotten, is well."""
    world.sweep()
    with redis.Redis.from_url(broker_url) as client:
        before = client.config_get("maxmemory*")
        try:
            client.config_set("maxmemory", "1gb")
            client.config_set("maxmemory-policy", "volatile-lru")
            assert findings(tern("doctor", "--json"))["broker state"]["ok"]
            client.config_set("maxmemory-policy", "allkeys-lru")
            done = tern("doctor", "--json")
            assert (done.code, set(unwell(done))) == (78, {"broker state"})
            assert "allkeys-lru" in findings(done)["broker state"]["said"]
            assert "noeviction" in findings(done)["broker state"]["next"]
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
            assert "of its maxmemory is used" in findings(tern("doctor", "--json"))["broker state"]["said"]
        finally:
            client.config_set("maxmemory", before["maxmemory"])
            client.config_set("maxmemory-policy", before["maxmemory-policy"])


def test_a_broker_that_may_not_be_asked_is_no_alarm(
    world: World, tern: Tern, worker: set[str], broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with many hosters, whose users have fewer rights."""
    world.sweep()
    parts = urlsplit(broker_url)
    with redis.Redis.from_url(broker_url) as client:
        client.execute_command(
            *("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-info", "-config", "-scan")
        )
        try:
            plain = f"redis://plain:pw@{parts.hostname}:{parts.port}{parts.path}"
            monkeypatch.setenv("TERN_BROKER_URL", plain)
            client.lpush("celery", json.dumps({"headers": {"task": "tern.sweep"}}))
            done = tern("doctor", "--json")
            assert findings(done)["broker state"]["ok"]
            assert "could not ask" in findings(done)["broker state"]["said"]
            assert "celery" in findings(done)["stray messages"]["said"]
        finally:
            client.delete("celery")
            client.execute_command("ACL", "DELUSER", "plain")


def test_messages_that_wait_where_nobody_reads_are_named(
    world: World, tern: Tern, worker: set[str], broker_url: str
) -> None:
    """A stock client that forgets to say the queue; and others' messages on the same broker are not our affair."""
    world.sweep()
    with Celery(broker=broker_url) as stock:
        for _ in range(2):
            stock.send_task("tern.apply.enqueue", kwargs={"key": "k"})
        stock.send_task("tern.apply.enqueue", kwargs={"key": "k"}, queue="tern", priority=6)
        stock.send_task("shop.mail", kwargs={"to": "ann"})
        stock.send_task("tern.sweep", queue="sweep")
    done = tern("doctor", "--json")
    said = [each["said"] for each in done.data["findings"] if each["about"] == "stray messages"]
    assert said == [
        "2 messages for Tern in the queue celery, which no worker reads: tern.apply.enqueue",
        "1 message for Tern in the queue tern, which no worker reads: tern.apply.enqueue",
    ]
    assert done.code == 13
    # Looked at, not taken.
    with redis.Redis.from_url(broker_url) as client:
        assert client.llen("celery") == 3


def test_an_answer_from_before_the_clock_was_set_back_proves_nothing(
    world: World, tern: Tern, worker: set[str]
) -> None:
    """§11: an age below zero is no fresh answer."""
    answer("poll", "ab" * 6, "dead:7", world.ports)
    worker.discard("poll")
    world.pass_time(-3600)
    assert not findings(tern("doctor", "--json"))["queue poll"]["ok"]


def test_a_sweep_of_long_ago_means_that_nobody_works(world: World, tern: Tern) -> None:
    assert "nobody has ever swept" in findings(tern("doctor", "--json"))["beat"]["said"]
    world.sweep()
    assert "on its own account" in findings(tern("doctor", "--json"))["beat"]["said"]
    world.write("UPDATE sweep_leases SET finished_by = 'beat@host:7'")
    assert findings(tern("doctor", "--json"))["beat"]["said"].startswith("rings")
    world.pass_time(600)
    assert unwell(tern("doctor", "--json"))["beat"] == "tern worker"


def test_claims_that_nobody_takes_over(world: World, tern: Tern) -> None:
    running(world, "A")
    world.write(
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w', claim_expires_at = tern_clock()"
    )
    world.pass_time(100)
    done = tern("doctor", "--json")
    assert "1 expired and not taken over" in findings(done)["claims"]["said"]
    assert unwell(done)["claims"] == "tern worker"


def test_work_that_nobody_takes(world: World, tern: Tern) -> None:
    world.apply("A")
    world.forget_bells()
    world.pass_time(100)
    assert "the oldest dispatch has been due" in findings(tern("doctor", "--json"))["claims"]["said"]


def test_a_stop_that_nobody_hears(world: World, tern: Tern) -> None:
    running(world, "A")
    world.engines["A"].always("Stop", fail("UNAVAILABLE", message="asleep"))
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert findings(tern("doctor", "--json"))["wishes"]["said"] == "open: 1 stop"
    world.pass_time(120)
    done = tern("doctor", "--json")
    assert unwell(done)["wishes"] == f"tern explain {world.name('A')}"
    assert "asleep" in findings(done)["wishes"]["said"]


def test_an_uncertain_operation_waits_for_a_person(world: World, tern: Tern, worker: set[str]) -> None:
    running(world, "A", "B")
    world.sweep()
    world.write("UPDATE apply_operations SET state = 'uncertain' WHERE deployment = 'B'")
    done = tern("doctor", "--json")
    assert (done.code, unwell(done)) == (13, {"uncertain": f"tern explain {world.name('B')}"})


def test_of_several_troubles_the_first_one_gives_the_code(world: World, tern: Tern, worker: set[str]) -> None:
    """They are told in the order in which they hurt, whatever else is wrong further down."""
    running(world, "A", "B")
    world.sweep()
    world.write("UPDATE apply_operations SET state = 'uncertain' WHERE deployment = 'B'")
    world.engines["A"].always("Health", fail("UNAVAILABLE"))
    done = tern("doctor", "--json")
    assert [finding["about"] for finding in done.data["findings"] if not finding["ok"]] == [
        "uncertain",
        "engines",
    ]
    assert done.code == 13


def test_engines_that_are_silent_or_others(world: World, tern: Tern) -> None:
    """Health and identity: an address that leads to somebody else's engine is found before a rollout is."""
    world.engines["B"].always("Health", fail("UNAVAILABLE"))
    said = findings(tern("doctor", "--json"))["engines"]["said"]
    assert said.startswith("2 of 3 engines answer as they should; B: ")
    world.engines["B"].always("Health", None)
    world.engines["C"].always(
        "Preview", fail("FAILED_PRECONDITION", reason="TARGET_MISMATCH", message="target is another")
    )
    done = tern("doctor", "--json")
    assert "C: it is another one: " in findings(done)["engines"]["said"]
    assert unwell(done)["engines"] == "tern deployments check"
    world.engines["C"].always("Preview", fail("UNIMPLEMENTED"))
    assert "offers less than is noted" in findings(tern("doctor", "--json"))["engines"]["said"]


def test_an_engine_that_can_do_no_work_is_told(world: World, tern: Tern) -> None:
    world.engines["B"].always("Health", altered(status="degraded: no CREATE"))
    assert "B: degraded: no CREATE" in findings(tern("doctor", "--json"))["engines"]["said"]


def test_why_an_engine_does_not_get_at_its_database_is_told_everywhere(
    world: World, tern: Tern, migrated_url: str
) -> None:
    """It is up and answers; that alone says nothing about the change."""
    away = make_conninfo(migrated_url, dbname="nowhere")
    engine = serve(away, "127.0.0.1:0", EngineIdentity("test", "shop", "target-D"))
    cause = 'database "nowhere" does not exist'
    try:
        world.add("D", f"grpc://127.0.0.1:{engine.port}", 3, offers=True)
        assert cause in findings(tern("doctor", "--json"))["engines"]["said"]
        assert cause in tern("deployments", "check", "D").out
        apply_id = world.apply("D")
        world.answer_bells()
        assert cause in " ".join(tern("explain", f"{apply_id}/D").out.split())
    finally:
        engine.stop()


def test_an_engine_that_hangs_is_not_waited_for(
    make_world: Callable[..., World], database: Database, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "ENGINE_PATIENCE_S", 0.5)
    world = make_world("A")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        address = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
        for number in range(8):
            world.add(f"silent-{number}", address, number, offers=True)
        begun = time.monotonic()
        done = tern("doctor", "--json")
    assert time.monotonic() - begun < 20
    assert findings(done)["engines"]["said"].startswith("1 of 9 engines")
    assert threading.active_count() < 100


def test_silent_engines_are_named(world: World, tern: Tern, worker: set[str]) -> None:
    """They cost nobody else anything, so nothing else would show them."""
    for _ in range(3):
        world.store.record_silence("B", CallKind.POLL)
    world.store.record_silence("A", CallKind.POLL)
    found = findings(tern("doctor", "--json"))["silent engines"]
    assert found["ok"] is False
    assert found["said"].startswith("1 deployment: B: no answer to the last 3 looks")


def test_every_engine_that_leaves_its_work_unanswered_is_named(
    world: World, tern: Tern, worker: set[str]
) -> None:
    """One that refuses connections costs nobody a thread, and is no less dead than one that hangs."""
    world.apply(policy=PARALLEL)
    world.answer_bells()
    world.write("UPDATE apply_operations SET poll_failures = 20 WHERE deployment = 'A'")
    world.write(
        "UPDATE apply_operations SET unheard_tries = 92, unheard_look = sampled_look, unheard_since = tern_clock()"
        " WHERE deployment = 'B'"
    )
    found = findings(tern("doctor", "--json"))["silent engines"]
    assert "A: no usable answer to the last 20 calls" in found["said"]
    assert "B: no usable answer to the last 92 calls, for under 1 s" in found["said"]
    assert sorted(found["next"].split()[3:]) == ["A", "B"]
    # `deployments ls` says it by the same rule.
    listed = {
        each["name"]: each["lost_contact"] for each in tern("deployments", "ls", "--json").data["deployments"]
    }
    assert listed == {"A": True, "B": True, "C": False}


def test_what_waited_for_a_silent_engine_is_not_untaken(world: World, tern: Tern) -> None:
    """Held back on purpose, it can be taken once the pause is over, and not before."""
    apply_id = world.apply("A")
    world.forget_bells()
    for _ in range(8):
        world.store.record_silence("A", CallKind.DISPATCH)
    world.pass_time(LONGEST_PAUSE_S + 1)
    assert findings(tern("doctor", "--json"))["claims"]["ok"]
    assert "no worker has taken it" not in tern("get", apply_id).out
    world.pass_time(checkup.OVERDUE_S)
    assert "the oldest dispatch has been due" in findings(tern("doctor", "--json"))["claims"]["said"]
    assert "no worker has taken it" in tern("get", apply_id).out

"""The record: one event per change of state, in the same transaction, chained, and without secrets (G15, S21)."""

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import IntegrityError

from tern.domain.control import Verb
from tern.domain.identity import RemoteId
from tern.domain.model import Credentials, Deployment
from tern.domain.states import TRANSITIONS, Event, State
from tern.ports import Resolved
from tern.store.database import Database
from tern.store.session import connect
from tern.store.sql import text
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import MANUAL, PARALLEL, engine_says, look, running, settle, stopped, waiting
from tests.world import World


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    engine = connect(migrated_url, pool_size=8)
    # Every write of a state is noted behind the back of whoever writes it, with its transaction.
    with engine.begin() as tx:
        tx.execute(
            text(
                "CREATE TABLE seen (number bigint GENERATED ALWAYS AS IDENTITY, tx bigint, operation bigint,"
                " before text, after text);"
                "CREATE TABLE told (tx bigint, event bigint);"
                "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO seen (tx, operation, before, after)"
                "   VALUES (txid_current(), NEW.id, OLD.state, NEW.state); RETURN NEW; END $$;"
                "CREATE TRIGGER see AFTER UPDATE ON apply_operations FOR EACH ROW"
                " WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION see();"
                "CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO told VALUES (txid_current(), NEW.id); RETURN NEW; END $$;"
                "CREATE TRIGGER hear AFTER INSERT ON apply_events FOR EACH ROW EXECUTE FUNCTION hear()"
            )
        )
    yield engine
    engine.dispose()


def a_long_night(world: World) -> None:
    """Nearly everything that can happen to a rollout."""
    stopped(world)
    world.ask(Verb.START, "A", "B", "C")
    settle(world)
    engine_says(world, "A", "completed")
    engine_says(world, "B", "failed", error="no space")
    world.ask(Verb.CANCEL, "C")
    settle(world)
    world.sweep()
    # a halted one
    world.apply("A", "B", "C")
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    # a deferred one
    waiting(world, "A", "B", policy=MANUAL)
    world.ask(Verb.CUTOVER, "A")
    settle(world)
    world.ask(Verb.STOP, "B")
    settle(world)
    engine_says(world, "B", "running")
    settle(world)
    world.ask(Verb.CANCEL, "B")
    settle(world)
    # lost answers, dead keys, lost ids, a person's word
    world.engines["A"].script("Apply", lose_answer())
    world.engines["B"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", "C", policy=PARALLEL)
    world.answer_bells()
    world.ask(Verb.STOP, "B")
    settle(world)
    world.run(until=lambda: world.state("A") == "running")
    job = world.engines["C"].jobs.by_id.pop(str(world.remote_id("C")))
    look(world, "C")
    assert job
    assert world.state("C") == "uncertain"
    world.store.resolve_uncertain(world.name("C"), Resolved.ENDED, None, "eve", "I looked")
    world.engines["A"].ignore("Start")
    world.ask(Verb.STOP, "A")
    settle(world)
    world.ask(Verb.START, "A")
    world.answer_bells()
    world.pass_time(31)
    settle(world)
    world.ask(Verb.CANCEL)
    settle(world)
    # undispatched ones
    world.apply("A", "B")
    world.forget_bells()
    world.ask(Verb.STOP)
    settle(world)
    world.ask(Verb.START, "B")
    settle(world)
    world.ask(Verb.CANCEL)
    settle(world)
    world.engines["C"].jobs.by_id[job.remote_id] = job


def rows(database: Database, statement: str) -> list[Any]:
    with database.begin() as tx:
        return list(tx.execute(text(statement)))


def test_every_change_of_state_has_exactly_one_event_in_its_transaction(
    world: World, database: Database
) -> None:
    """S21: counted by a trigger that nobody here knows of."""
    a_long_night(world)
    arrows = {event.value for event in Event}
    told = {
        (row.tx, row.operation_id, row.before, row.after, row.event)
        for row in rows(database, "SELECT t.tx, e.* FROM told t JOIN apply_events e ON e.id = t.event")
        if row.operation_id is not None and row.event in arrows and row.before != row.after
    }
    seen = [(row.tx, row.operation, row.before, row.after) for row in rows(database, "SELECT * FROM seen")]
    assert len(seen) > 40
    assert sorted(event[:4] for event in told) == sorted(seen)
    # and each is an arrow of the table
    for _, _, before, after, event in told:
        assert TRANSITIONS[State(before)][Event(event)] is State(after), (before, event, after)


def test_every_fate_of_a_wish_has_its_event(world: World, database: Database) -> None:
    """G15: what came of it, for each operation."""
    a_long_night(world)
    fates = rows(
        database,
        "SELECT d.id, d.verb, d.state, d.operation_id, (SELECT count(*) FROM apply_events e"
        " WHERE e.operation_id = d.operation_id AND e.event = d.verb || '_' || d.state) AS events"
        " FROM control_deliveries d WHERE d.state NOT IN ('pending', 'sent')",
    )
    assert len(fates) > 10
    assert [row for row in fates if row.events == 0] == []


def test_the_chain_of_hashes_can_be_computed_by_anybody(world: World, database: Database) -> None:
    """G15: each event holds a hash over itself and its predecessor of the same operation, or of the apply alone."""
    a_long_night(world)
    found = rows(
        database,
        "SELECT *, (extract(epoch FROM at) * 1000000)::bigint AS micros, detail::text AS detail_text"
        " FROM apply_events ORDER BY id",
    )
    assert len({row.apply_id for row in found}) > 3
    heads: dict[tuple[int, int], tuple[int, bytes]] = {}
    for row in found:
        chain = (row.apply_id, row.operation_id or 0)
        length, head = heads.get(chain, (0, b"\x00"))
        fields = [row.id, row.apply_id, row.operation_id, row.micros]
        fields += [row.event, row.who, row.why, row.before, row.after, row.detail_text]
        line = "".join("-" if field is None else f"{len(str(field))}:{field}" for field in fields)
        assert (row.number, bytes(row.previous_hash)) == (length + 1, head)
        assert bytes(row.hash) == hashlib.sha256(head + f"{row.number}:{line}".encode()).digest()
        heads[chain] = (row.number, bytes(row.hash))
    ends = rows(database, "SELECT * FROM event_chains")
    assert {(end.apply_id, end.operation_id): (end.length, bytes(end.head)) for end in ends} == heads


def test_no_two_events_are_hashed_alike(world: World, database: Database) -> None:
    """G15: a text that is moved from one field to the next is another event."""
    running(world, "A")
    with database.begin() as tx:
        lines = {
            (who, why): tx.execute(
                text("SELECT tern_hashed(:who) || tern_hashed(:why)"), {"who": who, "why": why}
            ).scalar_one()
            for who, why in [("eve", "1:x"), ("eve1:", "x"), ("eve", None), ("eve", ""), ("eve", "-")]
        }
    assert len(set(lines.values())) == len(lines)


def test_a_writer_that_holds_only_its_operation_extends_its_own_chain(
    world: World, database: Database
) -> None:
    """One chain an operation: two drivers of siblings write their events at the same time, and neither waits."""
    running(world, "A", "B")
    insert = (
        "INSERT INTO apply_events (apply_id, operation_id, event, who)"
        " SELECT apply_id, id, 'noted', 'eve' FROM apply_operations WHERE deployment = :deployment RETURNING number"
    )
    with database.begin() as first, database.begin() as second:
        for tx, deployment in ((first, "A"), (second, "B")):
            tx.execute(text("SET LOCAL lock_timeout = '1s'"))
            lock = "SELECT 1 FROM apply_operations WHERE deployment = :deployment FOR NO KEY UPDATE"
            tx.execute(text(lock), {"deployment": deployment})
        numbers = [
            tx.execute(text(insert), {"deployment": deployment}).scalar_one()
            for tx, deployment in ((first, "A"), (second, "B"), (first, "A"))
        ]
    assert numbers[2] == numbers[0] + 1


def test_an_event_about_a_stranger_is_refused(world: World) -> None:
    """G15, G7: nothing is recorded of an operation in another apply's record."""
    running(world, "A")
    with pytest.raises(IntegrityError, match="is none of apply"):
        world.write(
            "INSERT INTO apply_events (apply_id, operation_id, event, who)"
            " SELECT id, -1, 'noted', 'eve' FROM applies"
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_chains SET length = length - 1",
        "UPDATE event_chains SET length = length + 1",
        "DELETE FROM event_chains",
    ],
)
def test_the_end_of_a_chain_only_moves_on(world: World, statement: str) -> None:
    """G15: a chain is never made to look shorter, or to have ended otherwise."""
    running(world, "A")
    with pytest.raises(IntegrityError, match="append-only"):
        world.write(statement)


@pytest.mark.parametrize("statement", ["UPDATE apply_events SET who = 'nobody'", "DELETE FROM apply_events"])
def test_the_record_is_never_rewritten(world: World, statement: str) -> None:
    """G15: whoever writes."""
    running(world, "A")
    with pytest.raises(IntegrityError, match="append-only"):
        world.write(statement)


def test_a_step_that_is_rolled_back_leaves_no_event(world: World, database: Database) -> None:
    """S21: the same transaction, or none."""
    running(world, "A", "B")
    before = len(rows(database, "SELECT 1 FROM apply_events"))
    world.write(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = 'disk_full'; END $$"
    )
    world.write("CREATE TRIGGER refuse BEFORE INSERT ON apply_events FOR EACH ROW EXECUTE FUNCTION refuse()")
    with pytest.raises(Exception, match="disk full"):
        engine_says(world, "A", "completed")
    assert world.state("A") == "running"
    assert len(rows(database, "SELECT 1 FROM apply_events")) == before


def test_no_secret_is_in_the_record(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G15: credentials are named by reference, and no answer or refusal brings them back."""
    secret = "s3cr3t-" + "x" * 20
    monkeypatch.setenv("TERN_TEST_TOKEN", secret)
    world = make_world("A", token=secret)
    engine = world.engines["A"]
    world.write("DELETE FROM deployments")
    world.store.save_deployment(
        Deployment(
            name="A",
            environment="test",
            database="shop",
            address=engine.address,
            target="target-A",
            credentials=Credentials(token="env:TERN_TEST_TOKEN", insecure_plaintext=True),
            idempotent_dispatch=True,
        )
    )
    engine.script("Apply", lose_answer())
    world.apply("A")
    world.run(until=lambda: world.state("A") == "running")
    world.ask(Verb.STOP)
    settle(world)
    monkeypatch.setenv("TERN_TEST_TOKEN", secret[:-1])
    world.ask(Verb.START)
    world.answer_bells()
    assert engine.calls("Apply")[0].metadata["authorization"] == f"Bearer {secret}"
    with world.database.begin() as tx:
        for table in (
            "apply_events",
            "control_requests",
            "control_deliveries",
            "apply_operations",
            "deployments",
        ):
            stored = "\n".join(tx.execute(text(f"SELECT t::text FROM {table} t")).scalars())
            assert secret[:-1] not in stored, table
    assert os.environ["TERN_TEST_TOKEN"] == secret[:-1]


def test_the_record_says_who_asked_and_why(world: World) -> None:
    """G15: caller and reason of a wish stand with what came of it."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    settle(world)
    request = world.one("SELECT * FROM control_requests")
    assert (request.caller, request.reason, request.verb) == ("bob", "the night is long", "stop")
    assert request.outcomes == [{"deployment": "A", "outcome": "accepted", "reason": ""}]
    assert [event.who for event in world.events("A") if event.event.startswith("stop_")] == ["bob", "bob"]
    (sent,) = [event for event in world.events("A") if event.event == "stop_sent"]
    assert sent.why == "the night is long"


def test_an_adopted_id_is_in_the_record(world: World) -> None:
    """G15: who gave it, and for which operation."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL WHERE deployment = 'A'"
    )
    remote_id = RemoteId(next(iter(world.engines["A"].jobs.by_id)))
    world.pass_time(11)
    world.resolve("A", Resolved.REMOTE_ID, remote_id, why="I looked")
    (event,) = [event for event in world.events("A") if event.event == "remote_id_stored"]
    assert (event.who, event.detail) == ("eve", {"remote_id": remote_id})

"""The record: what the audit tells, an apply as it was, and that nobody rewrites it unnoticed (G15, S21)."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from tern.domain.chain import Fault, RequestSeal, request_hash
from tern.domain.control import Verb
from tern.domain.errors import NotFound, UsageError
from tern.domain.identity import RemoteId
from tern.domain.policy import Copy, OnFailure, Policy
from tern.doors.record import PastOperation, Verified
from tern.ports import Resolved
from tern.store.record import Record, _seal
from tern.store.schema import migrate
from tern.store.sql import text
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import PARALLEL, Frozen, dispatch, engine_says, running, settle, sighting, stopped
from tests.invariants import assert_safe
from tests.store.test_migrations import below
from tests.world import World

A = "(SELECT id FROM apply_operations WHERE deployment = 'A')"
LAST_OF_A = f"(SELECT max(number) FROM apply_events WHERE operation_id = {A})"


def eventful(world: World) -> None:
    """A was dispatched, stopped and started again; B completed; C was stopped before anything was sent."""
    stopped(world)
    world.ask(Verb.START, "A", "B")
    settle(world)
    engine_says(world, "B", "completed")


def tamper(world: World, statement: str) -> None:
    """As a superuser who has switched the triggers off."""
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text(statement))


def verify(world: World) -> Verified:
    return Record(world.database).verify(world.last)


def test_an_untouched_record_is_found_whole(world: World) -> None:
    """G15: whatever happened, and the counts are those of the rows."""
    eventful(world)
    found = verify(world)
    assert found.findings == ()
    counts = world.one(
        "SELECT count(*) AS events, count(DISTINCT coalesce(operation_id, 0)) AS chains,"
        " (SELECT count(*) FROM control_requests) AS requests FROM apply_events"
    )
    assert (found.events, found.chains, found.requests) == tuple(counts)
    assert counts.chains == 4


def test_the_seal_is_that_of_all_chains_and_moves_with_each_event(world: World) -> None:
    """G15: anybody can compute it from the table, and note it elsewhere."""
    eventful(world)
    before = verify(world).seal
    with world.database.begin() as tx:
        ends = tx.execute(text("SELECT operation_id, head FROM event_chains ORDER BY operation_id")).all()
    told = "".join(f"{end.operation_id}:{bytes(end.head).hex()}\n" for end in ends)
    assert before == hashlib.sha256(told.encode()).hexdigest()
    engine_says(world, "A", "completed")
    assert verify(world).seal != before


TAMPERINGS: dict[str, tuple[str, str, set[Fault]]] = {
    "a text is changed": (
        f"UPDATE apply_events SET why = why || '!' WHERE operation_id = {A} AND number = 2",
        "A",
        {Fault.CHANGED},
    ),
    "a caller is changed": (
        f"UPDATE apply_events SET who = 'nobody' WHERE operation_id = {A} AND number = {LAST_OF_A}",
        "A",
        {Fault.CHANGED},
    ),
    "a time is moved by a microsecond": (
        f"UPDATE apply_events SET at = at + interval '1 us' WHERE operation_id = {A} AND number = 1",
        "A",
        {Fault.CHANGED},
    ),
    "a detail is spelled otherwise": (
        f"UPDATE apply_events SET detail = '{{ }}' WHERE operation_id = {A} AND number = 1",
        "A",
        {Fault.CHANGED},
    ),
    "a word moves to the next field": (
        (
            "UPDATE apply_events SET who = who || left(why, 1), why = substr(why, 2)"
            " WHERE operation_id IS NULL AND number = 1"
        ),
        "",
        {Fault.CHANGED},
    ),
    "an event in the middle is deleted": (
        f"DELETE FROM apply_events WHERE operation_id = {A} AND number = 2",
        "A",
        {Fault.MISSING},
    ),
    "the first event is deleted": (
        f"DELETE FROM apply_events WHERE operation_id = {A} AND number = 1",
        "A",
        {Fault.MISSING, Fault.UNTOLD},
    ),
    "two events are swapped": (
        (
            f"UPDATE apply_events SET number = 1000 + (5 - number) WHERE operation_id = {A} AND number IN (2, 3);"
            f"UPDATE apply_events SET number = number - 1000 WHERE operation_id = {A} AND number > 1000"
        ),
        "A",
        {Fault.REORDERED},
    ),
    "an event is inserted in the middle": (
        (
            f"UPDATE apply_events SET number = number + 1000 WHERE operation_id = {A} AND number > 2;"
            "INSERT INTO apply_events (apply_id, operation_id, number, event, who, previous_hash, hash)"
            " SELECT apply_id, operation_id, 3, 'noted', 'eve', hash, sha256('') FROM apply_events"
            f" WHERE operation_id = {A} AND number = 2;"
            f"UPDATE apply_events SET number = number - 999 WHERE operation_id = {A} AND number > 1000"
        ),
        "A",
        {Fault.CHANGED, Fault.REORDERED, Fault.INSERTED},
    ),
    "an event is added at the end": (
        (
            "INSERT INTO apply_events (apply_id, operation_id, number, event, who, previous_hash, hash)"
            " SELECT apply_id, operation_id, number + 1, 'noted', 'eve', hash, sha256('') FROM apply_events"
            f" WHERE operation_id = {A} AND number = {LAST_OF_A}"
        ),
        "A",
        {Fault.INSERTED},
    ),
    "the tail is deleted": (
        f"DELETE FROM apply_events WHERE operation_id = {A} AND number = {LAST_OF_A}",
        "A",
        {Fault.CUT},
    ),
    "a whole chain is deleted": (
        f"DELETE FROM apply_events WHERE operation_id = {A}",
        "A",
        {Fault.CUT, Fault.UNTOLD},
    ),
    "a whole chain is deleted, and where it ended": (
        f"DELETE FROM apply_events WHERE operation_id = {A}; DELETE FROM event_chains WHERE operation_id = {A}",
        "A",
        {Fault.UNTOLD},
    ),
    "the row where it ended is deleted": (
        f"DELETE FROM event_chains WHERE operation_id = {A}",
        "A",
        {Fault.INSERTED},
    ),
    "a state is set by hand": (
        f"UPDATE apply_operations SET state = 'completed', completed_at = now() WHERE id = {A}",
        "A",
        {Fault.UNTOLD},
    ),
    "the apply's state is set by hand": ("UPDATE applies SET state = 'paused'", "", {Fault.UNTOLD}),
    "a request's reason is changed": (
        "UPDATE control_requests SET reason = 'by mistake'",
        "",
        {Fault.CHANGED},
    ),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampering_is_found_where_it_was_done(how: str, world: World) -> None:
    """G15: by somebody who owns the database and has switched its triggers off."""
    eventful(world)
    statement, chain, faults = TAMPERINGS[how]
    for part in statement.split(";"):
        tamper(world, part)
    found = verify(world)
    assert {finding.fault for _, finding in found.findings} == faults, found.findings
    assert {place for place, _ in found.findings} == {chain}


def asked(world: World) -> None:
    """A volume, and a release of a rollout that one failure has paused."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", "C", policy=Policy(copy=Copy.ROLLING, on_failure=OnFailure.PAUSE))
    world.answer_bells()
    world.sweep()
    world.ask(Verb.RELEASE)
    world.answer_bells()
    world.ask(Verb.VOLUME, "B", volume=3)


@pytest.mark.parametrize("column", ["volume", "failures_released"])
@pytest.mark.parametrize("written", ["11", "NULL"])
def test_all_that_a_request_asks_for_is_in_its_hash(column: str, written: str, world: World) -> None:
    """G15: how hard an engine works, and how many failures a person has accepted."""
    asked(world)
    assert verify(world).findings == ()
    # Past the table's own rules too, as somebody may who owns it.
    for name in ("control_requests_volumes_are_named", "control_requests_releases_say_how_much"):
        tamper(world, f"ALTER TABLE control_requests DROP CONSTRAINT IF EXISTS {name}")
    tamper(world, f"UPDATE control_requests SET {column} = {written} WHERE {column} IS NOT NULL")
    ((_, finding),) = verify(world).findings
    assert finding.fault is Fault.CHANGED


def test_requests_of_the_version_before_stay_as_they_were_written(world: World) -> None:
    """Up and down with live applies: whoever verifies finds each request whole, by the hash that was made of it."""
    migrate(world.database, below("0011"))
    asked(world)
    migrate(world.database)
    assert verify(world).findings == ()
    world.ask(Verb.VOLUME, "B", volume=5)
    assert verify(world).findings == ()
    old, new = (
        f"SELECT encode(hash, 'hex') AS hash FROM control_requests WHERE volume = {n}" for n in (3, 5)
    )
    before = (world.one(old).hash, world.one(new).hash)
    migrate(world.database, below("0011"))
    assert world.one(old).hash == before[0]
    assert world.one(new).hash != before[1]
    seals = _seals(world)
    assert {request_hash(seal, in_full=False) == seal.hash for seal in seals} == {True}
    migrate(world.database)
    tamper(world, "UPDATE control_requests SET reason = 'by mistake' WHERE volume = 5")
    ((_, finding),) = verify(world).findings
    assert finding.fault is Fault.CHANGED


def _seals(world: World) -> list[RequestSeal]:
    with world.database.begin() as tx:
        return [
            _seal(row)
            for row in tx.execute(text("SELECT *, outcomes::text AS told FROM control_requests")).mappings()
        ]


def test_a_fault_names_its_event(world: World) -> None:
    """G15: exactly which one, and no other."""
    eventful(world)
    changed = world.one(f"SELECT id FROM apply_events WHERE operation_id = {A} AND number = 3").id
    tamper(world, f"UPDATE apply_events SET who = 'nobody' WHERE id = {changed}")
    ((chain, finding),) = verify(world).findings
    assert (chain, finding.event_id, finding.number) == ("A", changed, 3)


def test_a_chain_that_was_cut_says_what_is_gone(world: World) -> None:
    """G15: the last two, by their numbers."""
    eventful(world)
    last = world.one(f"SELECT {LAST_OF_A} AS number").number
    tamper(world, f"DELETE FROM apply_events WHERE operation_id = {A} AND number > {last - 2}")
    cut = [finding for _, finding in verify(world).findings if finding.fault is Fault.CUT]
    assert [finding.detail for finding in cut] == [f"numbers {last - 1} to {last} are gone at the end"]


def test_a_rewritten_tail_is_not_the_one_that_ended_the_chain(world: World) -> None:
    """G15: the last event is written anew, with a hash that is right."""
    eventful(world)
    tamper(
        world,
        "UPDATE apply_events SET who = 'nobody', hash = sha256(previous_hash || convert_to(number || ':'"
        " || tern_hashed(id::text) || tern_hashed(apply_id::text) || tern_hashed(operation_id::text)"
        " || tern_hashed((extract(epoch FROM at) * 1000000)::bigint::text) || tern_hashed(event)"
        " || tern_hashed('nobody') || tern_hashed(why) || tern_hashed(before) || tern_hashed(after)"
        f" || tern_hashed(detail::text), 'UTF8')) WHERE operation_id = {A} AND number = {LAST_OF_A}",
    )
    assert [finding.fault for _, finding in verify(world).findings] == [Fault.REPLACED]


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "UTC", "America/St_Johns"])
def test_a_record_holds_in_any_time_zone(zone: str, world: World) -> None:
    """G15: what is hashed is a number of microseconds, whoever reads it where."""
    eventful(world)
    world.write(
        f"ALTER DATABASE {world.one('SELECT current_database() AS name').name} SET timezone = '{zone}'"
    )
    world.database.dispose()
    assert world.one("SHOW timezone").TimeZone == zone
    assert verify(world).findings == ()


def test_the_audit_has_requests_with_what_came_of_them(world: World) -> None:
    """G15: who asked for what, why, and its fate on each deployment, between the events that it caused."""
    eventful(world)
    entries = Record(world.database).entries(world.last)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    stop, start = [entry for entry in entries if entry.kind == "request"]
    assert (stop.what, stop.who, stop.why) == ("stop", "bob", "the night is long")
    assert {fate.deployment: fate.state for fate in stop.fates} == dict.fromkeys("ABC", "acknowledged")
    assert all(fate.after_s is not None and fate.after_s >= 0 for fate in stop.fates)
    assert {fate.deployment for fate in start.fates} == {"A", "B"}
    accepted = next(entry for entry in entries if entry.what == "accepted")
    assert (accepted.who, accepted.why) == ("ann", "because")


@pytest.mark.parametrize(
    ("what", "who", "found"),
    [
        ("stop", "", {"stop", "stop_sent", "stop_acknowledged"}),
        ("claim", "", {"claim"}),
        ("", "ann", {"accepted", "projected"}),
        ("", "nobody", set()),
        ("start", "bob", {"start", "start_sent", "start_acknowledged"}),
    ],
)
def test_the_audit_is_filtered(what: str, who: str, found: set[str], world: World) -> None:
    eventful(world)
    entries = Record(world.database).entries(world.last, what=what, who=who)
    assert {entry.what for entry in entries} <= found
    assert bool(entries) == bool(found)


def test_the_audit_of_one_deployment_leaves_its_siblings_out(world: World) -> None:
    eventful(world)
    entries = Record(world.database).entries(world.last, deployment="C")
    assert {entry.deployment for entry in entries} == {"", "C"}
    assert {entry.what for entry in entries if entry.kind == "request"} == {"stop"}
    assert {fate.deployment for entry in entries for fate in entry.fates} == {"C"}


def test_the_audit_since_a_time_has_nothing_older(world: World) -> None:
    running(world, "A")
    now = world.one("SELECT tern_clock() AS now").now
    world.ask(Verb.STOP, "A")
    settle(world)
    entries = Record(world.database).entries(world.last, since=now)
    assert entries
    assert all(entry.at >= now for entry in entries)
    assert "accepted" not in {entry.what for entry in entries}


def test_an_apply_is_shown_as_it_was(world: World) -> None:
    """G15: states, ids and open wishes at a time, from events alone."""
    running(world, "A", "B")
    world.pass_time(60)
    then = world.one("SELECT tern_clock() AS now").now
    first = {name: world.state(name) for name in ("A", "B")}
    first_id = world.remote_id("A")
    world.pass_time(60)
    world.ask(Verb.STOP)
    asked = world.one("SELECT tern_clock() AS now").now
    world.pass_time(5)
    settle(world)
    past = Record(world.database).as_of(world.last, then)
    assert {each.deployment: each.state.value for each in past.operations} == first
    assert (past.operations[0].remote_id, past.state.value) == (first_id, "running")
    assert past.wishes == ()
    meanwhile = Record(world.database).as_of(world.last, asked)
    assert [(wish.verb, wish.caller) for wish in meanwhile.wishes] == [("stop", "bob")]
    after = Record(world.database).as_of(world.last, world.one("SELECT tern_clock() AS now").now)
    assert after.wishes == ()
    assert after.state.value == world.apply_row().state == "stopped"


def as_now(world: World, name: str) -> PastOperation:
    past = Record(world.database).as_of(world.last, world.one("SELECT tern_clock() AS now").now)
    return next(each for each in past.operations if each.deployment == name)


def test_an_id_that_was_kept_and_then_followed_is_told(world: World) -> None:
    """G15: whatever way it came in."""
    world.apply("A", "B")
    late = world.worker("w1")
    with Frozen(late, "record_remote_id", lambda ports: dispatch(world, "A", ports)) as worker:
        world.pass_time(31)
        world.worker("w2").store.claim_dispatch(world.operation("A").id, world.name("A"))
        worker.wake()
    assert as_now(world, "A").remote_id == world.remote_id("A") == "A-1"
    assert_safe(world)


def test_an_id_that_a_worker_of_the_version_before_followed_is_told(world: World) -> None:
    """It wrote the id down with the arrow alone."""
    running(world, "A", "B")
    tamper(
        world,
        "UPDATE apply_events SET event = 'adopt', before = 'running', after = 'running'"
        f" WHERE operation_id = {A} AND event = 'remote_id_stored'",
    )
    assert as_now(world, "A").remote_id == world.remote_id("A")


def test_an_id_that_a_person_named_is_told(world: World) -> None:
    """G15: its own, and one that was another's."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].script("Resolve", fail("UNIMPLEMENTED"))
    world.undeclared()
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.pass_time(11)
    name = world.name("A")
    seen = sighting(world, name, RemoteId("A-1"))
    world.store.resolve_uncertain(name, Resolved.REMOTE_ID, RemoteId("A-1"), "eve", "I looked", sighting=seen)
    assert as_now(world, "A").remote_id == world.remote_id("A") == "A-1"
    assert_safe(world)


def test_each_claim_is_told(world: World) -> None:
    """G15: a worker dies with its claim, and another takes the operation over in the same state."""
    world.apply("A", "B")
    number, name = world.operation("A").id, world.name("A")
    world.worker("w1").store.claim_dispatch(number, name)
    world.pass_time(31)
    world.worker("w2").store.claim_dispatch(number, name)
    assert as_now(world, "A").attempt == world.operation("A").attempt == 2
    told = [(event.who, event.why) for event in world.events("A") if event.event == "claim"]
    assert told == [("w1", ""), ("w2", "w1 had it before")]
    assert_safe(world)


def test_an_apply_was_not_there_before_it_was_accepted(world: World) -> None:
    running(world, "A")
    with pytest.raises(NotFound, match="did not exist"):
        Record(world.database).as_of(world.last, datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(UsageError, match="still to come"):
        Record(world.database).as_of(world.last, datetime.now(UTC) + timedelta(days=1))

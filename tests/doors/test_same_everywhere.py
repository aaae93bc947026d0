"""One table of requests through every door: the same outcomes, the same reasons, the same causes; nothing written.

Validation, idempotency, receipts and G7 must not depend on how somebody came in.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tern.client import Client
from tern.domain.policy import Copy, Cutover, Policy
from tern.store.database import Database
from tern.store.paging import Paging
from tern.store.sql import text
from tern.wire.control.server import ControlServer
from tests.cli.conftest import Tern, bare, tern
from tests.doors.calling import ACT, Stubs
from tests.doors.doors import Broker, CommandLine, PythonClient, Stub, Verdict
from tests.faults.behaviour import answer, fail
from tests.world import World

__all__ = ["bare", "tern"]

Doors = Mapping[str, Any]
DDL = "ALTER TABLE orders ADD COLUMN note text"
USUAL: Mapping[str, Any] = {
    "ddl": DDL,
    "environment": "test",
    "database": "shop",
    "deployments": ["A", "B"],
    "reason": "because",
    "key": "k1",
}
MYSQL = {"table": "orders", "ddl": "ALTER TABLE orders ENGINE=InnoDB", "action": "alter"}


@pytest.fixture
def doors(
    world: World,
    tern: Tern,
    stubs: Stubs,
    server: ControlServer,
    database: Database,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Doors]:
    """Every way in to the same world."""
    monkeypatch.setenv("ACT_TOKEN", ACT)
    with (
        Client(database_url=migrated_url, caller="ann@desk") as direct,
        Client(f"grpc://127.0.0.1:{server.port}", token="env:ACT_TOKEN") as remote,
    ):
        yield {
            "command line": CommandLine(tern),
            "client, directly": PythonClient(direct),
            "client, remote": PythonClient(remote),
            "stub": Stub(stubs),
            "message": Broker(world, Paging(database)),
        }


def written(world: World) -> tuple[int, ...]:
    """What only an accepted request may add to."""
    tables = ("applies", "apply_operations", "target_reservations", "control_requests", "control_deliveries")
    return tuple(world.one(f"SELECT count(*) AS n FROM {table}").n for table in tables)


def ask_all(doors: Doors, message: Mapping[str, Any]) -> dict[str, Verdict]:
    return {name: door.enqueue(message) for name, door in doors.items()}


REFUSED: list[tuple[str, Mapping[str, Any], str]] = [
    ("a reason of blanks", {"reason": "  "}, "USAGE"),
    ("a key of a novel's length", {"key": "k" * 201}, "USAGE"),
    ("nobody chosen", {"deployments": []}, "USAGE"),
    ("chosen in two ways", {"labels": {"region": "eu"}}, "USAGE"),
    ("taken away from names", {"excepted": ["A"]}, "USAGE"),
    ("names that have an order, and another one", {"first": ["A"]}, "USAGE"),
    ("first who was not chosen", {"deployments": [], "everywhere": True, "first": ["nowhere"]}, "NOT_FOUND"),
    ("a place that is missing", {"database": ""}, "USAGE"),
    ("rolling in parallel", {"policy": {"copy": "rolling", "max_parallel": 2}}, "USAGE"),
    ("no slot at all", {"policy": {"copy": "parallel", "max_parallel": 0}}, "USAGE"),
    ("less than no failure", {"policy": {"max_failures": -1}}, "USAGE"),
    ("no statement", {"ddl": "-- nothing"}, "DDL_EMPTY"),
    ("no SQL", {"ddl": "ALTER TABEL orders ADD x int"}, "DDL_INVALID"),
    ("no change", {"ddl": "SELECT 1"}, "STATEMENT_REFUSED"),
    ("a loss without consent", {"ddl": "ALTER TABLE orders DROP COLUMN note"}, "UNSAFE_CHANGE"),
    ("a deployment that is not there", {"deployments": ["A", "nowhere"]}, "NOT_FOUND"),
    ("a deployment twice", {"deployments": ["A", "B", "A"]}, "DEPLOYMENT_DOUBLED"),
    ("another environment", {"environment": "elsewhere"}, "DEPLOYMENTS_REFUSED"),
    ("a label that nobody has", {"deployments": [], "labels": {"region": "mars"}}, "NO_DEPLOYMENTS"),
    ("all but somebody unknown", {"deployments": [], "everywhere": True, "excepted": ["nowhere"]}, "NOT_FOUND"),
]  # fmt: skip


def differing(doors: Doors, message: Mapping[str, Any], reason: str) -> str:
    """What is not the same at every door, in words; empty when all is."""
    verdicts = ask_all(doors, message)
    reasons = {name: verdict.reason for name, verdict in verdicts.items()}
    if reasons != dict.fromkeys(doors, reason):
        return f"{reason} expected, not {reasons}"
    # Where the request could be read, the causes are the same to the letter.
    return "" if reason == "USAGE" or len({each.why for each in verdicts.values()}) == 1 else str(verdicts)


def test_what_is_refused_is_refused_alike(world: World, doors: Doors) -> None:
    wrong = {
        name: words
        for name, changed, reason in REFUSED
        if (words := differing(doors, {**USUAL, **changed}, reason))
    }
    assert wrong == {}
    assert written(world) == (0, 0, 0, 0, 0)
    assert not any(engine.calls("Apply") for engine in world.engines.values())


CHANGES: list[tuple[Mapping[str, Any], str]] = [
    ({"plan": "pln-0"}, "NOT_FOUND"),
    ({"plan": "KEPT", "environment": "elsewhere"}, "PLAN_MISMATCH"),
    ({"changes": [MYSQL], "database_type": "mysql", "database": ""}, "USAGE"),
    ({"changes": [{"table": "orders"}], "database_type": "mysql"}, "USAGE"),
    ({"changes": [{**MYSQL, "ddl": "DROP TABLE orders"}], "database_type": "postgres"}, "UNSAFE_CHANGE"),
    ({"changes": [{**MYSQL, "ddl": f"{DDL}; {DDL}"}], "database_type": "postgres"}, "STATEMENT_REFUSED"),
    ({"changes": [{**MYSQL, "unsafe_reason": "rows go"}], "database_type": "mysql"}, "UNSAFE_CHANGE"),
    ({}, "USAGE"),
]


def test_other_changes_are_judged_alike(world: World, tern: Tern, doors: Doors) -> None:
    kept = tern("plan", "--ddl", "-", "-e", "test", "-d", "shop", "--json", stdin=DDL).data["plan_id"]
    usual = {name: value for name, value in USUAL.items() if name != "ddl"}
    wrong = []
    for given, reason in CHANGES:
        message = {**usual, **given}
        if "plan" in message:
            message["plan"] = message["plan"].replace("KEPT", kept)
        wrong += [words] if (words := differing(doors, message, reason)) else []
    assert wrong == []
    assert written(world) == (0, 0, 0, 0, 0)


def test_what_was_reviewed_is_what_is_rolled_out_at_every_door(
    world: World, tern: Tern, doors: Doors
) -> None:
    """A plan holds its targets and its policy: neither is said again, and no other is borne."""
    words = ("--deployments", "B,A", "--copy", "parallel", "--max-failures", "1")
    plan = tern("plan", "--ddl", "-", "-e", "test", "-d", "shop", *words, "--json", stdin=DDL).data
    usual = {"plan": plan["plan_id"], "reason": "as reviewed", "key": "k2"}
    wrong = [
        differing(doors, {**usual, "digest": "0" * 64}, "PLAN_DIFFERS"),
        differing(doors, {**usual, "deployments": ["A"]}, "PLAN_DIFFERS"),
        differing(doors, {**usual, "policy": {"copy": "rolling"}}, "PLAN_DIFFERS"),
        differing(doors, {**USUAL, "digest": plan["digest"]}, "USAGE"),
    ]
    assert wrong == [""] * len(wrong)
    assert written(world) == (0, 0, 0, 0, 0)
    made = ask_all(doors, {**usual, "digest": plan["digest"]})
    assert len({verdict.apply_id for verdict in made.values()}) == 1, made
    assert [verdict.is_new for verdict in made.values()] == [True, False, False, False, False]
    world.last = made["stub"].apply_id  # type: ignore[assignment]
    assert (world.apply_row().policy["max_failures"], world.apply_row().operation_count) == (1, 2)


def test_what_the_world_forbids_is_told_alike(world: World, tern: Tern, doors: Doors) -> None:
    """G13 and the register: who holds a target, what is drained, what an engine would refuse, who does not answer."""
    holder = world.apply("C")
    before = written(world)

    def refused_everywhere(reason: str, telling: str, **changed: Any) -> None:
        assert differing(doors, {**USUAL, **changed}, reason) == ""
        assert telling in str(doors["stub"].enqueue({**USUAL, **changed}).why)
        assert written(world) == before

    refused_everywhere("TARGET_HELD", holder, deployments=["A", "C"])
    verdict = {
        "namespace": "public",
        "table": "orders",
        "refused": True,
        "refused_reason": "REWRITE_REFUSED: no",
    }
    world.engines["B"].always("Preview", answer(changes=[verdict]))
    refused_everywhere("PREVIEW_REFUSED", "REWRITE_REFUSED")
    world.engines["B"].always("Preview", fail("UNAVAILABLE", message="asleep"))
    refused_everywhere("ENGINE_UNREACHABLE", "asleep")
    tern("deployments", "drain", "B")
    refused_everywhere("DEPLOYMENTS_REFUSED", "B is drained")
    refused_everywhere("DEPLOYMENTS_REFUSED", "B is drained", deployments=[], everywhere=True, previews=False)


@pytest.mark.parametrize("first", ["command line", "client, directly", "client, remote", "stub", "message"])
def test_id1_one_key_is_one_apply_whichever_door_it_comes_through(
    first: str, world: World, tern: Tern, doors: Doors
) -> None:
    """The same key and request: the same apply, for ever, whatever has changed since. Another request: refused."""
    message = {
        **USUAL,
        "deployments": [],
        "everywhere": True,
        "policy": {"copy": "parallel", "max_parallel": 2},
    }
    made = doors[first].enqueue(message)
    assert (made.is_taken, made.is_new) == (True, True)
    before = written(world)
    tern("deployments", "drain", "B")
    for engine in world.engines.values():
        engine.always("Preview", fail("UNAVAILABLE"))
    again = ask_all(doors, message)
    assert {(verdict.apply_id, verdict.is_new) for verdict in again.values()} == {(made.apply_id, False)}
    for changed in (
        {"ddl": "ALTER TABLE orders ADD COLUMN other text"},
        {"everywhere": False, "deployments": ["A", "B", "C"]},
        {"first": ["C"]},
        {"policy": {"copy": "parallel", "max_parallel": 3}},
        {"allow_unsafe": True},
    ):
        other = ask_all(doors, {**message, **changed})
        assert {name: verdict.reason for name, verdict in other.items()} == dict.fromkeys(doors, "KEY_REUSED")
        assert len({verdict.why for verdict in other.values()}) == 1, other
        assert len(other["stub"].why) == 1, other
    assert written(world) == before
    assert world.one("SELECT count(*) AS n FROM plans").n == 1


ASKED: list[tuple[str, str, Mapping[str, Any]]] = [
    ("stop", "APPLY", {}),
    ("cancel", "APPLY", {}),
    ("stop", "APPLY", {"expected": 3}),
    ("stop", "APPLY", {"expected": 2}),
    ("stop", "APPLY", {"excepted": ["A"]}),
    ("stop", "APPLY", {"states": ["running"]}),
    ("stop", "APPLY", {"states": ["completed"]}),
    ("stop", "APPLY", {"labels": {"region": "eu"}}),
    ("stop", "APPLY", {"deployments": ["nowhere"]}),
    ("stop", "APPLY", {"everywhere": True, "deployments": ["A"]}),
    ("stop", "APPLY/A", {}),
    ("stop", "APPLY/B", {}),
    ("stop", "APPLY/A", {"although_foreign": "A-1"}),
    ("cancel", "APPLY/B", {"although_foreign": "B-1"}),
    ("cancel", "APPLY/B", {"although_foreign": "another"}),
    ("cancel", "APPLY/A", {"outstanding": True}),
    ("cancel", "APPLY", {"outstanding": True, "states": ["running"]}),
    ("stop", "APPLY/A", {"everywhere": True}),
    ("stop", "APPLY/nowhere", {}),
    ("stop", "APPLY/", {}),
    ("stop", "apl-0", {}),
    ("stop", "nonsense", {}),
    ("stop", "APPLY", {"reason": " "}),
    ("start", "APPLY", {}),
    ("start", "APPLY", {"excepted": ["A"]}),
    ("start", "APPLY", {"everywhere": True}),
    ("cutover", "APPLY", {}),
    ("cutover", "APPLY", {"everywhere": True}),
    ("cutover", "APPLY", {"deployments": ["A", "B"], "expected": 2}),
    ("cutover", "APPLY/C", {}),
    ("stop", "APPLY", {"wave": 1}),
    ("retry", "APPLY", {}),
    ("retry", "APPLY", {"everywhere": True}),
    ("skip", "APPLY", {"states": ["running"]}),
    ("skip", "APPLY/B", {}),
    ("release", "APPLY", {}),
    ("revert", "APPLY", {"everywhere": True}),
    ("revert", "APPLY", {}),
    ("skip-revert", "APPLY/A", {}),
    ("volume", "APPLY", {"volume": 3}),
    ("volume", "APPLY", {"volume": 3, "everywhere": True}),
    ("volume", "APPLY", {"volume": 12, "everywhere": True}),
]


@pytest.fixture
def waiting(world: World) -> World:
    """Three copies at once: A is ready to cut over, B and C run; A and C are in Europe."""
    world.write("""UPDATE deployments SET labels = '{"region": "eu"}' WHERE name IN ('A', 'C')""")
    world.apply(policy=Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL))
    world.answer_bells()
    world.engines["A"].set_state(world.remote_id("A") or "", "waiting_for_cutover")
    world.run(until=lambda: world.state("A") == "waiting_for_cutover")
    return world


@pytest.fixture
def foreign(waiting: World) -> World:
    """The same, and B's id turned out to be other work's."""
    job = waiting.engines["B"].job(waiting.remote_id("B") or "")
    job.tables = (("public", "invoices", ""),)
    job.revision += 1
    waiting.run(until=lambda: waiting.state("B") == "uncertain")
    return waiting


def askable(doors: Doors) -> dict[str, Any]:
    """No wish comes as a message."""
    return {name: door for name, door in doors.items() if name != "message"}


@pytest.mark.parametrize("doubted", [False, True])
def test_a_wish_is_answered_alike(doubted: bool, doors: Doors, request: pytest.FixtureRequest) -> None:  # noqa: FBT001
    """G7 and the receipts: one outcome per operation with its reason, or one refusal; a dry run writes nothing."""
    waiting: World = request.getfixturevalue("foreign" if doubted else "waiting")
    before, wrong, seen = written(waiting), [], set()
    for verb, subject, selectors in ASKED:
        message = {
            "reason": "the night is long",
            **selectors,
            "subject": subject.replace("APPLY", waiting.last),
        }
        answers = {
            name: door.ask(verb, {**message, "dry_run": True}) for name, door in askable(doors).items()
        }
        one = answers["stub"]
        seen.add(one.reason)
        told = {(each.reason, json.dumps(each.outcomes)) for each in answers.values()}
        causes = {each.why for each in answers.values()}
        if len(told) > 1 or one.is_taken != bool(one.outcomes) or (one.reason != "USAGE" and len(causes) > 1):
            wrong.append((verb, subject, selectors, answers))
    assert wrong == []
    assert written(waiting) == before
    assert {"", "USAGE", "NOT_FOUND", "SELECTION_MISSING", "SELECTION_EMPTY", "EXPECTATION_MISSED"} <= seen


@pytest.mark.parametrize("first", ["command line", "client, directly", "client, remote", "stub"])
def test_what_one_door_took_is_on_its_way_for_the_others(first: str, waiting: World, doors: Doors) -> None:
    message = {"reason": "the night is long", "subject": waiting.last}
    done = doors[first].ask("stop", {**message, "states": ["running"]})
    assert done.outcomes == {"B": ("accepted", ""), "C": ("accepted", "")}
    for name, door in askable(doors).items():
        assert door.ask("stop", {**message, "deployments": ["B"]}).outcomes.keys() == {"B"}, name
        assert {
            each for each, _ in door.ask("stop", {**message, "states": ["running"]}).outcomes.values()
        } == {"already"}, name
    assert waiting.one("SELECT count(*) AS n FROM control_deliveries").n == 2


VERIFIED: list[tuple[str, Mapping[str, str], str]] = [
    ("APPLY", {}, ""),
    ("OTHER", {}, ""),
    ("", {}, ""),
    ("", {"since": "2001-02-03T04:05:06Z"}, ""),
    ("", {"since": "2999-01-01T00:00:00+02:00"}, ""),
    ("apl-0", {}, "NOT_FOUND"),
    ("APPLY/A", {}, "USAGE"),
    ("APPLY/", {}, "SCOPE_MALFORMED"),
    ("nonsense", {}, "USAGE"),
    ("APPLY", {"since": "2001-02-03T04:05:06Z"}, "USAGE"),
]


def test_a_record_is_verified_alike(waiting: World, doors: Doors) -> None:
    """G15: the same counts, seals and faults, of one apply and of all; before somebody rewrote it and after."""
    apply_id = waiting.last
    waiting.write("TRUNCATE target_reservations")
    other = waiting.apply("A")

    def verified() -> list[Mapping[str, Any]]:
        found = []
        for subject, given, reason in VERIFIED:
            message = {"subject": subject.replace("APPLY", apply_id).replace("OTHER", other), **given}
            answers = {name: door.verify(message) for name, door in askable(doors).items()}
            assert {each.reason for each in answers.values()} == {reason}, answers
            assert all(each.verified == answers["stub"].verified for each in answers.values()), answers
            found += [answers["stub"].verified] if not reason else []
        return found

    whole = verified()
    assert [(each["applies"], each["broken"]) for each in whole] == [(each, []) for each in (1, 1, 2, 2, 0)]
    with waiting.database.begin() as tx:
        # As a superuser who has switched the triggers off.
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("UPDATE apply_events SET who = 'nobody' WHERE event = 'claim'"))
        of_b = "(SELECT id FROM apply_operations WHERE deployment = 'B')"
        tx.execute(text(f"DELETE FROM event_chains WHERE operation_id = {of_b}"))
    touched = verified()
    assert [[bad["apply_id"] for bad in each["broken"]] for each in touched] == [
        [apply_id],
        [],
        [apply_id],
        [apply_id],
        [],
    ]
    assert {"changed", "inserted"} <= {each["fault"] for each in touched[0]["broken"][0]["findings"]}
    assert touched[0]["seal"] != whole[0]["seal"]

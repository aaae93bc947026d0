"""`tern apply --rest-of`: what is printed is what works."""

import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tern.cli.words import one_line
from tern.domain.identity import ApplyId
from tern.domain.model import Capabilities, Credentials, Deployment, ReviewedTarget
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.states import State
from tern.domain.work import NewApply
from tern.flows.accept import accept_apply
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.faults.fake_engine import FakeEngine
from tests.flows.test_effect import STATEMENTS, told
from tests.flows.test_rest import told_of
from tests.world import World

WHY = ("--reason", "the data is mended")
ALL_FAIL = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)


def printed(out: str, begins: str) -> list[str]:
    """The command as it is printed, ready to be run: with a reason, and without the name of the program."""
    (line,) = [line.strip() for line in out.splitlines() if line.strip().startswith(begins)]
    words = shlex.split(line.replace("'…'", "'the data is mended'"))
    assert words[0] == "tern"
    return words[1:]


@pytest.fixture
def half_done(world: World) -> str:
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    for name in ("A", "B"):
        told(world, State.FAILED, "completed", "failed", "pending", name=name)
    return str(world.last)


def test_what_is_printed_is_what_is_sent(half_done: str, world: World, tern: Tern) -> None:
    done = tern("apply", "--rest-of", half_done)
    assert done.code == 0
    assert "2 deployments: A (failed), B (failed)" in done.out
    assert "statement 2  ALTER TABLE orders ADD COLUMN two text" in done.out
    assert "statement 1" not in done.out
    assert "begins anew" in done.out
    assert world.one("SELECT count(*) AS n FROM applies").n == 1
    words = printed(done.out, "tern apply --rest-of")
    assert tern(*words, "--json").data["deployments"] == ["A", "B"]
    again = tern(*words, "--json")
    assert (again.code, again.data["is_new"]) == (0, False)
    follow_up = again.data["apply_id"]
    shown = tern("apply", "--rest-of", half_done)
    assert shown.code == 5
    assert f"it is carried on by {follow_up}/A" in shown.out


def test_the_document_says_all_of_it(half_done: str, world: World, tern: Tern) -> None:
    found = tern("apply", "--rest-of", f"{half_done}/A", "--json").data
    (group,) = found["groups"]
    assert [each["number"] for each in group["statements"]] == [2, 3]
    assert group["deployments"] == [
        {
            "deployment": "A",
            "carries_on": f"{half_done}/A",
            "state": "failed",
            "becomes_cancelled": False,
            "address": world.engines["A"].address,
            "moved_from": None,
        }
    ]
    assert (group["consent"], group["allow_unsafe"]) == ([], False)
    assert group["digest"] in group["command"]
    assert found["left_out"] == []


def test_policy_selectors_and_consent_are_in_the_command_that_is_printed(world: World, tern: Tern) -> None:
    unsafe = replace(STATEMENTS[1], unsafe_reason="it loses x")
    world.apply("A", "B", policy=ALL_FAIL, changes=(STATEMENTS[0], unsafe), allow_unsafe=True)
    world.answer_bells()
    for name in ("A", "B"):
        told(world, State.FAILED, "completed", "failed", name=name)
    chosen = ("--deployments", "A,B", "--copy", "parallel", "--max-parallel", "1", "--on-failure", "pause")
    done = tern("apply", "--rest-of", str(world.last), *chosen)
    assert "needs consent: statement 2, public.orders: it loses x" in done.out
    words = printed(done.out, "tern apply --rest-of")
    assert "--allow-unsafe" in words
    refused = tern(*[word for word in words if word != "--allow-unsafe"])
    assert refused.code == 5
    assert "it loses x" in refused.err
    sent = tern(*words, "--json").data
    assert (sent["policy"]["copy"], sent["policy"]["max_parallel"]) == ("parallel", 1)


def test_what_is_not_carried_on_is_named_with_the_command_that_leads_on(world: World, tern: Tern) -> None:
    world.apply("A", "B", "C", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    apply_id = str(world.last)
    told(world, State.FAILED, "completed", "running", "pending", name="A")
    told(world, State.CANCELLED, "completed", "cancelled", "cancelled", name="B")
    done = tern("apply", "--rest-of", apply_id)
    assert done.code == 5
    settle = printed(done.out, "tern resolve")
    assert settle[:2] == ["resolve", f"{apply_id}/A"]
    assert "put done or not-done for each …, whichever you found" in " ".join(done.out.split())
    settle[settle.index("2=…")] = "2=not-done"
    assert tern(*settle).code == 0
    named = printed(done.out, f"tern apply --rest-of {apply_id}/B")
    assert tern(*named).code == 0
    done = tern("apply", "--rest-of", apply_id)
    assert done.code == 0
    assert "1 deployment: A" in done.out
    assert re.search(r"C\s+.*is running, so it may still act", done.out)


def reviewed_and_half_done(world: World) -> str:
    """At A, for which the plan was reviewed."""
    (place,) = world.store.load_deployments(["A"])
    target = ReviewedTarget(place.name, place.address, place.target)
    plan = world.store.save_plan(
        environment="test",
        database="shop",
        database_type="postgres",
        changes=STATEMENTS,
        caller="ann",
        targets=[target],
    )
    new = NewApply(plan.plan_id, "test", ("A",), ALL_FAIL, "ann", "because", "k", accept_drift=True)
    world.last = accept_apply(new, world.ports).apply_id
    world.answer_bells()
    told(world, State.FAILED, "completed", "failed", "pending", name="A")
    return str(world.last)


@pytest.mark.parametrize("proven", [True, False], ids=["by a key", "by a person's word"])
def test_an_engine_that_moved_keeps_what_was_reviewed_for_it(
    proven: bool,  # noqa: FBT001
    world: World,
    tern: Tern,
) -> None:
    """Its new address is shown, and it is bound by the digest: another move in between is refused by name."""
    apply_id = reviewed_and_half_done(world)
    before = world.engines["A"].address
    with FakeEngine("moved") as moved, FakeEngine("again") as again:
        moved.jobs = again.jobs = world.engines["A"].jobs
        if not proven:
            world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
        words = ("deployments", "set", "A", *WHY, *([] if proven else ["--same-engine"]), "--address")
        assert tern(*words, moved.address).code == 0
        done = tern("apply", "--rest-of", apply_id)
        assert done.code == 0
        assert f"A is now at {moved.address}; reviewed was {before}, the same engine" in one_line(done.out)
        (place,) = tern("apply", "--rest-of", apply_id, "--json").data["groups"][0]["deployments"]
        assert (place["address"], place["moved_from"]) == (moved.address, before)
        stale = printed(done.out, "tern apply --rest-of")
        if proven:
            assert tern(*words, again.address).code == 0
            refused = tern(*stale)
            assert (refused.code, "its targets have changed" in refused.err) == (5, True)
            stale = printed(tern("apply", "--rest-of", apply_id).out, "tern apply --rest-of")
        sent = tern(*stale, "--json")
        assert sent.code == 0, sent


@pytest.mark.parametrize("how", ["--replace", "--new-identity"])
def test_another_engine_does_not_keep_what_was_reviewed(how: str, world: World, tern: Tern) -> None:
    """What is printed then is no circle: a new plan is begun there by whoever knows what was left."""
    apply_id = reviewed_and_half_done(world)
    (place,) = world.store.load_deployments(["A"])
    with FakeEngine("other", target=place.target, identity="1/7") as other:
        address = ("--address", other.address)
        if how == "--replace":
            here = ("-e", "test", "-d", "shop", "--target", place.target)
            assert tern("deployments", "add", "A", *here, *address, how).code == 0
        else:
            assert tern("deployments", "set", "A", *address, how, *WHY).code == 0
        done = tern("apply", "--rest-of", apply_id)
        assert done.code == 5
        assert f"the engine of A is {other.address}; its plan was reviewed for {place.address}" in one_line(
            done.out
        )
        assert "begin that with `tern apply --plan … --accept-drift`" in one_line(done.out)
        ddl = ("--ddl", "-", "-e", "test", "-d", "shop", "--deployments", "A")
        plan = tern("plan", *ddl, "--json", stdin="ALTER TABLE orders ADD COLUMN z int").data["plan_id"]
        sent = tern("apply", "--plan", plan, "--deployments", "A", "--accept-drift", *WHY)
        assert sent.code == 0, sent


@pytest.mark.parametrize(
    "words",
    [
        ("--plan", "pln-1"),
        ("--environment", "test"),
        ("--watch",),
        ("--deployments", "A", "--all"),
        ("--digest", "x"),
        ("--digest", "x", *WHY, "--key", ""),
    ],
)
def test_what_makes_no_sense_beside_it_is_refused(words: tuple[str, ...], half_done: str, tern: Tern) -> None:
    assert tern("apply", "--rest-of", half_done, *words).code == 2


def test_an_operation_takes_no_selector_and_must_be_there(half_done: str, tern: Tern) -> None:
    assert tern("apply", "--rest-of", f"{half_done}/A", "--deployments", "B").code == 2
    assert tern("apply", "--rest-of", f"{half_done}/Z").code == 3
    assert tern("apply", "--rest-of", "apl-0000000000000000").code == 3
    assert tern("apply", "--rest-of", half_done, "--digest", "x", *WHY).code == 5


def test_where_a_follow_up_fails_its_source_needs_somebody_again(world: World, tern: Tern) -> None:
    """While it is carried on nobody is needed, and a retry names who does; then the command is there that works."""
    apply_id = reviewed_and_half_done(world)
    words = printed(tern("apply", "--rest-of", apply_id).out, "tern apply --rest-of")
    follow_up = ApplyId(tern(*words, "--json").data["apply_id"])
    world.run(until=lambda: world.remote_id("A", follow_up) is not None)
    refused = tern("retry", f"{apply_id}/A", *WHY)
    said = one_line(refused.out + refused.err)
    assert f"`tern get {follow_up}/A`" in said
    assert "--rest-of" not in said
    assert "Needs you" not in tern("explain", apply_id).out
    told_of(world, follow_up, State.FAILED, "completed", "failed")
    explained = tern("explain", apply_id)
    assert "Needs you" in explained.out
    assert f"carried on by {follow_up}/A, which is failed" in one_line(explained.out)
    words = printed(explained.out, "tern apply --rest-of")
    words = printed(tern(*words).out, "tern apply --rest-of")
    third = ApplyId(tern(*words, "--json").data["apply_id"])
    assert "Needs you" not in tern("explain", apply_id).out
    world.run(until=lambda: world.remote_id("A", third) is not None)
    told_of(world, third, State.COMPLETED, "completed")
    for each in (apply_id, follow_up):
        assert "Needs you" not in tern("explain", each).out


PLANS = {
    "a column and a check": (
        "ALTER TABLE orders ADD COLUMN one text",
        "ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount > 0)",
        "ALTER TABLE orders ADD COLUMN three text",
    ),
    "an index and a unique one": (
        "CREATE INDEX orders_by_amount ON orders (amount)",
        "CREATE UNIQUE INDEX orders_once ON orders (amount)",
        "ALTER TABLE orders ADD COLUMN three text",
    ),
    "a table and NOT NULL": (
        "CREATE TABLE notes (id bigint PRIMARY KEY)",
        "ALTER TABLE orders ALTER COLUMN amount SET NOT NULL",
        "CREATE INDEX orders_by_amount ON orders (amount)",
    ),
    "a drop and a foreign key": (
        "ALTER TABLE orders DROP COLUMN extra",
        "ALTER TABLE orders ADD CONSTRAINT known FOREIGN KEY (amount) REFERENCES amounts (amount)",
        "ALTER TABLE orders ADD COLUMN three text",
    ),
}


@pytest.mark.parametrize("ddl", PLANS.values(), ids=list(PLANS))
def test_after_a_partial_failure_what_explain_prints_works(
    ddl: tuple[str, ...],
    world: World,
    tern: Tern,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Our own engine: the first of three is in, the second fails, the data is mended, the printed command ends it."""
    parts = urlsplit(migrated_url)
    monkeypatch.setenv("TARGET_PASSWORD", parts.password or "")
    world.write("CREATE TABLE amounts (amount int PRIMARY KEY)")
    world.write("CREATE TABLE orders (id bigint PRIMARY KEY, amount int, extra text)")
    # Negative, null, twice, and nowhere else: each of the plans stumbles over one of these.
    world.write("INSERT INTO orders VALUES (1, -5), (2, NULL), (3, 7), (4, 7)")
    world.store.save_deployment(
        Deployment(
            name="here",
            environment="test",
            database="shop",
            address=f"local:postgresql://{parts.username}@{parts.hostname}:{parts.port}{parts.path}",
            target="here",
            credentials=Credentials(password="env:TARGET_PASSWORD"),
            capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
            idempotent_dispatch=True,
        )
    )
    change = tmp_path / "change.sql"
    change.write_text(";\n".join(ddl))
    place = ("--environment", "test", "--database", "shop", "--deployments", "here")
    done = tern("apply", "--ddl", str(change), *place, "--allow-unsafe", "--reason", "because", "--json")
    world.last = ApplyId(done.data["apply_id"])
    source = str(world.last)
    driven(world, "failed")
    states = [each["state"] for each in tern("get", f"{source}/here", "--json").data["tables"]]
    assert states == ["completed", "failed", "skipped"]
    world.write("DELETE FROM orders WHERE id <> 3")
    world.write("INSERT INTO amounts VALUES (7)")
    shown = printed(tern("explain", f"{source}/here").out, "tern apply --rest-of")
    send = printed(tern(*shown).out, "tern apply --rest-of")
    carried = tern(*send, "--json")
    assert carried.code == 0, carried
    world.last = ApplyId(carried.data["apply_id"])
    driven(world, "completed")
    assert "nothing moves it any more" in tern("explain", f"{source}/here").out
    assert f"by {world.last}/here" in tern("get", f"{source}/here").out
    assert f"{source}/here" in tern("get", f"{world.last}/here").out
    done = tern("apply", "--rest-of", source)
    assert (done.code, "nothing is left to do" in done.out, "✖" in done.out) == (0, True, False)


def driven(world: World, state: str) -> None:
    """Bells and sweeps until the operation is there; the engine works in threads of this process."""
    deadline = time.monotonic() + 30
    while world.state("here") != state:
        assert time.monotonic() < deadline, world.picture()
        world.answer_bells()
        world.sweep()
        world.write("UPDATE apply_operations SET next_poll_at = tern_clock() WHERE next_poll_at IS NOT NULL")
        time.sleep(0.05)

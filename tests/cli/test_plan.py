"""Asking what a change would do: keeps the plan, shows each target's answer, changes nothing."""

from tests.cli.conftest import Tern
from tests.faults.behaviour import answer, fail
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text;\nDROP INDEX by_note"
WORDS = ("plan", "--ddl", "-", "-e", "test", "-d", "shop")


def test_the_same_change_is_the_same_plan(world: World, tern: Tern) -> None:
    first, again = (tern(*WORDS, "--json", stdin=DDL).data for _ in range(2))
    assert first["plan_id"] == again["plan_id"]
    assert [change["table"] for change in first["changes"]] == ["orders", "by_note"]
    assert first["changes"][1]["unsafe_reason"].startswith("queries that use the index")
    assert tern("ls", "--json").data["applies"] == []


def test_each_target_is_asked_and_a_refusal_is_the_exit_code(world: World, tern: Tern) -> None:
    fine = {
        "namespace": "public",
        "table": "orders",
        "recipe": "add_column",
        "locks": [{"relation": "public.orders", "mode": "AccessExclusiveLock"}],
        "estimated_rows": 1_000_000,
    }
    refused = {**fine, "refused": True, "refused_reason": "TABLE_BUSY: somebody else changes it"}
    world.engines["A"].always("Preview", answer(changes=[fine, fine]))
    world.engines["B"].always("Preview", answer(changes=[fine, refused]))
    world.engines["C"].always("Preview", fail("UNAVAILABLE", message="asleep"))
    done = tern(*WORDS, "--all", "--json", stdin=DDL)
    assert done.code == 5
    by_name = {target["deployment"]: target for target in done.data["targets"]}
    assert by_name["A"]["changes"][0]["recipe"] == "add_column"
    assert by_name["B"]["refused"] == ["change 2, public.orders: TABLE_BUSY: somebody else changes it"]
    assert by_name["C"]["previewed"] is False
    assert "asleep" in by_name["C"]["trouble"]
    text = tern(*WORDS, "--all", stdin=DDL).out
    assert "✔ A" in text
    assert "about 1 M rows" in text
    assert "✖ B  refused" in text
    assert "? C  no answer" in text
    assert "tern apply" not in text


def test_without_refusals_the_next_command_is_printed(world: World, tern: Tern) -> None:
    for engine in world.engines.values():
        engine.always("Preview", fail("UNIMPLEMENTED"))
    data = tern(*WORDS, "--deployments", "A,B", "--json", stdin=DDL).data
    plan_id, digest = data["plan_id"], data["digest"]
    done = tern(*WORDS, "--deployments", "A,B", stdin=DDL)
    assert done.code == 0
    assert "not previewed" in done.out
    assert f"tern apply --plan {plan_id} --digest {digest[:16]} --allow-unsafe --reason" in done.out


def test_a_plan_says_what_it_is_for(world: World, tern: Tern) -> None:
    done = tern("plan", "--ddl", "-", "-e", "test", stdin=DDL)
    assert (done.code, "database is missing" in done.err) == (2, True)
    assert tern("plan", "-e", "test", "-d", "shop").code == 2

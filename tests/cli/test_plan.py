"""Asking what a change would do: keeps the plan, shows each target's answer, changes nothing."""

from collections.abc import Callable

import pytest

from tests.cli.conftest import Tern
from tests.faults.behaviour import answer, fail
from tests.flows.test_rest import half_done
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text;\nDROP INDEX by_note"
ADD = "ALTER TABLE orders ADD COLUMN note text"
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


def _is_held(world: World) -> None:
    world.apply("A")


def _is_half_done(world: World) -> None:
    half_done(world, "A")


def _is_silent(world: World) -> None:
    world.engines["A"].always("Preview", fail("UNAVAILABLE", message="asleep"))


def _refuses(world: World) -> None:
    change = {"namespace": "public", "table": "orders", "refused": True, "refused_reason": "TABLE_BUSY: no"}
    world.engines["A"].always("Preview", answer(changes=[change]))


def _is_another_database(world: World) -> None:
    world.write("UPDATE deployments SET engine_identity = '1/1' WHERE name = 'A'")
    world.engines["A"].identity = "2/2"


def _is_the_same_target(world: World) -> None:
    world.write("INSERT INTO same_targets (one, other, finding, identity) VALUES ('A', 'B', 'same', 'one/1')")


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        (_is_held, "TARGET_HELD", "another apply holds a target"),
        (_is_half_done, "HALF_DONE", "ended half done (failed)"),
        (_is_silent, "ENGINE_UNREACHABLE", "asleep"),
        (_refuses, "PREVIEW_REFUSED", "TABLE_BUSY: no"),
        (_is_another_database, "APPLY_REFUSED", "names another database than before"),
        (_is_the_same_target, "APPLY_REFUSED", "are one target under two names"),
    ],
)
def test_what_an_apply_would_be_refused_for_is_foretold(
    given: Callable[[World], None], reason: str, words: str, world: World, tern: Tern
) -> None:
    """And by the very rule of the apply: it is refused with the same reason, and goes where nothing is told."""
    given(world)
    where = (*WORDS, "--deployments", "A,B", "--json")
    planned = tern(*where, stdin=ADD)
    found = {each["reason"]: each for each in planned.data["apply_refusals"]}
    assert reason in found
    assert words in " ".join([found[reason]["what"], *found[reason]["why"]])
    assert any("an apply would be refused now" in each for each in planned.document["warnings"])
    asked = ("apply", "--plan", planned.data["plan_id"], "--reason", "because", "--json")
    assert tern(*asked).data["reason"] == reason
    if reason != "PREVIEW_REFUSED":
        told = tern(*where[:-1], stdin=ADD).out
        assert "! an apply would be refused now: " in told
        assert words in told


def test_waves_that_leave_a_target_out_are_foretold(world: World, tern: Tern) -> None:
    planned = tern(*WORDS, "--deployments", "A,B", "--wave", "A", "--json", stdin=ADD)
    assert [each["reason"] for each in planned.data["apply_refusals"]] == ["APPLY_REFUSED"]
    refused = tern("apply", "--plan", planned.data["plan_id"], "--reason", "because", "--json")
    assert (refused.code, refused.data["reason"]) == (5, "WAVES_REFUSED")


def test_nothing_is_foretold_where_an_apply_would_go(world: World, tern: Tern) -> None:
    planned = tern(*WORDS, "--deployments", "A,B", "--json", stdin=ADD).data
    assert planned["apply_refusals"] == []
    assert tern("apply", "--plan", planned["plan_id"], "--reason", "because").code == 0


def test_consent_that_an_engine_wants_stands_in_the_printed_command(world: World, tern: Tern) -> None:
    change = {
        "namespace": "public",
        "table": "orders",
        "recipe": "add_column",
        "is_unsafe": True,
        "unsafe_reason": "it rewrites",
    }
    world.engines["A"].always("Preview", answer(changes=[change]))
    assert "--allow-unsafe" in tern(*WORDS, "--deployments", "A", stdin=ADD).out


def test_a_plan_is_shown_again_as_it_was_reviewed(world: World, tern: Tern) -> None:
    change = {
        "namespace": "public",
        "table": "orders",
        "recipe": "add_column",
        "locks": [{"relation": "public.orders", "mode": "AccessExclusiveLock"}],
        "estimated_rows": 1_000_000,
    }
    world.engines["A"].always("Preview", answer(changes=[change, change]))
    world.engines["B"].always(
        "Preview", answer(changes=[change, {**change, "refused": True, "refused_reason": "NO"}])
    )
    world.engines["C"].always("Preview", fail("UNAVAILABLE", message="asleep"))
    planned = tern(*WORDS, "--all", "--max-parallel", "2", "--copy", "parallel", stdin=DDL)
    made = tern("plan", "ls", "--json").data["plans"][0]
    shown = tern("plan", "show", made["plan_id"])
    assert shown.code == 0
    # What whoever made it saw of its targets, whoever looks again sees.
    of_targets = [
        line for line in planned.out.splitlines() if line.startswith(("  ✔", "  ✖", "  ?", "         "))
    ]
    assert len(of_targets) == 5
    assert set(of_targets) <= set(shown.out.splitlines())
    assert "kept by ann@desk" in shown.out
    assert "parallel" in shown.out
    assert "2. DROP INDEX by_note" in shown.out
    assert "No apply has rolled it out yet." in shown.out
    data = tern("plan", "show", made["plan_id"], "--json").data
    assert (data["caller"], data["digest"], data["apply_count"]) == ("ann@desk", shown_digest(shown.out), 0)
    by_name = {each["deployment"]: each for each in data["targets"]}
    assert by_name["A"]["changes"][0]["locks"] == ["AccessExclusiveLock on public.orders"]
    assert by_name["A"]["changes"][0]["estimated_rows"] == 1_000_000
    assert {name: each["outcome"] for name, each in by_name.items()} == {
        "A": "previewed",
        "B": "refused",
        "C": "unreachable",
    }


def test_a_plan_names_the_applies_of_it_and_an_apply_its_plan(world: World, tern: Tern) -> None:
    plan_id = tern(*WORDS, "--deployments", "A", "--json", stdin=ADD).data["plan_id"]
    apply_id = tern("apply", "--plan", plan_id, "--reason", "because", "--json").data["apply_id"]
    shown = tern("plan", "show", plan_id)
    assert f"{apply_id}  waiting  1 deployment, by ann@desk" in shown.out
    assert tern("plan", "show", plan_id, "--json").data["applies"][0]["apply_id"] == apply_id
    assert f"{plan_id}: {ADD}" in tern("get", apply_id).out
    assert f"{plan_id}  shop in test  1 apply" in tern("plan", "ls").out


def test_a_plan_that_is_not_there_or_none_is_said(world: World, tern: Tern) -> None:
    assert "There is no plan here" in tern("plan", "ls").out
    assert tern("plan", "show", "pln-0").code == 3
    odd = tern("plan", "show", "apl-0")
    assert (odd.code, "it is written pln-…" in odd.err) == (2, True)
    mixed = tern("plan", "--json", "show", "pln-0")
    assert (mixed.code, "--json is of `tern plan` itself" in mixed.err) == (2, True)


def shown_digest(out: str) -> str:
    return next(line.split()[1] for line in out.splitlines() if line.startswith("  digest "))

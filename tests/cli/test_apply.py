"""Taking a rollout in: what is refused, what is asked first, and the same key for ever."""

import json

import pytest

from tern.domain.control import Verb
from tests.cli.conftest import Tern
from tests.faults.behaviour import answer, fail
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text"
PLACE = ("-e", "test", "-d", "shop", "--reason", "because")


def test_an_accepted_apply_is_written_down_and_driven(world: World, tern: Tern) -> None:
    done = tern("apply", "--ddl", "-", *PLACE, "--deployments", "B,A", "--json", stdin=DDL)
    assert (done.code, done.document["kind"]) == (0, "apply_accepted")
    assert done.data["is_new"] is True
    assert done.data["deployments"] == ["B", "A"]
    assert (done.data["caller"], done.data["reason"]) == ("ann@desk", "because")
    world.last = done.data["apply_id"]
    # Nobody could ring for it here, and after five seconds a bell counts as lost.
    world.pass_time(5.5)
    world.sweep()
    assert world.state("B") == "running"
    assert world.state("A") == "pending"
    assert "TERN_BROKER_URL is not set" in done.err
    assert "workers find it by their own sweep" in done.err


def test_a_kept_plan_is_applied_by_its_id(world: World, tern: Tern) -> None:
    plan_id = tern("plan", "--ddl", "-", "-e", "test", "-d", "shop", "--json", stdin=DDL).data["plan_id"]
    done = tern("apply", "--plan", plan_id, "--all", "--except", "C", "--reason", "x", "--json")
    assert (done.data["plan_id"], done.data["deployments"]) == (plan_id, ["A", "B"])
    wrong = tern("apply", "--plan", plan_id, "-e", "elsewhere", "--all", "--reason", "x")
    assert (wrong.code, "not elsewhere" in wrong.err) == (5, True)
    assert tern("apply", "--plan", "pln-0", "--all", "--reason", "x").code == 3


def test_the_same_key_is_the_same_apply_even_when_nothing_fits_any_more(world: World, tern: Tern) -> None:
    words = ("apply", "--ddl", "-", *PLACE, "--all", "--key", "mine", "--json")
    first = tern(*words, stdin=DDL).data
    tern("deployments", "drain", "B")
    for engine in world.engines.values():
        engine.always("Preview", fail("UNAVAILABLE"))
    again = tern(*words, stdin=DDL).data
    assert (again["apply_id"], again["is_new"]) == (first["apply_id"], False)
    other = tern("apply", "--ddl", "-", *PLACE, "--deployments", "A", "--key", "mine", stdin=DDL)
    assert other.code == 5
    assert first["apply_id"] in other.err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--deployments", "A,nowhere"), 3, "nowhere"),
        (("--deployments", "A,A"), 5, "twice: A"),
        (("--deployments", "A", "--all"), 2, "one way"),
        ((), 2, "no deployments were chosen"),
        (("--deployments", "A", "--key", ""), 2, "the idempotency key is missing"),
        (("--deployments", "A", "-e", "te\x1b[31mst"), 2, "environment is missing or unprintable"),
        (("-l", "region=mars"), 5, "no deployment of shop"),
        (("--all", "--except", "nowhere"), 3, "nowhere"),
        (("--deployments", "A", "--except", "A"), 2, "--except takes away"),
        (("--all", "--on-failure", "continue", "--strict"), 2, "strict never goes beyond"),
        (("--all", "--wave", "*;bake=soon"), 2, "wave 1, character 3"),
        (("--all", "--wave", "*;bake=1h"), 2, "no wave comes after it"),
        (("--all", "--wave", "tier=canary", "--wave", "*"), 5, "wave 1 (tier=canary) has no deployment"),
        (("--all", "--wave", "A"), 5, "no wave selects deployment B"),
        (("--all", "--wave", "nowhere", "--wave", "*"), 5, "wave 1 names nowhere"),
        (("--all", "--first", "nowhere"), 3, "not chosen: nowhere"),
        (("--deployments", "A", "--first", "A"), 2, "--first is for"),
        (("--all", "--max-parallel", "2"), 2, "rolling"),
        (("--all", "--max-parallel", "0"), 2, "--max-parallel"),
        (("--all", "--max-failures", "-1"), 2, "--max-failures"),
        (("--all", "--reason", " "), 2, "reason"),
        (("--all", "--watch", "--json"), 2, "--watch"),
        (("--all", "--plan", "pln-1"), 2, "one change"),
        (("--all", "-d", "elsewhere"), 5, "no deployment of elsewhere"),
        (("--deployments", "A,B", "-e", "elsewhere"), 5, "A is for shop in test"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    words: tuple[str, ...], code: int, told: str, world: World, tern: Tern
) -> None:
    done = tern("apply", "--ddl", "-", *PLACE, *words, stdin=DDL)
    assert (done.code, told in done.err) == (code, True), done.err
    assert tern("ls", "--json").data["applies"] == []
    assert world.one("SELECT count(*) AS n FROM plans").n == 0


@pytest.mark.parametrize("ddl", ["", "SELECT 1", "ALTER TABEL x", "CREATE EXTENSION x", b"\xff"])
def test_bad_ddl_is_refused(ddl: str, world: World, tern: Tern) -> None:
    done = tern("apply", "--ddl", "-", *PLACE, "--all", stdin=ddl)
    assert done.code in {2, 5}
    assert "Nothing was changed" in done.err


def test_a_drained_deployment_is_refused_with_the_way_out(world: World, tern: Tern) -> None:
    tern("deployments", "drain", "B")
    done = tern("apply", "--ddl", "-", *PLACE, "--all", stdin=DDL)
    assert (done.code, "tern deployments undrain B" in done.err) == (5, True)


def test_a_drop_wants_consent(world: World, tern: Tern) -> None:
    drop = "ALTER TABLE orders DROP COLUMN note"
    done = tern("apply", "--ddl", "-", *PLACE, "--all", stdin=drop)
    assert done.code == 5
    assert "the column note and its values are lost" in done.err
    assert "--allow-unsafe" in done.err
    assert tern("apply", "--ddl", "-", *PLACE, "--all", "--allow-unsafe", stdin=drop).code == 0


def test_a_target_that_another_apply_holds_is_named_with_its_progress(world: World, tern: Tern) -> None:
    holder = world.apply("B", "C")
    done = tern("apply", "--ddl", "-", *PLACE, "--deployments", "A,B", stdin=DDL)
    assert done.code == 5
    assert f"B is held by {holder}/B" in done.err
    assert f"{holder} is pending, 0 of 2 completed" in done.err
    assert tern("apply", "--ddl", "-", *PLACE, "--deployments", "A", stdin=DDL).code == 0


def test_what_an_engine_would_refuse_is_refused_here(world: World, tern: Tern) -> None:
    verdict = {
        "namespace": "public",
        "table": "orders",
        "refused": True,
        "refused_reason": "REWRITE_REFUSED: it rewrites the table",
    }
    world.engines["B"].script("Preview", answer(changes=[verdict]))
    done = tern("apply", "--ddl", "-", *PLACE, "--all", stdin=DDL)
    assert done.code == 5
    assert "B: change 1, public.orders: REWRITE_REFUSED" in done.err


def test_that_a_target_is_held_is_said_rather_than_what_its_holder_has_done_there(
    world: World, tern: Tern
) -> None:
    # The same change once more: on B, which is through, the engine finds the column there already.
    holder = world.apply("A", "B")
    done_already = {
        "namespace": "public",
        "table": "orders",
        "refused": True,
        "refused_reason": "DDL_INVALID: x",
    }
    world.engines["B"].always("Preview", answer(changes=[done_already]))
    done = tern("apply", "--ddl", "-", *PLACE, "--deployments", "B,C", stdin=DDL)
    assert done.code == 5
    assert f"B is held by {holder}/B" in done.err
    assert f"{holder} is pending, 0 of 2 completed" in done.err
    assert "--accept-drift" not in done.err


def test_an_engine_that_can_t_be_asked_is_told_unless_that_does_not_matter(world: World, tern: Tern) -> None:
    world.engines["C"].always("Preview", fail("UNAVAILABLE", message="asleep"))
    done = tern("apply", "--ddl", "-", *PLACE, "--all", stdin=DDL)
    assert (done.code, "C: " in done.err, "--accept-drift" in done.err) == (5, True, True)
    assert tern("apply", "--ddl", "-", *PLACE, "--all", "--no-preview", stdin=DDL).code == 0


def test_an_engine_without_preview_does_not_stand_in_the_way(world: World, tern: Tern) -> None:
    for engine in world.engines.values():
        engine.always("Preview", fail("UNIMPLEMENTED"))
    assert tern("apply", "--ddl", "-", *PLACE, "--all", stdin=DDL).code == 0


def test_changes_of_other_databases_are_spelled_out(world: World, tern: Tern) -> None:
    change = {
        "namespace": "shop",
        "table": "orders",
        "ddl": "ALTER TABLE orders ENGINE=InnoDB",
        "action": "alter",
    }
    content = json.dumps({"database_type": "mysql", "changes": [change]})
    plan = tern("plan", "--changes", "-", "-e", "test", "-d", "shop", "--json", stdin=content).data
    assert (plan["database_type"], plan["changes"][0]["table"]) == ("mysql", "orders")
    for bad in ("{}", "[]", '{"database_type": "mysql", "changes": [{}]}', "nonsense"):
        assert tern("plan", "--changes", "-", "-e", "test", "-d", "shop", stdin=bad).code == 2


def test_with_watch_the_exit_code_is_the_outcome_s(world: World, tern: Tern) -> None:
    apply_id = tern(
        "apply", "--ddl", "-", *PLACE, "--deployments", "A", "--key", "k", "--json", stdin=DDL
    ).data["apply_id"]
    world.last = apply_id
    world.ask(Verb.CANCEL)
    world.run(until=lambda: world.apply_row().state == "cancelled")
    done = tern("apply", "--ddl", "-", *PLACE, "--deployments", "A", "--key", "k", "--watch", stdin=DDL)
    assert done.code == 11
    assert "accepted before" in done.out


def test_waves_and_bounds_are_written_down_and_shown(world: World, tern: Tern) -> None:
    """§6: in the order in which they go."""
    words = (
        "apply",
        "--ddl",
        "-",
        *PLACE,
        "--all",
        "--first",
        "B",
        "--copy",
        "barrier",
        "--on-failure",
        "pause",
    )
    bounds = ("--max-parallel", "3", "--max-failures", "1", "--strict", "--revert-window")
    waves = ("--wave", "C;max_parallel=1;max_failures=0;bake=10m", "--wave", "*")
    done = tern(*words, *bounds, *waves, stdin=DDL)
    assert done.code == 0
    assert "barrier, 3 at once, pause on failure, 1 borne, strictly, 2 waves" in done.out
    assert "C → B → A" in done.out
    assert "wave 1: C, 1 at once, 0 borne, bakes 10 min 00 s" in done.out
    data = tern("get", done.out.split()[1], "--json").data
    assert [each["deployment"] for each in data["operations"]] == ["C", "B", "A"]
    assert [each["wave"] for each in data["operations"]] == [1, 2, 2]
    assert data["policy"]["waves"][0]["bake_s"] == 600.0
    assert (data["policy"]["strict"], data["policy"]["enable_revert"]) == (True, True)


def test_a_target_that_strays_is_shown_before_and_after_it_is_accepted(world: World, tern: Tern) -> None:
    """Item 6: drift per deployment, in plan, apply, get and explain; nobody is guessed about."""
    told = {"namespace": "public", "table": "orders", "recipe": "add_column"}
    for name in ("A", "C"):
        world.engines[name].always("Preview", answer(changes=[told]))
    world.engines["B"].always("Preview", answer(changes=[{**told, "recipe": "nothing_to_do"}]))
    planned = tern("plan", "--ddl", "-", *PLACE[:4], "--all", "--json", stdin=DDL)
    assert [bool(target["drift"]) for target in planned.data["targets"]] == [False, True, False]
    assert (
        "drift: change 1 would be nothing_to_do"
        in tern("plan", "--ddl", "-", *PLACE[:4], "--all", stdin=DDL).out
    )
    words = ("--plan", planned.data["plan_id"], "--digest", planned.data["digest"], "--reason", "because")
    done = tern("apply", *words, "--json")
    assert (done.code, [line[:2] for line in done.document["warnings"]]) == (0, ["B:"])
    apply_id = done.data["apply_id"]
    got = {each["deployment"]: each["preview"] for each in tern("get", apply_id, "--json").data["operations"]}
    assert got["A"] is None
    assert (got["B"]["outcome"], len(got["B"]["drift"])) == ("previewed", 1)
    for command in (
        ("get", apply_id),
        ("get", f"{apply_id}/B"),
        ("explain", apply_id),
        ("explain", f"{apply_id}/B"),
    ):
        assert "change 1 would be nothing_to_do" in tern(*command).out


def test_another_rollout_than_the_reviewed_one_is_refused_at_the_command_line(
    world: World, tern: Tern
) -> None:
    """Item 6: targets, policy and digest."""
    planned = tern(
        "plan", "--ddl", "-", *PLACE[:4], "--deployments", "A,B", "--copy", "parallel", "--json", stdin=DDL
    )
    plan = ("apply", "--plan", planned.data["plan_id"], "--reason", "because")
    for words, why in (
        (("--deployments", "A"), "B was reviewed and is left out"),
        (("--copy", "rolling"), "policy copy"),
        (("--digest", "0" * 64), "the digest of"),
    ):
        done = tern(*plan, *words)
        assert (done.code, why in done.err) == (5, True), done.err
    assert tern("apply", "--ddl", "-", "--digest", "0" * 64, *PLACE, "--all", stdin=DDL).code == 2
    assert tern(*plan, "--json").data["policy"]["copy"] == "parallel"


def test_who_repeats_a_request_is_told_whose_it_is(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the asker's name and reason, which stand in no record."""
    words = ("apply", "--ddl", "-", *PLACE, "--all", "--key", "mine", "--json")
    first = tern(*words, "--reason", "the ticket", stdin=DDL).data
    monkeypatch.setenv("TERN_CALLER", "eve")
    again = tern(*words, "--reason", "me too", stdin=DDL)
    assert (again.data["apply_id"], again.data["caller"], again.data["reason"]) == (
        first["apply_id"],
        "ann@desk",
        "the ticket",
    )
    assert "ann@desk sent it before, and said why: the ticket" in again.document["warnings"]

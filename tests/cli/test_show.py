"""`get`: text and JSON are two faces of one view."""

import re
from dataclasses import replace

import pytest

from tern.cli.screen import picture
from tern.domain.control import Verb
from tern.domain.policy import Copy, Policy
from tern.store.reading import Reading
from tern.view import apply_view
from tests.cli.conftest import Tern
from tests.flows.gone import goes
from tests.flows.steps import engine_says
from tests.world import World


def test_json_and_text_say_the_same(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    data = tern("get", apply_id, "--json").data
    text = tern("get", apply_id).out
    view = apply_view(Reading(world.database).apply(apply_id))
    assert data["headline"] == view.headline
    assert view.headline in text
    assert [each["deployment"] for each in data["operations"]] == ["A", "B", "C"]
    for operation in view.operations:
        line = next(line for line in text.splitlines() if f" {operation.deployment} " in line)
        assert ("waiting" in line) == (operation.state.value == "pending")


def test_the_moment_of_the_look_is_the_database_s(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.pass_time(86_400 * 3)
    document = tern("get", apply_id, "--json").document
    created = document["data"]["created_at"][:10]
    assert document["observed_at"].endswith("Z")
    assert document["observed_at"][:10] > created


def test_one_operation_is_shown_with_everything(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    done = tern("get", f"{apply_id}/A")
    assert str(world.remote_id("A")) in done.out
    assert "stop by bob" in done.out
    assert "ALTER TABLE orders ADD COLUMN note text" in done.out
    data = tern("get", f"{apply_id}/A", "--json")
    assert (data.document["kind"], data.data["scope"]) == ("operation", f"{apply_id}/A")


def test_who_left_one_out_and_why_stands_on_its_line(world: World, tern: Tern) -> None:
    """Whoever comes next must not have to look for it in the record."""
    apply_id = world.apply("A", "B")
    assert tern("skip", f"{apply_id}/B", "--reason", "the region is closed").code == 0
    world.run(until=lambda: world.state("B") == "skipped")
    (line,) = [line for line in tern("get", apply_id).out.splitlines() if " B " in line and "skipped" in line]
    assert re.search(r"skipped +by .+: the region is closed$", line)


@pytest.mark.parametrize(
    ("subject", "code"), [("apl-0", 3), ("AP/nowhere", 3), ("AP/", 2), ("AP/A/B", 2), ("x", 2), ("", 2)]
)
def test_what_is_not_there_is_said(subject: str, code: int, world: World, tern: Tern) -> None:
    apply_id = world.apply()
    assert tern("get", subject.replace("AP", apply_id)).code == code


def test_what_an_engine_says_can_t_move_the_cursor(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    world.engines["A"].set_state(str(world.remote_id("A")), "failed", error="bad\x1b[2J\nnews\r")
    world.run(until=lambda: world.state("A") == "failed")
    for words in (("get", apply_id), ("get", f"{apply_id}/A"), ("explain", apply_id), ("logs", apply_id)):
        assert "\x1b" not in tern(*words).out


def test_ten_thousand_deployments_are_no_higher_than_forty(world: World) -> None:
    facts = Reading(world.database).apply(world.apply())
    (pattern, *_) = facts.operations

    def height(number: int) -> int:
        operations = tuple(replace(pattern, deployment=f"d{n}", position=n) for n in range(number))
        return len(picture(apply_view(replace(facts, operations=operations))))

    assert height(10_000) == height(40) <= 24


def test_an_error_is_told_once_and_never_as_somebody_else_s(world: World, tern: Tern) -> None:
    apply_id = world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space left")
    for verb in ("get", "explain"):
        said = tern(verb, f"{apply_id}/A").out
        assert said.count("no space left") == 1, said
        assert re.search(r"engine says\s+no space left", said), said
    world.write("UPDATE apply_operations SET error_reason = 'ENDED' WHERE deployment = 'A'")
    assert re.search(r"a person says\s+no space left", tern("get", f"{apply_id}/A").out)
    assert "a person says: no space left" in tern("get", apply_id).out


def test_a_statement_that_failed_says_why_wherever_its_engine_said_it(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    engine_says(world, "A", "failed")
    world.write("UPDATE table_changes SET state = 'failed', detail = 'duplicate key (id)=(4)'")
    found = tern("get", f"{apply_id}/A", "--json").data
    assert (found["error"], found["tables"][0]["error"]) == ("duplicate key (id)=(4)",) * 2


def test_what_a_silent_engine_said_last_has_its_age(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    engine_says(world, "A", "running")
    goes(world, "A")
    for _ in range(3):
        world.pass_time(20)
        world.sweep()
    assert re.search(r"as last seen, 1 min \d\d s ago", tern("get", f"{apply_id}/A").out)

"""What became of a deployment after its rollout was over: whoever came later is named there, and names it in turn."""

from tern.cli.words import one_line
from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.states import State
from tests.cli.conftest import Tern
from tests.cli.test_carried_on import commands
from tests.cli.test_rest import ALL_FAIL, WHY
from tests.faults.behaviour import not_accepted
from tests.flows.steps import engine_says, settle
from tests.flows.test_effect import STATEMENTS, told
from tests.world import World


def later(tern: Tern, source: str, name: str = "A") -> list[tuple[str, str]]:
    return _of(tern, source, name, "later")


def earlier(tern: Tern, source: str, name: str = "A") -> list[tuple[str, str]]:
    return _of(tern, source, name, "earlier")


def _of(tern: Tern, source: str, name: str, side: str) -> list[tuple[str, str]]:
    return [(each["scope"], each["state"]) for each in tern("get", f"{source}/{name}", "--json").data[side]]


def refused(world: World, *names: str) -> ApplyId:
    world.engines["A"].script("Apply", not_accepted())
    source = world.apply(*names, policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    return source


def test_a_repeated_plan_is_named_by_the_first_and_names_it(world: World, tern: Tern) -> None:
    """While it runs, and when it has completed: then nothing is left, and nobody is sent to retry."""
    first = refused(world, "A", "B")
    told(world, State.COMPLETED, "completed", "completed", "completed", name="B")
    assert later(tern, first) == []
    second = world.apply("A", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    assert (later(tern, first), earlier(tern, second)) == (
        [(f"{second}/A", "running")],
        [(f"{first}/A", "failed")],
    )
    assert f"since then {second}/A, which is running" in one_line(tern("get", first).out)
    assert tern("get", f"{first}/A").out.splitlines()[1].endswith("which is running (the same plan)")
    engine_says(world, "A", "completed")
    assert later(tern, first) == [(f"{second}/A", "completed")]
    for look in (("get", first), ("explain", first), ("explain", f"{first}/A"), ("get", f"{first}/A")):
        said = one_line(tern(*look).out)
        assert f"{second}/A" in said, look
        assert "has completed" in said, look
    found = {
        " ".join(words[:2]) for look in ("get", "explain") for words in commands(tern, look, f"{first}/A")
    }
    assert found == {f"get {second}/A"}
    assert f"before it {first}/A, which is failed" in one_line(tern("get", f"{second}/A").out)
    assert earlier(tern, first, "B") == []
    for record in ("logs", "audit"):
        assert f"since then {second}/A, which has completed" in one_line(tern(record, first).out)
    assert [each["scope"] for each in tern("logs", f"{first}/A", "--json").data["later"]] == [f"{second}/A"]


def test_the_line_ends_with_what_completed(world: World, tern: Tern) -> None:
    """Another failure between is told; what came after the first success is nobody's follow-up."""
    first, second = refused(world, "A"), refused(world, "A")
    third = world.apply("A", policy=ALL_FAIL)
    world.answer_bells()
    engine_says(world, "A", "completed")
    fourth = refused(world, "A")
    assert later(tern, first) == [(f"{second}/A", "failed"), (f"{third}/A", "completed")]
    assert later(tern, second) == [(f"{third}/A", "completed")]
    assert earlier(tern, third) == [(f"{second}/A", "failed"), (f"{first}/A", "failed")]
    assert earlier(tern, fourth) == []


def test_what_never_came_to_the_target_is_left_out(world: World, tern: Tern) -> None:
    first = refused(world, "A")
    world.apply("A", policy=ALL_FAIL)
    world.ask(Verb.CANCEL)
    settle(world)
    assert world.state("A") == "cancelled"
    assert later(tern, first) == []
    last = world.apply("A", policy=ALL_FAIL)
    assert [scope for scope, _ in later(tern, first)] == [f"{last}/A"]


def test_who_carries_it_on_is_not_told_twice(world: World, tern: Tern) -> None:
    first = refused(world, "A")
    words = tern("apply", "--rest-of", f"{first}/A", "--json").data["groups"][0]["command"]
    digest = words.split("--digest ")[1].split()[0]
    follow_up = tern("apply", "--rest-of", f"{first}/A", "--digest", digest, *WHY, "--json").data["apply_id"]
    assert [scope for scope, _ in later(tern, first)] == [f"{follow_up}/A"]
    assert "since then" not in tern("get", f"{first}/A").out
    assert tern("get", f"{first}/A").out.count(f"{follow_up}/A") == 2

"""All reasons at once, each with who can clear it; the same height for few and for many."""

from dataclasses import replace

from tern.cli.explain import _reasons
from tern.domain.control import Verb
from tern.domain.policy import Copy, Cutover, Policy, Wave
from tern.domain.states import State
from tern.store.reading import Reading
from tern.view import apply_view
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.flows.steps import engine_says
from tests.world import World


def test_every_reason_of_one_operation_is_listed(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    world.ask(Verb.STOP, "C")
    tern("deployments", "drain", "C")
    done = tern("explain", f"{apply_id}/C")
    assert done.code == 0
    for words in (
        "fix   an operator's stop covers it",
        "ask   its deployment is drained",
        "wait  A (running) comes before it in the order",
    ):
        assert words in done.out
    assert "3 reasons above" in done.out
    kinds = [
        hold["kind"] for hold in tern("explain", f"{apply_id}/C", "--json").data["operations"][0]["holds"]
    ]
    assert kinds == ["stop", "drained", "order"]


def test_what_moves_is_said_to_move(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL))
    assert "the next free worker takes it" in tern("explain", f"{apply_id}/A").out
    world.answer_bells()
    assert "Tern holds nothing back" in tern("explain", f"{apply_id}/A").out
    assert "Tern holds nothing back. Under way: A (running)" in tern("explain", apply_id).out


def test_a_stop_that_nobody_answers_is_seen_wherever_one_looks(world: World, tern: Tern) -> None:
    """Else it is asked for again, or taken for done."""
    world.apply("A", "B")
    world.answer_bells()
    world.engines["A"].always("Stop", fail("UNAVAILABLE"))
    world.ask(Verb.STOP, "A")
    for _ in range(3):
        world.pass_time(5.0)
        world.sweep()
    for command in (("get", world.last), ("explain", world.last), ("get", f"{world.last}/A")):
        assert "stop asked for" in tern(*command).out, command
    assert "no answer after" in tern("get", world.last).out


def test_a_verdict_is_explained_by_what_failed(world: World, tern: Tern) -> None:
    apply_id = world.apply("A", "B")
    world.answer_bells()
    world.engines["A"].set_state(str(world.remote_id("A")), "failed", error="no space left")
    world.run(until=lambda: world.apply_row().state == "failed")
    done = tern("explain", apply_id)
    assert "✖ A  no space left" in done.out
    assert "above is what needs you" in done.out
    assert "nothing waits for anything" not in done.out
    assert "nothing moves it by itself any more" in tern("explain", f"{apply_id}/B").out


def test_a_reason_that_holds_thousands_is_said_once(world: World) -> None:
    facts = Reading(world.database).apply(world.apply())
    (pattern, *_) = facts.operations
    running = replace(pattern, state=State.RUNNING)
    waiting = tuple(
        replace(pattern, deployment=f"d{n}", position=n + 1, is_admitted=False) for n in range(5_000)
    )
    lines = list(_reasons(apply_view(replace(facts, operations=(running, *waiting)))))
    assert len(lines) == 4
    assert "A (running) comes before it in the order" in lines[1].plain
    assert "and 4,994 more" in lines[2].plain


def test_a_bake_says_when_it_is_over_and_a_turn_whose_it_is(world: World, tern: Tern) -> None:
    """§6: who clears it, and when it clears by itself."""
    waves = (Wave(deployments=("A",), bake_s=600.0), Wave())
    apply_id = world.apply(policy=Policy(Copy.BARRIER, cutover=Cutover.MANUAL, waves=waves))
    world.answer_bells()
    for state in ("waiting_for_cutover", "completed"):
        engine_says(world, "A", state)
    done = tern("explain", apply_id)
    assert "wait the wave before it is through and bakes, clears in 9 min" in done.out
    world.pass_time(600)
    world.sweep()
    for name in "BC":
        engine_says(world, name, "waiting_for_cutover")
    done = tern("explain", apply_id)
    assert "wait cutovers follow the order, and B (waiting for cutover) comes before it" in done.out
    assert "fix  it is ready; a person says when it cuts over" in done.out
    refused = tern("cutover", f"{apply_id}/C", "--reason", "now")
    assert (refused.code, "before it come B" in refused.out + refused.err) == (5, True)


def test_explaining_writes_nothing(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    before = (world.picture(), len(world.events()))
    for words in (
        ("explain", apply_id),
        ("explain", f"{apply_id}/A"),
        ("get", apply_id),
        ("logs", apply_id),
        ("ls",),
    ):
        assert tern(*words).code == 0
    assert (world.picture(), len(world.events())) == before


def test_after_a_stop_and_a_drain_the_first_command_that_is_printed_is_taken(
    world: World, tern: Tern
) -> None:
    """A start is refused under a drain: what opens it comes first, wherever one looks."""
    apply_id = world.apply("A")
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    world.run(until=lambda: world.state("A") == "stopped")
    tern("deployments", "drain", "A")
    assert tern("start", f"{apply_id}/A", "--reason", "because").code == 5
    for command in (("get", apply_id), ("explain", apply_id), ("explain", f"{apply_id}/A")):
        said = tern(*command).out
        assert "tern deployments undrain A" in said, command
        assert f"  tern start {apply_id}/A" not in said, command
    (blocker,) = tern("get", apply_id, "--json").data["blockers"]
    assert tern(*blocker["command"].split()[1:]).code == 0
    assert tern("start", f"{apply_id}/A", "--reason", "because").code == 0


def test_below_a_hold_nobody_says_that_nothing_holds_it(world: World, tern: Tern) -> None:
    """Its engine is silent, for a while and then for long: above is why, so no sentence below may deny that."""
    apply_id = world.apply("A")
    world.answer_bells()
    world.engines["A"].always("Progress", fail("UNAVAILABLE"))
    world.engines["A"].always("BatchProgress", fail("UNAVAILABLE"))
    for _ in range(8):
        world.pass_time(20.0)
        world.sweep()
        said = tern("explain", f"{apply_id}/A").out
        if "has not answered" in said:
            assert "Tern holds nothing back" not in said
            assert "1 reason above" in said
    assert "has not answered" in said

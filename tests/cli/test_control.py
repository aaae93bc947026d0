"""Stop, start, cutover, cancel: receipts, selectors, and forward verbs that fail closed."""

import threading
import time
from collections.abc import Callable

import pytest

from tern.domain.control import Verb
from tern.domain.policy import Copy, Cutover, Policy
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail, not_accepted
from tests.flows.steps import engine_says
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)
WHY = ("--reason", "the night is long")


def outcomes(data: dict[str, object]) -> dict[str, str]:
    targets = data["targets"]
    assert isinstance(targets, list)
    return {target["deployment"]: target["outcome"] for target in targets}


def requests(world: World) -> int:
    return int(world.one("SELECT count(*) AS n FROM control_requests").n)


def test_a_stop_of_a_whole_apply_needs_no_selector_and_is_shared(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    done = tern("stop", apply_id, *WHY, "--json")
    assert (done.code, done.document["kind"]) == (0, "receipt")
    promised = {
        "request_id",
        "verb",
        "reason",
        "actor",
        "accepted",
        "already",
        "refused",
        "too_late",
        "targets",
    }
    assert promised <= set(done.data)
    assert (done.data["accepted"], done.data["actor"], done.data["reason"]) == (
        3,
        "ann@desk",
        "the night is long",
    )
    assert requests(world) == 1
    world.run(until=lambda: world.apply_row().state == "stopped")
    again = tern("stop", apply_id, *WHY)
    assert (again.code, "3 already" in again.out) == (0, True)


@pytest.mark.parametrize("verb", ["start", "cutover"])
def test_going_forward_on_several_operations_needs_a_choice(verb: str, world: World, tern: Tern) -> None:
    apply_id = world.apply()
    for selector in ((), ("--except", "A")):
        done = tern(verb, apply_id, *WHY, *selector)
        assert done.code == 5
        assert "it has 3 operations" in done.err
        assert "A (pending), B (pending), C (pending)" in done.err
    assert requests(world) == 0
    assert not any(engine.calls("Start") + engine.calls("Cutover") for engine in world.engines.values())


def test_a_single_apply_takes_every_verb_unscoped(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    assert tern("stop", apply_id, *WHY).code == 0
    world.run(until=lambda: world.state("A") == "stopped")
    assert tern("start", apply_id, *WHY).code == 0
    world.run(until=lambda: world.state("A") == "running")


def test_selectors_choose_operations_and_only_those(world: World, tern: Tern) -> None:
    tern("deployments", "rm", "C")
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert outcomes(tern("stop", apply_id, "--deployment", "B", *WHY, "--json").data) == {"B": "accepted"}
    world.run(until=lambda: world.state("B") == "stopped")
    assert world.state("A") == "running"
    by_state = tern("cancel", apply_id, "--state", "stopped", *WHY, "--dry-run", "--json").data
    assert outcomes(by_state) == {"B": "accepted"}
    rest = tern("cancel", apply_id, "--except", "B", *WHY, "--dry-run", "--json").data
    assert outcomes(rest) == {"A": "accepted"}
    named = tern("start", f"{apply_id}/B", *WHY, "--json").data
    assert outcomes(named) == {"B": "accepted"}


def test_labels_select_by_what_the_deployment_says(world: World, tern: Tern) -> None:
    world.write("""UPDATE deployments SET labels = '{"region": "eu"}' WHERE name IN ('A', 'C')""")
    apply_id = world.apply()
    data = tern("stop", apply_id, "-l", "region=eu", *WHY, "--dry-run", "--json").data
    assert outcomes(data) == {"A": "accepted", "C": "accepted"}
    assert requests(world) == 0


def test_a_dry_run_answers_the_same_and_writes_nothing(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    done = tern("cutover", apply_id, "--all", *WHY, "--dry-run")
    assert done.code == 5
    assert "not waiting for its cutover" in done.out
    assert "Nothing was written." in done.out
    assert requests(world) == 0


def test_an_unexpected_number_of_operations_is_refused(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    done = tern("stop", apply_id, "--expect", "2", *WHY)
    assert done.code == 5
    assert "it would be accepted for 3 operations, not 2" in done.err
    assert requests(world) == 0
    assert tern("stop", apply_id, "--expect", "3", *WHY).code == 0


def test_partly_accepted_is_its_own_exit_code(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL))
    world.answer_bells()
    world.engines["A"].set_state(world.remote_id("A") or "", "waiting_for_cutover")
    world.run(until=lambda: world.state("A") == "waiting_for_cutover")
    done = tern("cutover", apply_id, "--all", *WHY, "--json")
    assert done.code == 6
    assert outcomes(done.data) == {"A": "accepted", "B": "refused", "C": "refused"}


def test_what_has_finished_does_not_spoil_the_stop_of_the_rest(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    world.engines["A"].set_state(world.remote_id("A") or "", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    whole = tern("stop", apply_id, *WHY, "--dry-run", "--json")
    assert (whole.code, whole.data["too_late"], whole.data["accepted"]) == (0, 1, 2)
    named = tern("stop", apply_id, "--deployment", "A,B", *WHY, "--dry-run")
    assert named.code == 0
    assert tern("stop", f"{apply_id}/A", *WHY).code == 0
    assert tern("cancel", f"{apply_id}/A", *WHY).code == 5


def test_wait_blocks_until_the_effect_is_observed(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    late = threading.Timer(0.8, lambda: world.run(until=lambda: world.apply_row().state == "stopped"))
    late.start()
    done = tern("stop", apply_id, *WHY, "--wait", "--json")
    late.join()
    assert done.code == 0
    assert {target["fate"] for target in done.data["targets"]} == {"acknowledged"}


def test_nothing_accepted_is_nothing_to_wait_for(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    tern("cancel", apply_id, *WHY)
    done = tern("retry", apply_id, *WHY, "--wait")
    assert (done.code, "waiting for its effect" in done.err) == (0, False)


def test_waiting_has_an_end(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    done = tern("stop", apply_id, *WHY, "--wait", "--timeout", "0.2")
    assert (done.code, "stays open" in done.err) == (124, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("apl-0",), 3),
        (("nonsense",), 2),
        (("APPLY/",), 2),
        (("APPLY/nowhere",), 3),
        (("APPLY", "--deployment", "nowhere"), 3),
        (("APPLY", "--except", "nowhere"), 3),
        (("APPLY/A", "--all"), 2),
        (("APPLY", "--all", "--state", "running"), 2),
        (("APPLY", "--state", "nonsense"), 2),
        (("APPLY", "--state", "completed"), 5),
        (("APPLY", "-l", "nonsense"), 2),
        (("APPLY", "--timeout", "1"), 2),
        (("APPLY", "--wait", "--timeout", "nan"), 2),
    ],
)
def test_bad_selectors_are_refused_and_nothing_is_written(
    words: tuple[str, ...], code: int, world: World, tern: Tern
) -> None:
    apply_id = world.apply()
    subject, *selectors = words
    assert tern("stop", subject.replace("APPLY", apply_id), *WHY, *selectors).code == code
    assert requests(world) == 0


def test_a_wish_without_a_reason_is_refused(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    assert tern("stop", apply_id).code == 2
    assert tern("stop", apply_id, "--reason", " ").code == 2
    assert requests(world) == 0


def test_the_dry_run_prints_the_number_that_is_expected_then(world: World, tern: Tern) -> None:
    """What counts is for how many it would be accepted, not how many were selected."""
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    world.engines["A"].set_state(world.remote_id("A") or "", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    told = tern("stop", apply_id, *WHY, "--dry-run")
    assert "Nothing was written." in told.out
    flag = told.out.rpartition("--expect ")[2].strip()
    assert flag == "2"
    missed = tern("stop", apply_id, *WHY, "--expect", "3", "--json")
    assert (missed.code, missed.data["reason"], requests(world)) == (5, "EXPECTATION_MISSED", 0)
    assert "accepted: B, C" in missed.data["why"]
    assert tern("stop", apply_id, *WHY, "--expect", flag).code == 0


def test_one_rule_for_what_had_completed_before(world: World, tern: Tern) -> None:
    """Start, stop and cutover of a rollout with a completed sibling end alike, with and without --wait."""
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    world.engines["A"].set_state(world.remote_id("A") or "", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    assert tern("stop", apply_id, "--all", *WHY).code == 0
    world.run(until=lambda: {world.state("B"), world.state("C")} == {"stopped"})
    assert tern("stop", apply_id, "--all", *WHY, "--wait").code == 0
    assert tern("start", apply_id, "--all", *WHY).code == 0
    world.run(until=lambda: {world.state("B"), world.state("C")} == {"running"})
    assert tern("start", apply_id, "--all", *WHY, "--wait").code == 0


def later(*acts: Callable[[], object]) -> threading.Thread:
    """Others act while a command waits, each once what came before is so."""

    def act() -> None:
        time.sleep(0.8)
        for each in acts:
            each()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_stop_that_another_operators_start_overtook_is_not_done(world: World, tern: Tern) -> None:
    apply_id = world.apply("A", policy=PARALLEL)
    world.answer_bells()
    world.engines["A"].ignore("Stop")
    others = later(
        lambda: world.engines["A"].always("Stop", not_accepted("not now")),
        lambda: world.run(until=lambda: world.delivery("A", Verb.STOP).refusals > 0),
        lambda: world.ask(Verb.START, "A"),
        lambda: world.run(until=lambda: world.delivery("A", Verb.START).state == "acknowledged"),
    )
    done = tern("stop", apply_id, *WHY, "--wait", "--json")
    others.join()
    assert (done.code, done.data["targets"][0]["ending"]) == (5, "not_done")


def test_a_stop_that_the_change_outran_is_not_done(world: World, tern: Tern) -> None:
    """It completed after the stop was accepted: what was to be stopped has happened."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    others = later(
        lambda: engine_says(world, "A", "completed"),
        lambda: world.run(until=lambda: world.state("B") == "stopped"),
    )
    done = tern("stop", apply_id, *WHY, "--wait", "--json")
    others.join()
    assert done.code == 6
    assert {each["deployment"]: each["ending"] for each in done.data["targets"]} == {
        "A": "not_done",
        "B": "done",
    }


def test_a_start_that_the_only_engine_refuses_is_done_nowhere(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    tern("stop", apply_id, *WHY)
    world.run(until=lambda: world.state("A") == "stopped")
    world.engines["A"].always("Start", not_accepted("the source is gone"))
    others = later(lambda: world.run(until=lambda: world.delivery("A", Verb.START).state == "failed"))
    done = tern("start", apply_id, *WHY, "--wait")
    others.join()
    assert done.code == 5


def test_what_nobody_knows_is_an_exit_code_of_its_own(world: World, tern: Tern) -> None:
    """15, as soon as nothing else is on its way."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.engines["A"].always("Stop", fail("UNAVAILABLE"))
    for method in ("Progress", "BatchProgress"):
        world.engines["A"].always(method, fail("NOT_FOUND"))
    others = later(
        lambda: world.run(until=lambda: (world.state("A"), world.state("B")) == ("uncertain", "stopped"))
    )
    done = tern("stop", apply_id, *WHY, "--wait", "--json")
    others.join()
    assert done.code == 15
    assert done.data["targets"][0]["ending"] == "unknown"
    told = tern("cancel", f"{apply_id}/A", *WHY, "--wait", "--timeout", "20")
    words = "at A is unknown: it is uncertain, and nobody here can tell whether it runs"
    words += f"; look there: tern explain {apply_id}/A"
    assert (told.code, words in " ".join(told.err.split())) == (15, True)


def test_the_exit_codes_stand_where_a_verb_is_explained(tern: Tern) -> None:
    for verb in ("stop", "start", "cutover", "revert", "resolve"):
        assert "15" in tern(verb, "--help").out, verb


def test_a_cancel_that_was_refused_is_taken_back_by_name_alone(world: World, tern: Tern) -> None:
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.engines["A"].always("Cancel", not_accepted("not now"))
    tern("cancel", f"{apply_id}/A", *WHY)
    world.run(until=lambda: world.delivery("A", Verb.CANCEL).refusals == 1)
    told = tern("start", f"{apply_id}/A", *WHY)
    assert (told.code, "--although-cancel-refused" in told.out) == (5, True)
    assert tern("start", f"{apply_id}/A", "--although-cancel-refused", *WHY).code == 0


def test_an_exit_code_that_is_not_0_is_said_in_words(world: World, tern: Tern) -> None:
    """On stderr, beside the receipt; nothing of it in a document's way."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    engine_says(world, "B", "completed")
    done = tern("cutover", apply_id, "--all", *WHY)
    assert (done.code, "exit code 6: the cutover was not taken at A" in done.err) == (6, True)
    done = tern("skip", f"{apply_id}/A", *WHY)
    assert (done.code, "exit code 5: the skip was not taken at A" in done.err) == (5, True)
    assert f"tern explain {apply_id}/A" in done.err
    assert "exit code" not in tern("skip", f"{apply_id}/A", *WHY, "--json").err


def test_accepted_is_not_done_is_said_where_nobody_waited(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    world.engines["A"].always("Stop", fail("UNAVAILABLE"))
    waited = tern("stop", apply_id, *WHY, "--wait", "--timeout", "0.2")
    assert (waited.code, "not done yet" in waited.out) == (124, False)
    other = world.apply("B")
    world.answer_bells()
    assert f"Accepted is not done yet. Next: tern watch {other}" in tern("stop", other, *WHY).out

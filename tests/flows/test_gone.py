"""An engine that is gone for good: what a person may say of it, and what becomes of what was sent there (G10, G13)."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from psycopg import IntegrityError

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.holds import HoldKind
from tern.domain.policy import Copy, Policy
from tern.domain.timing import WATCHED_MOST_S
from tern.ports import Resolved
from tests.faults.behaviour import Rejected, Turn, fail, hang, lose_answer
from tests.flows.gone import (
    comes_back,
    commands,
    give_up,
    given_up,
    goes,
    lines,
    look_again,
    pass_long,
    unsettled,
    view,
)
from tests.flows.steps import (
    PARALLEL,
    engine_says,
    held_targets,
    holds_of,
    meanwhile,
    methods,
    open_wishes,
    running,
    stopped,
    tables,
    waiting,
)
from tests.world import World


def test_an_engine_is_gone_after_ten_tries_and_ten_minutes_and_not_before(world: World) -> None:
    """Until then it is refused with what is missing and for how long; nothing is written."""
    running(world, "A", "B")
    goes(world, "A")
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert refusal.value.reason == "ENGINE_NOT_YET_GONE"
    assert "more are missing" in "; ".join(refusal.value.why)
    assert " s" in refusal.value.next_step
    assert world.state("A") == "running"
    assert lines(world) == []
    for _ in range(12):
        world.pass_time(31)
        world.sweep()
    assert world.operation("A").unheard_tries >= 10
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert refusal.value.reason == "ENGINE_NOT_YET_GONE", "ten tries, and not ten minutes"
    pass_long(world, 3)
    give_up(world, "A")
    assert world.state("A") == "failed"


def test_ten_minutes_with_few_tries_are_too_few(world: World) -> None:
    running(world, "A", "B")
    goes(world, "A")
    for _ in range(5):
        world.pass_time(300)
        world.sweep()
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert refusal.value.reason == "ENGINE_NOT_YET_GONE"


@pytest.mark.parametrize(
    "answered",
    ["a good sample", "a refusal", "no credentials"],
)
def test_one_answer_begins_the_count_anew(world: World, answered: str) -> None:
    """A refusal is an answer too, and so is what has to be mended on our side."""
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    if answered == "a good sample":
        comes_back(world, "A")
    elif answered == "a refusal":
        goes(world, "A", how=fail("UNAUTHENTICATED"))
    else:
        world.write(
            "UPDATE deployments SET credentials = '{\"token\": \"env:NOT_SET_ANYWHERE\"}' WHERE name = 'A'"
        )
    world.pass_time(61)
    world.sweep()
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert refusal.value.reason == "ENGINE_ANSWERS"
    assert "--token-ref" in refusal.value.next_step
    assert (world.state("A"), lines(world)) == ("running", [])


def test_a_good_sample_that_a_worker_of_the_old_version_wrote_counts(world: World) -> None:
    """It knows nothing of the count, and its sample is one all the same."""
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    world.write(
        "UPDATE apply_operations SET looks = looks + 1, sampled_look = looks + 1 WHERE deployment = 'A'"
    )
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert refusal.value.reason == "ENGINE_ANSWERS"


@pytest.mark.parametrize("found", [Resolved.REMOTE_ID, Resolved.REPEAT_APPLY, Resolved.SAME_WORK])
def test_what_follows_or_repeats_does_not_go_together_with_it(world: World, found: Resolved) -> None:
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    with pytest.raises(Refused) as refusal:
        world.store.give_up(world.name("A"), found, "eve", "gone")
    assert refusal.value.reason == "ANSWER_UNFIT"


STUCK = {
    "running": lambda world: running(world, "A", "B"),
    "waiting_for_cutover": lambda world: waiting(world, "A", "B"),
    "stopped": lambda world: stopped(world, "A", "B"),
}


@pytest.mark.parametrize("found", [Resolved.ENDED, Resolved.NOT_STARTED, Resolved.COMPLETED])
@pytest.mark.parametrize("state", list(STUCK))
def test_every_state_with_an_id_is_left_and_the_id_stays_outstanding(
    world: World, state: str, found: Resolved
) -> None:
    """The word frees the target in the books; what was sent is written down with key or id, fence, engine, address."""
    STUCK[state](world)
    operation = world.operation("A")
    assert operation.state == state
    remote_id = given_up(world, "A", found)
    after = world.operation("A")
    told = ("failed", "ENGINE_GONE", "it burned down", after.summary)
    if found is Resolved.COMPLETED:
        told = ("completed", "", "", "completed, says eve: it burned down")
        assert tables(world, "A") == {"completed"}
    assert (after.state, after.error_reason, after.error_message, after.summary) == told
    assert after.fence > operation.fence
    assert "A" not in held_targets(world)
    (line,) = lines(world)
    assert (line.remote_id, line.dispatch_key, line.why) == (remote_id, None, "given_up")
    assert (line.address, line.engine_number) == (world.engines["A"].address, operation.engine_number)
    assert (line.caller, line.reason, line.settled_at) == ("eve", "it burned down", None)
    events = [event for event in world.events("A") if event.event == "given_up"]
    assert [(event.who, event.detail["outstanding"]) for event in events] == [("eve", line.id)]


@pytest.mark.parametrize("state", ["cutting_over", "revert_window", "reverting"])
def test_past_the_cutover_as_well(world: World, state: str) -> None:
    running(world, "A", "B")
    engine_says(world, "A", state)
    given_up(world, "A")
    assert (world.state("A"), len(unsettled(world))) == ("failed", 1)


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
def test_a_stop_that_nobody_answers_ends_with_a_truthful_reason(world: World, verb: Verb) -> None:
    """Whether it had an effect nobody knows: neither done nor refused."""
    running(world, "A", "B")
    goes(world, "A")
    world.ask(verb, "A")
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    delivery = world.delivery("A", verb)
    assert delivery.state == "moot"
    assert "given up" in delivery.engine_words
    assert open_wishes(world) == []
    assert world.state("A") == "failed"


def test_a_cancel_that_nobody_answered_goes_over_to_what_was_sent(world: World) -> None:
    """Whoever wanted it cancelled still does, when its engine comes back with the job."""
    running(world, "A", "B")
    remote_id = str(world.remote_id("A"))
    goes(world, "A")
    world.ask(Verb.CANCEL, "A")
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    assert "asked to end" in world.delivery("A", Verb.CANCEL).engine_words
    comes_back(world, "A")
    look_again(world)
    assert world.engines["A"].job(remote_id).state == "cancelled"
    assert [(line.settled_as, line.cancel_caller) for line in lines(world)] == [("cancelled", "bob")]


def test_a_start_that_nobody_answers(world: World) -> None:
    stopped(world, "A", "B")
    goes(world, "A")
    world.ask(Verb.START, "A")
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    assert (world.delivery("A", Verb.START).state, world.state("A")) == ("moot", "failed")


def test_an_unanswered_apply_stays_outstanding_by_its_key(world: World) -> None:
    """No id is there, and nobody can be asked: what may act is the key."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    goes(world, "A")
    world.engines["A"].always("Apply", None)
    world.engines["A"].script("Apply", lose_answer())
    world.answer_bells()
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    pass_long(world)
    key = world.operation("A").dispatch_key
    give_up(world, "A", found=Resolved.NOT_STARTED)
    assert world.state("A") == "failed", "never pending: it may still act"
    (line,) = unsettled(world)
    assert (line.dispatch_key, line.remote_id, line.generation) == (key, None, 1)


@pytest.mark.parametrize("verb", [None, Verb.STOP, Verb.CANCEL])
def test_one_that_only_a_person_decides_is_asked_whether_its_engine_is_there(
    make_world: Callable[..., World], verb: Verb | None
) -> None:
    """Nothing is called for it any more, no id is there, and its engine offers no Resolve: it could never be gone."""
    world = make_world("A", offers_engine_service=False)
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", accept_drift=True)
    world.answer_bells()
    assert world.state("A") == "uncertain"
    if verb is not None:
        world.ask(verb)
        world.answer_bells()
    pass_long(world, 3)
    assert world.operation("A").unheard_tries == 0, "its engine is there"
    goes(world, "A")
    asked = len(world.engines["A"].calls("Apply"))
    pass_long(world)
    give_up(world, "A")
    assert (world.state("A"), len(unsettled(world)), open_wishes(world)) == ("failed", 1, [])
    assert len(world.engines["A"].calls("Apply")) == asked


def test_one_that_waits_at_a_drained_deployment_as_well(make_world: Callable[..., World]) -> None:
    """Its dispatch is unanswered, and its engine can't say what became of it."""
    world = make_world("A", offers_engine_service=False)
    world.write("UPDATE deployments SET deduplicates = true, idempotent_dispatch = true")
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", accept_drift=True)
    world.answer_bells()
    world.store.set_drained("A", drained=True)
    goes(world, "A")
    pass_long(world)
    assert world.state("A") == "failed_retryable"
    give_up(world, "A")
    assert (world.state("A"), len(unsettled(world))) == ("failed", 1)


def test_a_single_apply(make_world: Callable[..., World]) -> None:
    """G1: its id has another home."""
    world = make_world("A")
    world.apply("A", accept_drift=True)
    world.answer_bells()
    remote_id = given_up(world, "A")
    assert [line.remote_id for line in unsettled(world)] == [remote_id]
    assert world.apply_row().state == "failed"


def test_what_was_never_sent_is_not_given_up(world: World) -> None:
    """It is cancelled or skipped here."""
    world.apply("A", "B", policy=Policy(copy=Copy.ROLLING))
    world.answer_bells()
    with pytest.raises(Refused) as refusal:
        give_up(world, "B")
    assert refusal.value.reason == "NOTHING_SENT"


def test_nobody_is_given_up_while_a_call_may_be_answered(world: World) -> None:
    """An answer is better than a word."""
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    world.write(
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w', claim_began_at = tern_clock(),"
        " claim_expires_at = tern_clock() + interval '12 s' WHERE deployment = 'A'"
    )
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert refusal.value.reason == "CALL_UNDER_WAY"
    assert "12 s" in refusal.value.next_step


def test_a_call_under_way_is_waited_for_as_long_as_the_deadline_that_is_set(world: World) -> None:
    """Not as long as the one that Tern comes with: a worker that was given more time is still waiting."""
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    world.write(
        "UPDATE apply_operations SET claim_token = NULL, claim_owner = NULL, claim_began_at = NULL,"
        " claim_expires_at = NULL, unanswered_call = 'start', unanswered_since = tern_clock() - interval '20 s'"
        " WHERE deployment = 'A'"
    )
    world.store.deadline_s = 45.0
    with pytest.raises(Refused) as refusal:
        give_up(world, "A")
    assert (refusal.value.reason, refusal.value.next_step) == ("CALL_UNDER_WAY", "Say it again in 25 s.")
    world.store.deadline_s = 15.0
    give_up(world, "A")
    assert world.state("A") == "failed"


def test_several_at_once_have_an_outcome_each(world: World) -> None:
    """B's engine answers."""
    running(world)
    goes(world, "A", "C")
    pass_long(world)
    found = give_up(world, "A", "B", "C")
    assert [line.outcome.value for line in found] == ["accepted", "refused", "accepted"]
    assert [world.state(name) for name in "ABC"] == ["failed", "running", "failed"]


def test_a_dry_run_writes_nothing(world: World) -> None:
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    give_up(world, "A", dry_run=True)
    assert (world.state("A"), lines(world)) == ("running", [])


def test_explain_prints_the_way_out_as_soon_as_it_works(world: World) -> None:
    running(world, "A", "B")
    goes(world, "A")
    assert not any("--engine-is-gone" in command for command in commands(world))
    pass_long(world)
    found = [command for command in commands(world) if "--engine-is-gone" in command]
    words = ("ended", "completed", "not-started")
    assert found == [
        f"tern resolve {world.last}/A --engine-is-gone --as {word} --reason '…'" for word in words
    ]


def test_the_targets_of_completed_siblings_come_free(world: World) -> None:
    """And that of the one that is given up, in the books."""
    running(world, "A", "B")
    engine_says(world, "B", "completed")
    assert held_targets(world) == {"A"}
    given_up(world, "A")
    assert held_targets(world) == set()
    assert world.apply_row().state == "failed"


def test_a_new_apply_is_held_until_it_is_settled_and_then_goes(world: World) -> None:
    """No Apply leaves for that target; it is named whose it is, and what leads out."""
    running(world, "A", "B")
    first = world.last
    remote_id = given_up(world, "A")
    second = world.apply("A", accept_drift=True)
    look_again(world)
    assert (world.state("A"), holds_of(world, "A")) == ("pending", {HoldKind.OUTSTANDING})
    assert methods(world, "A") == ["Apply"]
    (hold,) = view(world).operation("A").holds
    assert f"{first}/A" in hold.detail
    assert remote_id in hold.detail
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "failed")
    look_again(world)
    assert unsettled(world) == []
    assert lines(world)[0].settled_as == "failed"
    assert world.state("A", second) == "running"


def test_an_engine_that_comes_back_with_its_job_running_is_known_and_holds(world: World) -> None:
    """It is shown at both applies, and can be ended by its own id."""
    running(world, "A", "B")
    first = world.last
    given_up(world, "A")
    second = world.apply("A", accept_drift=True)
    comes_back(world, "A")
    look_again(world)
    (line,) = unsettled(world)
    assert line.last_seen == "running"
    assert world.state("A", second) == "pending"
    for apply_id in (first, second):
        assert f"tern cancel {first}/A --outstanding --reason '…'" in commands(world, apply_id)
    assert "Apply" not in methods(world, "A")[1:]


def test_an_engine_that_comes_back_and_does_not_know_the_id(world: World) -> None:
    running(world, "A", "B")
    given_up(world, "A")
    world.apply("A", accept_drift=True)
    comes_back(world, "A")
    world.engines["A"].forget()
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["not_found"]
    assert world.state("A") == "running"


def test_a_key_whose_apply_never_arrived_is_forbidden(world: World) -> None:
    """Then it can't arrive any more, and the target is free."""
    goes(world, "A")
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    key = world.operation("A").dispatch_key
    assert world.operation("A").dispatch_key_is_dead is False
    # So long the last Apply may still act, as far as its target goes.
    world.pass_time(61)
    second = world.apply("A", accept_drift=True)
    comes_back(world, "A")
    look_again(world)
    assert [(line.dispatch_key, line.settled_as) for line in lines(world)] == [(key, "forbidden")]
    assert world.state("A", second) == "running"


def test_a_key_whose_apply_arrives_late_becomes_an_id(world: World) -> None:
    """What it started is outstanding by its id from then on."""
    world.apply("A", "B", policy=PARALLEL)
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.answer_bells()
    job = next(iter(world.engines["A"].jobs.by_id))
    goes(world, "A")
    pass_long(world)
    give_up(world, "A")
    world.pass_time(61)
    second = world.apply("A", accept_drift=True)
    comes_back(world, "A")
    look_again(world)
    first, later = lines(world)
    assert (first.settled_as, later.remote_id, later.settled_at) == ("became_id", job, None)
    assert world.state("A", second) == "pending"
    world.engines["A"].set_state(job, "completed")
    look_again(world)
    assert unsettled(world) == []
    assert world.state("A", second) == "running"


def test_silence_changes_nothing_but_the_count_of_looks(world: World) -> None:
    running(world, "A", "B")
    given_up(world, "A")
    before = lines(world)[0]
    look_again(world, 6)
    after = lines(world)[0]
    assert after.looks > before.looks
    assert (after.settled_at, after.last_seen, after.last_seen_at) == (None, "", None)
    assert after.silent_looks == after.looks


def test_looks_grow_rarer_and_never_end(world: World) -> None:
    running(world, "A", "B")
    given_up(world, "A")
    seen = []
    for _ in range(300):
        world.pass_time(2)
        world.sweep()
        seen.append(lines(world)[0].looks)
    early, late = seen[30] - seen[0], seen[-1] - seen[-31]
    assert early > late >= 1


def test_the_database_refuses_a_first_dispatch_of_whatever_version(world: World) -> None:
    """A worker of the version before looks for nothing outstanding; and one that looked a moment ago claims nothing."""
    running(world, "A", "B")
    given_up(world, "A")
    world.apply("A", accept_drift=True)
    with pytest.raises(IntegrityError) as refused:
        world.write(
            "UPDATE apply_operations SET state = 'running', dispatch_key = 'k', dispatch_intent_at = tern_clock(),"
            " claim_token = 't', claim_owner = 'old', claim_expires_at = tern_clock() + interval '30 s'"
            " WHERE state = 'pending' AND deployment = 'A'"
        )
    assert refused.value.diag.constraint_name == "apply_operations_begin_nothing"


def test_a_start_is_held_too(world: World) -> None:
    """One that was stopped elsewhere in time, at the same target under its own name."""
    stopped(world, "A", "B")
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id, fence,"
        " engine_number, address, why, caller) SELECT apply_id, id, 'test', 'shop', 'A', 'A-99', 1, engine_number,"
        " dispatched_to, 'not_stored', 'w' FROM apply_operations WHERE deployment = 'A'"
    )
    world.write(
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id) SELECT engine_number, 'A-99', id"
        " FROM apply_operations WHERE deployment = 'A'"
    )

    def silent_about_that(turn: Turn) -> Message:
        if turn.request.apply_id == "A-99":  # type: ignore[attr-defined]
            raise Rejected(grpc.StatusCode.UNAVAILABLE)
        return turn.perform()

    world.engines["A"].always("Progress", silent_about_that)
    world.ask(Verb.START, "A")
    world.answer_bells()
    world.pass_time(5)
    world.sweep()
    assert methods(world, "A", {"Start"}) == []
    assert "resume" not in [event.event for event in world.events("A")], (
        "not taken up before the last look either"
    )
    assert HoldKind.OUTSTANDING in holds_of(world, "A")
    world.engines["A"].always("Progress", None)
    look_again(world)
    assert unsettled(world) == []
    look_again(world)
    assert world.state("A") == "running"


def test_the_last_look_finds_it(world: World) -> None:
    """What is found between claim and call keeps the call back, and the intent is withdrawn."""
    running(world, "A", "B")
    first = world.operation("A")
    engine_says(world, "A", "completed")
    world.apply("A", accept_drift=True)
    world.forget_bells()

    def found() -> None:
        world.write(
            "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id,"
            " fence, engine_number, address, why, caller) VALUES (:apply, :id, 'test', 'shop', 'A', 'A-1', 1, :engine,"
            " :address, 'contradicted', 'w')",
            apply=first.apply_id,
            id=first.id,
            engine=first.engine_number,
            address=world.engines["A"].address,
        )

    world.do(
        "dispatch",
        world.operation("A").id,
        str(world.name("A")),
        ports=meanwhile(world.ports, "may_go_forward", found),
    )
    assert methods(world, "A") == ["Apply"]
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key) == ("pending", None)


def test_what_an_engine_ended_after_we_let_go_is_watched_and_holds_again_if_it_works(world: World) -> None:
    """Some engines try again by themselves: for ten more minutes it is found at once, whoever has the target."""
    running(world, "A", "B")
    first = world.last
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "failed")
    look_again(world)
    second = world.apply("A", accept_drift=True)
    world.answer_bells()
    assert world.state("A", second) == "running"
    world.engines["A"].jobs.by_id[remote_id].state = "running"
    look_again(world)
    assert [(line.why, line.settled_at is None) for line in lines(world)] == [
        ("given_up", False),
        ("contradicted", True),
    ]
    for apply_id in (first, second):
        assert f"tern cancel {first}/A --outstanding --reason '…'" in commands(world, apply_id)


def test_what_a_person_called_ended_is_watched_too(world: World) -> None:
    """And is outstanding at once if it was not."""
    ids = running(world, "A", "B")
    job = world.engines["A"].jobs.by_id.pop(ids["A"])
    world.pass_time(3)
    world.sweep()
    assert world.state("A") == "uncertain"
    world.resolve("A", Resolved.ENDED)
    world.engines["A"].jobs.by_id[ids["A"]] = job
    look_again(world)
    (line,) = unsettled(world)
    assert (line.remote_id, line.why) == (ids["A"], "contradicted")


def test_it_is_watched_for_ten_minutes_and_then_its_id_is_free(world: World) -> None:
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "completed")
    look_again(world)

    def guarded() -> int:
        found = world.one("SELECT count(*) AS n FROM remote_ids WHERE remote_id = :id", id=remote_id)
        return int(found.n)

    assert guarded() == 1
    look_again(world, 13)
    assert lines(world)[0].next_look_at is None
    assert guarded() == 0


def ended_by_word_while_silent(world: World) -> tuple[str, Any]:
    """A person called it ended, and its engine has been silent from then on for longer than the watch."""
    ids = running(world, "A", "B")
    job = world.engines["A"].jobs.by_id.pop(ids["A"])
    world.pass_time(3)
    world.sweep()
    world.resolve("A", Resolved.ENDED)
    goes(world, "A")
    look_again(world, 13)
    return ids["A"], job


def test_silence_does_not_use_up_the_watch(world: World) -> None:
    """G10: an engine that was silent all the time has shown nothing, and may work when it is back."""
    remote_id, job = ended_by_word_while_silent(world)
    assert [line.next_look_at is None for line in lines(world)] == [False]
    world.engines["A"].jobs.by_id[remote_id] = job
    comes_back(world, "A")
    look_again(world, 2)
    assert [(line.remote_id, line.why) for line in unsettled(world)] == [(remote_id, "contradicted")]


def test_two_answers_after_that_end_it(world: World) -> None:
    ended_by_word_while_silent(world)
    comes_back(world, "A")
    look_again(world, 1)
    assert [line.next_look_at is None for line in lines(world)] == [False]
    look_again(world, 2)
    assert [line.next_look_at for line in lines(world)] == [None]


def test_and_it_is_not_watched_for_ever(world: World) -> None:
    """A person has said what is there, and nobody waits for it: a day of silence is enough, whoever can't be asked."""
    ended_by_word_while_silent(world)
    world.pass_time(WATCHED_MOST_S)
    look_again(world, 2)
    assert [line.next_look_at for line in lines(world)] == [None]


def test_a_black_hole_is_gone_as_well(make_world: Callable[..., World]) -> None:
    """It answers nothing at all; each call costs its deadline."""
    world = make_world("A")
    world.apply("A", accept_drift=True)
    world.answer_bells()
    world.engines["A"].always("BatchProgress", hang(5))
    world.engines["A"].always("Progress", hang(5))
    world.pass_time(61)
    world.sweep()
    assert world.operation("A").unheard_tries == 1

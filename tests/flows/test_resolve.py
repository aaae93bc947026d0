"""A person's answer about an operation that nobody else can judge (G4, G5, G10, G15)."""

import pytest

from tern.domain.control import Verb
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.timing import RPC_DEADLINE_S
from tern.ports import Resolved
from tern.store.sql import text
from tests.faults.behaviour import lose_answer
from tests.flows.steps import (
    PARALLEL,
    drive,
    engine_says,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    sighting,
)
from tests.world import World


def uncertain(world: World) -> str:
    """A's answer got lost some time ago and nobody can tell; the id that its engine gave to the work."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL"
        " WHERE deployment = 'A' AND completed_at IS NULL"
    )
    # Until then it may still arrive, and a person's word would come too early.
    world.pass_time(RPC_DEADLINE_S)
    return next(iter(world.engines["A"].jobs.by_id))


def answer(
    world: World, found: Resolved, remote_id: str | None = None, *, name: str = "A", reason: str = "I looked"
) -> None:
    """What a person says; of an id that they name, what its engine says as well."""
    given = None if remote_id is None else RemoteId(remote_id)
    seen = sighting(world, world.name(name), given) if found is Resolved.REMOTE_ID and given else None
    world.store.resolve_uncertain(world.name(name), found, given, "eve", reason, sighting=seen)


def test_not_started_goes_back_in_line_under_a_new_key(world: World) -> None:
    """G4: the person vouches that the old key started nothing; it is never used again."""
    uncertain(world)
    old = world.operation("A").dispatch_key
    answer(world, Resolved.NOT_STARTED)
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_generation, operation.dispatch_key) == ("pending", 2, None)
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    keys = [call.key for call in world.engines["A"].calls("Apply")]
    assert keys[0] == old
    assert keys[1] not in {old, ""}


def test_ended_is_failed_with_the_persons_words(world: World) -> None:
    """G10: a definite answer is written."""
    uncertain(world)
    answer(world, Resolved.ENDED, reason="it rolled back at four")
    operation = world.operation("A")
    assert (operation.state, operation.error_message) == ("failed", "it rolled back at four")
    assert operation.completed_at is not None
    assert world.apply_row().state == "running_degraded"


def test_completed_is_completed_by_a_persons_word(world: World) -> None:
    """G10, G15: the whole change is in, says who looked; that is what the record, the row and the statement say."""
    uncertain(world)
    world.write("UPDATE table_changes SET percent = 40, rows_copied = 4, rows_total = 10, state = 'running'")
    answer(world, Resolved.COMPLETED, reason="the column is there")
    operation = world.operation("A")
    assert (operation.state, operation.error_message) == ("completed", "")
    assert operation.summary == "completed, says eve: the column is there"
    assert operation.completed_at is not None
    event = world.events("A")[-1]
    assert (event.event, event.who, event.why) == (
        "finish",
        "eve",
        "resolved as completed: the column is there",
    )
    with world.database.begin() as tx:
        (change,) = tx.execute(
            text("SELECT * FROM table_changes WHERE operation_id = :id"), {"id": operation.id}
        )
    # Nobody saw more than that, and a word makes no sample.
    assert (change.state, change.percent, change.rows_copied) == ("completed", 40, 4)
    assert operation.sampled_at is None


def test_a_stop_that_waited_comes_too_late_for_what_a_person_called_completed(world: World) -> None:
    """G8: the request is not left open on what is over."""
    world.engines["A"].offer(engine_service=False, deduplicates=True)
    uncertain(world)
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    answer(world, Resolved.COMPLETED)
    assert world.delivery("A", Verb.STOP).state == "too_late"
    world.sweep()
    assert methods(world, "A") == ["Apply"]


def test_what_a_person_called_completed_is_not_retried(world: World) -> None:
    """S12: completed is final, whoever said so."""
    uncertain(world)
    answer(world, Resolved.COMPLETED)
    receipt = world.ask(Verb.RETRY, "A")
    assert receipt.request_id is None
    assert world.state("A") == "completed"


def test_remote_id_is_followed_from_there_on(world: World) -> None:
    """G2, G3: the id, and then everything about it."""
    remote_id = uncertain(world)
    answer(world, Resolved.REMOTE_ID, remote_id)
    assert (world.state("A"), world.remote_id("A")) == ("running", remote_id)
    engine_says(world, "A", "completed")
    assert world.state("A") == "completed"
    assert methods(world, "A") == ["Apply"]


def test_repeat_apply_sends_the_same_key_once(world: World) -> None:
    """G4: harmless, says the person; the permission is spent by the next claim."""
    remote_id = uncertain(world)
    world.write("UPDATE deployments SET idempotent_dispatch = false, capabilities = '{}'")
    answer(world, Resolved.REPEAT_APPLY)
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    keys = {call.key for call in world.engines["A"].calls("Apply")}
    assert len(keys) == 1
    assert world.remote_id("A") == remote_id
    assert not world.operation("A").repeat_is_safe


@pytest.mark.parametrize("found", list(Resolved))
def test_every_answer_is_in_the_record(world: World, found: Resolved) -> None:
    """G15: who, what, why."""
    remote_id = uncertain(world)
    if found is Resolved.SAME_WORK:
        world.write(
            "UPDATE apply_operations SET engine_resume_context = :id, doubt = 'taken' WHERE deployment = 'A'",
            id=remote_id,
        )
    answer(world, found, remote_id)
    event = [event for event in world.events("A") if event.before == "uncertain"][-1]
    assert (event.who, event.why) == ("eve", f"resolved as {found}: I looked")


def test_an_answer_needs_a_reason(world: World) -> None:
    """G15."""
    uncertain(world)
    with pytest.raises(Refused, match="reason"):
        answer(world, Resolved.ENDED, reason="  ")
    assert world.state("A") == "uncertain"


def test_only_an_uncertain_operation_takes_an_answer(world: World) -> None:
    """G10: whatever is known needs nobody's word."""
    running(world, "A", "B")
    for found in Resolved:
        with pytest.raises(Refused) as refusal:
            answer(world, found, "R1")
        assert refusal.value.reason == "NOT_UNCERTAIN", found
    assert world.state("A") == "running"


@pytest.mark.parametrize("found", [Resolved.NOT_STARTED, Resolved.REMOTE_ID, Resolved.REPEAT_APPLY])
def test_a_stored_id_stands_against_every_answer_but_that_it_is_over(world: World, found: Resolved) -> None:
    """G5: never replaced, never dispatched around."""
    ids = running(world, "A", "B")
    world.engines["A"].jobs.by_id.pop(ids["A"])
    world.pass_time(3)
    world.sweep()
    assert world.state("A") == "uncertain"
    with pytest.raises(Refused) as refusal:
        answer(world, found, "R9")
    assert refusal.value.reason == "REMOTE_ID_STANDS"
    assert (world.state("A"), world.remote_id("A")) == ("uncertain", ids["A"])
    answer(world, Resolved.ENDED)
    assert (world.state("A"), world.remote_id("A")) == ("failed", ids["A"])


@pytest.mark.parametrize("remote_id", [None, ""])
def test_an_empty_id_is_no_answer(world: World, remote_id: str | None) -> None:
    """G2."""
    uncertain(world)
    with pytest.raises(Refused) as refusal:
        answer(world, Resolved.REMOTE_ID, remote_id)
    assert refusal.value.reason == "REMOTE_ID_EMPTY"


def test_the_public_id_is_no_engines_id(world: World) -> None:
    """G2."""
    uncertain(world)
    with pytest.raises(Refused) as refusal:
        answer(world, Resolved.REMOTE_ID, str(world.last))
    assert refusal.value.reason == "REMOTE_ID_IS_PUBLIC_ID"
    assert world.remote_id("A") is None


def test_the_id_of_another_operation_there_is_refused_and_its_holder_named(world: World) -> None:
    """G2: an engine gives each id once; a person's slip must not lead to another's work."""
    earlier = world.apply("A")
    world.run(until=lambda: world.remote_id("A", earlier) is not None)
    taken = str(world.remote_id("A", earlier))
    world.engines["A"].set_state(taken, "completed")
    world.run(until=lambda: world.state("A", earlier) == "completed")
    uncertain(world)
    with pytest.raises(Refused, match=earlier) as refusal:
        answer(world, Resolved.REMOTE_ID, taken)
    assert refusal.value.reason == "REMOTE_ID_TAKEN"
    assert world.state("A") == "uncertain"


def test_an_unknown_operation_is_named(world: World) -> None:
    """G7."""
    uncertain(world)
    with pytest.raises(NotFound):
        world.store.resolve_uncertain(ScopeName(world.last, "Z"), Resolved.ENDED, None, "eve", "I looked")


def test_an_answer_wins_over_a_driver_that_was_just_asking(world: World) -> None:
    """G12: a stop asks about the key, and freezes; a person names the id; the engine's `forbidden` comes too late."""
    remote_id = uncertain(world)
    job = world.engines["A"].jobs.by_key.pop(str(world.operation("A").dispatch_key))
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    drive(
        world,
        Verb.STOP,
        "A",
        meanwhile(world.ports, "settle_undispatched", lambda: late_answer(world, remote_id)),
    )
    assert (world.state("A"), world.remote_id("A")) == ("running", remote_id)
    settle(world)
    assert world.state("A") == "stopped"
    assert job.state == "stopped"


def test_a_stop_that_waited_for_the_answer_goes_on_at_once(world: World) -> None:
    """G8."""
    remote_id = uncertain(world)
    world.engines["A"].offer(engine_service=False, deduplicates=True)
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert open_wishes(world) == [("A", "stop", "pending")]
    answer(world, Resolved.REMOTE_ID, remote_id)
    world.sweep()
    assert (world.state("A"), open_wishes(world)) == ("stopped", [])


def late_answer(world: World, remote_id: str) -> None:
    """Whoever drives it has lost its claim by then."""
    world.pass_time(31)
    answer(world, Resolved.REMOTE_ID, remote_id)


def test_an_operation_whose_claim_has_expired_is_answered(world: World) -> None:
    """G12: whoever held it is fenced off; while the claim lives, a person waits (test_kept_id.py)."""
    uncertain(world)
    world.write(
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w',"
        " claim_expires_at = tern_clock() - interval '1 s' WHERE deployment = 'A'"
    )
    fence = world.operation("A").fence
    answer(world, Resolved.NOT_STARTED)
    operation = world.operation("A")
    assert (operation.claim_token, operation.fence) == (None, fence + 1)
    with world.database.begin() as tx:
        assert (
            tx.execute(text("SELECT count(*) FROM apply_operations WHERE claim_token = 't'")).scalar_one()
            == 0
        )

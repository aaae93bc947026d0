"""Workers of the version before outstanding calls were followed (schema 0008), beside those of today (G4, G13).

Their statements are played as they stood then. What a whole fleet of them does is not seen here.
"""

import pytest
from psycopg import IntegrityError

from tern.domain.control import Verb
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.timing import GONE_AFTER_TRIES
from tern.ports import Resolved
from tern.store import uncalled
from tern.store.sql import text
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.gone import comes_back, give_up, goes, lines, look_again, pass_long, unsettled
from tests.flows.steps import PARALLEL, engine_says, meanwhile, methods, running, stopped
from tests.invariants import assert_safe
from tests.world import World

BACK_IN_LINE = (
    "UPDATE apply_operations SET state = 'pending', state_changed_at = tern_clock(), completed_at = NULL,"
    " dispatch_generation = dispatch_generation + CAST(dispatch_key_is_dead AS integer),"
    " dispatch_key = CASE WHEN error_reason = 'ENDED' AND NOT dispatch_key_is_dead THEN dispatch_key END,"
    " dispatch_intent_at = CASE WHEN error_reason = 'ENDED' AND NOT dispatch_key_is_dead"
    "   AND dispatch_key IS NOT NULL THEN tern_clock() END,"
    " dispatch_key_is_dead = false, next_attempt_at = NULL, rung_at = NULL, answered_attempts = 0, error_message = '',"
    " error_reason = '' WHERE id = ANY(:ids) RETURNING id, state"
)
REPEATS = (
    "UPDATE apply_operations SET claim_token = 't', claim_owner = 'old', fence = fence + 1, attempt = attempt + 1,"
    " claim_began_at = tern_clock(), claim_expires_at = tern_clock() + interval '30 s', unanswered_call = 'apply',"
    " unanswered_since = tern_clock(), dispatch_key = :key, state = 'running' WHERE id = :id"
)
STARTS = (
    "UPDATE apply_operations SET claim_token = 't', claim_owner = 'old', claim_began_at = tern_clock(),"
    " claim_expires_at = tern_clock() + interval '30 s', unanswered_call = 'start', unanswered_since = tern_clock(),"
    " state = 'resuming' WHERE id = :id"
)


@pytest.fixture
def old_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is put back in line by a worker of the version before."""
    monkeypatch.setattr(uncalled, "_BACK_IN_LINE", text(BACK_IN_LINE))


def found(world: World, operation_id: int, remote_id: str) -> None:
    """An id that could not be stored, of a key that was sent for this operation."""
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id,"
        " generation, fence, engine_number, address, why, caller) SELECT apply_id, id, 'test', 'shop', deployment,"
        " :remote_id, dispatch_generation, 1, engine_number, dispatched_to, 'not_stored', 'w' FROM apply_operations"
        " WHERE id = :id",
        id=operation_id,
        remote_id=remote_id,
    )
    world.write(
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id) SELECT engine_number, :remote_id, id"
        " FROM apply_operations WHERE id = :id ON CONFLICT DO NOTHING",
        id=operation_id,
        remote_id=remote_id,
    )


def key_given_up(world: World) -> str:
    """Its Apply started something, nobody heard of it, and its engine was given up; the job."""
    world.undeclared()
    world.apply("A", "B", policy=PARALLEL)
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.answer_bells()
    (job,) = world.engines["A"].jobs.by_id
    goes(world, "A")
    pass_long(world)
    give_up(world, "A", found=Resolved.NOT_STARTED)
    return str(job)


@pytest.mark.usefixtures("old_retries")
@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_key_that_became_an_id_is_not_sent_again(world: World, state: str) -> None:
    """Once its job was over, the same key was sent again as if for the first time."""
    job = key_given_up(world)
    key = world.operation("A").dispatch_key
    comes_back(world, "A")
    world.engines["A"].set_state(job, state)
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["became_id", state]
    world.ask(Verb.RETRY, "A")
    look_again(world)
    assert len(methods(world, "A", {"Apply"})) == 1, "asked for, and not sent again"
    row = world.operation("A")
    # Of what is completed nothing is left that a retry could do.
    followed = None if state == "completed" else job
    assert (row.state, row.dispatch_key, row.engine_resume_context) == ("failed", key, followed)
    assert_safe(world)


@pytest.mark.usefixtures("old_retries")
def test_a_key_that_a_person_has_settled_is_asked_for_first(world: World) -> None:
    """By that word its target is free; what the key started is found all the same, and not begun a second time."""
    job = key_given_up(world)
    comes_back(world, "A")
    world.engines["A"].set_state(job, "completed")
    world.write(
        "UPDATE outstanding_calls SET settled_at = tern_clock(), settled_by = 'eve', settled_as = 'said',"
        " next_look_at = NULL"
    )
    world.ask(Verb.RETRY, "A")
    look_again(world)
    assert len(methods(world, "A", {"Apply"})) == 1
    row = world.operation("A")
    assert (row.state, row.engine_resume_context) == ("completed", job)
    assert_safe(world)


@pytest.mark.usefixtures("old_retries")
def test_a_key_of_whose_id_nobody_took_notice_is_asked_for_first(world: World) -> None:
    """An engine refused it, and said to somebody else, whom nobody believed any more, that it had taken it."""
    world.undeclared()
    world.engines["A"].script("Apply", not_accepted())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key_is_dead) == ("failed", False)
    found(world, operation.id, "A-99")
    world.write(
        "UPDATE outstanding_calls SET settled_at = tern_clock(), settled_as = 'completed', next_look_at = NULL"
    )
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    assert [call.method for call in world.engines["A"].calls() if call.method in {"Apply", "Resolve"}][
        :2
    ] == [
        "Apply",
        "Resolve",
    ]
    assert_safe(world)


@pytest.mark.usefixtures("old_retries")
def test_what_was_never_outstanding_is_sent_again_as_ever(world: World) -> None:
    """One whose only sender heard the refusal; and a dead key makes way for the next one, outstanding or not."""
    world.undeclared()
    world.engines["A"].script("Apply", not_accepted())
    world.engines["B"].script("Apply", not_accepted())
    world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    before = {name: world.operation(name) for name in "AB"}
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, dispatch_key,"
        " generation, fence, address, why, caller, settled_at, settled_as) SELECT apply_id, id, 'test', 'shop',"
        " deployment, dispatch_key, 1, 1, dispatched_to, 'given_up', 'eve', tern_clock(), 'forbidden'"
        " FROM apply_operations WHERE id = :id",
        id=before["B"].id,
    )
    world.write("UPDATE apply_operations SET dispatch_key_is_dead = true WHERE id = :id", id=before["B"].id)
    world.ask(Verb.RETRY, "A", "B")
    world.answer_bells()
    sent = {
        name: (world.operation(name).dispatch_key, world.operation(name).dispatch_generation) for name in "AB"
    }
    assert sent["A"] == (before["A"].dispatch_key, 1)
    assert sent["B"][0] != before["B"].dispatch_key
    assert sent["B"][1] == 2
    for name in "AB":
        assert methods(world, name, {"Apply", "Resolve"}) == ["Apply", "Apply"]


def refused(world: World, statement: str, **given: object) -> str:
    """What the database calls the rule that a worker of the version before has run into."""
    with pytest.raises(IntegrityError) as error:
        world.write(statement, **given)
    return str(error.value.diag.constraint_name)


def test_no_repetition_leaves_where_something_is_outstanding(world: World) -> None:
    """Only a first dispatch was refused: one without an answer was sent again beside what was found meanwhile."""
    running(world, "A", "B")
    before = world.operation("A")
    engine_says(world, "A", "completed")
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    later = world.operation("A")
    assert later.state == "failed_retryable"
    found(world, before.id, "A-99")
    assert refused(world, REPEATS, id=later.id, key=later.dispatch_key) == "apply_operations_begin_nothing"
    world.write(
        "UPDATE outstanding_calls SET settled_at = tern_clock(), settled_as = 'said', next_look_at = NULL"
    )
    world.write(REPEATS, id=later.id, key=later.dispatch_key)


@pytest.mark.parametrize("names", [("A",), ("A", "B")])
def test_no_start_leaves_where_something_else_is_outstanding(world: World, names: tuple[str, ...]) -> None:
    """Its own job may be outstanding itself: that is what it is about."""
    ids = stopped(world, *names)
    row = world.operation("A")
    found(world, row.id, ids["A"])
    world.write(STARTS, id=row.id)
    world.write(
        "UPDATE apply_operations SET unanswered_call = '', unanswered_since = NULL WHERE id = :id", id=row.id
    )
    found(world, row.id, "A-99")
    assert refused(world, STARTS, id=row.id) == "apply_operations_begin_nothing"


def test_what_is_found_between_the_look_and_the_start_keeps_it_back(world: World) -> None:
    """Nothing is sent and nothing raised; it goes once that is settled."""
    stopped(world, "A", "B")
    row = world.operation("A")
    world.ask(Verb.START, "A")
    ports = meanwhile(world.ports, "resume", lambda: found(world, row.id, "A-99"))
    world.answer_bells(ports)
    assert methods(world, "A", {"Start"}) == []
    assert world.state("A") == "stopped"
    look_again(world)
    assert unsettled(world) == []
    look_again(world)
    assert (methods(world, "A", {"Start"}), world.state("A")) == (["Start"], "running")


KEY_IS_DEAD = (
    "UPDATE apply_operations SET dispatch_generation = dispatch_generation + 1, dispatch_key_is_dead = false,"
    " dispatch_key = NULL, dispatch_intent_at = NULL, state = 'pending', claim_token = NULL, claim_owner = NULL,"
    " claim_expires_at = NULL WHERE id = :id"
)
REFUSED = (
    "UPDATE apply_operations SET state = 'running' WHERE id = :id",
    (
        "UPDATE apply_operations SET state = 'failed', completed_at = tern_clock(), dispatch_key_is_dead = false,"
        " next_attempt_at = NULL, error_reason = 'REFUSED', claim_token = NULL, claim_owner = NULL,"
        " claim_expires_at = NULL WHERE id = :id"
    ),
)


@pytest.mark.parametrize("answer", [(KEY_IS_DEAD,), REFUSED], ids=["forbidden", "refused"])
def test_an_answer_that_a_worker_of_the_version_before_had_begins_the_count_anew(
    world: World, answer: tuple[str, ...]
) -> None:
    """It knows nothing of the count, by which a person may say that an engine is gone."""
    goes(world, "A")
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    pass_long(world)
    row = world.operation("A")
    assert row.unheard_tries >= GONE_AFTER_TRIES
    for statement in answer:
        world.write(statement, id=row.id)
    after = world.operation("A")
    assert (after.unheard_tries, after.unheard_since) == (0, None)

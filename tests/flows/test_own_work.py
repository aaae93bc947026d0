"""A look must be about our own work (G2, G10): what refutes it, what is held then, and every way out.

The engines are real gRPC servers; an address that has come to lead elsewhere is another one of them.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused, TryAgain, UsageError
from tern.domain.identity import RemoteId
from tern.domain.model import Action, PlannedChange
from tern.domain.selection import Selection
from tern.domain.states import State
from tern.domain.timing import RPC_DEADLINE_S
from tern.ports import Resolved
from tern.store.reading import Reading
from tern.store.sql import text
from tern.view import apply_view
from tests.faults.behaviour import fail, lose_answer
from tests.faults.fake_engine import FakeEngine
from tests.faults.fake_jobs import Job
from tests.flows.steps import (
    FORWARD,
    MANUAL,
    PARALLEL,
    drive,
    engine_says,
    look,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    waiting,
    wishes,
)
from tests.world import CHANGE, World

SERVER, OTHER_SERVER = "7401/16384", "7402/16384"
BEGAN, BEGAN_LATER = "2026-05-04T01:02:03Z", "2026-05-05T01:02:03Z"
INVOICES = ("public", "invoices", "ALTER TABLE invoices DROP COLUMN vat")
ORDERS = (CHANGE.namespace, CHANGE.table_name, CHANGE.ddl)
MakeWorld = Callable[..., World]


def job(world: World, name: str = "A") -> Job:
    return world.engines[name].job(str(world.remote_id(name)))


def engine_shows(world: World, *tables: tuple[str, str, str], name: str = "A", looks: bool = True) -> None:
    """The job of that id is about these tables now, and somebody looks."""
    job(world, name).tables = tables
    job(world, name).revision += 1
    if looks:
        look(world, name)


def foreign(world: World, name: str = "A") -> str:
    """Running everywhere, and then A's id turns out to be other work's; the id."""
    ids = running(world, "A", "B")
    engine_shows(world, INVOICES, name=name)
    assert world.state(name) == "uncertain"
    return ids[name]


def explained(world: World, name: str = "A") -> list[str]:
    """The commands that explain prints for the deployment."""
    view = apply_view(Reading(world.database).apply(world.last))
    return [each.command for each in view.blockers if each.deployment == name]


def answers(world: World, *words: str) -> list[str]:
    """The command of each answer that fits."""
    return [f"tern resolve {world.name('A')} --as {each} --reason '…'" for each in words]


def test_an_address_that_leads_to_another_engine_which_knows_the_id(world: World) -> None:
    """The one at the new address is through with work of its own: nothing of it is ours, and nothing is sent there."""
    ids = running(world, "A", "B")
    with FakeEngine("A") as other:
        its_own = replace(job(world), tables=(INVOICES,), state="completed")
        other.jobs.by_id[ids["A"]] = its_own
        world.write("UPDATE deployments SET address = :address WHERE name = 'A'", address=other.address)
        # Its revision may be the one that is known here; each half minute is read in full.
        world.pass_time(31)
        world.sweep()
        operation = world.operation("A")
        assert (operation.state, operation.error_reason, operation.doubt) == (
            "uncertain",
            "FOREIGN_WORK",
            "foreign",
        )
        assert "public.invoices" in operation.error_message
        assert operation.completed_at is None
        world.ask(Verb.STOP, "A")
        world.run(until=lambda: world.delivery("A", Verb.STOP).engine_words != "", rounds=5)
        world.pass_time(60)
        world.sweep()
        assert not [call for call in other.calls() if call.method in FORWARD | {"Stop", "Cancel"}]
        assert open_wishes(world) == [("A", "stop", "pending")]
        assert world.state("B") == "running"
    world.write(
        "UPDATE deployments SET address = :address WHERE name = 'A'", address=world.engines["A"].address
    )
    world.pass_time(30)
    settle(world)
    assert (world.state("A"), world.operation("A").doubt) == ("stopped", "")
    assert methods(world, "A") == ["Apply", "Stop"]


@pytest.mark.parametrize("offers", [True, False])
def test_an_engine_that_names_another_database_is_another_engine(make_world: MakeWorld, offers: bool) -> None:  # noqa: FBT001
    """The one metadata of a batch counts for each of its entries; single looks bring their own."""
    world = make_world("A", "B", offers_engine_service=offers, identity=SERVER)
    running(world, "A", "B", policy=PARALLEL)
    assert world.operation("A").remote_identity == SERVER
    world.engines["A"].identity = OTHER_SERVER
    engine_says(world, "A", "completed")
    assert (world.state("A"), world.operation("A").remote_identity) == ("uncertain", SERVER)
    assert OTHER_SERVER in world.operation("A").error_message
    world.engines["A"].identity = ""
    look(world, "A")
    assert world.state("A") == "completed", "without it this is left out, and the tables are ours"


def test_a_job_that_began_at_another_time_is_another_job(world: World) -> None:
    """The engine lost its memory and counts from one again."""
    running(world, "A", "B")
    job(world).started_at = BEGAN
    engine_says(world, "A", "running")
    assert world.operation("A").remote_started_at == BEGAN
    job(world).started_at = BEGAN_LATER
    engine_says(world, "A", "completed")
    assert world.state("A") == "uncertain"
    assert world.operation("A").remote_started_at == BEGAN
    job(world).started_at = "2026-05-04T03:02:03+02:00"
    look(world, "A")
    assert world.state("A") == "completed"


def test_the_first_look_is_kept_and_a_refuted_one_is_not(world: World) -> None:
    running(world, "A", "B")
    job(world).started_at, world.engines["A"].identity = BEGAN_LATER, OTHER_SERVER
    engine_shows(world, INVOICES)
    kept = world.operation("A")
    assert (kept.state, kept.remote_started_at, kept.remote_identity) == ("uncertain", "", "")
    job(world).started_at, world.engines["A"].identity = BEGAN, SERVER
    engine_shows(world, ORDERS)
    kept = world.operation("A")
    assert (kept.state, kept.remote_started_at, kept.remote_identity) == ("running", BEGAN, SERVER)


def test_a_look_that_is_about_our_work_ends_the_doubt_and_what_was_held_goes_out(world: World) -> None:
    remote_id = foreign(world)
    assert world.ask(Verb.STOP, "A").lines[0].outcome is Receipt.ACCEPTED
    world.answer_bells()
    world.pass_time(60)
    world.sweep()
    assert methods(world, "A") == ["Apply"]
    assert "--although-foreign" in world.delivery("A", Verb.STOP).engine_words
    engine_shows(world, ORDERS)
    settle(world)
    assert (world.state("A"), world.operation("A").error_reason) == ("stopped", "")
    assert [call.remote_id for call in world.engines["A"].calls("Stop")] == [remote_id]


def test_a_look_that_shows_nothing_leaves_the_doubt(world: World) -> None:
    """G10: the foreign job is through and names no tables any more; that is not ours completed."""
    foreign(world)
    engine_shows(world, looks=False)
    engine_says(world, "A", "completed")
    assert (world.state("A"), world.operation("A").doubt) == ("uncertain", "foreign")
    assert world.operation("A").completed_at is None


@pytest.mark.parametrize("state", ["waiting_for_cutover", "stopped", "running"])
def test_a_refuted_look_takes_nothing_over(world: World, state: str) -> None:
    """Neither rows nor summary nor cursor, whatever the operation is just doing."""
    policy = MANUAL if state == "waiting_for_cutover" else PARALLEL
    {"waiting_for_cutover": waiting, "stopped": stopped, "running": running}[state](
        world, "A", "B", policy=policy
    )
    before = world.operation("A")
    engine_shows(world, INVOICES, looks=False)
    engine_says(world, "A", "completed")
    after = world.operation("A")
    assert (after.state, after.summary, after.progress_revision) == ("uncertain", before.summary, 0)
    assert after.sampled_at == before.sampled_at
    assert after.fence > before.fence
    assert [event.event for event in world.events("A")].count("lose_track") == 1
    look(world, "A")
    assert [event.event for event in world.events("A")].count("lose_track") == 1, "told once"


def test_one_that_is_uncertain_already_comes_into_doubt(world: World) -> None:
    running(world, "A", "B")
    known = world.engines["A"].jobs.by_id.pop(str(world.remote_id("A")))
    look(world, "A")
    assert world.operation("A").error_reason == "REMOTE_ID_UNKNOWN"
    world.engines["A"].jobs.by_id[known.remote_id] = known
    engine_shows(world, INVOICES)
    operation = world.operation("A")
    assert (operation.state, operation.error_reason, operation.doubt) == (
        "uncertain",
        "FOREIGN_WORK",
        "foreign",
    )
    assert "in_doubt" in [event.event for event in world.events("A")]


def test_a_cutover_that_is_just_being_made_is_not_made(world: World) -> None:
    """G2: the look that shows other work comes between the claim and the call."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()
    drive(
        world,
        Verb.CUTOVER,
        "A",
        meanwhile(world.ports, "may_go_forward", lambda: engine_shows(world, INVOICES)),
    )
    assert world.state("A") == "uncertain"
    assert "Cutover" not in methods(world, "A")


@pytest.mark.parametrize("verb", [Verb.START, Verb.CUTOVER, Verb.REVERT, Verb.SKIP_REVERT, Verb.VOLUME])
def test_forward_wishes_are_refused_with_the_ways_out(world: World, verb: Verb) -> None:
    remote_id = foreign(world)
    (line,) = world.ask(verb, "A", volume=3 if verb is Verb.VOLUME else None).lines
    assert line.outcome is Receipt.REFUSED
    assert f"tern resolve {world.name('A')} --as same-work" in line.reason
    assert remote_id in line.reason


@pytest.mark.parametrize("shown", ["stopped", "running"])
def test_a_start_is_not_sent_to_other_work(world: World, shown: str) -> None:
    """The look before it is the first that shows what the id leads to now."""
    stopped(world, "A", "B")
    engine_shows(world, INVOICES, looks=False)
    engine_says(world, "A", shown, looks=False)
    world.ask(Verb.START, "A")
    world.answer_bells()
    assert (world.state("A"), world.operation("A").doubt) == ("uncertain", "foreign")
    assert methods(world, "A") == ["Apply", "Stop"]
    engine_shows(world, ORDERS, looks=False)
    engine_says(world, "A", "stopped")
    settle(world)
    assert world.state("A") == "running"
    assert methods(world, "A") == ["Apply", "Stop", "Start"]


# The ways out


def test_explain_prints_commands_that_work_now(world: World) -> None:
    remote_id = foreign(world)
    *resolve, stop = explained(world)
    assert resolve == answers(world, "same-work", "ended", "completed")
    assert stop == f"tern stop {world.name('A')} --although-foreign={remote_id} --reason '…'"
    view = apply_view(Reading(world.database).apply(world.last))
    (hold,) = view.operation("A").holds
    assert "public.invoices" in hold.detail
    assert "--as same-work" in hold.detail
    assert not view.operation("A").moves_by_itself


def test_a_person_says_that_it_is_the_same_work(world: World) -> None:
    """After that its looks and its controls count, and the first look is what later ones are compared with."""
    remote_id = foreign(world)
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    world.resolve("A", Resolved.SAME_WORK, why="they renamed the table by hand")
    operation = world.operation("A")
    assert (operation.state, operation.doubt, operation.error_reason) == ("uncertain", "", "")
    assert operation.same_work_at is not None
    job(world).started_at = BEGAN
    settle(world)
    assert (world.state("A"), world.operation("A").remote_started_at) == ("stopped", BEGAN)
    assert [call.remote_id for call in world.engines["A"].calls("Stop")] == [remote_id]
    world.ask(Verb.START, "A")
    settle(world)
    engine_says(world, "A", "completed")
    assert world.state("A") == "completed"


def test_the_word_of_a_person_holds_for_the_job_that_they_saw(world: World) -> None:
    foreign(world)
    world.resolve("A", Resolved.SAME_WORK)
    job(world).started_at = BEGAN
    engine_says(world, "A", "running")
    job(world).started_at = BEGAN_LATER
    engine_says(world, "A", "completed")
    assert (world.state("A"), world.operation("A").doubt) == ("uncertain", "foreign")


def test_same_work_is_no_answer_where_nothing_is_in_doubt(world: World) -> None:
    running(world, "A", "B")
    world.engines["A"].jobs.by_id.pop(str(world.remote_id("A")))
    look(world, "A")
    with pytest.raises(Refused) as refusal:
        world.resolve("A", Resolved.SAME_WORK)
    assert refusal.value.reason == "NOT_IN_DOUBT"
    assert explained(world) == answers(world, "ended", "completed")
    world.resolve("A", Resolved.ENDED)
    assert world.state("A") == "failed"


def test_of_an_id_that_was_given_out_twice_only_a_person_says_whose_it_is(world: World) -> None:
    """No look ends that doubt, however much it is about our work, and no halt may name the id."""
    ids = running(world, "A", "B")
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', doubt = 'taken', next_attempt_at = NULL"
        " WHERE deployment = 'A'"
    )
    engine_says(world, "A", "completed")
    assert (world.state("A"), world.operation("A").doubt) == ("uncertain", "taken")
    (line,) = world.ask_for(Verb.STOP, Selection(("A",)), although_foreign=ids["A"]).lines
    assert line.outcome is Receipt.REFUSED
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert methods(world, "A") == ["Apply"]
    assert explained(world) == answers(world, "same-work", "ended", "completed")
    world.resolve("A", Resolved.SAME_WORK)
    look(world, "A")
    assert (world.state("A"), world.operation("A").doubt) == ("completed", "")


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
def test_a_foreign_job_is_halted_for_who_names_it(world: World, verb: Verb) -> None:
    """With its own id; what comes of it there is told, and says nothing about our own work."""
    remote_id = foreign(world)
    (line,) = world.ask_for(verb, Selection(("A",)), although_foreign=remote_id).lines
    assert line.outcome is Receipt.ACCEPTED
    settle(world)
    method = verb.value.capitalize()
    assert [call.remote_id for call in world.engines["A"].calls(method)] == [remote_id]
    delivery = world.delivery("A", verb)
    assert delivery.state == "acknowledged"
    assert "other work" in delivery.engine_words
    assert (world.state("A"), world.operation("A").doubt) == ("uncertain", "foreign")
    world.resolve("A", Resolved.ENDED)
    assert world.state("A") == "failed"


def test_a_stop_that_is_held_goes_out_once_the_id_is_named(world: World) -> None:
    """Pressed first without: the second is no second wish, and not answered with 'on its way' either."""
    remote_id = foreign(world)
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert open_wishes(world) == [("A", "stop", "pending")]
    receipt = world.ask_for(Verb.STOP, Selection(("A",)), although_foreign=remote_id)
    assert receipt.lines[0].outcome is Receipt.ACCEPTED
    assert receipt.due
    settle(world)
    assert wishes(world) == [("A", "stop", "acknowledged")]
    assert methods(world, "A") == ["Apply", "Stop"]


def test_naming_the_id_does_not_wait_for_a_driver_that_has_the_wish(world: World) -> None:
    """ST11: the row of the delivery is locked by somebody who is frozen."""
    remote_id = foreign(world)
    world.ask(Verb.STOP, "A")
    with world.database.begin() as tx:
        tx.execute(text("SELECT 1 FROM control_deliveries FOR UPDATE"))
        (line,) = world.ask_for(Verb.STOP, Selection(("A",)), although_foreign=remote_id).lines
        assert line.outcome is Receipt.ALREADY
    (line,) = world.ask_for(Verb.STOP, Selection(("A",)), although_foreign=remote_id).lines
    assert line.outcome is Receipt.ACCEPTED


@pytest.mark.parametrize("named", ["R-9", "another"])
def test_another_id_than_its_own_halts_nothing(world: World, named: str) -> None:
    remote_id = foreign(world)
    (line,) = world.ask_for(Verb.STOP, Selection(("A",)), although_foreign=named).lines
    assert (line.outcome, remote_id in line.reason) == (Receipt.REFUSED, True)
    assert not wishes(world)


def test_where_nothing_is_foreign_no_id_is_named(world: World) -> None:
    ids = running(world, "A", "B")
    (line,) = world.ask_for(Verb.STOP, Selection(("A",)), although_foreign=ids["A"]).lines
    assert line.outcome is Receipt.REFUSED
    foreign_ids = world.ask_for(Verb.STOP, Selection(("B",)), although_foreign=ids["A"])
    assert foreign_ids.lines[0].outcome is Receipt.REFUSED
    with pytest.raises(UsageError):
        world.ask_for(Verb.START, Selection(("A",)), although_foreign=ids["A"])


# What an engine says in other words, and an id that comes again


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        (("ALTER TABLE orders ADD a int", "ALTER TABLE orders ADD b int"),
         ("orders", "ALTER TABLE public.orders ADD COLUMN a integer, ADD COLUMN b integer")),
        (("ALTER TABLE orders RENAME TO sales",), ("sales", "")),
        (("CREATE INDEX by_note ON orders (note)",), ("by_note", "CREATE INDEX CONCURRENTLY by_note ON orders (note)")),
        (("ALTER TABLE orders ADD a int",), ("orders", "in progress: 3 of 4 chunks")),
        (("ALTER TABLE orders ADD a int",), None),
    ],
)  # fmt: skip
def test_what_is_ours_in_other_words_is_ours(
    world: World, changes: tuple[str, ...], shown: tuple[str, str] | None
) -> None:
    world.apply(
        "A",
        "B",
        policy=PARALLEL,
        allow_unsafe=True,
        changes=[PlannedChange("public", "orders", ddl, Action.ALTER) for ddl in changes],
    )
    world.answer_bells()
    engine_shows(world, *[("", *shown)] if shown else [], looks=False)
    engine_says(world, "A", "completed")
    assert world.state("A") == "completed"


def again(world: World, state: str = "running") -> str:
    """A second rollout to A, and its engine, which has lost its memory, gives it the id of the first; the id."""
    first = running(world, "A", "B")
    job(world).started_at = BEGAN
    for name in ("A", "B"):
        engine_says(world, name, "completed")
    assert world.operation("A").remote_started_at == BEGAN
    old = world.engines["A"].jobs.by_id.pop(first["A"])
    world.engines["A"].jobs.by_key.clear()
    world.apply(
        "A",
        "B",
        policy=PARALLEL,
        changes=[PlannedChange("public", "orders", "ALTER TABLE orders ADD n int", Action.ALTER)],
    )
    world.answer_bells()
    assert world.remote_id("A") == old.remote_id
    engine_says(world, "A", state, looks=False)
    return old.remote_id


def test_the_id_of_finished_work_counts_only_with_our_statements_or_a_new_beginning(world: World) -> None:
    again(world)
    job(world).started_at = BEGAN
    world.write(
        "UPDATE apply_operations SET sampled_at = NULL WHERE completed_at IS NULL AND deployment = 'A'"
    )
    job(world).tables = (("public", "orders", ""),)
    engine_says(world, "A", "completed")
    assert world.operation("A").doubt == "foreign"
    assert "finished" in world.operation("A").error_message
    job(world).started_at = BEGAN_LATER
    look(world, "A")
    assert world.state("A") == "completed"


def test_the_id_of_finished_work_counts_where_our_statements_are_named(world: World) -> None:
    again(world, "completed")
    job(world).started_at = BEGAN
    look(world, "A")
    assert world.state("A") == "completed"


def test_the_id_of_finished_work_is_known_again_at_every_name_of_its_engine(make_world: MakeWorld) -> None:
    """Ids are an engine's and not a deployment's: the finished work was at another name of the same place."""
    world = make_world("A")
    world.engines["B"] = world.engines["A"]
    world.add("B", world.engines["A"].address, 1, offers=True)
    running(world, "A")
    job(world).started_at = BEGAN
    engine_says(world, "A", "completed")
    finished = world.remote_id("A")
    world.engines["A"].forget()
    world.apply("B", policy=PARALLEL)
    world.answer_bells()
    assert world.remote_id("B") == finished
    job(world, "B").started_at = BEGAN
    world.write("UPDATE apply_operations SET sampled_at = NULL WHERE completed_at IS NULL")
    engine_shows(world, ("public", "orders", ""), name="B")
    assert (world.state("B"), world.operation("B").doubt) == ("uncertain", "foreign")
    assert "finished" in world.operation("B").error_message
    job(world, "B").started_at = BEGAN_LATER
    look(world, "B")
    assert world.state("B") == "running"


# A remote id given by a person is asked about first


def lost(world: World) -> str:
    """A's answer got lost and nobody can tell; the id that its engine gave to the work."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL"
        " WHERE deployment = 'A' AND completed_at IS NULL"
    )
    world.pass_time(RPC_DEADLINE_S)
    return next(iter(world.engines["A"].jobs.by_id))


def test_a_typo_is_no_id(world: World) -> None:
    lost(world)
    with pytest.raises(Refused, match="does not know it") as refusal:
        world.resolve("A", Resolved.REMOTE_ID, "TYPO")
    assert refusal.value.reason == "REMOTE_ID_UNKNOWN"
    assert (world.state("A"), world.remote_id("A")) == ("uncertain", None)


def test_the_id_of_other_work_is_refused_with_what_was_seen(world: World) -> None:
    remote_id = lost(world)
    world.engines["A"].job(remote_id).tables = (INVOICES,)
    with pytest.raises(Refused, match=r"public\.invoices") as refusal:
        world.resolve("A", Resolved.REMOTE_ID, remote_id)
    assert refusal.value.reason == "FOREIGN_WORK"
    assert world.remote_id("A") is None


def test_without_an_answer_nothing_is_believed(world: World) -> None:
    remote_id = lost(world)
    world.engines["A"].script("Progress", fail("UNAVAILABLE"))
    with pytest.raises(TryAgain, match="could not be asked"):
        world.resolve("A", Resolved.REMOTE_ID, remote_id)
    assert world.remote_id("A") is None
    world.engines["A"].job(remote_id).operation = "apl-other/A"
    with pytest.raises(Refused, match="refuses to speak") as refusal:
        world.resolve("A", Resolved.REMOTE_ID, remote_id)
    assert refusal.value.reason == "OPERATION_MISMATCH"
    assert world.remote_id("A") is None


def test_what_was_seen_of_it_is_kept_with_it(world: World) -> None:
    remote_id = lost(world)
    world.engines["A"].identity = SERVER
    world.engines["A"].job(remote_id).started_at = BEGAN
    world.resolve("A", Resolved.REMOTE_ID, remote_id)
    kept = world.operation("A")
    assert (kept.state, kept.remote_identity, kept.remote_started_at) == ("running", SERVER, BEGAN)
    assert world.remote_id("A") == remote_id


def test_the_engine_is_asked_outside_of_any_transaction_and_the_facts_are_looked_at_again(
    world: World,
) -> None:
    """Between the answer and the storing another person answers: the first one wins, and the second is told."""
    remote_id = lost(world)

    def overtake() -> None:
        world.write("UPDATE apply_operations SET fence = fence + 1 WHERE deployment = 'A'")

    world.ports = meanwhile(world.ports, "resolve_uncertain", overtake)
    with pytest.raises(Refused) as refusal:
        world.resolve("A", Resolved.REMOTE_ID, remote_id)
    assert refusal.value.reason == "OVERTAKEN"
    assert world.remote_id("A") is None


def test_no_door_stores_an_id_that_nobody_asked_about(world: World) -> None:
    """The store itself refuses it (G2)."""
    remote_id = lost(world)
    with pytest.raises(Refused) as refusal:
        world.store.resolve_uncertain(
            world.name("A"), Resolved.REMOTE_ID, RemoteId(remote_id), "eve", "I looked"
        )
    assert refusal.value.reason == "REMOTE_ID_NOT_SEEN"
    assert world.state("A") == State.UNCERTAIN

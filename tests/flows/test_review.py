"""What was reviewed is what is rolled out, and what every engine foretells is known before anything begins."""

import pytest
from google.protobuf.message import Message

from tern.domain.choice import Choice
from tern.domain.control import Verb
from tern.domain.drift import Foretold, ForetoldChange, Look
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import Refused
from tern.domain.identity import PlanId
from tern.domain.model import Plan, ReviewedTarget
from tern.domain.policy import Copy, Policy
from tern.flows.accept import enqueue
from tern.ports import Enqueued
from tern.store.sql import text
from tests.faults.behaviour import Turn, answer, behave, fail
from tests.flows.steps import running, settle
from tests.world import CHANGE, World

ADDS = {
    "namespace": "public",
    "table": "orders",
    "recipe": "add_column",
    "change_class": "CHANGE_CLASS_METADATA",
}
SCANS = {**ADDS, "recipe": "validate", "change_class": "CHANGE_CLASS_SCAN"}
REFUSED = {**ADDS, "refused": True, "refused_reason": "DDL_INVALID: column note is there already"}


def reviewed(world: World, *names: str, policy: Policy | None = None) -> Plan:
    """A plan that was made for these targets."""
    known = {each.name: each for each in world.store.load_deployments()}
    return world.store.save_plan(
        environment="test",
        database="shop",
        database_type="postgres",
        changes=(CHANGE,),
        caller="ann",
        targets=[ReviewedTarget(name, known[name].address, known[name].target) for name in names],
        policy=policy,
    )


def ask(world: World, change: PlanId | NewChange, *names: str, key: str = "k", **more: object) -> Enqueued:
    asked = Enqueue(change, Choice(names), caller="bob", reason="because", key=key, **more)  # type: ignore[arg-type]
    return enqueue(asked, world.ports)


def new() -> NewChange:
    return NewChange("test", "shop", "postgres", (CHANGE,))


def applies(world: World) -> int:
    return int(world.one("SELECT count(*) AS n FROM applies").n)


def test_a_reviewed_plan_needs_neither_targets_nor_policy(world: World) -> None:
    plan = reviewed(world, "B", "A", policy=Policy(copy=Copy.PARALLEL))
    done = ask(world, plan.plan_id, digest=plan.digest)
    assert done.deployments == ("B", "A")
    assert done.policy == Policy(copy=Copy.PARALLEL)
    assert ask(world, plan.plan_id, digest=plan.digest).apply_id == done.apply_id


@pytest.mark.parametrize(
    ("names", "more", "word"),
    [
        (("A",), {}, "B was reviewed and is left out"),
        (("A", "B", "C"), {}, "C was not reviewed"),
        (("B", "A"), {}, "the order is B, A"),
        ((), {"policy": Policy(max_failures=1)}, "policy max_failures: 1 asked for, 0 reviewed"),
        ((), {"digest": "f" * 64}, "the digest of"),
    ],
)
def test_another_rollout_than_the_reviewed_one_is_refused(
    names: tuple[str, ...], more: dict[str, object], word: str, world: World
) -> None:
    plan = reviewed(world, "A", "B", policy=Policy())
    with pytest.raises(Refused) as refused:
        ask(world, plan.plan_id, *names, **more)
    assert refused.value.reason == "PLAN_DIFFERS"
    assert any(word in each for each in refused.value.why)
    assert applies(world) == 0


def test_a_target_that_moved_since_its_review_is_refused(world: World) -> None:
    plan = reviewed(world, "A", "B")
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:9' WHERE name = 'B'")
    with pytest.raises(Refused, match="the engine of B is grpc:"):
        ask(world, plan.plan_id)


def test_the_store_itself_refuses_what_was_not_reviewed(world: World) -> None:
    """Whoever comes past the flow, or between its look and the write."""
    plan = reviewed(world, "A", "B")
    from tern.ports import NewApply  # noqa: PLC0415

    request = NewApply(plan.plan_id, "test", ("A",), Policy(), "bob", "because", "k")
    with pytest.raises(Refused, match="B was reviewed and is left out"):
        world.store.accept_apply(request)


def test_plans_of_other_targets_or_policy_are_other_plans(world: World) -> None:
    plans = [
        reviewed(world),
        reviewed(world, "A"),
        reviewed(world, "A", "B"),
        reviewed(world, "A", "B", policy=Policy()),
        reviewed(world, "A", "B"),
    ]
    assert len({plan.digest for plan in plans}) == len({plan.plan_id for plan in plans}) == 4


def test_every_engine_is_asked_before_anything_is_written(world: World) -> None:
    """One refuses: no apply, no operation, and nothing was begun anywhere."""
    world.engines["B"].always("Preview", answer(changes=[REFUSED]))
    with pytest.raises(Refused) as refused:
        ask(world, new(), "A", "B", "C")
    assert refused.value.reason == "PREVIEW_REFUSED"
    assert "column note is there already" in refused.value.why[0]
    assert all(len(engine.calls("Preview")) == 1 for engine in world.engines.values())
    assert all(not engine.calls("Apply") for engine in world.engines.values())
    assert applies(world) == 0


def test_an_engine_that_can_t_be_asked_is_said(world: World) -> None:
    world.engines["B"].always("Preview", fail("UNAVAILABLE", message="asleep"))
    with pytest.raises(Refused) as refused:
        ask(world, new(), "A", "B")
    assert (refused.value.reason, "asleep" in refused.value.why[0]) == ("ENGINE_UNREACHABLE", True)
    done = ask(world, new(), "A", "B", accept_drift=True)
    assert ["asleep" in words for words in done.warnings] == [True]


def test_a_dearer_change_than_was_reviewed_is_refused(world: World) -> None:
    plan = reviewed(world, "A", "B")
    world.engines["B"].always("Preview", answer(changes=[SCANS]))
    cheap = ForetoldChange("public", "orders", "metadata", "add_column")
    told = [Foretold(name, Look.PREVIEWED, changes=(cheap,)) for name in ("A", "B")]
    world.store.record_previews(plan.plan_id, told, "ann")
    world.engines["A"].always("Preview", answer(changes=[ADDS]))
    with pytest.raises(Refused) as refused:
        ask(world, plan.plan_id)
    assert refused.value.reason == "DRIFTED"
    assert refused.value.why == ("B: change 1 was reviewed as add_column (metadata), now validate (scan)",)
    world.last = ask(world, plan.plan_id, accept_drift=True).apply_id
    world.ask(Verb.CANCEL)
    settle(world)
    assert world.apply_row().state == "cancelled"
    # What a rollout was told, and somebody agreed to for it, is no review: the next one is asked the same again.
    with pytest.raises(Refused) as again:
        ask(world, plan.plan_id, key="k2")
    assert (again.value.reason, again.value.why) == (refused.value.reason, refused.value.why)


def test_what_was_foretold_is_kept_with_the_rollout(world: World) -> None:
    for name, told in (("A", ADDS), ("B", SCANS), ("C", ADDS)):
        world.engines[name].always("Preview", answer(changes=[told]))
    done = ask(world, new(), "A", "B", "C")
    assert [words.split(":")[0] for words in done.warnings] == ["B"]
    with world.database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT v.deployment, v.outcome, v.drift FROM previews v JOIN applies a ON a.id = v.apply_id"
                " WHERE a.apply_identifier = :id ORDER BY v.deployment"
            ),
            {"id": done.apply_id},
        ).all()
    assert [(row.deployment, row.outcome, len(row.drift)) for row in rows] == [
        ("A", "previewed", 0),
        ("B", "previewed", 1),
        ("C", "previewed", 0),
    ]


def test_what_an_engine_offers_is_asked_again_at_each_apply(world: World) -> None:
    """G4: written down as found, never as declared; one that is silent leaves the finding, marked old."""
    world.undeclared()
    world.engines["A"].offer(engine_service=False, deduplicates=False)
    world.engines["B"].always("Preview", fail("UNAVAILABLE"))
    ask(world, new(), "A", "B", "C", accept_drift=True)
    found = {each.name: each for each in world.store.load_deployments()}
    assert {name: each.capabilities.resolve for name, each in found.items()} == {
        "A": False,
        "B": True,
        "C": True,
    }
    assert {name: each.probe_is_old for name, each in found.items()} == {"A": False, "B": True, "C": False}
    assert not any(each.idempotent_dispatch for each in found.values())


def test_without_previews_that_is_kept_too(world: World) -> None:
    done = ask(world, new(), "A", previews=False)
    assert world.engines["A"].calls("Preview") == []
    assert world.one("SELECT outcome FROM previews").outcome == "not_asked"
    assert done.warnings == ("A was not previewed: the request said not to ask",)


def test_a_repeated_request_asks_nobody_again(world: World) -> None:
    first = ask(world, new(), "A")
    world.engines["A"].always("Preview", answer(changes=[REFUSED]))
    assert ask(world, new(), "A").apply_id == first.apply_id
    assert len(world.engines["A"].calls("Preview")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE table_changes SET ddl = 'DROP TABLE orders'",
        "UPDATE table_changes SET namespace = 'other'",
        "UPDATE table_changes SET action = 'drop'",
        "DELETE FROM table_changes WHERE ordinal = 1",
        "UPDATE apply_operations SET target = 'elsewhere'",
        "UPDATE apply_operations SET change_digest = 'f'",
        "UPDATE applies SET options = options || '{\"allow_unsafe\": true}'",
    ],
)
def test_what_is_about_to_be_sent_is_compared_with_what_was_accepted(statement: str, world: World) -> None:
    """G7: changed behind the guards between accepting and dispatching; nothing is sent, and it is said why."""
    second = CHANGE.__class__("public", "orders", "ALTER TABLE orders ADD COLUMN more text", CHANGE.action)
    world.apply("A", changes=(CHANGE, second))
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text(statement.replace(":", "\\:")))
    world.answer_bells()
    assert world.engines["A"].calls("Apply") == []
    row = world.operation("A")
    assert (row.state, row.error_reason) == ("failed", "CHANGE_DIFFERS")
    assert "nothing was sent" in row.error_message
    assert world.apply_row().state == "failed"


def test_a_dispatched_operation_is_stopped_whatever_its_rows_say(world: World) -> None:
    """G9: a halt never fails on what only a dispatch has to compare."""
    running(world, "A")
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("UPDATE table_changes SET ddl = 'DROP TABLE orders'"))
    world.ask(Verb.STOP, "A")
    settle(world)
    assert world.state("A") == "stopped"


def test_a_request_whose_twin_came_in_while_engines_were_asked_is_the_twin_s_apply(world: World) -> None:
    first: list[Enqueued] = []

    def twin(turn: Turn) -> Message:
        # The other one is through before this engine answers, which then finds the column there already.
        first.append(ask(world, new(), "A"))
        return turn.answer_type(changes=[REFUSED])

    world.engines["A"].script("Preview", twin, behave())
    second = ask(world, new(), "A")
    assert (second.apply_id, second.is_new) == (first[0].apply_id, False)
    assert applies(world) == 1


def test_the_newest_review_is_the_one_that_counts(world: World) -> None:
    """A plan that was looked at again was agreed to as it was told the last time, not the first."""
    plan = world.store.save_plan(
        environment="test", database="shop", database_type="postgres", changes=(CHANGE,), caller="ann"
    )
    for words in ("the first", "the second", "the third"):
        for name in ("A", "B"):
            told = Foretold(name, Look.PREVIEWED, f"{words} for {name}")
            world.store.record_previews(plan.plan_id, [told], "ann")
    found = world.store.reviewed_previews(plan.plan_id, ["A", "B", "C"])
    assert {name: each.words for name, each in found.items()} == {
        "A": "the third for A",
        "B": "the third for B",
    }

"""Taking in a rollout: once per key, one live change per target, every reason at once (ID1, RA1, G13, G15)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.identity import ApplyId, PlanId
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Copy, Policy
from tern.doors.request import EnqueueRequest
from tern.ports import AcceptedApply, NewApply
from tern.store.sql import text
from tests.world import CHANGE, World

MakeWorld = Callable[..., World]
UNSAFE = replace(CHANGE, unsafe_reason="it drops a column")


def request(world: World, *deployments: str, key: str = "k1", change: PlannedChange = CHANGE) -> NewApply:
    plan = world.store.save_plan(
        environment="test", database="shop", database_type="postgres", changes=(change,), caller="ann"
    )
    return NewApply(plan.plan_id, "test", deployments, Policy(), "ann", "because", key)


def counted(world: World) -> tuple[int, ...]:
    row = world.one(
        "SELECT (SELECT count(*) FROM applies) AS a, (SELECT count(*) FROM apply_operations) AS o,"
        " (SELECT count(*) FROM table_changes) AS c, (SELECT count(*) FROM target_reservations) AS r,"
        " (SELECT count(*) FROM apply_events) AS e"
    )
    return (row.a, row.o, row.c, row.r, row.e)


def test_id1_the_same_key_and_body_is_the_same_apply(world: World) -> None:
    """ID1: the second enqueue gets the first one's id, and nothing is made twice."""
    new = request(world, "A", "B")
    first = world.store.accept_apply(new)
    before = counted(world)
    again = world.store.accept_apply(replace(new, caller="eve", reason="sent twice"))
    assert (first.is_new, again.is_new, again.apply_id) == (True, False, first.apply_id)
    assert counted(world) == before


def test_id1_the_same_key_is_answered_whatever_changed_since(world: World) -> None:
    """ID1: a repetition is not judged by today's register."""
    new = request(world, "A", "B")
    first = world.store.accept_apply(new)
    world.store.set_drained("A", drained=True)
    assert world.store.accept_apply(new).apply_id == first.apply_id


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"deployments": ("A", "C")}, "deployments"),
        ({"deployments": ("B", "A")}, "deployments"),
        ({"policy": Policy(copy=Copy.PARALLEL)}, "policy.copy"),
        ({"allow_unsafe": True}, "allow_unsafe"),
        ({"plan_id": PlanId("pln-0")}, "plan"),
    ],
)
def test_id1_another_body_is_refused_with_the_differences(
    world: World, change: dict[str, object], difference: str
) -> None:
    """ID1: the key belongs to something else, and the answer says what differs."""
    new = request(world, "A", "B")
    first = world.store.accept_apply(new)
    before = counted(world)
    with pytest.raises(Refused) as refusal:
        world.store.accept_apply(replace(new, **change))  # type: ignore[arg-type]
    assert refusal.value.reason == "KEY_REUSED"
    assert first.apply_id in refusal.value.what
    assert [why.partition(":")[0] for why in refusal.value.why] == [difference]
    assert counted(world) == before


def at_once(*calls: Callable[[], AcceptedApply]) -> list[AcceptedApply | Refused]:
    """All calls start at the same instant; their answers or refusals."""
    start = Barrier(len(calls))

    def run(call: Callable[[], AcceptedApply]) -> AcceptedApply | Refused:
        start.wait(10)
        try:
            return call()
        except Refused as refusal:
            return refusal

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def test_id1_the_same_key_at_the_same_instant(world: World) -> None:
    """ID1: one apply, and both callers learn its id."""
    for number in range(5):
        new = request(world, "A", "B", key=f"key-{number}")
        answers = at_once(*[lambda new=new: world.store.accept_apply(new)] * 4)
        accepted = [answer for answer in answers if isinstance(answer, AcceptedApply)]
        assert len(accepted) == 4, answers
        assert len({answer.apply_id for answer in accepted}) == 1
        assert sum(answer.is_new for answer in accepted) == 1
        world.last = accepted[0].apply_id
        cancel(world)


def cancel(world: World) -> None:
    world.ask(Verb.CANCEL)
    world.run(until=lambda: world.apply_row().state == "cancelled", step_s=6)


def test_ra1_overlapping_targets(world: World) -> None:
    """RA1, G13: {A,B} is live: {B,C} is refused with the holder's name and progress, {C} is fine."""
    live = world.apply("A", "B")
    before = counted(world)
    with pytest.raises(Refused) as refusal:
        world.store.accept_apply(request(world, "B", "C", key="k2"))
    assert refusal.value.reason == "TARGET_HELD"
    assert refusal.value.why == (f"B is held by {live}/B (pending); {live} is pending, 0 of 2 completed",)
    assert counted(world) == before
    assert world.store.accept_apply(request(world, "C", key="k3")).is_new


def test_ra1_overlapping_targets_at_the_same_instant(world: World) -> None:
    """RA1, G13: whoever comes second is refused; no deadlock, never both, never half of one."""
    for number in range(6):
        answers = at_once(
            lambda number=number: world.store.accept_apply(request(world, "A", "B", "C", key=f"x{number}")),
            lambda number=number: world.store.accept_apply(request(world, "C", "B", key=f"y{number}")),
        )
        accepted = [answer for answer in answers if isinstance(answer, AcceptedApply)]
        refused = [answer for answer in answers if isinstance(answer, Refused)]
        assert (len(accepted), len(refused)) == (1, 1), answers
        assert refused[0].reason == "TARGET_HELD"
        world.last = ApplyId(accepted[0].apply_id)
        cancel(world)


def test_ra1_a_settled_apply_holds_nothing(world: World) -> None:
    """G13: the verdict frees the targets in its own transaction."""
    world.apply("A")
    world.answer_bells()
    world.engines["A"].set_state("A-1", "completed")
    world.run(until=lambda: world.apply_row().state == "completed")
    assert world.store.accept_apply(request(world, "A", key="k2")).is_new


def test_another_database_or_environment_is_another_target(world: World) -> None:
    """G13: the reservation is for environment, database and deployment together."""
    world.apply("A")
    with world.database.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
                " SELECT 'test', 'other', 'A', id FROM applies UNION ALL"
                " SELECT 'other', 'shop', 'A', id FROM applies"
            )
        )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"deployments": ()}, "no deployment was chosen"),
        ({"deployments": ("A", "A")}, "deployment A is named twice"),
        ({"deployments": ("A", "Z")}, "there is no deployment 'Z'"),
        ({"deployments": ("A", "")}, "there is no deployment ''"),
        ({"reason": "  "}, "a rollout needs a reason"),
        ({"idempotency_key": ""}, "a rollout needs an idempotency key"),
        ({"environment": "production"}, "the plan is for environment test, not production"),
    ],
)
def test_a_bad_request_is_refused_and_writes_nothing(
    world: World, change: dict[str, object], why: str
) -> None:
    """G7: what can't be meant is not accepted in part."""
    new = replace(request(world, "A", "B"), **change)  # type: ignore[arg-type]
    before = counted(world)
    with pytest.raises(Refused) as refusal:
        world.store.accept_apply(new)
    assert why in refusal.value.why
    assert counted(world) == before


def test_every_reason_is_said_at_once(world: World) -> None:
    """One refusal lists all that is wrong, so that nobody has to find out one by one."""
    world.store.set_drained("B", drained=True)
    new = replace(request(world, "A", "B", "Z", change=UNSAFE), reason="", environment="production")
    with pytest.raises(Refused) as refusal:
        world.store.accept_apply(new)
    assert len(refusal.value.why) == 5
    assert "deployment B is drained" in refusal.value.why
    assert "unsafe without consent: orders: it drops a column" in refusal.value.why


def test_an_unsafe_change_with_consent(world: World) -> None:
    new = replace(request(world, "A", change=UNSAFE), allow_unsafe=True)
    assert world.store.accept_apply(new).is_new


def test_a_plan_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound):
        world.store.accept_apply(replace(request(world, "A"), plan_id=PlanId("pln-0")))


def test_a_plan_is_what_was_reviewed(world: World) -> None:
    """The same content is the same plan, other content another one, an empty one none."""
    one = request(world, "A").plan_id
    assert request(world, "A").plan_id == one
    other = PlannedChange("public", "items", "ALTER TABLE items ADD x int", Action.ALTER)
    assert request(world, "A", change=other).plan_id != one
    with pytest.raises(Refused):
        world.store.save_plan(
            environment="test", database="shop", database_type="postgres", changes=(), caller="ann"
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plan", 5),
        ("environment", 1),
        ("deployments", "AB"),
        ("deployments", ["A", 7]),
        ("deployments", {"A": 1}),
        ("policy", 5),
        ("policy", {"on_failur": "continue"}),
        ("policy", {"max_parallel": 1.5}),
        ("policy", {"max_failures": float("nan")}),
        ("caller", "a\x00b"),
        ("reason", "\ud800"),
        ("reason", 3),
        ("key", ["k"]),
        ("allow_unsafe", "false"),
        ("allow_unsafe", 1),
    ],
)
def test_a_message_of_other_types_is_refused_and_never_guessed_at(field: str, value: Any) -> None:
    """A text is no list of one-letter deployments, and the text "false" is no consent."""
    message: dict[str, Any] = {
        "plan": "pln-1",
        "environment": "test",
        "deployments": ["A", "B"],
        "policy": {"copy": "parallel"},
        "caller": "ann",
        "reason": "because",
        "key": "k1",
        "allow_unsafe": True,
    }
    assert EnqueueRequest.read(message).deployments == ("A", "B")
    with pytest.raises(UsageError):
        EnqueueRequest.read({**message, field: value})


def test_a_plan_that_no_engine_could_take_is_refused(world: World) -> None:
    """G7: an Apply larger than a message may be would be unanswered for ever."""
    huge = PlannedChange("public", "orders", f"COMMENT ON TABLE orders IS '{'x' * 1_000_000}'", Action.OTHER)
    with pytest.raises(Refused) as refusal:
        world.apply("A", changes=[huge])
    assert refusal.value.reason == "PLAN_TOO_LARGE"

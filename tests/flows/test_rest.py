"""Carrying on what is left of an apply, and never making live again what is carried on elsewhere."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from psycopg import Error

from tern.domain.control import Receipt, Verb
from tern.domain.effect import Effect
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.model import PlannedChange
from tern.domain.outcome import Ok
from tern.domain.outstanding import found_by_id
from tern.domain.policy import Copy, OnFailure, Policy, Wave
from tern.domain.rest import Rest
from tern.domain.rest_asked import NewRest
from tern.domain.samples import Sample, TableSample
from tern.domain.selection import Selection
from tern.domain.statement import StatementAnswer
from tern.domain.states import State
from tern.domain.work import Enqueued
from tern.flows.accept import settle_statements
from tern.flows.rest import send, show
from tern.ports import Looked, Poll
from tern.store.sql import text
from tests.faults.behaviour import not_accepted
from tests.flows.gone import comes_back, given_up, lines, look_again, unsettled
from tests.flows.steps import PARALLEL, settle
from tests.flows.test_effect import STATEMENTS, begun, told
from tests.invariants import assert_safe
from tests.store.conftest import waiting
from tests.world import World

ALL_FAIL = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)


def asked(world: World, *names: str, apply_id: ApplyId | None = None, **more: Any) -> NewRest:
    return NewRest(apply_id or world.last, Selection(names), "ann", **more)


def shown(world: World, *names: str, apply_id: ApplyId | None = None, **more: Any) -> Rest:
    return show(asked(world, *names, apply_id=apply_id, **more), world.ports)


def out(rest: Rest) -> dict[str, tuple[str, str]]:
    return {each.deployment: (each.why, each.command) for each in rest.left_out}


def sent(world: World, digest: str, *names: str, apply_id: ApplyId | None = None, **more: Any) -> Enqueued:
    """As the command line sends it: the digest is the key."""
    given = {"digest": digest, "reason": "the data is mended", "idempotency_key": f"rest {digest}", **more}
    return send(asked(world, *names, apply_id=apply_id, **given), world.ports)


def carried(world: World, *names: str, apply_id: ApplyId | None = None) -> ApplyId:
    """The only group that is left, carried on; the follow-up is the newest apply from then on."""
    (group,) = shown(world, *names, apply_id=apply_id).groups
    world.last = sent(world, group.digest, *names, apply_id=apply_id).apply_id
    return world.last


def half_done(world: World, *names: str) -> ApplyId:
    """The first of three is in, the second failed, the third was never begun."""
    world.apply(*(names or ("A",)), policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    for name in names or ("A",):
        told(world, State.FAILED, "completed", "failed", "pending", name=name)
    return world.last


def refused_operation(world: World) -> ApplyId:
    """Its engine refused it: failed, without an id, and it may be tried again."""
    world.engines["A"].script("Apply", not_accepted())
    return half_begun(world)


def half_begun(world: World) -> ApplyId:
    world.apply("A", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    assert world.state("A") == "failed"
    return world.last


def fates(world: World, name: str, apply_id: ApplyId) -> list[tuple[str, str, str]]:
    with world.database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT d.verb, d.state, d.engine_words FROM control_deliveries d"
                " JOIN apply_operations o ON o.id = d.operation_id JOIN applies a ON a.id = o.apply_id"
                " WHERE o.deployment = :name AND a.apply_identifier = :apply ORDER BY d.id"
            ),
            {"name": name, "apply": apply_id},
        )
        return [(row.verb, row.state, row.engine_words) for row in rows]


def test_what_is_left_is_shown_and_carried_on(world: World) -> None:
    """The plan is the rest of the first one, byte for byte, and what was done is in it no more."""
    source = half_done(world)
    (group,) = shown(world).groups
    assert (group.numbers, group.deployments) == ((2, 3), ("A",))
    assert group.changes == STATEMENTS[1:]
    assert not world.bells.queue
    follow_up = carried(world)
    assert follow_up != source
    world.answer_bells()
    job = world.engines["A"].job(str(world.remote_id("A")))
    assert [ddl for _, _, ddl in job.tables] == [each.ddl for each in STATEMENTS[1:]]
    told_of(world, follow_up, State.COMPLETED, "completed", "completed")
    assert world.apply_row().state == "completed"
    world.last = source
    assert out(shown(world)) == {"A": (f"it is carried on by {follow_up}/A, which has completed", "")}
    assert world.events("A")[-1].event == "carried_on"
    assert_safe(world)


def test_deployments_are_grouped_by_what_is_left_at_them(world: World) -> None:
    world.engines["C"].script("Apply", not_accepted())
    world.apply("A", "B", "C", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    told(world, State.FAILED, "completed", "failed", "pending", name="A")
    told(world, State.FAILED, "completed", "completed", "failed", name="B")
    rest = shown(world)
    assert [(group.numbers, group.deployments) for group in rest.groups] == [
        ((2, 3), ("A",)),
        ((3,), ("B",)),
        ((1, 2, 3), ("C",)),
    ]
    assert rest.left_out == ()
    assert len({group.digest for group in rest.groups}) == 3


def test_a_digest_of_another_group_sends_nothing(world: World) -> None:
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    told(world, State.FAILED, "completed", "failed", "pending", name="A")
    told(world, State.FAILED, "completed", "completed", "failed", name="B")
    one, other = shown(world).groups
    with pytest.raises(Refused) as refusal:
        sent(world, other.digest, "A")
    assert refusal.value.reason == "REST_DIFFERS"
    assert "its operations have changed" in " ".join(refusal.value.why) or "no group" in " ".join(
        refusal.value.why
    )
    with pytest.raises(Refused, match="not what was shown"):
        sent(world, "nonsense")
    assert world.one("SELECT count(*) AS n FROM applies").n == 1
    assert sent(world, one.digest).deployments == ("A",)
    # The other group's digest holds still: what follows the first is none of its business.
    assert sent(world, other.digest).deployments == ("B",)


@pytest.mark.parametrize("place", range(7))
def test_a_digest_with_a_wrong_letter_may_be_mistyped(world: World, place: int) -> None:
    """Whatever it is that the part stands for: nobody knows a group that ever had it, and it may only look changed."""
    half_done(world)
    (group,) = shown(world).groups
    parts = group.digest.split("-")
    parts[place] = parts[place][:-1] + ("0" if parts[place][-1] != "0" else "1")
    with pytest.raises(Refused) as refusal:
        sent(world, "-".join(parts))
    assert f"or it is mistyped: no group has {parts[place]} in its digest" in refusal.value.why
    with pytest.raises(Refused) as refusal:
        sent(world, group.digest[:-1])
    assert len(refusal.value.why) == 2
    with pytest.raises(Refused) as refusal:
        sent(world, group.digest.replace("-", "_"))
    assert "it may be mistyped" in refusal.value.why[0]


def test_a_part_of_another_group_is_not_said_to_be_mistyped(world: World) -> None:
    """Two groups of one source: the digest of the one, sent for the other's deployment, was not typed wrong."""
    half_done(world, "A", "B")
    told_words = "UPDATE table_changes SET state = 'completed' WHERE ordinal = 1 AND operation_id = :id"
    world.write(told_words, id=world.operation("B").id)
    one, other = (group.digest.split("-") for group in shown(world).groups)
    mixed = "-".join([*one[:2], other[2], *one[3:]])
    with pytest.raises(Refused) as refusal:
        sent(world, mixed)
    assert not any("mistyped" in why for why in refusal.value.why)


def test_a_digest_is_sent_once_however_often_it_is_sent(world: World) -> None:
    """ID1: whoever got no answer says the same again."""
    half_done(world)
    (group,) = shown(world).groups
    first = sent(world, group.digest)
    again = sent(world, group.digest)
    assert (first.is_new, again.is_new, again.apply_id) == (True, False, first.apply_id)
    with pytest.raises(Refused) as refusal:
        sent(world, group.digest, idempotency_key="another")
    assert f"sent already, by ann, as {first.apply_id}" in str(refusal.value)


def test_two_who_send_one_digest_at_the_same_time_make_one_follow_up(world: World) -> None:
    half_done(world)
    (group,) = shown(world).groups
    made: list[ApplyId] = []
    refused: list[str] = []
    barrier = threading.Barrier(4)

    def one(number: int) -> None:
        barrier.wait()
        key = "mine" if number % 2 else "theirs"
        try:
            made.append(sent(world, group.digest, idempotency_key=key).apply_id)
        except Refused as refusal:
            refused.append(" ".join([refusal.what, *refusal.why]))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert len(made) == 2
    assert all(made[0] in words for words in refused)
    assert world.one("SELECT count(*) AS n FROM applies").n == 2


def test_what_changes_between_showing_and_sending_is_refused_by_name(world: World) -> None:
    half_done(world, "A", "B")
    (group,) = shown(world).groups
    world.write(
        "UPDATE table_changes SET state = 'unknown', settled_by = '' WHERE ordinal = 1 AND operation_id = :id",
        id=world.operation("A").id,
    )
    with pytest.raises(Refused) as refusal:
        sent(world, group.digest)
    why = " ".join(refusal.value.why)
    assert "its targets have changed" in why
    assert "nobody can tell whether statement 2" in why


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE applies SET revision = revision + 1", "has moved on since"),
        (
            "UPDATE deployments SET address = 'grpc\\://127.0.0.1\\:1' WHERE name = 'A'",
            "its targets have changed",
        ),
        ("UPDATE deployments SET drained = true WHERE name = 'A'", "is drained"),
        ("UPDATE deployments SET target = 'elsewhere' WHERE name = 'A'", "the first apply went to"),
        ("DELETE FROM deployments WHERE name = 'A'", "there is no deployment A any more"),
    ],
)
def test_a_deployment_that_is_moved_drained_or_gone_is_refused_by_name(
    world: World, change: str, named: str
) -> None:
    """Also in the transaction that accepts: what flows look at before may be old by then."""
    half_done(world)
    (group,) = shown(world).groups
    world.write(change)
    with pytest.raises(Refused) as refusal:
        world.store.accept_rest(
            asked(world, digest=group.digest, reason="because", idempotency_key="k", previews=False)
        )
    assert named in " ".join(refusal.value.why)
    assert world.one("SELECT count(*) AS n FROM applies").n == 1


def test_another_policy_or_consent_is_another_digest(world: World) -> None:
    half_done(world)
    (group,) = shown(world).groups
    for more, named in (({"policy": PARALLEL}, "policy"), ({"allow_unsafe": True}, "consent")):
        with pytest.raises(Refused) as refusal:
            sent(world, group.digest, **more)
        assert named in " ".join(refusal.value.why)
    (other,) = shown(world, policy=PARALLEL).groups
    assert sent(world, other.digest, policy=PARALLEL).policy == PARALLEL


def test_consent_is_asked_again(world: World) -> None:
    unsafe = tuple(replace(each, unsafe_reason="it loses rows") for each in STATEMENTS)
    world.apply("A", changes=unsafe, allow_unsafe=True)
    world.answer_bells()
    told(world, State.FAILED, "completed", "failed", "pending")
    (group,) = shown(world).groups
    assert len(group.consent) == 2
    with pytest.raises(Refused) as refusal:
        sent(world, group.digest)
    assert refusal.value.reason == "UNSAFE_CHANGE"
    with pytest.raises(Refused) as refusal:
        world.store.accept_rest(asked(world, digest=group.digest, reason="because", idempotency_key="k"))
    assert refusal.value.reason == "UNSAFE_CHANGE"
    # What is shown is shown with the consent that it needs.
    assert sent(world, group.digest, allow_unsafe=True).is_new


def test_a_statement_of_unknown_effect_is_in_no_plan(world: World) -> None:
    """For that deployment; the others can go."""
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    told(world, State.FAILED, "completed", "running", "pending", name="A")
    told(world, State.FAILED, "completed", "failed", "pending", name="B")
    rest = shown(world)
    assert [group.deployments for group in rest.groups] == [("B",)]
    _, command = out(rest)["A"]
    assert command == f"tern resolve {world.name('A')} --statement 2=… --reason '…'"
    settle_statements(StatementAnswer(world.name("A"), {2: Effect.DONE}, "eve", "I looked"), world.ports)
    assert [(group.numbers, group.deployments) for group in shown(world).groups] == [
        ((3,), ("A",)),
        ((2, 3), ("B",)),
    ]


def test_a_follow_up_that_fails_half_is_carried_on_from_there(world: World) -> None:
    """A follow-up of a follow-up counts back to the first apply, by whichever of them it is asked for."""
    source = half_done(world)
    second = carried(world)
    world.answer_bells()
    told_of(world, second, State.FAILED, "completed", "failed")
    for name in (source, second):
        (group,) = shown(world, apply_id=name).groups
        assert (group.numbers, group.source.apply_id) == ((3,), source)
        assert group.chains[0].tip.name.apply_id == second
    third = carried(world, apply_id=source)
    link = world.one(
        "SELECT p.id FROM apply_operations o JOIN apply_operations p ON p.id = o.carries_on WHERE o.id = :id",
        id=world.operation("A", third).id,
    )
    assert link.id == world.operation("A", second).id
    world.answer_bells()
    told_of(world, third, State.COMPLETED, "completed")
    assert shown(world, apply_id=source).groups == ()
    assert_safe(world)


def told_of(world: World, apply_id: ApplyId, state: State, *said: str, name: str = "A") -> None:
    """The engine's look at a follow-up, whose statements are the last of the three."""
    look = world.store.begin_look(world.operation(name, apply_id).id, world.name(name, apply_id))
    assert isinstance(look, Poll)
    changes = STATEMENTS[-len(said) :] if len(said) < 3 else STATEMENTS
    tables = tuple(
        TableSample("public", "orders", c.ddl, word) for c, word in zip(changes, said, strict=True)
    )
    remote_id = RemoteId(str(world.remote_id(name, apply_id)))
    sample = Sample(remote_id, state, state.value, tables=tables, revision=99)
    world.store.record_looks(look, [Looked(look.cursors[0], Ok(sample))])


def test_a_follow_up_s_statement_is_named_by_its_own_number(world: World) -> None:
    """The first apply's second and third are its first and second: the command that is printed says what it means."""
    source = half_done(world)
    follow_up = carried(world)
    world.answer_bells()
    told_of(world, follow_up, State.FAILED, "unknown", "unknown")
    ((why, command),) = out(shown(world, apply_id=source)).values()
    assert f"statements 1, 2 of {follow_up}/A" in why
    assert command == f"tern resolve {follow_up}/A --statement 1=… --statement 2=… --reason '…'"
    said = StatementAnswer(world.name("A", follow_up), {2: Effect.DONE}, "eve", "I looked")
    settle_statements(said, world.ports)
    ((why, command),) = out(shown(world, apply_id=source)).values()
    assert command == f"tern resolve {follow_up}/A --statement 1=… --reason '…'"
    settle_statements(replace(said, effects={1: Effect.NOT_DONE}), world.ports)
    (group,) = shown(world, apply_id=source).groups
    assert [change.ddl for change in group.changes] == [STATEMENTS[1].ddl]


def test_what_an_engine_that_came_back_has_completed_is_not_run_again(world: World) -> None:
    """A person believed that it is not in, and its rest was accepted and waits for what is outstanding."""
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source, remote_id = world.last, given_up(world, "A")
    world.pass_time(61)
    said = {1: Effect.DONE, 2: Effect.NOT_DONE, 3: Effect.NOT_DONE}
    settle_statements(StatementAnswer(world.name("A"), said, "eve", "it burned down"), world.ports)
    (group,) = shown(world, "A").groups
    follow_up = sent(world, group.digest, "A", previews=False).apply_id
    world.answer_bells()
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "completed")
    look_again(world, 4)
    assert [line.settled_as for line in lines(world)] == ["completed"]
    assert len(world.engines["A"].effects("apply")) == 1
    operation = world.operation("A", follow_up)
    assert (operation.state, operation.error_reason) == ("failed", "REST_CHANGED")
    assert out(shown(world, "A", apply_id=source)) == {"A": ("all of its statements are done", "")}
    said_since = "statements 2 done, where eve had said otherwise, 3 done, where eve had said otherwise"
    assert (
        f"its engine has said since then: completed; {said_since}"
        in world.operation("A", source).error_message
    )
    assert said_since in next(e.why for e in world.events() if e.event == "statements_told")
    assert_safe(world)


@pytest.mark.parametrize(
    ("state", "said", "left"),
    [
        (State.FAILED, ("completed", "failed", "pending"), STATEMENTS[1:]),
        # Said of the whole change, it is said of each of its statements, but of those that were named.
        (State.COMPLETED, (), ()),
        (State.COMPLETED, ("skipped",), STATEMENTS[:1]),
    ],
)
def test_what_an_engine_that_came_back_says_of_each_statement_is_the_last_word(
    world: World, state: State, said: Sequence[str], left: Sequence[PlannedChange]
) -> None:
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source, remote_id = world.last, given_up(world, "A")
    tables = tuple(
        TableSample("public", "orders", change.ddl, word)
        for change, word in zip(STATEMENTS, said, strict=False)
    )
    sample = Sample(RemoteId(remote_id), state, state.value, tables=tables, revision=99)
    (line,) = unsettled(world)
    world.store.record_outstanding(line.id, found_by_id(Ok(sample), ()), line.address)
    groups = shown(world, "A", apply_id=source).groups
    assert [change.ddl for group in groups for change in group.changes] == [change.ddl for change in left]


def test_a_retry_is_refused_by_name_while_a_follow_up_may_act(world: World) -> None:
    source = refused_operation(world)
    follow_up = carried(world)
    (line,) = world.ask(Verb.RETRY, "A", apply_id=source).lines
    assert line.outcome is Receipt.REFUSED
    assert f"it is carried on by {follow_up}/A" in line.reason
    assert f"tern get {follow_up}/A" in line.reason


def late_retry(world: World, source: ApplyId) -> None:
    """Accepted on rows as they were before the follow-up, and committed only now."""
    world.write(
        "WITH request AS (INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
        " SELECT apply_id, 'retry', 'bob', 'a moment ago', '[]' FROM apply_operations WHERE id = :id RETURNING *)"
        " INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
        " SELECT id, apply_id, :id, 'retry' FROM request",
        id=world.operation("A", source).id,
    )


@pytest.mark.parametrize("at_once", [True, False], ids=["for all at once", "one by one"])
def test_a_retry_after_the_rest_was_carried_on_elsewhere(world: World, at_once: bool) -> None:  # noqa: FBT001
    """Asked before, driven after: its delivery fails with the follow-up's name, and nothing is made live."""
    source = refused_operation(world)
    follow_up = carried(world)
    world.forget_bells()
    late_retry(world, source)
    if at_once:
        world.store.settle_uncalled(source, 10)
    world.do("retry", world.operation("A", source).id, str(world.name("A", source)))
    assert fates(world, "A", source) == [("retry", "failed", f"it is carried on by {follow_up}/A")]
    assert world.state("A", source) == "failed"
    assert_safe(world)


def test_the_rest_after_a_retry_was_asked_for_is_refused(world: World) -> None:
    """The other order: whoever comes first wins."""
    source = refused_operation(world)
    (group,) = shown(world).groups
    world.ask(Verb.RETRY, "A")
    world.forget_bells()
    with pytest.raises(Refused) as refusal:
        sent(world, group.digest)
    assert f"a retry of {source}/A is on its way" in " ".join(refusal.value.why)
    world.sweep()
    assert world.state("A") in {"pending", "running"}
    assert_safe(world)


def test_a_retry_that_is_driven_at_the_same_instant(world: World) -> None:
    """Both hold the first apply's lock, so one of them sees the other: never are both live."""
    for number in range(3):
        world.engines["A"].script("Apply", not_accepted())
        world.apply("A", policy=ALL_FAIL, changes=STATEMENTS)
        world.answer_bells()
        source = world.last
        (group,) = shown(world).groups
        key = world.operation("A", source).id
        barrier = threading.Barrier(2)

        def retry(source: ApplyId = source, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            late_retry(world, source)
            world.store.settle_uncalled(source, 10)

        thread = threading.Thread(target=retry)
        thread.start()
        barrier.wait()
        try:
            follow_up: ApplyId | None = sent(world, group.digest, previews=False).apply_id
        except Refused:
            follow_up = None
        thread.join()
        live = world.one("SELECT count(*) AS n FROM apply_operations WHERE completed_at IS NULL").n
        assert live == 1, number
        revived = world.one("SELECT state FROM apply_operations WHERE id = :id", id=key).state != "failed"
        assert revived is (follow_up is None)
        assert_safe(world)
        world.forget_bells()
        # The late one finds its driver while the follow-up may act.
        world.do("retry", key, str(world.name("A", source)))
        world.last = follow_up or source
        world.ask(Verb.CANCEL)
        world.run(until=lambda: world.state("A") == "cancelled")
        world.pass_time(61)
        world.sweep()


def test_a_rest_waits_for_whoever_is_just_writing_about_its_source(world: World) -> None:
    """A person's word that the second statement is in is not committed yet: what was read before it is done twice."""
    half_done(world)
    (group,) = shown(world).groups
    new = asked(world, digest=group.digest, reason="because", idempotency_key="k", previews=False)
    with ThreadPoolExecutor(1) as threads:
        with world.database.begin() as tx:
            tx.execute(text("SELECT 1 FROM applies ORDER BY id FOR NO KEY UPDATE"))
            tx.execute(text("UPDATE table_changes SET state = 'completed' WHERE ordinal = 2"))
            accepted = threads.submit(world.store.accept_rest, new)
            while not waiting(world) and not accepted.done():
                pass
        with pytest.raises(Refused) as refusal:
            accepted.result(timeout=20)
    assert refusal.value.reason == "REST_DIFFERS"
    assert world.one("SELECT count(*) AS n FROM applies").n == 1


def test_a_start_is_refused_and_a_late_one_fails_by_name(world: World) -> None:
    """What was stopped before anything was sent becomes cancelled by the follow-up: nothing starts it any more."""
    world.apply("A", policy=ALL_FAIL, changes=STATEMENTS)
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    source = world.last
    assert world.state("A") == "stopped"
    follow_up = carried(world)
    assert world.state("A", source) == "cancelled"
    (line,) = world.ask(Verb.START, "A", apply_id=source).lines
    assert line.outcome is not Receipt.ACCEPTED
    world.answer_bells()
    assert world.state("A", follow_up) == "running"
    assert_safe(world)


def test_what_was_never_sent_becomes_cancelled_where_its_rest_is_accepted(world: World) -> None:
    """G13: it gives its target to its follow-up in the same transaction."""
    world.apply("A", "B", changes=STATEMENTS)
    world.answer_bells()
    source = world.last
    assert (world.state("A"), world.state("B")) == ("running", "pending")
    rest = shown(world)
    assert [group.deployments for group in rest.groups] == [("B",)]
    assert "may still act" in out(rest)["A"][0]
    follow_up = carried(world)
    assert (world.state("B", source), world.state("B", follow_up)) == ("cancelled", "pending")
    world.last = source
    event = [each for each in world.events("B") if each.event == "withdraw_cancelled"][-1]
    assert f"carried on by {follow_up}/B" in event.why
    world.last = follow_up
    world.answer_bells()
    assert world.state("B", follow_up) == "running"
    assert_safe(world)


def test_a_stopped_one_with_an_id_is_ended_first(world: World) -> None:
    begun(world)
    world.ask(Verb.STOP, "A")
    settle(world)
    name = world.name("A")
    assert out(shown(world))["A"][1] == f"tern cancel {name} --wait --reason '…'"
    world.ask(Verb.CANCEL, "A")
    settle(world)
    assert world.state("A") == "cancelled"
    # Its end was meant, so its rest is meant only by name.
    assert out(shown(world))["A"][1] == f"tern apply --rest-of {name}"
    assert [group.deployments for group in shown(world, "A").groups] == [("A",)]


def test_a_person_s_skip_is_taken_only_when_named(world: World) -> None:
    """What the verdict skipped, because the rollout halted, is taken with the others."""
    world.apply("A", "B", "C", changes=STATEMENTS)
    world.ask(Verb.SKIP, "C")
    world.answer_bells()
    told(world, State.FAILED, "completed", "failed", "pending", name="A")
    world.answer_bells()
    assert (world.state("B"), world.state("C")) == ("skipped", "skipped")
    rest = shown(world)
    assert [group.deployments for group in rest.groups] == [("A",), ("B",)]
    assert "a person's skip" in out(rest)["C"][0]
    assert [group.deployments for group in shown(world, "B", "C").groups] == [("B", "C")]


def test_uncertain_and_live_ones_are_refused_with_why(world: World) -> None:
    begun(world)
    assert out(shown(world))["A"] == (
        f"{world.name('A')} is running, so it may still act",
        f"tern watch {world.last}",
    )
    world.write("UPDATE apply_operations SET state = 'uncertain'")
    why, command = out(shown(world))["A"]
    assert "uncertain" in why
    assert command == f"tern explain {world.name('A')}"


def test_a_follow_up_that_was_cancelled_before_anything_was_sent_gives_its_source_back(world: World) -> None:
    source = refused_operation(world)
    follow_up = carried(world)
    world.forget_bells()
    world.ask(Verb.CANCEL, "A", apply_id=follow_up)
    world.answer_bells()
    assert world.state("A", follow_up) == "cancelled"
    (group,) = shown(world, apply_id=source).groups
    assert group.numbers == (1, 2, 3)
    receipt = world.ask(Verb.RETRY, "A", apply_id=source)
    assert receipt.request_id is not None
    world.answer_bells()
    world.sweep()
    assert world.state("A", source) == "running"
    assert_safe(world)


def test_what_a_follow_up_has_changed_is_not_run_again_by_a_retry(world: World) -> None:
    """The follow-up is over and has not completed; but its first statement is in, and the source would repeat it."""
    source = refused_operation(world)
    follow_up = carried(world)
    world.answer_bells()
    told_of(world, follow_up, State.FAILED, "completed", "failed", "pending")
    (line,) = world.ask(Verb.RETRY, "A", apply_id=source).lines
    assert f"it is carried on by {follow_up}/A" in line.reason
    (group,) = shown(world, apply_id=source).groups
    assert group.numbers == (2, 3)


def test_the_database_keeps_a_worker_of_the_version_before_from_reviving_what_is_carried_on(
    world: World,
) -> None:
    source = refused_operation(world)
    carried(world)
    with pytest.raises(Error) as refusal:
        world.write(
            "UPDATE apply_operations SET state = 'pending', completed_at = NULL WHERE id = :id",
            id=world.operation("A", source).id,
        )
    assert refusal.value.diag.constraint_name == "apply_operations_are_carried_on_once"


def test_a_rest_is_accepted_by_nobody_without_reason_or_key(world: World) -> None:
    half_done(world)
    for more in ({"reason": " "}, {"reason": "because", "idempotency_key": ""}):
        with pytest.raises(UsageError):
            asked(world, digest="x", **more)


def test_waves_that_have_nobody_left_are_left_out(world: World) -> None:
    waves = (Wave(deployments=("A",), bake_s=60.0), Wave())
    policy = Policy(waves=waves, on_failure=OnFailure.CONTINUE)
    world.apply("A", "B", policy=policy, changes=STATEMENTS)
    world.answer_bells()
    told(world, State.COMPLETED, name="A")
    world.pass_time(61)
    world.sweep()
    told(world, State.FAILED, "completed", "failed", "pending", name="B")
    (group,) = shown(world).groups
    assert [wave.selector for wave in group.policy.waves] == ["*"]
    assert sent(world, group.digest).deployments == ("B",)

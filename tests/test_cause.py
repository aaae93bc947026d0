"""Ten thousand blockers are a handful of causes, each with the one command that covers it and no other operation."""

import pytest

from tern.cause import Cause, Kind
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.states import State
from tern.facts import OperationRecord
from tern.view import ApplyView, apply_view
from tests.test_view import facts, record, table

PARALLEL = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)


def seen(*operations: OperationRecord, policy: Policy = PARALLEL) -> ApplyView:
    return apply_view(facts(*operations, policy=policy))


def stopped(number: int, first: int = 0) -> list[OperationRecord]:
    return [record(f"stopped-{n:05}", State.STOPPED) for n in range(first, first + number)]


def only(causes: tuple[Cause, ...]) -> Cause:
    (cause,) = causes
    return cause


def test_one_entry_for_each_cause_the_most_numerous_first() -> None:
    lost = [record(f"u{n}", State.UNCERTAIN, error_message=f"no answer from u{n}:{n}00") for n in range(3)]
    view = seen(*lost, *stopped(9_000), record("fine", State.RUNNING))
    first, second = view.needs
    assert (first.count, first.ways[0][0]) == (9_000, "tern start apl-1 --state stopped --reason '…'")
    assert second.count == 3
    assert second.ways[0][0] == "tern resolve apl-1 --state uncertain --as ended --expect 3 --reason '…'"
    assert len(view.blockers) >= 9_003


def test_one_operation_is_named_as_ever() -> None:
    cause = only(seen(record("a", State.STOPPED), record("b", State.RUNNING)).needs)
    assert (cause.deployments, cause.ways[0][0]) == (("a",), "tern start apl-1/a --reason '…'")


@pytest.mark.parametrize(
    ("number", "chosen"),
    [
        (2, "tern start apl-1 --deployment stopped-00000,stopped-00001 --reason '…'"),
        (50, "tern start apl-1 --state stopped --except drained-0,drained-1 --reason '…'"),
    ],
)
def test_the_command_covers_the_group_and_no_other(number: int, chosen: str) -> None:
    """Those under a drain are stopped as well, and a start of them would be refused."""
    drained = [record(f"drained-{n}", State.STOPPED, drained=True) for n in range(2)]
    view = seen(*stopped(number), *drained)
    ways = {cause.deployments[0]: cause.ways[0] for cause in view.needs}
    assert ways["stopped-00000"][0] == chosen
    command, consequence = ways["drained-0"]
    assert command == "tern deployments undrain drained-0 drained-1"
    assert "tern start apl-1 --deployment drained-0,drained-1 --reason" in consequence


def test_a_group_that_no_selector_names_shortly_is_taken_from_a_list_of_it() -> None:
    drained = [record(f"drained-{n:05}", State.STOPPED, drained=True) for n in range(40)]
    view = seen(*stopped(50), *drained)
    found = {cause.count: cause for cause in view.needs}
    names = f"tern get apl-1 --cause {found[50].cause_id} --names"
    assert found[50].ways[0][0] == f"{names} | tern start apl-1 --deployment - --reason '…'"
    names = f"tern get apl-1 --cause {found[40].cause_id} --names"
    assert found[40].ways[0][0] == f"{names} | xargs tern deployments undrain"
    # After that they have another cause, so no list of this one is to be taken.
    assert found[40].ways[0][1].endswith("tern explain apl-1")


def test_waves_narrow_a_selector_down() -> None:
    policy = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL)
    ready = [record(f"ready-{n:05}", State.WAITING_FOR_CUTOVER, wave=1) for n in range(9)]
    asked = [
        record(f"other-{n:05}", State.WAITING_FOR_CUTOVER, wave=2, stop_in_force="stop") for n in range(9)
    ]
    commands = {cause.ways[0][0] for cause in seen(*ready, *asked, policy=policy).needs}
    assert "tern cutover apl-1 --state waiting_for_cutover --wave 1 --reason '…'" in commands


def test_a_command_that_fits_one_alone_is_not_stretched_over_several() -> None:
    """Each has its own statements of unknown effect, and one word about all of them would be a guess."""
    half = [
        record(f"d{n}", State.FAILED, tables=(table("completed", 100), table("unknown"))) for n in range(3)
    ]
    cause = only(seen(*half).needs)
    assert cause.ways[0][0] == f"tern explain apl-1 --cause {cause.cause_id}"


def test_of_several_gone_engines_the_number_is_said_with_it() -> None:
    from tern.domain.outstanding import Silent  # noqa: PLC0415

    gone = [
        record(f"d{n}", State.RUNNING, poll_failures=30, unheard=Silent(tries=30, for_s=9_000.0))
        for n in range(3)
    ]
    commands = [
        command for cause in seen(*gone, record("x", State.RUNNING)).needs for command, _ in cause.ways
    ]
    assert any("--engine-is-gone" in each and "--expect 3" in each for each in commands)


def test_failures_are_grouped_by_what_the_engines_said() -> None:
    twice = [record(f"a{n}", State.FAILED, error_message=f"Key (id)=({n}) exists") for n in range(20)]
    full = [record(f"b{n}", State.FAILED, error_message="disk full") for n in range(7)]
    coded = [record("c", State.FAILED, error_message="disk full", error_reason="OTHER")]
    causes = seen(*full, *coded, *twice, record("d", State.RUNNING)).troubles
    assert [(cause.count, cause.what) for cause in causes] == [
        (20, "Key (id)=(…) exists"),
        (7, "disk full"),
        (1, "disk full"),
    ]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (record("a", State.UNCERTAIN), Kind.UNCERTAIN),
        (record("a", State.RUNNING, poll_failures=30), Kind.LOST_CONTACT),
        (record("a", State.RUNNING, tables=(table("waiting_for_lock", detail="pid 7"),)), Kind.LOCK),
        (record("a", State.FAILED_RETRYABLE, error_message="again"), Kind.RETRYING),
        (record("a", drained=True), Kind.HELD),
        (record("a", State.WAITING_FOR_CUTOVER), Kind.READY),
        (record("a", State.RUNNING), None),
        (record("a"), None),
        (record("a", State.COMPLETED), None),
    ],
)
def test_what_is_the_matter_with_one(operation: OperationRecord, kind: Kind | None) -> None:
    policy = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL)
    causes = seen(operation, policy=policy).troubles
    assert [cause.kind for cause in causes] == ([] if kind is None else [kind.value])


def test_a_cause_keeps_its_id_from_look_to_look() -> None:
    before = only(seen(*stopped(3), record("x", State.RUNNING)).needs)
    after = only(seen(*stopped(2), record("x", State.RUNNING)).needs)
    assert before.cause_id == after.cause_id


def test_json_has_the_causes_with_examples_and_not_with_all_names() -> None:
    (document,) = seen(*stopped(300), record("x", State.RUNNING)).as_json()["needs_you"]  # type: ignore[misc]
    assert (document["count"], len(document["deployments"])) == (300, 5)
    assert document["command"] == document["ways"][0]["command"]

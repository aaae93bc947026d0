"""Every rule of a scope, one by one, and the one scope that passes them all (G7)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tern.domain.errors import ScopeRefused
from tern.domain.identity import ApplyId, PlanId, RemoteId, ScopeName
from tern.domain.model import Action, Deployment, OperationScope, PlannedChange, TableChange
from tern.domain.policy import Policy
from tern.domain.scope import (
    POISON,
    FoundOperation,
    parse_apply_id,
    parse_deployment,
    parse_message,
    require_single,
    validate,
)

ASKED = ScopeName(ApplyId("apl-1"), "A")
FOUND = FoundOperation(
    operation_id=7,
    apply_pk=3,
    apply_id=ApplyId("apl-1"),
    deployment_name="A",
    operation_count=2,
    counted_operations=2,
    external_id=None,
    engine_resume_context="R1",
    deployment=Deployment("A", "test", "shop", "grpc://127.0.0.1:1", "target-A"),
    plan_id=PlanId("pln-1"),
    environment="test",
    database="shop",
    database_type="postgres",
    changes=(TableChange(1, PlannedChange("public", "orders", "ALTER …", Action.ALTER)),),
    foreign_changes=0,
    policy=Policy(),
    allow_unsafe=False,
    caller="ann",
    change_digest="d1",
    holds_remote_id=True,
)


UNCHANGED = "Nothing was sent to any engine and nothing was written."


def refusal(check: Callable[[], object]) -> tuple[str, str, tuple[str, ...], str]:
    """Which rule, what, why, and what stays."""
    with pytest.raises(ScopeRefused) as caught:
        check()
    error = caught.value
    return error.reason, error.what, tuple(error.why), error.unchanged


def test_a_scope_that_holds() -> None:
    """Everything that was validated is what all later steps use."""
    assert validate(ASKED, 7, FOUND) == OperationScope(
        operation_id=7,
        apply_pk=3,
        name=ASKED,
        operation_count=2,
        remote_id=RemoteId("R1"),
        deployment=Deployment("A", "test", "shop", "grpc://127.0.0.1:1", "target-A"),
        plan_id=PlanId("pln-1"),
        environment="test",
        database="shop",
        database_type="postgres",
        changes=FOUND.changes,
        policy=Policy(),
        allow_unsafe=False,
        caller="ann",
        change_digest="d1",
    )


@pytest.mark.parametrize(
    ("change", "rule", "why"),
    [
        ({"apply_id": ApplyId("apl-2")}, "OPERATION_OF_ANOTHER_APPLY", "operation 7 is apl-2's"),
        ({"deployment_name": ""}, "DEPLOYMENT_EMPTY", "operation 7 has no deployment"),
        ({"deployment_name": "B"}, "DEPLOYMENT_MISMATCH", "operation 7 is for B"),
        (
            {"counted_operations": 3},
            "OPERATION_NOT_IN_SET",
            "the apply says 2 operations, its set has 3",
        ),
        (
            {"counted_operations": 0},
            "OPERATION_NOT_IN_SET",
            "the apply says 2 operations, its set has 0",
        ),
        (
            {"changes": ()},
            "NO_TABLE_CHANGES",
            "it has no table changes, so there is nothing to dispatch",
        ),
        (
            {"foreign_changes": 1},
            "TABLE_CHANGE_OF_ANOTHER_APPLY",
            "1 of its table changes belong to another apply",
        ),
        ({"deployment": None}, "DEPLOYMENT_UNKNOWN", "there is no deployment A"),
    ],
)
def test_a_scope_with_one_thing_wrong(change: dict[str, object], rule: str, why: str) -> None:
    """G7: each rule refuses by itself, says its name, and about whom."""
    found = replace(FOUND, **change)  # type: ignore[arg-type]
    said = refusal(lambda: validate(ASKED, 7, found))
    assert said == (rule, "apl-1/A was refused", (why,), UNCHANGED)


@pytest.mark.parametrize("change", [{"external_id": "R1"}, {"operation_count": 1, "counted_operations": 1}])
def test_a_scope_whose_id_stands_in_the_wrong_place(change: dict[str, object]) -> None:
    """G1: refused where it is loaded, before anybody could send it."""
    found = replace(FOUND, **change)  # type: ignore[arg-type]
    assert refusal(lambda: validate(ASKED, 7, found))[0] == "REMOTE_ID_MISPLACED"


def test_an_operation_that_is_not_there() -> None:
    said = refusal(lambda: validate(ASKED, 7, None))
    assert said == ("OPERATION_UNKNOWN", "apl-1/A was refused", ("there is no operation 7",), UNCHANGED)


def test_a_wrong_message_is_never_taken_for_a_poisoned_row() -> None:
    """G7: a message that asks for something else writes nothing, whatever is wrong with the row besides."""
    broken = replace(FOUND, changes=(), deployment=None, counted_operations=9)
    for asked in (ScopeName(ApplyId("apl-2"), "A"), ScopeName(ApplyId("apl-1"), "B")):
        with pytest.raises(ScopeRefused) as caught:
            validate(asked, 7, broken)
        assert caught.value.reason not in POISON
    with pytest.raises(ScopeRefused) as caught:
        validate(ASKED, 7, broken)
    assert caught.value.reason in POISON


@pytest.mark.parametrize(
    ("operation_id", "scope", "rule", "what", "why"),
    [
        (7, None, "SCOPE_MALFORMED", "None", "a scope is a text like apl-…/DEPLOYMENT"),
        (7, 5, "SCOPE_MALFORMED", "5", "a scope is a text like apl-…/DEPLOYMENT"),
        (0, "apl-1/A", "OPERATION_UNKNOWN", "apl-1/A", "there is no operation 0"),
        (-7, "apl-1/A", "OPERATION_UNKNOWN", "apl-1/A", "there is no operation -7"),
        (2**63, "apl-1/A", "OPERATION_UNKNOWN", "apl-1/A", f"there is no operation {2**63}"),
        ("seven", "apl-1/A", "OPERATION_MALFORMED", "apl-1/A", "'seven' is not an operation id"),
        (True, "apl-1/A", "OPERATION_MALFORMED", "apl-1/A", "True is not an operation id"),
        (7.0, "apl-1/A", "OPERATION_MALFORMED", "apl-1/A", "7.0 is not an operation id"),
    ],
)
def test_a_message_that_can_not_be_meant(
    operation_id: object, scope: object, rule: str, what: str, why: str
) -> None:
    said = refusal(lambda: parse_message(operation_id, scope))
    assert said == (rule, f"{what} was refused", (why,), UNCHANGED)


def test_a_message_whose_scope_has_no_deployment() -> None:
    assert refusal(lambda: parse_message(7, "apl-1/"))[0] == "SCOPE_MALFORMED"


@pytest.mark.parametrize(("operation_id", "number"), [(7, 7), ("7", 7), (1, 1), (2**63 - 1, 2**63 - 1)])
def test_a_message_that_is_fine(operation_id: object, number: int) -> None:
    assert parse_message(operation_id, "apl-1/A") == (number, ASKED)


def test_the_names_in_messages_about_deployments_and_applies() -> None:
    assert parse_deployment("eu-1.a_B") == "eu-1.a_B"
    assert parse_apply_id("apl-0a") == "apl-0a"


@pytest.mark.parametrize("name", ["", "a/b", "-a", "ä", "a\n", "x" * 64, None, 1, True, ["a"]])
def test_a_message_about_no_deployment(name: object) -> None:
    said = refusal(lambda: parse_deployment(name))
    why = ("it is not a deployment's name",)
    assert said == ("DEPLOYMENT_MALFORMED", f"{name!a} was refused", why, UNCHANGED)


@pytest.mark.parametrize("apply_id", ["", "apl-", "apl-A", "apl-1/A", "pln-1", "apl-1\n", None, 1, ["apl-1"]])
def test_a_message_about_no_apply(apply_id: object) -> None:
    said = refusal(lambda: parse_apply_id(apply_id))
    why = ("an apply is written apl-…",)
    assert said == ("APPLY_MALFORMED", f"{apply_id!a} was refused", why, UNCHANGED)


@pytest.mark.parametrize("parse", [parse_deployment, parse_apply_id])
def test_a_refusal_repeats_no_more_of_a_message_than_fits_a_line(parse: Callable[[object], object]) -> None:
    assert refusal(lambda: parse("/" * 500))[1] == f"'{'/' * 79} was refused"


@pytest.mark.parametrize("count", [-1, 0, 2, 3, 10_000])
def test_an_apply_scoped_call_needs_exactly_one_operation(count: int) -> None:
    """G7. That nobody could count them is tested where they are counted (tests/wire/control/test_facade.py)."""
    said = refusal(lambda: require_single(ApplyId("apl-1"), count, "stop"))
    why = f"it has {count} operations, and a stop for all of them would have no id of its own to carry"
    assert said == ("APPLY_SCOPED_CALL_ON_MULTI", "apl-1 was refused", (why,), UNCHANGED)
    require_single(ApplyId("apl-1"), 1, "stop")

"""Every rule of a scope, one by one, and the one scope that passes them all (G7)."""

from dataclasses import replace

import pytest

from tern.domain.errors import ScopeRefused
from tern.domain.identity import ApplyId, PlanId, ScopeName
from tern.domain.model import Action, Deployment, PlannedChange, TableChange
from tern.domain.policy import Policy
from tern.domain.scope import POISON, FoundOperation, parse_message, require_single, validate

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
)


def test_a_scope_that_holds() -> None:
    """Everything that was validated is what all later steps use."""
    scope = validate(ASKED, 7, FOUND)
    assert (scope.operation_id, scope.name, scope.remote_id) == (7, ASKED, "R1")
    assert scope.deployment is FOUND.deployment
    assert scope.changes == FOUND.changes


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"apply_id": ApplyId("apl-2")}, "OPERATION_OF_ANOTHER_APPLY"),
        ({"deployment_name": ""}, "DEPLOYMENT_EMPTY"),
        ({"deployment_name": "B"}, "DEPLOYMENT_MISMATCH"),
        ({"counted_operations": 3}, "OPERATION_NOT_IN_SET"),
        ({"counted_operations": 0}, "OPERATION_NOT_IN_SET"),
        ({"changes": ()}, "NO_TABLE_CHANGES"),
        ({"foreign_changes": 1}, "TABLE_CHANGE_OF_ANOTHER_APPLY"),
        ({"deployment": None}, "DEPLOYMENT_UNKNOWN"),
        ({"external_id": "R1"}, "REMOTE_ID_MISPLACED"),
        ({"operation_count": 1, "counted_operations": 1}, "REMOTE_ID_MISPLACED"),
    ],
)
def test_a_scope_with_one_thing_wrong(change: dict[str, object], rule: str) -> None:
    """G7: each rule refuses by itself and says its name."""
    with pytest.raises(ScopeRefused) as refusal:
        validate(ASKED, 7, replace(FOUND, **change))  # type: ignore[arg-type]
    assert refusal.value.reason == rule


def test_an_operation_that_is_not_there() -> None:
    with pytest.raises(ScopeRefused) as refusal:
        validate(ASKED, 7, None)
    assert refusal.value.reason == "OPERATION_UNKNOWN"
    assert "Nothing was sent" in refusal.value.unchanged


def test_a_wrong_message_is_never_taken_for_a_poisoned_row() -> None:
    """G7: a message that asks for something else writes nothing, whatever is wrong with the row besides."""
    broken = replace(FOUND, changes=(), deployment=None, counted_operations=9)
    for asked in (ScopeName(ApplyId("apl-2"), "A"), ScopeName(ApplyId("apl-1"), "B")):
        with pytest.raises(ScopeRefused) as refusal:
            validate(asked, 7, broken)
        assert refusal.value.reason not in POISON
    with pytest.raises(ScopeRefused) as refusal:
        validate(ASKED, 7, broken)
    assert refusal.value.reason in POISON


@pytest.mark.parametrize(
    ("operation_id", "scope", "rule"),
    [
        (7, "apl-1/", "SCOPE_MALFORMED"),
        (7, None, "SCOPE_MALFORMED"),
        (0, "apl-1/A", "OPERATION_UNKNOWN"),
        (-7, "apl-1/A", "OPERATION_UNKNOWN"),
        (2**63, "apl-1/A", "OPERATION_UNKNOWN"),
        ("seven", "apl-1/A", "OPERATION_MALFORMED"),
        (True, "apl-1/A", "OPERATION_MALFORMED"),
        (7.0, "apl-1/A", "OPERATION_MALFORMED"),
    ],
)
def test_a_message_that_can_not_be_meant(operation_id: object, scope: object, rule: str) -> None:
    with pytest.raises(ScopeRefused) as refusal:
        parse_message(operation_id, scope)
    assert refusal.value.reason == rule


@pytest.mark.parametrize("operation_id", [7, "7"])
def test_a_message_that_is_fine(operation_id: object) -> None:
    assert parse_message(operation_id, "apl-1/A") == (7, ASKED)


@pytest.mark.parametrize("count", [None, 0, 2, 10_000])
def test_an_apply_scoped_call_needs_exactly_one_operation(count: int | None) -> None:
    """G7: also when nobody could count."""
    with pytest.raises(ScopeRefused) as refusal:
        require_single(ApplyId("apl-1"), count, "stop")
    assert refusal.value.reason == "APPLY_SCOPED_CALL_ON_MULTI"
    require_single(ApplyId("apl-1"), 1, "stop")

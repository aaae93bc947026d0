"""Looks at a rollout as they are shown, made up: for tests of who shows them, without a database."""

from datetime import UTC, datetime

from tern.domain.policy import Policy
from tern.domain.states import ApplyState, State
from tern.doors.answers import Apply, Operation

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def operation(deployment: str, state: State = State.RUNNING, age_s: float = 0.0) -> Operation:
    return Operation(
        scope=f"apl-1/{deployment}",
        deployment=deployment,
        position=0,
        wave=0,
        target=deployment,
        state=state,
        remote_id=None,
        attempt=1,
        percent=0,
        rows_copied=None,
        rows_total=None,
        eta_s=None,
        volume=None,
        lost_contact=False,
        summary="",
        error="",
        error_reason="",
        holds=(),
        wishes=(),
        tables=(),
        state_age_s=age_s,
        worked_s=age_s,
        sampled_age_s=age_s,
    )


def look(revision: int = 1, state: ApplyState = ApplyState.RUNNING, *operations: Operation) -> Apply:
    return Apply(
        apply_id="apl-1",
        plan_id="pln-1",
        state=state,
        headline=state.value,
        environment="test",
        database="shop",
        caller="ann",
        reason="because",
        policy=Policy(),
        created_at=MOMENT,
        operation_count=len(operations),
        counts={},
        percent=0,
        error="",
        exit_code=0 if state.is_settled else None,
        blockers=(),
        revision=revision,
        observed_at=MOMENT,
        operations=operations,
    )

"""One look at a job in domain words: states by number, zero for "not said", and why something waits."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tern.domain.identity import RemoteId
from tern.domain.samples import Sample, TableSample
from tern.domain.states import State
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.outcomes import tidy

_PERCENT_MAX = 100
# Longer than any way to write a moment.
_LONGEST_MOMENT = 64

STATES: Final[Mapping[int, State]] = MappingProxyType(
    {
        tern_v1.STATE_PENDING: State.RUNNING,
        tern_v1.STATE_RUNNING: State.RUNNING,
        tern_v1.STATE_WAITING_FOR_CUTOVER: State.WAITING_FOR_CUTOVER,
        tern_v1.STATE_CUTTING_OVER: State.CUTTING_OVER,
        tern_v1.STATE_REVERT_WINDOW: State.REVERT_WINDOW,
        tern_v1.STATE_COMPLETED: State.COMPLETED,
        tern_v1.STATE_FAILED: State.FAILED,
        tern_v1.STATE_STOPPED: State.STOPPED,
        tern_v1.STATE_REVERTED: State.REVERTED,
        tern_v1.STATE_CANCELLED: State.CANCELLED,
        tern_v1.STATE_PREPARING_BRANCH: State.RUNNING,
        tern_v1.STATE_APPLYING_BRANCH_CHANGES: State.RUNNING,
        tern_v1.STATE_CREATING_DEPLOY_REQUEST: State.RUNNING,
        tern_v1.STATE_WAITING_FOR_DEPLOY: State.RUNNING,
        tern_v1.STATE_VALIDATING_DEPLOY_REQUEST: State.RUNNING,
        tern_v1.STATE_VALIDATING_BRANCH: State.RUNNING,
        tern_v1.STATE_RECOVERING: State.RUNNING,
        tern_v1.STATE_REVERTING: State.REVERTING,
        tern_v1.STATE_CATCHING_UP: State.RUNNING,
        tern_v1.STATE_CHECKSUMMING: State.RUNNING,
        tern_v1.STATE_POST_CHECKSUM: State.RUNNING,
        # Its engine tries again by itself: that is work under way, whatever went wrong, and no verdict (G10).
        tern_v1.STATE_FAILED_RETRYABLE: State.RUNNING,
    }
)
"""Numbers that are not here (NO_ACTIVE_CHANGE, and those of a later contract) have no meaning for us (PO1)."""

_SAID_BY_THEMSELVES: Final = frozenset(
    {tern_v1.STATE_PENDING, tern_v1.STATE_RUNNING, tern_v1.STATE_RECOVERING, tern_v1.STATE_FAILED_RETRYABLE}
)
"""Ways of running whose word would tell a person nothing more."""


def sample(
    remote_id: RemoteId, answer: tern_v1.ProgressResponse, revision: int = 0, identity: str = ""
) -> Sample:
    """Progress in domain words."""
    number = int(answer.state)
    return Sample(
        remote_id=remote_id,
        state=STATES.get(number),
        said=_state_word(number),
        summary=_summary(number, answer),
        error_message=tidy(answer.error_message),
        tables=tuple(_table(table) for table in answer.tables),
        revision=revision,
        identity=identity,
        started_at=tidy(answer.started_at, _LONGEST_MOMENT),
    )


def _table(table: tern_v1.TableProgress) -> TableSample:
    total = _said(table.rows_total)
    checksum_total = _said(table.checksum_rows_total)
    return TableSample(
        namespace=tidy(table.namespace),
        table_name=tidy(table.table_name),
        ddl=tidy(table.ddl, len(table.ddl)),
        status=tidy(table.status),
        # With a total, zero is a measurement; without one, nothing was said.
        percent=_said(min(table.percent_complete, _PERCENT_MAX), zero_counts=total is not None),
        rows_copied=_said(table.rows_copied, zero_counts=total is not None),
        rows_total=total,
        eta_s=_said(table.eta_seconds),
        checksum_rows_checked=_said(table.checksum_rows_checked, zero_counts=checksum_total is not None),
        checksum_rows_total=checksum_total,
        detail=_detail(table),
    )


def _detail(table: tern_v1.TableProgress) -> str:
    """What is said of it, why it waits, and what went wrong."""
    said = [tidy(table.progress_detail)]
    if table.throttled or table.throttle_reason:
        said.append(f"throttled: {tidy(table.throttle_reason) or 'its engine does not say why'}")
    if table.error_message and table.error_message not in table.progress_detail:
        said.append(tidy(table.error_message))
    return "; ".join(each for each in said if each)


def _summary(number: int, answer: tern_v1.ProgressResponse) -> str:
    """The engine's own words; where running is said in another word, that one too, because the state does not show it.

    One that failed and tries again is not failed: only here can be said what its trouble is.
    """
    said = tidy(answer.summary)
    if number == tern_v1.STATE_FAILED_RETRYABLE:
        trouble = tidy(answer.error_message) or "it does not say after what"
        return "; ".join(each for each in (f"its engine tries again by itself: {trouble}", said) if each)
    if STATES.get(number) is State.RUNNING and number not in _SAID_BY_THEMSELVES:
        return said or _state_word(number).replace("_", " ")
    return said


def _said(number: int, *, zero_counts: bool = False) -> int | None:
    return number if number > 0 or (number == 0 and zero_counts) else None


def _state_word(number: int) -> str:
    if number not in tern_v1.State.values():
        return f"state {number}"
    return tern_v1.State.Name(tern_v1.State.ValueType(number)).removeprefix("STATE_").lower()

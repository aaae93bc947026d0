"""Rows of store.reading as the facts that are shown."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from tern.domain.control import Delivery, Verb
from tern.domain.crowd import Front
from tern.domain.doubt import Doubt
from tern.domain.drift import Foretold
from tern.domain.evidence import seconds_to_wait
from tern.domain.identity import RemoteId
from tern.domain.model import Action
from tern.domain.outstanding import Outstanding, Silent
from tern.domain.silence import LONGEST_PAUSE_S
from tern.domain.states import State
from tern.domain.timing import due_in_s, longest_dispatch_wait_s
from tern.facts import Attempt, OperationRecord, TableFacts, WishFacts
from tern.store.carried import carried_on_from
from tern.store.outstanding_hold import outstanding_from
from tern.store.reservation import holding_in
from tern.store.sql import Connection, RowMapping, TextClause


def grouped(
    tx: Connection, statement: TextClause, apply_pk: int, read: Callable[[RowMapping], Any]
) -> Mapping[int, tuple[Any, ...]]:
    """What the statement finds of an apply, by operation, each row as `read` makes it."""
    found: dict[int, tuple[Any, ...]] = defaultdict(tuple)
    for row in tx.execute(statement, {"id": apply_pk}).mappings():
        found[row["operation_id"]] += (read(row),)
    return found


def table_in(row: RowMapping) -> TableFacts:
    """One statement of one operation."""
    return TableFacts(
        namespace=row["namespace"],
        table_name=row["table_name"],
        ddl=row["ddl"],
        action=Action(row["action"]),
        unsafe_reason=row["unsafe_reason"],
        state=row["state"],
        rows_copied=row["rows_copied"],
        rows_total=row["rows_total"],
        percent=row["percent"],
        eta_s=row["eta_seconds"],
        detail=row["detail"],
        error=row["error"],
        settled_by=row["settled_by"],
    )


def wish_in(row: RowMapping) -> WishFacts:
    """What one request asks of one operation."""
    return WishFacts(
        request_id=row["request_id"],
        verb=Verb(row["verb"]),
        fate=Delivery(row["state"]),
        caller=row["caller"],
        reason=row["reason"],
        attempts=row["attempts"],
        engine_words=row["engine_words"],
        age_s=row["age_s"],
        closed_s_ago=row["closed_s_ago"],
        waits=row["next_attempt_at"] is None and Delivery(row["state"]).is_open,
        was_refused=row["refusals"] > 0 and row["attempts"] == row["refused_attempt"],
    )


def operation_in(
    row: RowMapping,
    lease_s: float,
    front: Front,
    tables: tuple[TableFacts, ...],
    wishes: tuple[WishFacts, ...],
    foretold: Foretold | None,
    outstanding: tuple[Outstanding, ...],
    attempts: Mapping[tuple[int, str], tuple[Attempt, ...]],
    deadline_s: float,
) -> OperationRecord:
    """One operation, with what was read beside it."""
    state = State(row["state"])
    left_s = row["wait_s"]
    wait_s = due_in_s(left_s, longest_dispatch_wait_s(lease_s))
    claimed_for_s = max(0.0, row["claimed_for_s"] or 0.0) if row["claim_token"] is not None else 0.0
    due_for_s = None if left_s is None or claimed_for_s else max(0.0, -left_s) - wait_s
    return OperationRecord(
        operation_id=row["id"],
        deployment=row["deployment"],
        position=row["position"],
        wave=row["wave"],
        target=row["target"],
        state=state,
        remote_id=RemoteId(row["remote_id"]) if row["remote_id"] else None,
        attempt=row["attempt"],
        fence=row["fence"],
        is_admitted=row["is_admitted"],
        state_age_s=row["state_age_s"],
        ended_s_ago=row["ended_s_ago"],
        was_seen=row["was_seen"],
        worked_s=row["worked_s"],
        sampled_age_s=row["sampled_age_s"],
        poll_failures=row["poll_failures"],
        poll_error=row["poll_error"],
        summary=row["summary"],
        error_reason=row["error_reason"],
        error_message=row["error_message"],
        stop_in_force=row["stop_in_force"],
        # Only a retry waits for a moment; a pending one's time is the moment of its admission.
        wait_s=wait_s if state in {State.FAILED_RETRYABLE, State.PENDING} else 0.0,
        due_for_s=due_for_s,
        untaken_for_s=_untaken_for_s(row, front.untaken_for_s(due_for_s, row["told_for_s"])),
        claimed_for_s=claimed_for_s,
        word_in_s=seconds_to_wait(
            claimed_for_s=claimed_for_s, unanswered_for_s=row["unanswered_for_s"], deadline_s=deadline_s
        ),
        drained=row["drained"],
        drained_by=row["drained_by"] or "",
        blocked_by=holding_in(row["blocked_by"]),
        tables=tables,
        wishes=wishes,
        foretold=foretold,
        outstanding=outstanding,
        held_by=None if row["held_by"] is None else outstanding_from(row["held_by"]),
        unheard=Silent(row["unheard_tries"], row["unheard_for_s"] or 0.0, row["poll_error"]),
        volume=row["volume"],
        doubt=Doubt(row["doubt"]),
        unanswered=row["unanswered"],
        carries_on=row["carries_on"],
        carried_on=carried_on_from(row["carried_on"]),
        follow_ups=tuple(row["follow_ups"] or ()),
        later=attempts.get((row["id"], "later"), ()),
        earlier=attempts.get((row["id"], "earlier"), ()),
        # A longer one was written under a clock that was set back since, and counts for nobody.
        pauses_s=row["pauses_s"] if row["pauses_s"] <= LONGEST_PAUSE_S else 0.0,
    )


def _untaken_for_s(row: RowMapping, untaken_for_s: float | None) -> float | None:
    """What was kept waiting for a silent engine could not be taken before that pause was over."""
    if untaken_for_s is None or not row["unanswered"]:
        return untaken_for_s
    return min(untaken_for_s, max(0.0, -float(row["pauses_s"])))

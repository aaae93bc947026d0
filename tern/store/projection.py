"""Moving operations, and computing their parent in the same transaction: the only writer of an apply's state (G14).

Every function here expects the apply's lock to be held by the caller.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tern.domain.control import Delivery, Verb, fulfilment
from tern.domain.identity import ApplyId
from tern.domain.opening import Opening, opening, opens_in_s
from tern.domain.policy import Policy
from tern.domain.projection import project
from tern.domain.states import ApplyState, Event, State, advance
from tern.metrics import CONTROL_SECONDS
from tern.ports import Due, DueControl
from tern.store.barrier import cut_over_next
from tern.store.event import INTO_EVENTS, SAID, Happening, append, append_all, tell_later
from tern.store.halt import STOP_IN_FORCE, SUPERSEDED
from tern.store.notify import due_in, notify
from tern.store.outstanding_cancel import take_over_cancels
from tern.store.outstanding_hold import IS_OUTSTANDING
from tern.store.reservation import IS_BLOCKED
from tern.store.session import after_commit
from tern.store.sql import Connection, Row, text
from tern.store.statement import settle_table_changes
from tern.store.tally import TALLY, tally_in

NOTHING_BEGAN = frozenset({Event.REFUSE, Event.WITHDRAW_STOPPED, Event.WITHDRAW_CANCELLED, Event.SKIP})
"""By these an operation settles of which nothing was ever begun: never sent, dead before it acted, or refused."""


def move(
    tx: Connection,
    *,
    operation_id: int,
    apply_pk: int,
    state: State,
    event: Event,
    who: str,
    why: str = "",
    detail: Mapping[str, object] | None = None,
    assignments: str = "",
    values: Mapping[str, object] | None = None,
    may_have_wishes: bool = True,
) -> State:
    """Takes one operation, whose row the caller has locked, along one arrow, with its event and what follows from
    it: times, unsettled table changes, wishes that are fulfilled. Raises IllegalTransition.

    `assignments` are further SET items of the same UPDATE, in which n.now is the time. A caller that has seen under
    the lock that the operation has no open wish says so.
    """
    after = advance(state, event)
    written = tx.execute(
        text(
            # One reading of the clock for all of them, so that what lasts from one to another can't come out wrong.
            "WITH moved AS (UPDATE apply_operations SET state = :after, state_changed_at = n.now,"
            " started_at = CASE WHEN :starts THEN coalesce(started_at, n.now) ELSE started_at END,"
            " completed_at = CASE WHEN :finished THEN n.now END"
            + (f", {assignments}" if assignments else "")
            + " FROM (SELECT tern_clock() AS now) n"
            + f" WHERE id = :operation_id RETURNING id, apply_id) {INTO_EVENTS}"
            " SELECT apply_id, id, :event, :who, :why, :before, :after, CAST(:detail AS json) FROM moved"
            f" WHERE :is_told {SAID}"
        ),
        {
            **(values or {}),
            "before": state.value,
            "after": after.value,
            "starts": after is State.RUNNING,
            "finished": after.is_finished,
            "operation_id": operation_id,
            "event": event.value,
            "who": who,
            "why": why,
            "detail": json.dumps(detail or {}),
            "is_told": after is not state or bool(why),
        },
    )
    tell_later(tx, written)
    if after.is_settled:
        settle_table_changes(tx, [operation_id], after, nothing_began=event in NOTHING_BEGAN)
    if may_have_wishes:
        close_fulfilled(tx, apply_pk, {operation_id: after})
    return after


def close_fulfilled(tx: Connection, apply_pk: int, states: Mapping[int, State]) -> None:
    """Closes the open wishes that these operations' states fulfil or outrun, each for itself (G8)."""
    rows = tx.execute(
        text(
            f"SELECT d.id, d.operation_id, d.verb, d.state, r.caller, {SUPERSEDED} AS is_taken_back"
            " FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id"
            " WHERE d.operation_id = ANY(:ids) AND d.state IN ('pending', 'sent') ORDER BY d.id FOR UPDATE OF d"
        ),
        {"ids": list(states)},
    ).all()
    closing = [
        (row, fate)
        for row in rows
        if (fate := fulfilment(Verb(row.verb), states[row.operation_id])) is not None
        and not (row.verb == Verb.START and fate is Delivery.ACKNOWLEDGED and _waits_for_a_stop(row, rows))
    ]
    close_deliveries(tx, {row.id: fate for row, fate in closing})
    append_all(
        tx,
        [
            Happening(
                apply_pk, f"{row.verb}_{fate.value}", row.caller, row.operation_id, "", row.state, fate.value
            )
            for row, fate in closing
        ],
    )
    if any(fate is Delivery.ACKNOWLEDGED and row.verb in {"stop", "cancel"} for row, fate in closing):
        moot_overtaken(tx, apply_pk, list(states))
    started = [row.id for row, fate in closing if row.verb == Verb.START and fate is Delivery.ACKNOWLEDGED]
    moot_superseded(tx, apply_pk, started)


def _waits_for_a_stop(start: Row, rows: Sequence[Row]) -> bool:
    """A stop before it has left, and its answer is missing: that it still runs says nothing about either."""
    return any(
        row.operation_id == start.operation_id
        and Verb(row.verb).is_halting
        and row.id < start.id
        and not row.is_taken_back
        for row in rows
    )


def moot_superseded(tx: Connection, apply_pk: int, start_ids: Sequence[int]) -> None:
    """What these acknowledged starts took back is never driven again: the person's last word was start (G9)."""
    if not start_ids:
        return
    rows = tx.execute(
        text(
            "SELECT d.id, d.operation_id, d.verb, d.state, r.caller FROM control_deliveries d"
            " JOIN control_deliveries n ON n.operation_id = d.operation_id AND n.id = ANY(:starts) AND n.id > d.id"
            " JOIN control_requests r ON r.id = n.request_id"
            f" WHERE d.verb IN ('stop', 'cancel') AND d.state IN ('pending', 'sent') AND {SUPERSEDED}"
            " ORDER BY d.id FOR UPDATE OF d"
        ),
        {"starts": list(start_ids)},
    ).all()
    words = "superseded by a start: it was never sent, or its engine refused it"
    close_deliveries(tx, {row.id: Delivery.MOOT for row in rows}, words)
    append_all(
        tx,
        [
            Happening(apply_pk, f"{row.verb}_moot", row.caller, row.operation_id, words, row.state, "moot")
            for row in rows
        ],
    )


def moot_overtaken(tx: Connection, apply_pk: int, operation_ids: Sequence[int]) -> None:
    """A start or retry that a later stop has overtaken is never driven again: the person's last word was stop (G9)."""
    rows = tx.execute(
        text(
            "SELECT s.id, s.operation_id, s.verb, s.state, r.caller FROM control_deliveries s"
            " JOIN control_requests r ON r.id = s.request_id"
            " WHERE s.operation_id = ANY(:ids) AND s.verb IN ('start', 'retry')"
            " AND s.state IN ('pending', 'sent')"
            " AND EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = s.operation_id"
            "   AND d.verb IN ('stop', 'cancel') AND d.id > s.id"
            "   AND d.state IN ('acknowledged', 'too_late'))"
            " ORDER BY s.id FOR UPDATE OF s"
        ),
        {"ids": list(operation_ids)},
    ).all()
    words = "a later stop overtook it"
    close_deliveries(tx, {row.id: Delivery.MOOT for row in rows}, words)
    append_all(
        tx,
        [
            Happening(apply_pk, f"{row.verb}_moot", row.caller, row.operation_id, words, row.state, "moot")
            for row in rows
        ],
    )


def close_deliveries(tx: Connection, fates: Mapping[int, Delivery], words: str = "") -> None:
    """Writes the fate of wishes, whose rows the caller has locked."""
    if not fates:
        return
    closed = tx.execute(
        text(
            "UPDATE control_deliveries d SET state = f.fate, closed_at = tern_clock(), next_attempt_at = NULL,"
            " engine_words = CASE WHEN :words = '' THEN d.engine_words ELSE :words END"
            " FROM jsonb_to_recordset(CAST(:fates AS jsonb)) AS f(id bigint, fate text)"
            " WHERE d.id = f.id AND d.state IN ('pending', 'sent')"
            " RETURNING d.id, d.verb, d.state,"
            " greatest(0, extract(epoch FROM d.closed_at - d.created_at))::float AS age_s"
        ),
        {
            "words": words,
            "fates": json.dumps([{"id": key, "fate": fate.value} for key, fate in fates.items()]),
        },
    ).all()
    late = [row.id for row in closed if (row.verb, row.state) == (Verb.CANCEL, Delivery.TOO_LATE)]
    if late:
        take_over_cancels(tx, late)
    after_commit(tx, partial(_measure, closed))


def _measure(closed: Sequence[Row]) -> None:
    for row in closed:
        CONTROL_SECONDS.observe(row.age_s, row.verb, row.state)


@dataclass(frozen=True, slots=True)
class _Parent:
    apply_pk: int
    apply_id: ApplyId
    state: ApplyState
    policy: Policy
    is_timed: bool


def project_parent(
    tx: Connection, apply_pk: int, who: str, *, rings: bool = False
) -> tuple[Due | DueControl, ...]:
    """Computes and writes the apply's state, its verdict with all that belongs to it, admits what may start, and asks
    for the cutover whose turn has come.

    Returns the cutover that has just become due. A caller that rings says so, and gets the dispatches as well that are
    next, marked as notified: then nobody else does so before that message may have been lost.
    """
    found = tx.execute(
        text("SELECT apply_identifier, state, policy, next_advance_at FROM applies WHERE id = :id"),
        {"id": apply_pk},
    )
    counts = tx.execute(TALLY, {"apply": apply_pk})
    row = found.one()
    parent = _Parent(
        apply_pk,
        ApplyId(row.apply_identifier),
        ApplyState(row.state),
        Policy.from_json(row.policy),
        row.next_advance_at is not None,
    )
    counted = tally_in(counts)
    projection = project(parent.policy, counted)
    if projection.skips_pending:
        _skip_never_started(tx, apply_pk, who)
    if projection.state is not parent.state:
        _write_state(tx, apply_pk, parent, projection.state, who)
    if projection.state.is_settled:
        _come_back(tx, parent, None)
        return ()
    turn = cut_over_next(tx, apply_pk, parent.apply_id, parent.policy, counted)
    times = [each for each in (turn, opens_in_s(parent.policy, counted)) if isinstance(each, float)]
    _come_back(tx, parent, min(times, default=None))
    cutovers = (turn,) if isinstance(turn, DueControl) else ()
    opened = opening(parent.policy, counted)
    if opened is not None:
        _admit(tx, parent, opened)
    return (*cutovers, *due_in(notify(tx, [apply_pk]))) if rings else cutovers


def _come_back(tx: Connection, parent: _Parent, in_s: float | None) -> None:
    """Writes down when something clears by itself, so that a sweep advances the apply then; None for nothing."""
    if in_s is None and not parent.is_timed:
        return
    tx.execute(
        text(
            "UPDATE applies SET next_advance_at = CASE WHEN CAST(:in_s AS float) IS NOT NULL"
            " THEN n.now + make_interval(secs => :in_s) END,"
            " advance_began_at = CASE WHEN CAST(:in_s AS float) IS NOT NULL THEN n.now END"
            " FROM (SELECT tern_clock() AS now) n WHERE id = :id"
        ),
        {"in_s": in_s, "id": parent.apply_pk},
    )


def _write_state(tx: Connection, apply_pk: int, parent: _Parent, state: ApplyState, who: str) -> None:
    message = ""
    if state in {ApplyState.FAILED, ApplyState.RUNNING_DEGRADED, ApplyState.PAUSED}:
        message = (
            tx.execute(
                text(
                    "SELECT deployment || ': ' || error_message FROM apply_operations"
                    " WHERE apply_id = :id AND state = 'failed' ORDER BY position LIMIT 1"
                ),
                {"id": apply_pk},
            ).scalar_one_or_none()
            or ""
        )
    tx.execute(
        text(
            "UPDATE applies SET state = :state, error_message = :message, revision = revision + 1,"
            " state_changed_at = tern_clock(), verdict_effects_done_at = NULL,"
            " completed_at = CASE WHEN :finished THEN tern_clock() END WHERE id = :id"
        ),
        {"state": state.value, "message": message, "finished": state.is_finished, "id": apply_pk},
    )
    event = "verdict" if state.is_settled else "projected"
    append(tx, Happening(apply_pk, event, who, None, message, parent.state.value, state.value))


def _skip_never_started(tx: Connection, apply_pk: int, who: str) -> None:
    rows = tx.execute(
        text(
            "UPDATE apply_operations SET state = 'skipped', state_changed_at = tern_clock(),"
            " completed_at = tern_clock(), next_attempt_at = NULL WHERE apply_id = :id AND state = 'pending'"
            " RETURNING id"
        ),
        {"id": apply_pk},
    ).all()
    ids = sorted(row.id for row in rows)
    settle_table_changes(tx, ids, State.SKIPPED, nothing_began=True)
    why = "the rollout is halted and it never started"
    append_all(
        tx,
        [Happening(apply_pk, Event.SKIP.value, who, key, why, "pending", "skipped") for key in ids],
    )
    close_fulfilled(tx, apply_pk, dict.fromkeys(ids, State.SKIPPED))


STUCK = (
    f"({STOP_IN_FORCE} IS NOT NULL"
    " OR coalesce((SELECT n.drained FROM deployments n WHERE n.name = o.deployment), false)"
    f" OR {IS_BLOCKED} OR {IS_OUTSTANDING})"
)
"""A pending operation o of apply a is held for a reason of its own, whatever the rollout's policy says."""

_OUTSIDE = (
    "SELECT o.id, o.deployment, o.position, {stuck} AS stuck FROM apply_operations o"
    " JOIN applies a ON a.id = o.apply_id WHERE o.apply_id = :id"
    " AND o.wave = :wave AND o.state = 'pending' AND o.next_attempt_at IS NULL{open} ORDER BY o.position"
    " LIMIT CAST(:room AS bigint)"
)
_ADMIT = (
    # The choice is made once, whatever the planner expects: joined, it was made again for each operation where the
    # statistics said that there are none.
    "UPDATE apply_operations SET next_attempt_at = n.now FROM (SELECT tern_clock() AS now) n"
    " WHERE id = ANY (ARRAY(SELECT c.id FROM ({chosen}) c))"
)
_ADMIT_ANY = text(
    # What is held for a reason of its own is walked around.
    _ADMIT.format(chosen=_OUTSIDE.format(stuck="false", open=f" AND NOT {STUCK}"))
)
_ADMIT_IN_ORDER = text(
    # Nobody goes before one that is held.
    _ADMIT.format(
        chosen="SELECT * FROM (SELECT x.*, bool_or(x.stuck) OVER (ORDER BY x.position) AS blocked"
        f" FROM ({_OUTSIDE.format(stuck=STUCK, open='')}) x) y WHERE NOT blocked"
    )
)


def _admit(tx: Connection, parent: _Parent, opened: Opening) -> None:
    """Makes the next operations of the order due. Which may really go is decided again when they are claimed."""
    tx.execute(
        _ADMIT_IN_ORDER if opened.in_order else _ADMIT_ANY,
        {
            "id": parent.apply_pk,
            "wave": opened.wave,
            "room": opened.room,
        },
    )

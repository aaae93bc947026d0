"""What must hold after every step of every scenario, read from the rows and from the engines' ledgers alone."""

from collections import Counter, defaultdict
from typing import Any

from tern.domain.policy import Policy
from tern.domain.projection import project
from tern.domain.states import Event, State
from tern.domain.tally import Standing, Tally
from tern.store.sql import text
from tests.world import World

STORED = "remote_id_stored"
NEEDS_AN_ID = {"waiting_for_cutover", "cutting_over", "revert_window", "reverting", "resuming", "reverted"}

_READ = (
    "SELECT a.id AS apply_pk, a.apply_identifier, a.state AS apply_state, a.operation_count, a.policy,"
    " a.external_id, o.id, o.deployment, o.position, o.wave, o.state, o.engine_resume_context, o.completed_at,"
    " o.attempt,"
    " o.dispatch_key, o.dispatch_key_is_dead, o.next_attempt_at, a.completed_at AS apply_completed_at,"
    " EXISTS (SELECT 1 FROM apply_events e WHERE e.operation_id = o.id AND e.event = 'finish') AS is_said_completed,"
    " r.failures_released, coalesce(o.ended_after_request < r.id, false) AS was_seen,"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent')"
    "   AND (d.next_attempt_at IS NOT NULL OR o.completed_at IS NOT NULL OR o.state = 'stopped')) AS is_wished"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " LEFT JOIN LATERAL (SELECT failures_released, id FROM control_requests"
    "   WHERE apply_id = a.id AND verb = 'release'{heard} ORDER BY id DESC LIMIT 1) r ON true"
    " ORDER BY a.id, o.position"
)
_OPERATIONS = text(_READ.format(heard=""))
_AS_HEARD = text(
    # Releases that somebody has taken up; one that was just written down waits for that.
    _READ.format(
        heard=" AND EXISTS (SELECT 1 FROM apply_events e WHERE e.apply_id = a.id AND e.event = 'released'"
        " AND CAST(e.detail ->> 'request' AS bigint) >= control_requests.id)"
    )
)


def assert_safe(world: World) -> None:
    """Raises AssertionError with the rows when a safety property is broken."""
    with world.database.begin() as tx:
        operations = tx.execute(_OPERATIONS).all()
        heard = tx.execute(_AS_HEARD).all()
        events = tx.execute(text("SELECT * FROM apply_events ORDER BY id")).all()
        held = tx.execute(text("SELECT * FROM target_reservations")).all()
    applies = defaultdict(list)
    for row in operations:
        applies[row.apply_pk].append(row)
    picture = world.picture()
    _assert_nothing_was_sent_of_what_is_pending(operations, picture)
    for rows in applies.values():
        _assert_ids_have_one_home(rows, picture)
        as_heard = [row for row in heard if row.apply_pk == rows[0].apply_pk]
        _assert_parent_is_a_function(rows, as_heard, picture)
    _assert_targets_are_held_by_what_may_act(operations, held, picture)
    _assert_nothing_was_sent_of_what_is_pending(operations, picture)
    _assert_events_tell_the_story(operations, events, picture)
    _assert_ids_and_claims_are_told(operations, events, picture)
    _assert_engines_were_asked_rightly(world, operations, picture)


def _assert_targets_are_held_by_what_may_act(operations: list[Any], held: list[Any], picture: str) -> None:
    """G13: what may still act holds its target, what is finished holds nothing unless a call of it may still act."""
    holders = {(row.operation_id, row.deployment) for row in held}
    finished = {row.id for row in operations if not _may_act(row)}
    assert not [row for row in held if row.held_since is None and row.operation_id in finished], picture
    for row in operations:
        was_sent = row.state != "pending" or row.dispatch_key is not None
        if was_sent and _may_act(row):
            assert (row.id, row.deployment) in holders, (row.deployment, picture)


def _assert_nothing_was_sent_of_what_is_pending(operations: list[Any], picture: str) -> None:
    """G4, G13: a pending one is skipped, withdrawn and left out of what may act without anybody being asked."""
    for row in operations:
        assert row.state != "pending" or row.dispatch_key is None or row.dispatch_key_is_dead, picture


def _may_act(row: Any) -> bool:
    has_id = bool(row.external_id or row.engine_resume_context)
    has_live_key = row.dispatch_key is not None and not row.dispatch_key_is_dead
    return row.completed_at is None and (row.state != "stopped" or has_id or has_live_key)


def _assert_ids_have_one_home(rows: list[Any], picture: str) -> None:
    """G1, S3: the id lives where the count says, and no state that needs one stands without it."""
    for row in rows:
        if row.operation_count == 1:
            assert row.engine_resume_context is None, picture
        else:
            assert row.external_id is None, picture
        remote_id = row.external_id or row.engine_resume_context
        assert row.state not in NEEDS_AN_ID or remote_id is not None, picture
        assert row.state != "completed" or remote_id is not None or row.is_said_completed, picture


def _assert_parent_is_a_function(rows: list[Any], as_heard: list[Any], picture: str) -> None:
    """G14, S11: the apply's state is what its operations and the open wishes amount to. A wish or a release that was
    just written down is computed in when somebody takes it up.
    """
    policy = Policy.from_json(rows[0].policy)
    expected = {
        project(policy, tally_of(told, wishes=wishes)).state.value
        for told in (rows, as_heard)
        for wishes in (True, False)
    }
    assert rows[0].apply_state in expected, picture


def tally_of(rows: list[Any], *, wishes: bool = True) -> Tally:
    """The operations of one apply, counted one by one."""
    return Tally.of(
        (
            Standing(
                row.position,
                State(row.state),
                row.wave,
                is_admitted=row.next_attempt_at is not None,
                is_wished=wishes and row.is_wished,
                has_remote_id=row.engine_resume_context is not None,
                was_seen=row.was_seen,
            )
            for row in rows
        ),
        rows[0].failures_released,
    )


def _assert_events_tell_the_story(operations: list[Any], events: list[Any], picture: str) -> None:
    """S21: every change of state has its event, in order and without a gap."""
    story: dict[int, str] = {}
    for event in events:
        if event.operation_id is None or event.event not in set(Event):
            continue
        assert event.before == story.get(event.operation_id, "pending"), (dict(event._mapping), picture)
        story[event.operation_id] = event.after
    for row in operations:
        assert row.state == story.get(row.id, "pending"), (dict(row._mapping), picture)


def _assert_ids_and_claims_are_told(operations: list[Any], events: list[Any], picture: str) -> None:
    """G15: whatever way an id came in, and whoever took the operation over, an event says so."""
    told = {(event.operation_id, event.detail.get("remote_id")) for event in events if event.event == STORED}
    claims = Counter(event.operation_id for event in events if event.event == Event.CLAIM.value)
    for row in operations:
        remote_id = row.external_id or row.engine_resume_context
        assert remote_id is None or (row.id, remote_id) in told, (dict(row._mapping), picture)
        assert row.attempt == claims[row.id], (dict(row._mapping), picture)


def _assert_engines_were_asked_rightly(world: World, operations: list[Any], picture: str) -> None:
    """G2, G4, S1, S6: one effect per key, and no id goes to an engine that did not issue it for that operation."""
    names = {f"{row.apply_identifier}/{row.deployment}" for row in operations}
    for deployment, engine in world.engines.items():
        issued = {effect.remote_id: effect.operation for effect in engine.effects("apply")}
        assert all(count == 1 for count in Counter(effect.key for effect in engine.effects("apply")).values())
        for call in engine.calls():
            if call.method in {"Stop", "Start", "Cutover", "Cancel", "Progress"}:
                assert issued.get(call.remote_id) == call.operation, (call, picture)
            if call.method == "Apply":
                assert call.operation in names, (call, picture)
                assert call.operation.endswith(f"/{deployment}"), (call, picture)
                assert call.key, (call, picture)

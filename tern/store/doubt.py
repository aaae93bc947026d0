"""Whose an engine's id is: operations locked in order, and what becomes of two that were given one id (G2)."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from psycopg import IntegrityError

from tern.domain.doubt import Doubt
from tern.domain.evidence import after_taken
from tern.domain.states import Event, State
from tern.store.event import Happening, append
from tern.store.projection import move, project_parent
from tern.store.scope import REMOTE_ID
from tern.store.sql import Connection, Row, text
from tern.store.step import APPLY_IS_ANSWERED, CLAIMED_FOR_S

_LOCK_APPLIES = text(
    "SELECT 1 FROM applies WHERE id IN (SELECT apply_id FROM apply_operations WHERE id = ANY(:ids))"
    " ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_OPERATIONS = text(
    f"SELECT o.*, {REMOTE_ID} AS remote_id, a.operation_count, a.external_id, a.apply_identifier, a.environment,"
    f" a.database, {CLAIMED_FOR_S} AS claimed_for_s,"
    " extract(epoch FROM tern_clock() - o.unanswered_since)::float AS unanswered_for_s,"
    # A stamp ahead of now, under a clock that was set back, is of now.
    " greatest(0, extract(epoch FROM tern_clock() - o.unheard_since))::float AS unheard_for_s,"
    # Where it is called now; its engine may have moved since the dispatch.
    " coalesce((SELECT n.address FROM deployments n WHERE n.name = o.deployment), o.dispatched_to) AS called_at"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.id = ANY(:ids)"
    " ORDER BY o.id FOR NO KEY UPDATE OF o"
)
_HOLDER = text("SELECT operation_id FROM remote_ids WHERE engine_number = :engine AND remote_id = :remote_id")
_HAVE_IT = text(
    "SELECT operation_id FROM remote_ids WHERE remote_id = :remote_id AND operation_id = ANY(:ids)"
)
_DOUBTED_ONLY = text("UPDATE apply_operations SET doubt = :doubt WHERE id = :id")
_DOUBTED = (
    "doubt = :doubt, claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL, fence = fence + 1,"
    " next_attempt_at = NULL, next_poll_at = CASE WHEN :looks THEN tern_clock() END,"
    # It was answered, if not by anything that helps.
    f" error_reason = 'REMOTE_ID_TAKEN', error_message = :words, {APPLY_IS_ANSWERED}"
)


def lock_operations(tx: Connection, ids: Sequence[int]) -> Mapping[int, Row]:
    """Operations of any applies, read after their applies and they themselves were locked, each kind in order."""
    given = {"ids": sorted(set(ids))}
    tx.execute(_LOCK_APPLIES, given)
    return {row.id: row for row in tx.execute(_LOCK_OPERATIONS, given)}


def is_taken(error: IntegrityError) -> bool:
    """The database refused to give one engine's id to a second operation."""
    return error.diag.constraint_name == "remote_ids_belong_to_one_operation"


def holder_of_id(tx: Connection, engine: int | None, remote_id: str) -> int | None:
    """The operation that the engine's id belongs to; None where it is nobody's."""
    if engine is None:
        return None
    return tx.execute(_HOLDER, {"engine": engine, "remote_id": remote_id}).scalar_one_or_none()


def doubt(tx: Connection, rows: Sequence[Row], remote_id: str, who: str) -> None:
    """These operations, whose rows and applies the caller has locked, were given one id. Whoever is just driving one of
    them has lost it, no sample is believed, and nothing goes forward until a person has said whose it is. One that is
    finished stays what it is; while the id is its own, what is outstanding of it is held as well.
    """
    ids = [row.id for row in rows]
    own = set(tx.execute(_HAVE_IT, {"remote_id": remote_id, "ids": ids}).scalars())
    names = " and to ".join(f"{row.apply_identifier}/{row.deployment}" for row in rows)
    words = f"its engine gave the remote id {remote_id} to {names}, so nobody here can tell whose work it is"
    words += _ways_out(rows, remote_id, own)
    for row in rows:
        state = State(row.state)
        after = after_taken(state)
        if row.doubt == Doubt.TAKEN.value or (after is None and row.id not in own):
            continue
        if after is None:
            tx.execute(_DOUBTED_ONLY, {"doubt": Doubt.TAKEN.value, "id": row.id})
            append(
                tx, Happening(row.apply_id, "remote_id_taken", who, row.id, words, state.value, state.value)
            )
            continue
        given = {"doubt": Doubt.TAKEN.value, "looks": row.remote_id is not None, "words": words}
        if after is state:
            tx.execute(
                text(f"UPDATE apply_operations SET {_DOUBTED} WHERE id = :id"), {**given, "id": row.id}
            )
            append(
                tx, Happening(row.apply_id, "remote_id_taken", who, row.id, words, state.value, state.value)
            )
            continue
        move(
            tx,
            operation_id=row.id,
            apply_pk=row.apply_id,
            state=state,
            event=Event.LOSE_TRACK,
            who=who,
            why=words,
            detail={"remote_id": remote_id},
            assignments=_DOUBTED,
            values=given,
        )
    for apply_pk in sorted({row.apply_id for row in rows}):
        project_parent(tx, apply_pk, who)


def _ways_out(rows: Sequence[Row], remote_id: str, own: AbstractSet[int]) -> str:
    """What a person says who looked at the engine, where it is known which of two has the id. What is finished is
    followed by no id any more.
    """
    holders = [f"{row.apply_identifier}/{row.deployment}" for row in rows if row.id in own]
    others = [
        f"{row.apply_identifier}/{row.deployment}"
        for row in rows
        if row.id not in own and row.remote_id is None and not State(row.state).is_finished
    ]
    if len(holders) != 1:
        return ""
    ways = [f"tern resolve {holders[0]} --as same-work --reason '…'"]
    ways += [
        f"tern resolve {other} --as remote-id={remote_id} --taken-from {holders[0]} --reason '…'"
        for other in others
    ]
    return f": {', or '.join(ways)}"

"""An id that was given out twice, and a person who says whose it is (G2, G5): the guard moves, and the one that had it
has lost its work, whether an operation follows that or not.
"""

from collections.abc import Mapping, Sequence

from tern.domain.control import Delivery
from tern.domain.doubt import Doubt
from tern.domain.errors import Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.states import Event, State
from tern.store.doubt import holder_of_id, lock_operations
from tern.store.event import Happening, append
from tern.store.outstanding_settle import concerned_by, lock_applies, settle, wake
from tern.store.projection import close_deliveries, move, project_parent
from tern.store.reservation import give_back
from tern.store.sql import Connection, Row, text
from tern.store.wish import take_up_wishes

_MOVE_GUARD = text(
    "UPDATE remote_ids SET operation_id = :to_id, stored_at = tern_clock()"
    " WHERE engine_number = :engine AND remote_id = :remote_id AND operation_id = :from_id"
)
_LINES = (
    "SELECT c.* FROM outstanding_calls c WHERE c.operation_id = :id AND c.remote_id = :remote_id"
    " AND (c.settled_at IS NULL OR c.next_look_at IS NOT NULL) ORDER BY c.id"
)
_LINES_NOW, _LINES_LOCKED = text(_LINES), text(f"{_LINES} FOR NO KEY UPDATE")
_NOBODY_LOOKS = text("UPDATE outstanding_calls SET next_look_at = NULL WHERE id = ANY(:ids)")
_HAS_AN_ID = text("SELECT 1 FROM remote_ids WHERE operation_id = :id LIMIT 1")
_APPLIES = text("SELECT apply_id FROM apply_operations WHERE id = ANY(:ids)")
_OUT_OF_DOUBT = text(
    "UPDATE apply_operations SET doubt = '', fence = fence + 1,"
    " error_message = CASE WHEN completed_at IS NULL THEN :words ELSE error_message END WHERE id = :id"
)


def has_an_id(tx: Connection, row: Row) -> bool:
    """An id is the operation's: its own, or that of something outstanding."""
    return row.remote_id is not None or tx.execute(_HAS_AN_ID, {"id": row.id}).one_or_none() is not None


def lock_with_holder(
    tx: Connection, own: int, holder: int | None, remote_id: RemoteId | None
) -> tuple[Mapping[int, Row], Sequence[int]]:
    """The operations, after the applies that their answer concerns, each kind in order; and those of these applies that
    may wait for what the holder has outstanding under the id.
    """
    if holder is None:
        return lock_operations(tx, [own]), ()
    ids = [own, holder]
    lines = tx.execute(_LINES_NOW, {"id": holder, "remote_id": remote_id}).all()
    waiting = sorted(concerned_by(tx, [line.id for line in lines]))
    lock_applies(tx, {*waiting, *tx.execute(_APPLIES, {"ids": ids}).scalars()})
    return lock_operations(tx, ids), waiting


def check_holder(
    tx: Connection, holder: Row, row: Row, name: ScopeName | None, remote_id: RemoteId | None
) -> None:
    """Raises Refused unless the id stands there, at the same engine, and nobody says that it is its own work. It may be
    the id of something outstanding there, which no operation follows.
    """
    why = []
    is_other_engine = (
        None not in {holder.engine_number, row.engine_number} and holder.engine_number != row.engine_number
    )
    has_it = remote_id is not None and holder_of_id(tx, row.engine_number, remote_id) == holder.id
    if holder.id == row.id:
        why.append("that is the same operation")
    elif not has_it and (holder.remote_id != remote_id or is_other_engine):
        why.append(f"{name} does not have the remote id {remote_id} of this engine")
    elif not State(holder.state).is_finished and holder.doubt != Doubt.TAKEN.value:
        why.append(f"{name} is {holder.state}, and its engine has not given this id to anybody else")
    if why:
        message = f"the remote id {remote_id} is not taken from {name}"
        raise Refused(message, why=tuple(why), unchanged="Nothing was written.", reason="REMOTE_ID_NOT_THERE")


def take_from(
    tx: Connection,
    holder: Row,
    row: Row,
    name: ScopeName,
    remote_id: RemoteId,
    caller: str,
    reason: str,
    *,
    waiting: Sequence[int],
) -> None:
    """The id is another's: nothing is sent with it for its holder any more, whose own work nobody can follow then, and
    nothing of that can act. waiting: the applies, locked, that may go on by it.
    """
    given: Mapping[str, object] = {
        "engine": row.engine_number,
        "remote_id": remote_id,
        "from_id": holder.id,
        "to_id": row.id,
    }
    tx.execute(_MOVE_GUARD, given)
    words = f"its remote id {remote_id} is the work of {name}, says {caller}: {reason}"
    _settle_lines(tx, holder, row, remote_id, caller, words, waiting)
    if State(holder.state).is_finished or holder.remote_id != remote_id:
        tx.execute(_OUT_OF_DOUBT, {"id": holder.id, "words": words})
        take_up_wishes(tx, holder.id)
        if State(holder.state).is_finished and holder.unanswered_since is None:
            # Kept in case that its engine tries the job again, which is not its own.
            give_back(tx, [holder.id])
    else:
        _end(tx, holder, caller, words)
    project_parent(tx, holder.apply_id, caller)


def _settle_lines(
    tx: Connection,
    holder: Row,
    row: Row,
    remote_id: RemoteId,
    caller: str,
    words: str,
    waiting: Sequence[int],
) -> None:
    """What is outstanding under that id at that engine is nothing of the holder's; what stands at another one stays."""
    found = tx.execute(_LINES_LOCKED, {"id": holder.id, "remote_id": remote_id}).all()
    lines = [line for line in found if line.engine_number in {None, row.engine_number}]
    if not lines:
        return
    if open_lines := [line for line in lines if line.settled_at is None]:
        settle(tx, open_lines, as_="id_taken", who=caller, reason=words)
    tx.execute(_NOBODY_LOOKS, {"ids": [line.id for line in lines]})
    wake(tx, [line.id for line in lines], waiting)


def _end(tx: Connection, holder: Row, caller: str, words: str) -> None:
    opened = tx.execute(
        text(
            "SELECT d.id, d.verb, d.state, r.caller FROM control_deliveries d JOIN control_requests r"
            " ON r.id = d.request_id WHERE d.operation_id = :id AND d.state IN ('pending', 'sent')"
            " ORDER BY d.id FOR UPDATE OF d"
        ),
        {"id": holder.id},
    ).all()
    close_deliveries(tx, {each.id: Delivery.FAILED for each in opened}, words)
    for each in opened:
        append(
            tx,
            Happening(
                holder.apply_id, f"{each.verb}_failed", each.caller, holder.id, words, each.state, "failed"
            ),
        )
    move(
        tx,
        operation_id=holder.id,
        apply_pk=holder.apply_id,
        state=State(holder.state),
        event=Event.END,
        who=caller,
        why=words,
        assignments=(
            "error_message = :words, error_reason = 'ID_LOST', next_attempt_at = NULL, next_poll_at = NULL, doubt = '',"
            " fence = fence + 1, claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"
        ),
        values={"words": words},
        may_have_wishes=False,
    )

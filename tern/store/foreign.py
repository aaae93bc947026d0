"""What is written where an engine shows other work under an operation's id (G2, G10). Both expect the apply's lock."""

from tern.domain.control import Verb, fulfilment
from tern.domain.states import Event, State
from tern.domain.timing import PollPace
from tern.store.event import Happening, append
from tern.store.projection import close_deliveries, move
from tern.store.seen import SAMPLED_WITH_IT, Seen
from tern.store.sql import Connection, text


def hold_in_doubt(tx: Connection, seen: Seen, pace: PollPace) -> None:
    """What its engine says of its id is about other work: nothing of it is taken over, and nothing is sent any more. A
    driver that has it just now loses its claim, so that what it was about to send is not sent.
    """
    row = seen.row
    words = f"what the engine at {row.deployment} says of {row.remote_id} is not about this work: "
    words += "; ".join(seen.evidence.against)
    assignments = (
        "error_reason = 'FOREIGN_WORK', error_message = :words, doubt = 'foreign', next_attempt_at = NULL,"
        " fence = fence + 1, claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL,"
        f" {SAMPLED_WITH_IT}"
    )
    # From now on each look is answered in full: it may be the one that shows our work again.
    values = {"words": words, **seen.line(pace), "revision": "0"}
    who, state = f"engine:{row.deployment}", State(row.state)
    if state is State.UNCERTAIN:
        statement = text(f"UPDATE apply_operations SET {assignments} WHERE id = :id")
        tx.execute(statement, {**values, "id": row.id})
        append(tx, Happening(row.apply_id, "in_doubt", who, row.id, words, state.value, state.value))
        return
    move(
        tx,
        operation_id=row.id,
        apply_pk=row.apply_id,
        state=state,
        event=Event.LOSE_TRACK,
        who=who,
        why=words,
        detail={"remote_id": row.remote_id},
        assignments=assignments,
        values=values,
    )


def end_foreign_work(tx: Connection, seen: Seen) -> None:
    """Who had that job halted although it is not ours is told once it is; about our own work it says nothing."""
    row, sample = seen.row, seen.sample
    if not seen.ends_foreign_work or sample is None or sample.state is None:
        return
    halts = tx.execute(
        text(
            "SELECT d.id, d.verb, d.state, r.caller FROM control_deliveries d"
            " JOIN control_requests r ON r.id = d.request_id WHERE d.operation_id = :id AND d.state = 'sent'"
            " AND d.although_foreign <> '' ORDER BY d.id FOR UPDATE OF d"
        ),
        {"id": row.id},
    ).all()
    for halt in halts:
        fate = fulfilment(Verb(halt.verb), sample.state)
        if fate is None:
            continue
        words = f"the job {row.remote_id}, which is other work, is {sample.said}"
        close_deliveries(tx, {halt.id: fate}, words)
        told = f"{halt.verb}_{fate.value}"
        append(tx, Happening(row.apply_id, told, halt.caller, row.id, words, halt.state, fate.value))

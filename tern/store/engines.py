"""Engines by number. Two numbers that were proven to be one engine become one (G2, G13); and an engine that shows
itself to be another one is sent nothing again (G4).
"""

from tern.domain.states import Event, State
from tern.domain.work import Fenced, KeyLook
from tern.ports import StorageUnavailable
from tern.store.doubt import doubt, lock_operations
from tern.store.projection import move, project_parent
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps

_TRIES = 5

_IS_LOOKED_AT = "(settled_at IS NULL OR next_look_at IS NOT NULL)"
# All operations that have anything to do with either number, or may have in a moment: their drivers write down an
# engine's number under their apply's lock.
_CONCERNED = text(
    "SELECT o.id FROM apply_operations o WHERE o.completed_at IS NULL AND (o.engine_number = ANY(:numbers)"
    "   OR o.deployment IN (SELECT name FROM deployments WHERE engine_number = ANY(:numbers)))"
    " UNION SELECT operation_id FROM remote_ids WHERE engine_number = ANY(:numbers)"
    f" UNION SELECT operation_id FROM outstanding_calls WHERE engine_number = ANY(:numbers) AND {_IS_LOOKED_AT}"
)
# A driver that reads its deployment's number waits for this lock and then reads the older one.
_LOCK_DEPLOYMENTS = text(
    "SELECT 1 FROM deployments WHERE engine_number = ANY(:numbers) ORDER BY name FOR UPDATE"
)
_TWICE = text(
    "SELECT y.remote_id, y.operation_id AS one, e.operation_id AS other FROM remote_ids y JOIN remote_ids e"
    " ON e.engine_number = :older AND e.remote_id = y.remote_id AND e.operation_id <> y.operation_id"
    " WHERE y.engine_number = :younger ORDER BY y.operation_id FOR UPDATE"
)
_KEEPS = "engine_number = :younger AND operation_id <> ALL(:kept)"
# An operation of which an id stands at both keeps its number, with all that is written of it: its other ids and its
# lines are of the same engine, and a line without its id's row there is asked about by nobody.
_UNITED = (
    text("UPDATE deployments SET engine_number = :older WHERE engine_number = :younger"),
    text(
        "UPDATE apply_operations SET engine_number = :older WHERE engine_number = :younger AND id <> ALL(:kept)"
    ),
    # What was let go is watched for a while, and belongs together with its id like what holds a target.
    text(f"UPDATE outstanding_calls SET engine_number = :older WHERE {_KEEPS} AND {_IS_LOOKED_AT}"),
    text(
        # One operation may have had the same id under both.
        f"DELETE FROM remote_ids y WHERE {_KEEPS} AND EXISTS (SELECT FROM remote_ids e"
        "   WHERE e.engine_number = :older AND e.remote_id = y.remote_id)"
    ),
    text(f"UPDATE remote_ids SET engine_number = :older WHERE {_KEEPS}"),
    # Whoever is added where the younger one was is found by those who are reached there.
    text("UPDATE engines SET address = '' WHERE number = :younger"),
)
_AT_EITHER = text(
    "SELECT d.engine_number FROM deployments d WHERE d.name = :name"
    " UNION SELECT e.number FROM deployments d JOIN engines e ON e.environment = d.environment"
    "   AND e.address = :address WHERE d.name = :name"
    " UNION SELECT o.engine_number FROM deployments d JOIN deployments o ON o.environment = d.environment"
    "   AND o.address = :address WHERE d.name = :name ORDER BY 1"
)


class EngineSteps(Steps):
    """What becomes of engines' numbers, on PostgreSQL."""

    def unite_engines(self, one: int, other: int) -> None:
        """See ports.DeploymentStore."""
        older, younger = sorted((one, other))
        if older == younger:
            return
        for _ in range(_TRIES):
            with transaction(self.engine) as tx:
                if _unite(tx, older, younger, self.owner):
                    return
        message = (
            f"operations at the engines {older} and {younger} come faster than their applies can be locked"
        )
        raise StorageUnavailable(message)

    def unite_engines_at(self, name: str, address: str) -> None:
        """See register_port.MovingStore."""
        with transaction(self.engine) as tx:
            found = [*tx.execute(_AT_EITHER, {"name": name, "address": address}).scalars()]
        numbers = [number for number in found if number is not None]
        for other in numbers[1:]:
            self.unite_engines(numbers[0], other)

    def record_no_answer_by_key(self, look: KeyLook, shown: str) -> Fenced:
        """See evidence.EvidenceStore."""
        key, operation_id = look.claim.key, look.claim.operation_id
        with transaction(self.engine) as tx:
            row = lock_operations(tx, [operation_id])[operation_id]
            is_as_it_was = (row.fence, row.dispatch_key, row.remote_id) == (look.claim.fence, key, None)
            if not is_as_it_was or row.state != State.FAILED_RETRYABLE.value or row.claim_token is not None:
                return Fenced.LOST
            move(
                tx,
                operation_id=row.id,
                apply_pk=row.apply_id,
                state=State(row.state),
                event=Event.LOSE_TRACK,
                who=self.owner,
                why=shown,
                assignments=(
                    "fence = fence + 1, next_attempt_at = NULL, error_reason = 'UNANSWERED', error_message = :words,"
                    # Whether an engine is there at all is asked, as of every operation that only a person settles.
                    " next_poll_at = tern_clock() + make_interval(secs => :slow_s)"
                ),
                values={"words": shown, "slow_s": self.pace.slow_s},
            )
            project_parent(tx, row.apply_id, self.owner)
        return Fenced.DONE


def _unite(tx: Connection, older: int, younger: int, who: str) -> bool:
    """False where an operation came between that nobody has locked: nothing was written then."""
    numbers = {"numbers": [older, younger]}
    rows = lock_operations(tx, list(tx.execute(_CONCERNED, numbers).scalars()))
    tx.execute(_LOCK_DEPLOYMENTS, numbers)
    if not set(tx.execute(_CONCERNED, numbers).scalars()) <= set(rows):
        return False
    given = {"older": older, "younger": younger}
    twice = tx.execute(_TWICE, given).all()
    for statement in _UNITED:
        tx.execute(statement, {**given, "kept": sorted({pair.one for pair in twice})})
    for pair in twice:
        doubt(tx, [rows[pair.one], rows[pair.other]], pair.remote_id, who)
    return True

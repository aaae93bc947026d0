"""Releasing a paused rollout; the twin of tern/store/release.py."""

from tern.domain.admission import admit_release
from tern.domain.budget import failures_to_release
from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.states import ApplyState
from tern.ports import Asked, WishReceipt
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import tell
from tests.simulation.memory.rows import ApplyRow
from tests.simulation.memory.tally import ask, tally


def accept_release(db: Database, asked: Asked, apply: ApplyRow) -> WishReceipt:
    """The answer for the apply as a whole; only one that opens something is written down."""
    if asked.selection.is_made or asked.expected is not None:
        message = "a release is about the whole apply"
        raise Refused(message, reason="SELECTION_MEANINGLESS")
    counted = tally(db, apply.id)
    line = admit_release(ApplyState(apply.state), db.policy(apply.id), counted)
    if asked.dry_run or line.outcome is not Receipt.ACCEPTED:
        return WishReceipt(None, (line,))
    outcomes = [{"deployment": line.deployment, "outcome": line.outcome.value, "reason": line.reason}]
    request = ask(db, apply.id, Verb.RELEASE, asked.caller, asked.reason, [*outcomes])
    db.write(request, failures_released=failures_to_release(counted))
    return WishReceipt(request.id, (line,))


def hear_releases(db: Database, apply_pk: int) -> None:
    """Puts into the record that the rollout was released."""
    heard = max(
        (
            one.at
            for one in db.events.values()
            if one.apply_id == apply_pk and one.operation_id is None and one.event == "released"
        ),
        default=0.0,
    )
    unheard = [
        one
        for one in db.requests.values()
        if one.apply_id == apply_pk and one.verb == "release" and one.created_at > heard
    ]
    for request in sorted(unheard, key=lambda one: one.id):
        detail = {"request": request.id, "failures": request.failures_released}
        tell(db, apply_pk, "released", request.caller, None, request.reason, detail=detail)

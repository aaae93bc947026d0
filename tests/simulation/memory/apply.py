"""Durable steps of whole applies; the twin of tern/store/apply.py and reservation.py."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.model import Plan
from tern.domain.states import SETTLED_APPLY, ApplyState
from tern.domain.waves import Place, divide
from tern.ports import AcceptedApply, Due, DueControl, NewApply
from tern.store.apply import _digest, _shares, request_body
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import project_parent, tell
from tests.simulation.memory.register import RegisterSteps, plan_named
from tests.simulation.memory.release import hear_releases
from tests.simulation.memory.rows import (
    ApplyRow,
    OperationRow,
    ReservationRow,
    TableChangeRow,
)


class ApplySteps(RegisterSteps):
    """ports.ApplyStore in memory."""

    def accept_apply(self, new: NewApply) -> AcceptedApply:
        """See ports.ApplyStore."""
        db = self.db
        body = request_body(new)
        with db.transaction():
            known = next(
                (row for row in db.applies.values() if row.idempotency_key == new.idempotency_key), None
            )
            if known is not None:
                if known.request_digest != _digest(body):
                    message = f"the key {new.idempotency_key} belongs to another request"
                    raise Refused(message, reason="KEY_REUSED")
                return AcceptedApply(ApplyId(known.apply_identifier), is_new=False)
            plan_pk, plan = plan_named(db, new.plan_id)
            places = _check(db, new, plan)
            apply_id = ApplyId(self.identifier("apl"))
            apply_pk = db.next_id("applies")
            db.insert(
                ApplyRow(
                    apply_pk,
                    apply_id,
                    plan_pk,
                    plan.environment,
                    plan.database,
                    len(new.deployments),
                    {
                        "allow_unsafe": new.allow_unsafe,
                        "request": json.loads(json.dumps(body)),
                        "known_as": new.known_as,
                    },
                    new.policy.as_json(),
                    new.idempotency_key,
                    _digest(body),
                    new.caller,
                    new.reason,
                    db.now,
                    db.now,
                )
            )
            self._insert_operations(apply_pk, plan_pk, places, _shares(new, plan, self._targets(new)))
            if not take(db, apply_pk, plan.environment, plan.database, new.deployments):
                message = "the rollout was refused: another apply holds a target"
                raise Refused(message, reason="TARGET_HELD")
            detail = {"plan": new.plan_id, "digest": plan.digest, "operations": len(new.deployments)}
            tell(db, apply_pk, "accepted", new.caller, None, new.reason, detail=detail)
            due = project_parent(db, apply_pk, new.caller, rings=True)
            return AcceptedApply(apply_id, is_new=True, first=tuple(x for x in due if isinstance(x, Due)))

    def _targets(self, new: NewApply) -> Mapping[str, str]:
        return {name: self.db.deployments[name].target for name in new.deployments}

    def _insert_operations(
        self, apply_pk: int, plan_pk: int, places: Sequence[Place], shares: Mapping[str, tuple[str, str]]
    ) -> None:
        db = self.db
        for place in places:
            name = place.deployment
            target, digest = shares[name]
            number = db.next_id("apply_operations")
            db.insert(
                OperationRow(
                    number, apply_pk, name, place.position, target, db.now, place.wave, change_digest=digest
                )
            )
        for operation in db.operations_of[apply_pk]:
            for ordinal, change in enumerate(db.plan_changes[plan_pk]):
                db.insert(
                    TableChangeRow(
                        db.next_id("table_changes"),
                        operation.id,
                        apply_pk,
                        ordinal,
                        change.namespace,
                        change.table_name,
                        change.ddl,
                        change.action.value,
                        change.unsafe_reason,
                    )
                )

    def knows_key(self, idempotency_key: str) -> bool:
        """See ports.ApplyStore."""
        with self.db.transaction():
            return any(row.idempotency_key == idempotency_key for row in self.db.applies.values())

    def refuse_held(self, environment: str, database: str, deployments: Sequence[str]) -> None:
        """See ports.ApplyStore."""
        db = self.db
        with db.transaction():
            if any(db.holder(environment, database, name) is not None for name in deployments):
                message = "the rollout was refused: another apply holds a target"
                raise Refused(message, reason="TARGET_HELD")

    def advance_apply(self, apply_id: ApplyId) -> tuple[Due | DueControl, ...]:
        """See ports.ApplyStore."""
        db = self.db
        with db.transaction():
            apply = db.apply_named(apply_id)
            if apply is None:
                message = f"there is no apply {apply_id}"
                raise NotFound(message)
            hear_releases(db, apply.id)
            due = project_parent(db, apply.id, self.owner)
            ready = [
                row
                for row in db.operations_of[apply.id]
                if row.state == "pending"
                and row.next_attempt_at is not None
                and row.next_attempt_at <= db.now
                and row.rung_at is None
            ]
            cutovers = tuple(each for each in due if isinstance(each, DueControl))
            return (*cutovers, *(Due(row.id, ScopeName(apply_id, row.deployment)) for row in ready[:20]))

    def claim_verdict_effects(self, apply_id: ApplyId) -> str | None:
        """See ports.ApplyStore."""
        db = self.db
        with db.transaction():
            apply = db.apply_named(apply_id)
            if apply is None or apply.verdict_effects_done_at is not None:
                return None
            if ApplyState(apply.state) not in SETTLED_APPLY:
                return None
            db.write(apply, verdict_effects_done_at=db.now)
            counts = Counter(row.state for row in db.operations_of[apply.id])
            words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            summary = f"{apply_id} {apply.state}: {words}"
            summary += f" ({apply.error_message})" if apply.error_message else ""
            tell(db, apply.id, "summary", self.owner, None, summary, after=apply.state)
            return summary


def take(db: Database, apply_pk: int, environment: str, database: str, deployments: Sequence[str]) -> bool:
    """Takes all targets for the apply; what it holds already counts as taken."""
    held = 0
    for name in sorted(deployments):
        row = db.reservations.get((environment, database, name))
        if row is None:
            db.insert(ReservationRow(environment, database, name, apply_pk, db.now))
        held += row is None or row.apply_id == apply_pk
    return held == len(deployments)


def holder_in_words(db: Database, environment: str, database: str, deployment: str) -> str:
    """Who holds a target and how far it is."""
    apply = db.holder(environment, database, deployment)
    if apply is None:
        return "another apply"
    done = sum(row.state == "completed" for row in db.operations_of[apply.id])
    return f"{apply.apply_identifier} ({apply.state}, {done} of {apply.operation_count} completed)"


def _check(db: Database, new: NewApply, plan: Plan) -> Sequence[Place]:
    labels = {name: db.deployments[name].labels for name in new.deployments if name in db.deployments}
    division = divide(new.policy.waves, labels)
    found = [db.deployments.get(name) for name in new.deployments]
    home = (plan.environment, plan.database)
    wrong = (
        new.policy.contradictions()
        or division.why
        or not new.deployments
        or len(set(new.deployments)) < len(new.deployments)
        or not new.reason.strip()
        or not new.idempotency_key
        or plan.environment != new.environment
        or (any(change.is_unsafe for change in plan.changes) and not new.allow_unsafe)
        or any(row is None or row.drained or (row.environment, row.database) != home for row in found)
    )
    if wrong:
        message = "the rollout was refused"
        raise Refused(message, reason="APPLY_REFUSED")
    return division.places

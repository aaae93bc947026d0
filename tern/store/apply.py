"""Durable steps of whole applies. Each method is one transaction."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tern.domain.difference import differences
from tern.domain.errors import NotFound, Refused
from tern.domain.holds import Holding
from tern.domain.identity import ApplyId
from tern.domain.model import Plan
from tern.domain.review import changes_digest, operation_digest, sent_options, strays
from tern.domain.states import State
from tern.domain.waves import Place, divide
from tern.ports import AcceptedApply, Due, DueControl, NewApply
from tern.store.deployment import load_named
from tern.store.event import Happening, append
from tern.store.half_done import half_done, refuse_half_done
from tern.store.plan import load_plan, new_identifier
from tern.store.preview import insert_previews
from tern.store.projection import project_parent
from tern.store.release import hear_releases
from tern.store.reservation import holders, take_all
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps, lock_apply
from tern.store.twin import one_target


@dataclass(frozen=True, slots=True)
class CarriesOn:
    """What an operation carries on: the one before it, and which statements of the first its own are, in order."""

    operation_id: int
    origins: tuple[int, ...]


class ApplySteps(Steps):
    """ports.ApplyStore on PostgreSQL."""

    def accept_apply(self, new: NewApply) -> AcceptedApply:
        """See ports.ApplyStore."""
        body = request_body(new)
        with transaction(self.engine) as tx:
            if key_is_used(tx, new):
                return same_request(tx, new, body)
            plan_pk, plan = load_plan(tx, new.plan_id)
            places, targets = check(tx, new, plan)
            apply_id = ApplyId(new_identifier("apl"))
            apply_pk = insert_apply(tx, new, plan_pk, plan, apply_id, body)
            if apply_pk is None:
                return same_request(tx, new, body)
            insert_operations(tx, apply_pk, plan_pk, places, shares(new, plan, targets))
            insert_previews(tx, plan_pk, apply_pk, new.foretold, new.caller)
            if held := take_all(tx, apply_pk):
                raise target_refusal(held)
            # Now that the targets are ours nobody leaves anything there any more.
            left = half_done(tx, new.deployments)
            if not new.accept_drift:
                refuse_half_done(left)
            detail = {"plan": new.plan_id, "digest": plan.digest, "operations": len(new.deployments)}
            append(tx, Happening(apply_pk, "accepted", new.caller, None, new.reason, detail=detail))
            due = project_parent(tx, apply_pk, new.caller, rings=True)
            first = tuple(each for each in due if isinstance(each, Due))
            return AcceptedApply(apply_id, is_new=True, first=first, told=tuple(each.words for each in left))

    def knows_key(self, idempotency_key: str) -> bool:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            statement = text("SELECT 1 FROM applies WHERE idempotency_key = :key")
            return tx.execute(statement, {"key": idempotency_key}).one_or_none() is not None

    def refuse_held(self, environment: str, database: str, deployments: Sequence[str]) -> None:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            held = holders(tx, environment, database, deployments)
        if held:
            raise target_refusal(held)

    def advance_apply(self, apply_id: ApplyId) -> tuple[Due | DueControl, ...]:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            apply_pk = tx.execute(
                text("SELECT id FROM applies WHERE apply_identifier = :id"), {"id": apply_id}
            ).scalar_one_or_none()
            if apply_pk is None:
                message = f"there is no apply {apply_id}"
                raise NotFound(message)
            lock_apply(tx, apply_pk)
            hear_releases(tx, apply_pk)
            return project_parent(tx, apply_pk, self.owner, rings=True)

    def claim_verdict_effects(self, apply_id: ApplyId) -> str | None:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            apply_pk = tx.execute(
                text("SELECT id FROM applies WHERE apply_identifier = :id FOR NO KEY UPDATE"),
                {"id": apply_id},
            ).scalar_one_or_none()
            row = tx.execute(
                text(
                    "UPDATE applies a SET verdict_effects_done_at = tern_clock() WHERE a.id = :id"
                    " AND a.verdict_effects_done_at IS NULL"
                    " AND a.state IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped')"
                    " RETURNING a.state, a.error_message, (SELECT string_agg(n || ' ' || state, ', ' ORDER BY state)"
                    " FROM (SELECT state, count(*) AS n FROM apply_operations WHERE apply_id = a.id GROUP BY state) c)"
                    " AS counts"
                ),
                {"id": apply_pk},
            ).one_or_none()
            if row is None or apply_pk is None:
                return None
            summary = f"{apply_id} {row.state}: {row.counts}" + (
                f" ({row.error_message})" if row.error_message else ""
            )
            append(tx, Happening(apply_pk, "summary", self.owner, None, summary, after=row.state))
            return summary


def request_body(new: NewApply) -> dict[str, object]:
    """What makes two enqueues the same request; caller and reason may differ between tries."""
    return {
        "plan": new.plan_id,
        "environment": new.environment,
        "deployments": list(new.deployments) if new.choice is None else new.choice.as_json(),
        "policy": new.policy.as_json(),
        "allow_unsafe": new.allow_unsafe,
    }


def check(tx: Connection, new: NewApply, plan: Plan) -> tuple[Sequence[Place], Mapping[str, str]]:
    """Every reason against the request at once; returns the rollout in its order and the target of each deployment."""
    why = list(new.policy.contradictions())
    if not new.deployments:
        why.append("no deployment was chosen")
    doubled = sorted(name for name, count in Counter(new.deployments).items() if count > 1)
    why += [f"deployment {name} is named twice" for name in doubled]
    if not new.reason.strip():
        why.append("a rollout needs a reason")
    if not new.idempotency_key:
        why.append("a rollout needs an idempotency key")
    if plan.environment != new.environment:
        why.append(f"the plan is for environment {plan.environment}, not {new.environment}")
    unsafe = [f"{c.table_name}: {c.unsafe_reason}" for c in plan.changes if c.is_unsafe]
    if unsafe and not new.allow_unsafe:
        why += [f"unsafe without consent: {words}" for words in unsafe]
    found = {deployment.name: deployment for deployment in load_named(tx, new.deployments)}
    for name in dict.fromkeys(new.deployments):
        deployment = found.get(name)
        if deployment is None:
            why.append(f"there is no deployment {name!r}")
            continue
        if deployment.drained:
            why.append(f"deployment {name} is drained")
        if deployment.names_another_database:
            why.append(
                f"the engine of deployment {name} names another database than before"
                f" ({deployment.capabilities.identity}, not {deployment.engine_identity}); if that is meant: tern"
                f" deployments set {name} --new-identity --reason '…'"
            )
        if (deployment.environment, deployment.database) != (plan.environment, plan.database):
            why.append(
                f"deployment {name} is for {deployment.environment}/{deployment.database},"
                f" the plan for {plan.environment}/{plan.database}"
            )
    why += strays(plan, [found[name] for name in new.deployments if name in found], new.policy)
    # The same change would run there twice, and no order of the two makes that right.
    why += [
        f"deployments {one} and {other} are one target under two names: choose one of them"
        for one, other in one_target(tx, new.deployments)
    ]
    known = {name: found[name].labels for name in new.deployments if name in found}
    division = divide(new.policy.waves, known)
    why += division.why
    if why:
        message = "the rollout was refused"
        raise Refused(message, why=tuple(why), reason="APPLY_REFUSED")
    return division.places, {name: deployment.target for name, deployment in found.items()}


def insert_apply(
    tx: Connection,
    new: NewApply,
    plan_pk: int,
    plan: Plan,
    apply_id: ApplyId,
    body: Mapping[str, object],
    carries_on: int | None = None,
) -> int | None:
    """Its key; None where another request with the same idempotency key was faster."""
    return tx.execute(
        text(
            "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, options,"
            " policy, idempotency_key, request_digest, caller, reason, carries_on)"
            " VALUES (:identifier, :plan, :environment, :database, :count, CAST(:options AS jsonb),"
            " CAST(:policy AS jsonb), :key, :digest, :caller, :reason, :carries_on)"
            " ON CONFLICT (idempotency_key) DO NOTHING RETURNING id"
        ),
        {
            "identifier": apply_id,
            "plan": plan_pk,
            "environment": plan.environment,
            "database": plan.database,
            "count": len(new.deployments),
            "options": json.dumps(
                {"allow_unsafe": new.allow_unsafe, "request": body, "known_as": new.known_as}
            ),
            "policy": json.dumps(new.policy.as_json()),
            "key": new.idempotency_key,
            "digest": _digest(body),
            "caller": new.caller,
            "reason": new.reason,
            "carries_on": carries_on,
        },
    ).scalar_one_or_none()


def shares(new: NewApply, plan: Plan, targets: Mapping[str, str]) -> Mapping[str, tuple[str, str]]:
    """Each deployment's target, and the digest of what its engine may be sent."""
    options = sent_options(new.policy, allow_unsafe=new.allow_unsafe)
    changes = changes_digest((c.namespace, c.table_name, c.ddl, c.action.value) for c in plan.changes)
    return {
        name: (
            target,
            operation_digest(
                environment=plan.environment,
                database=plan.database,
                database_type=plan.database_type,
                target=target,
                options=options,
                changes=changes,
            ),
        )
        for name, target in targets.items()
    }


def insert_operations(
    tx: Connection,
    apply_pk: int,
    plan_pk: int,
    places: Sequence[Place],
    shares: Mapping[str, tuple[str, str]],
    carried_on: Mapping[str, CarriesOn] | None = None,
) -> None:
    """The operations with their statements; of a follow-up with what each carries on."""
    links = carried_on or {}
    tx.execute(
        text(
            "INSERT INTO apply_operations (apply_id, deployment, position, wave, target, change_digest, carries_on)"
            " SELECT :apply, name, position, wave, target, digest, tip FROM unnest(CAST(:names AS text[]),"
            " CAST(:positions AS integer[]), CAST(:waves AS integer[]), CAST(:targets AS text[]),"
            " CAST(:digests AS text[]), CAST(:tips AS bigint[])) AS wanted(name, position, wave, target, digest, tip)"
        ),
        {
            "apply": apply_pk,
            "names": [place.deployment for place in places],
            "positions": [place.position for place in places],
            "waves": [place.wave for place in places],
            "targets": [shares[place.deployment][0] for place in places],
            "digests": [shares[place.deployment][1] for place in places],
            "tips": [
                links[place.deployment].operation_id if place.deployment in links else None
                for place in places
            ],
        },
    )
    tx.execute(
        text(
            "INSERT INTO table_changes"
            " (operation_id, apply_id, ordinal, namespace, table_name, ddl, action, unsafe_reason, origin_id)"
            " SELECT o.id, o.apply_id, c.ordinal, c.namespace, c.table_name, c.ddl, c.action, c.unsafe_reason, l.origin"
            " FROM apply_operations o CROSS JOIN plan_changes c"
            " LEFT JOIN unnest(CAST(:names AS text[]), CAST(:ordinals AS integer[]), CAST(:origins AS bigint[]))"
            "   AS l(name, ordinal, origin) ON l.name = o.deployment AND l.ordinal = c.ordinal"
            " WHERE o.apply_id = :apply AND c.plan_id = :plan"
        ),
        {
            "apply": apply_pk,
            "plan": plan_pk,
            "names": [name for name, link in links.items() for _ in link.origins],
            "ordinals": [ordinal for link in links.values() for ordinal, _ in enumerate(link.origins)],
            "origins": [origin for link in links.values() for origin in link.origins],
        },
    )


def key_is_used(tx: Connection, new: NewApply) -> bool:
    """Asked before the request is checked: what was accepted once is answered the same, whatever changed since."""
    statement = text("SELECT 1 FROM applies WHERE idempotency_key = :key")
    return tx.execute(statement, {"key": new.idempotency_key}).one_or_none() is not None


def same_request(tx: Connection, new: NewApply, body: Mapping[str, object]) -> AcceptedApply:
    """The key was used before: the same request gets the same apply, another one is told the differences (ID1)."""
    row = tx.execute(
        text("SELECT apply_identifier, request_digest, options FROM applies WHERE idempotency_key = :key"),
        {"key": new.idempotency_key},
    ).one()
    if row.request_digest == _digest(body):
        return AcceptedApply(ApplyId(row.apply_identifier), is_new=False)
    before: dict[str, Any] = row.options.get("request", {})
    why = tuple(differences(before, body))
    message = f"the key {new.idempotency_key} belongs to {row.apply_identifier}, which is another request"
    raise Refused(message, why=why, next_step="Use another --key for another rollout.", reason="KEY_REUSED")


def target_refusal(held: Sequence[tuple[Holding, str]]) -> Refused:
    """Somebody else holds a target, by name."""
    first = held[0][0]
    step = f"Wait for it (tern explain {first.scope}), or end it: tern cancel {first.scope} --reason '…'"
    if first.state == State.STOPPED.value:
        cancel = f"tern cancel {first.scope} --reason '…'"
        step = f"Go on with it: tern start {first.scope} --reason '…'; or end it: {cancel}"
    elif first.wait_s is not None:
        step = f"Ask again in {max(1.0, first.wait_s):.0f} s."
    message = "the rollout was refused: another apply holds a target"
    return Refused(message, why=tuple(words for _, words in held), next_step=step, reason="TARGET_HELD")


def _digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

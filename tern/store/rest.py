"""Carrying on what is left of an apply: read for a person, and accepted by the digest of what that person was shown.

Accepted is decided again, under the locks of all that may make one of these operations live: whoever comes first wins,
and the other is refused by name, or its delivery fails by name.
"""

from collections.abc import Mapping, Sequence

from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ApplyId, PlanId
from tern.domain.policy import Policy
from tern.domain.rest import Group, Rest, rest_of
from tern.domain.rest_asked import NewRest
from tern.domain.rest_digest import group_of, sent_before
from tern.domain.selection import Selection
from tern.domain.states import ApplyState, Event
from tern.domain.work import AcceptedApply, Due, Enqueued, NewApply
from tern.store.apply import (
    CarriesOn,
    check,
    insert_apply,
    insert_operations,
    key_is_used,
    same_request,
    shares,
    target_refusal,
)
from tern.store.chain import Family, applies_of, load_family, lock_family
from tern.store.event import Happening, append, append_all
from tern.store.half_done import half_done, refuse_half_done
from tern.store.plan import UnkeptPlan, check_size, keep_plan, load_plan, new_identifier
from tern.store.preview import insert_previews
from tern.store.projection import project_parent
from tern.store.reservation import take_all
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps
from tern.store.uncalled import Withdrawal, withdraw

_ACCEPTED = text(
    "SELECT p.plan_identifier, a.environment, a.database, a.policy, a.idempotency_key, a.caller, a.reason, a.state,"
    " (SELECT array_agg(o.deployment ORDER BY o.position) FROM apply_operations o WHERE o.apply_id = a.id)"
    "   AS deployments FROM applies a JOIN plans p ON p.id = a.plan_id WHERE a.apply_identifier = :apply"
)

_SENT = text(
    "SELECT a.apply_identifier, a.caller, a.reason FROM applies a WHERE a.id = ANY(:ids)"
    " AND a.carries_on IS NOT NULL AND a.options -> 'request' ->> 'digest' = :digest ORDER BY a.id LIMIT 1"
)


class RestSteps(Steps):
    """The carrying-on part of ports.ApplyStore on PostgreSQL."""

    def rest(self, new: NewRest) -> Rest:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            return _rest(load_family(tx, new.apply_id), new)

    def accept_rest(self, new: NewRest) -> AcceptedApply:
        """See ports.ApplyStore."""
        body = rest_body(new)
        with transaction(self.engine) as tx:
            stub = _as_new(new, PlanId(""), "", ())
            if key_is_used(tx, stub):
                return _accepted_before(tx, new, stub, body)
            lock_family(tx, new.apply_id)
            # In statements that begin after the locks.
            family = load_family(tx, new.apply_id)
            if key_is_used(tx, stub):
                return _accepted_before(tx, new, stub, body)
            _refuse_sent(tx, new)
            group = group_of(_rest(family, new), new.digest, new.command)
            if group.consent and not new.allow_unsafe:
                raise unsafe_refusal(group)
            apply_id = ApplyId(new_identifier("apl"))
            for each in sorted({family.applies[link.operation_id] for link in group.withdrawn}):
                _withdraw(tx, family, each, group, new, apply_id)
            return self._insert(tx, family, group, new, apply_id, body)

    def refuse_sent(self, new: NewRest) -> None:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            _refuse_sent(tx, new)

    def accepted_as(self, apply_id: ApplyId) -> Enqueued:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            row = tx.execute(_ACCEPTED, {"apply": apply_id}).one_or_none()
        if row is None:
            what = f"there is no apply {apply_id}"
            raise NotFound(what)
        return Enqueued(
            apply_id=apply_id,
            is_new=False,
            plan_id=PlanId(row.plan_identifier),
            environment=row.environment,
            database=row.database,
            deployments=tuple(row.deployments),
            policy=Policy.from_json(row.policy),
            idempotency_key=row.idempotency_key,
            caller=row.caller,
            reason=row.reason,
            state=ApplyState(row.state),
        )

    def _insert(
        self,
        tx: Connection,
        family: Family,
        group: Group,
        new: NewRest,
        apply_id: ApplyId,
        body: dict[str, object],
    ) -> AcceptedApply:
        source = group.source
        unkept = UnkeptPlan(
            source.environment,
            source.database,
            source.database_type,
            group.changes,
            group.targets,
            group.policy,
        )
        check_size(unkept)
        plan_pk, plan = load_plan(tx, keep_plan(tx, unkept, new.caller))
        apply = _as_new(new, plan.plan_id, plan.environment, group.deployments, group)
        places, targets = check(tx, apply, plan)
        apply_pk = insert_apply(tx, apply, plan_pk, plan, apply_id, body, family.first)
        if apply_pk is None:
            return _accepted_before(tx, new, apply, body)
        insert_operations(tx, apply_pk, plan_pk, places, shares(apply, plan, targets), _links(group))
        insert_previews(tx, plan_pk, apply_pk, new.foretold, new.caller)
        # Last in the order of locks. What was never sent gives its target to whoever carries it on.
        if held := take_all(tx, apply_pk, [link.operation_id for link in group.withdrawn]):
            raise target_refusal(held)
        # What the chains themselves left half done is what is carried on; what somebody else left there since is not.
        known = {link.operation_id for chain in group.chains for link in chain.links}
        left = half_done(tx, group.deployments, known)
        if not new.accept_drift:
            refuse_half_done(left)
        detail = {
            "plan": plan.plan_id,
            "digest": plan.digest,
            "operations": len(group.chains),
            "carries_on": source.apply_id,
            "shown_as": new.digest,
        }
        append(tx, Happening(apply_pk, "accepted", new.caller, None, new.reason, detail=detail))
        append_all(
            tx,
            [
                Happening(
                    family.applies[chain.tip.operation_id],
                    "carried_on",
                    new.caller,
                    chain.tip.operation_id,
                    f"carried on by {apply_id}/{chain.deployment}: {new.reason}",
                )
                for chain in group.chains
            ],
        )
        due = project_parent(tx, apply_pk, new.caller, rings=True)
        first = tuple(each for each in due if isinstance(each, Due))
        return AcceptedApply(apply_id, is_new=True, first=first, told=tuple(each.words for each in left))


def rest_body(new: NewRest) -> dict[str, object]:
    """What makes two requests for a rest the same one: what was shown, and the consent."""
    return {"rest_of": new.apply_id, "digest": new.digest, "allow_unsafe": new.allow_unsafe}


def unsafe_refusal(group: Group) -> Refused:
    """Consent that was given to the first apply is not given to its rest."""
    what = "what is left is unsafe, and nobody has agreed to that"
    step = "Add --allow-unsafe if that is what you want."
    return Refused(what, why=group.consent, next_step=step, reason="UNSAFE_CHANGE")


def _accepted_before(tx: Connection, new: NewRest, apply: NewApply, body: dict[str, object]) -> AcceptedApply:
    """The follow-up that the same request made; another request under its key is told what was sent, where it names
    the same digest, and what differs where it doesn't.
    """
    try:
        return same_request(tx, apply, body)
    except Refused:
        _refuse_sent(tx, new)
        raise


def _refuse_sent(tx: Connection, new: NewRest) -> None:
    """Raises Refused where this digest is a follow-up by now, whoever sent it and under whatever key: another key would
    lead nowhere, because what it stood for is not left any more.
    """
    row = tx.execute(_SENT, {"ids": applies_of(tx, new.apply_id), "digest": new.digest}).one_or_none()
    if row is not None:
        raise sent_before(row.apply_identifier, row.caller, row.reason)


def _rest(family: Family, new: NewRest) -> Rest:
    selection: Selection = new.selection
    chosen = (
        selection.choose(new.apply_id, family.members)
        if selection.is_made
        else tuple(member.deployment for member in family.members)
    )
    return rest_of(family.source, chosen, selection.deployments, new.policy, allow_unsafe=new.allow_unsafe)


def _withdraw(
    tx: Connection, family: Family, apply_pk: int, group: Group, new: NewRest, apply_id: ApplyId
) -> None:
    """What was never sent becomes cancelled here: from now on its follow-up has it."""
    withdraw(
        tx,
        apply_pk,
        [
            Withdrawal(
                link.operation_id,
                link.name.deployment,
                link.state,
                Event.WITHDRAW_CANCELLED,
                new.caller,
                f"nothing was ever sent, and it is carried on by {apply_id}/{link.name.deployment}: {new.reason}",
            )
            for link in group.withdrawn
            if family.applies[link.operation_id] == apply_pk
        ],
    )
    project_parent(tx, apply_pk, new.caller)


def _links(group: Group) -> Mapping[str, CarriesOn]:
    return {
        chain.deployment: CarriesOn(chain.tip.operation_id, group.origins(chain)) for chain in group.chains
    }


def _as_new(
    new: NewRest, plan_id: PlanId, environment: str, deployments: Sequence[str], group: Group | None = None
) -> NewApply:
    return NewApply(
        plan_id=plan_id,
        environment=environment,
        deployments=tuple(deployments),
        policy=Policy() if group is None else group.policy,
        caller=new.caller,
        reason=new.reason,
        idempotency_key=new.idempotency_key,
        allow_unsafe=new.allow_unsafe,
        foretold=new.foretold,
    )

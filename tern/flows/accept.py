"""Taking in a rollout or a wish: committed first, answered as accepted, and only then rung (G15)."""

from collections.abc import Mapping, Sequence

from tern.domain.choice import shortened
from tern.domain.control import CALLS_ONLY, Receipt, ReceiptLine
from tern.domain.enqueue import Enqueue, NewChange, check_place, is_usable_key, losses, refuse_unsafe
from tern.domain.errors import Refused, TernError, UsageError
from tern.domain.identity import PlanId, ScopeName
from tern.domain.model import Deployment, PlannedChange
from tern.domain.waves import check_division
from tern.ports import AcceptedApply, Answered, Asked, Enqueued, NewApply, Ports, Store, WishReceipt
from tern.probing import TargetPreview, preview
from tern.request import EnqueueRequest

RUNG_AT_ONCE = 500
"""Bells for one wish; the sweeps ring for the others, and whoever asked has an answer at once."""


def enqueue(asked: Enqueue, ports: Ports) -> Enqueued:
    """A rollout as any door takes it in: judged, shown to the engines, kept, accepted; or the one that the same key
    made before (ID1), whatever would speak against it by now.

    Raises Refused, NotFound, UsageError, StorageUnavailable; nothing was accepted then.
    """
    change = _change(asked, ports.store)
    if ports.store.knows_key(asked.key):
        plan_id = ports.store.find_plan(change) or PlanId("")
        return _accept(asked, change, plan_id, asked.choice.names, ports)
    if not asked.allow_unsafe:
        refuse_unsafe(losses(change.changes))
    targets = asked.choice.choose(ports.store.load_deployments(), change.environment, change.database)
    check_division(asked.policy.waves, {target.name: target.labels for target in targets})
    if asked.previews:
        _review(ports, targets, change.changes, allow_unsafe=asked.allow_unsafe)
    plan = ports.store.save_plan(
        environment=change.environment,
        database=change.database,
        database_type=change.database_type,
        changes=change.changes,
        caller=asked.caller,
    )
    return _accept(asked, change, plan.plan_id, tuple(target.name for target in targets), ports)


def enqueue_message(message: Mapping[str, object], ports: Ports) -> None:
    """A rollout that came as a message. Nobody waits for an answer, so a refusal is left where the sender can find
    it by its key; a message without a usable key writes nothing (G7).

    Raises what enqueue() and EnqueueRequest.read() raise.
    """
    try:
        enqueue(EnqueueRequest.read(message).understood(), ports)
    except TernError as refusal:
        key, caller = message.get("key"), message.get("caller")
        if is_usable_key(key):
            ports.store.record_refusal(key, caller if is_usable_key(caller) else "", refusal)
        raise


def accept_apply(new: NewApply, ports: Ports) -> AcceptedApply:
    """A new rollout, or the one that the same key made before. Raises Refused, NotFound, StorageUnavailable."""
    accepted = ports.store.accept_apply(new)
    for due in accepted.first:
        ports.bells.dispatch(due)
    return accepted


def ask(asked: Asked, ports: Ports) -> WishReceipt:
    """A wish as any door takes it in: selected, counted where a number was given, and accepted.

    With dry_run the same answer is computed and nothing is written. Raises Refused, NotFound, StorageUnavailable.
    """
    receipt = ports.store.accept_wish(asked)
    if receipt.request_id is None:
        return receipt
    if asked.verb not in CALLS_ONLY:
        # Carries out at once what needs no call, before the single bells arrive.
        ports.bells.advance(asked.apply_id)
    for due in receipt.due[:RUNG_AT_ONCE]:
        ports.bells.control(due)
    return receipt


def answer(answered: Answered, ports: Ports) -> tuple[ReceiptLine, ...]:
    """A person's answer about uncertain operations, one outcome for each. One alone is refused in the rule's words.

    With dry_run nothing is written. Raises UsageError, Refused, NotFound, StorageUnavailable.
    """
    members = ports.store.members(answered.apply_id)
    chosen = answered.selection.choose_counted(answered.apply_id, members, answered.expected)
    if len(chosen) > 1 and answered.remote_id:
        what = f"a remote id is one operation's, and {len(chosen)} are selected"
        raise UsageError(what)
    if len(chosen) == 1 and not answered.dry_run:
        _answer_one(answered, chosen[0], ports)
        return (ReceiptLine(chosen[0], Receipt.ACCEPTED),)
    return tuple(_outcome(answered, deployment, ports) for deployment in chosen)


def _outcome(answered: Answered, deployment: str, ports: Ports) -> ReceiptLine:
    try:
        _answer_one(answered, deployment, ports)
    except Refused as refusal:
        return ReceiptLine(deployment, Receipt.REFUSED, "; ".join([refusal.what, *refusal.why]))
    return ReceiptLine(deployment, Receipt.ACCEPTED)


def _answer_one(answered: Answered, deployment: str, ports: Ports) -> None:
    name = ScopeName(answered.apply_id, deployment)
    ports.store.resolve_uncertain(
        name,
        answered.found,
        answered.remote_id,
        answered.caller,
        answered.reason,
        dry_run=answered.dry_run,
    )
    if not answered.dry_run:
        ports.bells.advance(answered.apply_id)


def _change(asked: Enqueue, store: Store) -> NewChange:
    """The change itself, of a kept plan too: the same content is found again as the same plan."""
    if isinstance(asked.change, NewChange):
        return asked.change
    plan = store.load_plan(asked.change)
    check_place(asked, plan)
    return NewChange(plan.environment, plan.database, plan.database_type, plan.changes)


def _accept(
    asked: Enqueue, change: NewChange, plan_id: PlanId, names: tuple[str, ...], ports: Ports
) -> Enqueued:
    new = NewApply(
        plan_id=plan_id,
        environment=change.environment,
        deployments=names,
        policy=asked.policy,
        caller=asked.caller,
        reason=asked.reason,
        idempotency_key=asked.key,
        allow_unsafe=asked.allow_unsafe,
        choice=asked.choice,
    )
    accepted = accept_apply(new, ports)
    if not accepted.is_new or asked.policy.waves:
        # Waves have an order of their own.
        names = tuple(member.deployment for member in ports.store.members(accepted.apply_id))
    return Enqueued(
        apply_id=accepted.apply_id,
        is_new=accepted.is_new,
        plan_id=plan_id,
        environment=change.environment,
        database=change.database,
        deployments=names,
        policy=asked.policy,
        idempotency_key=asked.key,
        caller=asked.caller,
        reason=asked.reason,
    )


def _review(
    ports: Ports, targets: Sequence[Deployment], changes: Sequence[PlannedChange], *, allow_unsafe: bool
) -> None:
    """The last look before anything is written; raises Refused with every target's reasons."""
    previews: tuple[TargetPreview, ...] = preview(ports.engines, targets, changes)
    why = [f"{found.deployment}: {' '.join(each.split())}" for found in previews for each in found.refusals]
    if why:
        what = "targets refuse the change"
        raise Refused(what, why=shortened(why), reason="PREVIEW_REFUSED")
    silent = [f"{found.deployment}: {' '.join(found.trouble.split())}" for found in previews if found.trouble]
    if silent:
        what = f"{len(silent)} engine{'' if len(silent) == 1 else 's'} could not be asked about the change"
        step = "Choose without them, or add --no-preview: each engine then decides when its turn comes."
        raise Refused(what, why=shortened(silent), next_step=step, reason="ENGINE_UNREACHABLE")
    if not allow_unsafe:
        refuse_unsafe([f"{found.deployment}: {unsafe}" for found in previews for unsafe in found.unsafe])

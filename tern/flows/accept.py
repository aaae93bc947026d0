"""Taking in a rollout or a wish: committed first, answered as accepted, and only then rung (G15)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from tern.domain.choice import Choice
from tern.domain.command import resolve_command
from tern.domain.control import CALLS_ONLY, Receipt, ReceiptLine
from tern.domain.drift import Foretold, Look, compared, refuse_drift, warnings
from tern.domain.enqueue import Enqueue, NewChange, check_place, is_usable_key, losses, refuse_unsafe
from tern.domain.errors import Refused, TernError, TryAgain, UsageError
from tern.domain.identity import PlanId, RemoteId, ScopeName
from tern.domain.model import Deployment, Plan, PlannedChange
from tern.domain.outcome import Ok, Unknown
from tern.domain.outcome import Refused as CallRefused
from tern.domain.outstanding import told_before
from tern.domain.policy import Policy
from tern.domain.review import check_reviewed
from tern.domain.selection import refuse_unexpected
from tern.domain.statement import StatementAnswer
from tern.domain.waves import check_division
from tern.domain.work import Sighting
from tern.doors.request import EnqueueRequest
from tern.ports import AcceptedApply, Answered, Asked, Enqueued, NewApply, Ports, Store, WishReceipt
from tern.probing import look, offered, probe
from tern.proving import prove_targets, same_places

RUNG_AT_ONCE = 500
"""Bells for one wish; the sweeps ring for the others, and whoever asked has an answer at once."""


def enqueue(asked: Enqueue, ports: Ports) -> Enqueued:
    """A rollout as any door takes it in: judged, shown to the engines, kept, accepted; or the one that the same key
    made before (ID1), whatever would speak against it by now.

    Raises Refused, NotFound, UsageError, StorageUnavailable; nothing was accepted then.
    """
    change, plan = _change(asked, ports.store)
    choice = asked.choice if asked.choice.is_made or plan is None else Choice(_reviewed_names(plan))
    policy = _policy(asked, plan)
    if ports.store.knows_key(asked.key):
        return _known(asked, change, plan, choice, policy, ports)
    if not asked.allow_unsafe:
        refuse_unsafe(losses(change.changes))
    register = ports.store.load_deployments()
    targets = choice.choose(register, change.environment, change.database)
    check_division(policy.waves, {target.name: target.labels for target in targets})
    if plan is not None:
        check_reviewed(plan, targets, policy, asked.digest)
    names = tuple(target.name for target in targets)
    try:
        foretold = _foretold(asked, plan, targets, change.changes, ports)
    except Refused:
        # What speaks against it may be the work of its twin, which came in meanwhile, or of whoever holds a target.
        has_twin = ports.store.knows_key(asked.key)
        if has_twin:
            return _known(asked, change, plan, choice, policy, ports)
        ports.store.refuse_held(change.environment, change.database, names)
        raise
    # Before anything is written: whoever is the same target under another name is known when its target is taken.
    if not asked.previews and (unasked := [each for each in targets if each.capabilities.resolve is None]):
        ports.store.record_probes(offered(unasked, probe(ports.engines, unasked)))
    prove_targets(names, ports.engines, ports.store)
    if plan is None:
        plan = ports.store.save_plan(
            environment=change.environment,
            database=change.database,
            database_type=change.database_type,
            changes=change.changes,
            caller=asked.caller,
        )
    waits = told_before(ports.store.outstanding_before(names))
    told = (*waits, *warnings(foretold), *same_places(targets, register))
    return _accept(asked, change, plan.plan_id, choice, policy, names, ports, foretold, told)


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
    if asked.outstanding:
        # The looks at it carry it out.
        for line in receipt.lines:
            if line.outcome is Receipt.ACCEPTED:
                ports.bells.poll(line.deployment)
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
    chosen = answered.selection.choose(answered.apply_id, members)
    if len(chosen) > 1 and answered.remote_id:
        what = f"a remote id is one operation's, and {len(chosen)} are selected"
        raise UsageError(what)
    if answered.expected is not None:
        rehearsed = replace(answered, dry_run=True)
        found = [_outcome(rehearsed, each, ports) for each in chosen]
        refuse_unexpected(answered.expected, found, resolve_command(answered, "--dry-run"))
    if len(chosen) == 1 and not answered.dry_run:
        _answer_one(answered, chosen[0], ports)
        lines: tuple[ReceiptLine, ...] = (ReceiptLine(chosen[0], Receipt.ACCEPTED),)
    else:
        lines = tuple(_outcome(answered, deployment, ports) for deployment in chosen)
    # Once, however many were answered for.
    if not answered.dry_run and any(line.outcome is Receipt.ACCEPTED for line in lines):
        ports.bells.advance(answered.apply_id)
        if (other := answered.taken_from) is not None and other.apply_id != answered.apply_id:
            ports.bells.advance(other.apply_id)
    return lines


def settle_statements(answer: StatementAnswer, ports: Ports) -> ReceiptLine:
    """A person's word about single statements of one operation, all of it or nothing. Raises NotFound, Refused,
    StorageUnavailable.
    """
    ports.store.settle_statements(answer)
    return ReceiptLine(answer.name.deployment, Receipt.ACCEPTED)


def _outcome(answered: Answered, deployment: str, ports: Ports) -> ReceiptLine:
    try:
        _answer_one(answered, deployment, ports)
    except Refused as refusal:
        return ReceiptLine(deployment, Receipt.REFUSED, "; ".join([refusal.what, *refusal.why]))
    return ReceiptLine(deployment, Receipt.ACCEPTED)


def _answer_one(answered: Answered, deployment: str, ports: Ports) -> None:
    name = ScopeName(answered.apply_id, deployment)
    if answered.engine_is_gone:
        ports.store.give_up(name, answered.found, answered.caller, answered.reason, dry_run=answered.dry_run)
        return
    sighting = _sighted(name, answered.remote_id, answered.taken_from, ports) if answered.remote_id else None
    ports.store.resolve_uncertain(
        name,
        answered.found,
        answered.remote_id,
        answered.caller,
        answered.reason,
        taken_from=answered.taken_from,
        dry_run=answered.dry_run,
        sighting=sighting,
    )


def _sighted(name: ScopeName, remote_id: RemoteId, taken_from: ScopeName | None, ports: Ports) -> Sighting:
    """What the operation's engine says of an id that a person named. Raises Refused where it does not know it, TryAgain
    where it says nothing that could be judged.
    """
    question = ports.store.question(name, remote_id, taken_from)
    what = f"{remote_id} was not taken for {name}"
    match ports.engines.of(question.deployment).progress(question.call):
        case Ok(sample):
            return Sighting(sample, question.call.fence)
        case CallRefused(message, _, "NOT_FOUND"):
            raise Refused(
                what,
                why=(f"the engine at {name.deployment} does not know it ({message})",),
                next_step="Look at the engine for the id that it gave; nothing was stored.",
                reason="REMOTE_ID_UNKNOWN",
            )
        case CallRefused(message, reason) as refused if refused.was_sent:
            why = (f"the engine at {name.deployment} refuses to speak of it", message)
            raise Refused(what, why=why, reason=reason or "REMOTE_ID_REFUSED")
        case CallRefused(message, reason) | Unknown(message, reason):
            raise TryAgain(
                what,
                why=(f"the engine at {name.deployment} could not be asked about it", message),
                next_step="Try again once it answers: an id is stored only after a look at it.",
                reason=reason or "NO_ANSWER",
            )
        case other:
            assert_never(other)


def _change(asked: Enqueue, store: Store) -> tuple[NewChange, Plan | None]:
    """The change, with the plan where it was asked for by its id."""
    if isinstance(asked.change, NewChange):
        return asked.change, None
    plan = store.load_plan(asked.change)
    check_place(asked, plan)
    return NewChange.of(plan), plan


def _reviewed_names(plan: Plan) -> tuple[str, ...]:
    return tuple(target.deployment for target in plan.targets)


def _policy(asked: Enqueue, plan: Plan | None) -> Policy:
    """What was said; else what was reviewed; else the default."""
    if asked.policy is not None:
        return asked.policy
    return Policy() if plan is None or plan.policy is None else Policy.from_json(plan.policy)


def _known(
    asked: Enqueue, change: NewChange, plan: Plan | None, choice: Choice, policy: Policy, ports: Ports
) -> Enqueued:
    plan_id = ports.store.find_plan(change) if plan is None else plan.plan_id
    return _accept(asked, change, plan_id or PlanId(""), choice, policy, choice.names, ports)


def _accept(
    asked: Enqueue,
    change: NewChange,
    plan_id: PlanId,
    choice: Choice,
    policy: Policy,
    names: tuple[str, ...],
    ports: Ports,
    foretold: tuple[Foretold, ...] = (),
    told: tuple[str, ...] = (),
) -> Enqueued:
    new = NewApply(
        plan_id=plan_id,
        environment=change.environment,
        deployments=names,
        policy=policy,
        caller=asked.caller,
        reason=asked.reason,
        idempotency_key=asked.key,
        allow_unsafe=asked.allow_unsafe,
        foretold=foretold,
        choice=choice,
        known_as=asked.known_as,
        accept_drift=asked.accept_drift,
    )
    accepted = accept_apply(new, ports)
    if not accepted.is_new or policy.waves:
        # Waves have an order of their own.
        names = tuple(member.deployment for member in ports.store.members(accepted.apply_id))
    # Who repeats a request is told whose rollout it is: the first one's, with the reason that stands in the record.
    first = None if accepted.is_new else ports.store.accepted_as(accepted.apply_id)
    if first is not None and first.caller != asked.caller:
        told = (*told, f"{first.caller} sent it before, and said why: {first.reason}")
    return Enqueued(
        apply_id=accepted.apply_id,
        is_new=accepted.is_new,
        plan_id=plan_id,
        environment=change.environment,
        database=change.database,
        deployments=names,
        policy=policy,
        idempotency_key=asked.key,
        caller=asked.caller if first is None else first.caller,
        reason=asked.reason if first is None else first.reason,
        warnings=(*accepted.told, *told),
    )


def _foretold(
    asked: Enqueue,
    plan: Plan | None,
    targets: Sequence[Deployment],
    changes: Sequence[PlannedChange],
    ports: Ports,
) -> tuple[Foretold, ...]:
    """The last look before anything is written; raises Refused with every target's reasons."""
    if not asked.previews:
        return tuple(Foretold(target.name, Look.NOT_ASKED) for target in targets)
    previews, offered = look(ports.engines, targets, changes)
    # What is found permits nothing; it is for people, who see what their engines offer by now.
    ports.store.record_probes(offered)
    names = [target.name for target in targets]
    reviewed = {} if plan is None else ports.store.reviewed_previews(plan.plan_id, names)
    found = compared([each.foretold() for each in previews], reviewed)
    refuse_drift(found, accepted=asked.accept_drift)
    if not asked.allow_unsafe:
        refuse_unsafe([f"{each.deployment}: {unsafe}" for each in previews for unsafe in each.unsafe])
    return found

"""Carrying on what is left of an apply: shown in groups, and sent as one of them by the digest of what was shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tern.domain.drift import Foretold, Look, compared, refuse_drift, warnings
from tern.domain.enqueue import refuse_unsafe
from tern.domain.errors import Refused
from tern.domain.identity import ApplyId
from tern.domain.model import Deployment
from tern.domain.outstanding import told_before
from tern.domain.rest import Group, Rest
from tern.domain.rest_asked import NewRest
from tern.domain.rest_digest import group_of
from tern.domain.work import Enqueued
from tern.ports import Ports
from tern.probing import look, offered, probe
from tern.proving import prove_targets, same_places


def show(new: NewRest, ports: Ports) -> Rest:
    """What is left, and what can be carried on; writes nothing and asks no engine. Raises NotFound, Refused,
    UsageError, StorageUnavailable.
    """
    return ports.store.rest(new)


def send(new: NewRest, ports: Ports) -> Enqueued:
    """The group of what is left that the digest names, as a new apply. The engines are asked first what it would do,
    as before any rollout; what was shown is computed once more in the transaction that accepts it.

    Raises what show() raises, and Refused with what has changed since; then nothing was accepted.
    """
    told: tuple[str, ...] = ()
    if not ports.store.knows_key(new.idempotency_key):
        try:
            new, told = _looked(new, group_of(ports.store.rest(new), new.digest, new.command), ports)
        except Refused:
            # What speaks against it may be the work of its twin, which came in meanwhile.
            if not ports.store.knows_key(new.idempotency_key):
                ports.store.refuse_sent(new)
                raise
    accepted = ports.store.accept_rest(new)
    for due in accepted.first:
        ports.bells.dispatch(due)
    # What was never sent has become cancelled there.
    ports.bells.advance(new.apply_id)
    return _answer(new, accepted.apply_id, ports, (*accepted.told, *told), is_new=accepted.is_new)


def _looked(new: NewRest, group: Group, ports: Ports) -> tuple[NewRest, tuple[str, ...]]:
    if not new.allow_unsafe:
        refuse_unsafe(group.consent)
    register = ports.store.load_deployments()
    names = group.deployments
    targets = [each for each in register if each.name in names]
    try:
        foretold = _foretold(new, group, targets, ports)
    except Refused:
        ports.store.refuse_held(group.source.environment, group.source.database, names)
        raise
    if not new.previews and (unasked := [each for each in targets if each.capabilities.resolve is None]):
        ports.store.record_probes(offered(unasked, probe(ports.engines, unasked)))
    prove_targets(names, ports.engines, ports.store)
    waits = told_before(ports.store.outstanding_before(names))
    return replace(new, foretold=foretold), (*waits, *warnings(foretold), *same_places(targets, register))


def _foretold(
    new: NewRest, group: Group, targets: Sequence[Deployment], ports: Ports
) -> tuple[Foretold, ...]:
    """The last look before anything is written; raises Refused with every target's reasons."""
    if not new.previews:
        return tuple(Foretold(target.name, Look.NOT_ASKED) for target in targets)
    previews, offers = look(ports.engines, targets, group.changes)
    ports.store.record_probes(offers)
    reviewed = ports.store.reviewed_previews(group.source.plan_id, [target.name for target in targets])
    found = compared([each.foretold() for each in previews], _of_the_rest(reviewed, group))
    refuse_drift(found, accepted=new.accept_drift)
    if not new.allow_unsafe:
        refuse_unsafe([f"{each.deployment}: {unsafe}" for each in previews for unsafe in each.unsafe])
    return found


def _of_the_rest(reviewed: Mapping[str, Foretold], group: Group) -> Mapping[str, Foretold]:
    """What each engine told the first plan's reviewer, of the statements that are left."""
    return {
        name: replace(
            each,
            changes=tuple(change for number, change in enumerate(each.changes, 1) if number in group.numbers),
        )
        for name, each in reviewed.items()
    }


def _answer(
    new: NewRest, apply_id: ApplyId, ports: Ports, told: tuple[str, ...], *, is_new: bool
) -> Enqueued:
    accepted = ports.store.accepted_as(apply_id)
    if accepted.caller != new.caller:
        told = (*told, f"{accepted.caller} sent it before, and said why: {accepted.reason}")
    if not is_new and accepted.is_over:
        told = (*told, f"it is over by now, and it is {accepted.state}: tern get {apply_id} shows it")
    return replace(accepted, idempotency_key=new.idempotency_key, is_new=is_new, warnings=told)

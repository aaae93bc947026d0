"""Changing a deployment while it is used: everybody is asked first, outside of any transaction, and what was found is
looked at again in the one that writes.
"""

from collections.abc import Sequence
from dataclasses import replace

from tern.domain.errors import Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Deployment, RemoteCall
from tern.domain.moving import DeploymentChange, InUse, Sameness, sameness
from tern.domain.outcome import Ok, Outcome
from tern.domain.plaintext import refuse_exposed
from tern.domain.samples import Sample
from tern.domain.targets import Pair
from tern.ports import Engines, Ports
from tern.probing import at_once
from tern.proving import prove


def change_deployment(change: DeploymentChange, ports: Ports) -> tuple[Deployment, tuple[str, ...]]:
    """The deployment as it is now, and the operations that are concerned. Raises NotFound, Refused, TryAgain,
    StorageUnavailable; nothing is changed then.
    """
    (before,) = ports.store.load_deployments([change.name])
    after = change.applied_to(before)
    if change.address is not None or change.credentials:
        refuse_exposed(after, "changed")
    uses = ports.store.uses(change.name)
    how, unknown = None, frozenset[int]()
    if after.address != before.address or change.new_identity:
        after = _probed(change, before, after, uses, ports.engines)
    if after.address != before.address:
        how = _compared(change, before, after, ports.engines)
        unknown = _unknown_there(after, uses, ports.engines)
        if how is Sameness.PROVEN:
            # True whatever becomes of the move, and under locks of many applies: a step of its own.
            ports.store.unite_engines_at(change.name, after.address)
    concerned = ports.store.change_deployment(change, before, after, uses, how, unknown)
    for apply_id in dict.fromkeys(ScopeName.parse(scope).apply_id for scope in concerned):
        ports.bells.advance(apply_id)
    return after, concerned


def _probed(
    change: DeploymentChange, before: Deployment, after: Deployment, uses: Sequence[InUse], engines: Engines
) -> Deployment:
    """With what the engine offers, and which database it names; raises Refused where that is another one."""
    answer = engines.of(after).probe()
    if not isinstance(answer, Ok):
        what = f"{change.name} was not changed: its engine does not answer at {after.address}"
        step = f"Start it, and try again: tern deployments check {change.name} asks the old address."
        raise Refused(what, why=(answer.message,), next_step=step, reason=answer.reason or "NO_ANSWER")
    found = answer.value
    if change.new_identity:
        if not found.identity:
            what = f"{change.name} was not changed: its engine names no database"
            raise Refused(what, reason="IDENTITY_MISSING")
        if sent := [use.scope for use in uses if use.is_sent]:
            refuse_new_identity(change, sent)
        return replace(after, capabilities=found, engine_identity=found.identity)
    if before.engine_identity and found.identity != before.engine_identity:
        what = f"{change.name} was not changed: the engine at {after.address} works at another database"
        why = (f"it names {found.identity or 'none'}, not {before.engine_identity}",)
        step = f"If that is meant, and nothing runs there: tern deployments set {change.name} --new-identity"
        raise Refused(what, why=why, next_step=f"{step} --reason '…'", reason="ANOTHER_DATABASE")
    return replace(after, capabilities=found, engine_identity=found.identity)


def refuse_new_identity(change: DeploymentChange, sent: Sequence[str]) -> None:
    """What is known at the old database is not known at the new one."""
    what = f"{change.name} was not changed: work that may act belongs to the database that was there"
    why = (f"it is in use by {', '.join(sent[:5])}",)
    step = f"End it first: tern cancel {sent[0]} --reason '…'"
    raise Refused(what, why=why, next_step=step, reason="DEPLOYMENT_IN_USE")


def _compared(
    change: DeploymentChange, before: Deployment, after: Deployment, engines: Engines
) -> Sameness | None:
    if change.new_identity:
        return None
    (found,) = prove(engines, [Pair(before, after)])
    words = "not both of them could be asked, so no key proves it"
    if not after.capabilities.resolve:
        words = "its engine offers no Resolve, so no key proves it"
    return sameness(change, there=found.there, back=found.back, words=words)


def _unknown_there(after: Deployment, uses: Sequence[InUse], engines: Engines) -> frozenset[int]:
    """Operations whose id the engine at the new address doesn't know, or can't be asked about."""
    engine = engines.of(after)

    def ask(use: InUse) -> Outcome[Sample]:
        name = ScopeName.parse(use.scope)
        return engine.progress(RemoteCall(name, RemoteId(use.remote_id or ""), after.environment, use.fence))

    followed = [use for use in uses if use.remote_id is not None]
    answers = at_once(ask, followed)
    return frozenset(
        use.operation_id
        for use, answer in zip(followed, answers, strict=True)
        if not (isinstance(answer, Ok) and answer.value.state is not None)
    )

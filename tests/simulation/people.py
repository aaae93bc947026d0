"""Who asks: the people of a scenario, and at the end of everything somebody who looks and helps."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from tern.domain.control import Verb
from tern.domain.errors import NotFound, Refused, TryAgain
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Policy
from tern.domain.rest_asked import NewRest, rest_key
from tern.domain.selection import Selection
from tern.flows.accept import accept_apply, answer, ask
from tern.flows.rest import send, show
from tern.ports import Answered, Asked, NewApply, Ports, Resolved, StorageUnavailable
from tests.simulation.backend import ApplyLook, OperationLook
from tests.simulation.engines import SimEngine

CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER)
_PATIENCE = 3
_OVER = frozenset({"completed", "failed", "cancelled", "reverted", "skipped"})
_LONG_S = 50.0
"""Longer than a lease and a call: whoever was under way has arrived or is dead."""
_A_WHILE_S = 8.0


def enqueue(
    ports: Ports,
    deployments: Sequence[str],
    policy: Policy,
    key: str,
    told: Callable[[str, str], None],
    changes: Sequence[PlannedChange] = (CHANGE,),
) -> None:
    """A rollout; who gets no answer asks again with the same key (ID1)."""
    for _ in range(_PATIENCE):
        with suppress(StorageUnavailable):
            plan = ports.store.save_plan(
                environment="test",
                database="shop",
                database_type="postgres",
                changes=tuple(changes),
                caller="ann",
            )
            names = tuple(deployments)
            new = NewApply(plan.plan_id, "test", names, policy, "ann", "because", key, accept_drift=True)
            with suppress(Refused):
                told("apply", accept_apply(new, ports).apply_id)
            return


def wish(
    ports: Ports,
    verb: Verb,
    apply_id: str,
    deployments: Sequence[str] | None,
    told: Callable[[str, str], None],
) -> None:
    """A wish; who gets no answer asks again."""
    chosen = Selection(tuple(deployments or ()))
    volume = 7 if verb is Verb.VOLUME else None
    for _ in range(_PATIENCE):
        with suppress(StorageUnavailable):
            with suppress(Refused, NotFound):
                asked = Asked(verb, ApplyId(apply_id), chosen, "bob", "the night is long", volume=volume)
                receipt = ask(asked, ports)
                if receipt.request_id is not None:
                    told("request", str(receipt.request_id))
            return


def carry_on(
    ports: Ports, apply_id: str, deployments: Sequence[str], told: Callable[[str, str], None]
) -> None:
    """What is left of an apply is shown, and each group sent by its digest; who gets no answer sends it again."""
    asked = NewRest(
        ApplyId(apply_id), Selection(tuple(deployments)), "ann", previews=False, accept_drift=True
    )
    digests: list[str] | None = None
    for _ in range(_PATIENCE):
        with suppress(StorageUnavailable):
            if digests is None:
                digests = [group.digest for group in show(asked, ports).groups]
            while digests:
                with suppress(Refused, NotFound):
                    key = rest_key(digests[0])
                    new = replace(asked, digest=digests[0], reason="the data is mended", idempotency_key=key)
                    told("apply", send(new, ports).apply_id)
                digests.pop(0)
            return


def drain(ports: Ports, names: Sequence[str], told: Callable[[str, bool], None], *, drained: bool) -> None:
    """No new work for these deployments, or new work again; who gets no answer says it again."""
    for name in names:
        for _ in range(_PATIENCE):
            with suppress(StorageUnavailable):
                ports.store.set_drained(name, drained=drained)
                told(name, drained)
                break


def help_out(
    look: ApplyLook,
    engines: dict[str, SimEngine],
    ask: Callable[[Verb, Sequence[str]], None],
    open_again: Callable[[Sequence[str]], None],
    silent_s: Callable[[str], float],
) -> Callable[[Ports], None] | None:
    """What somebody does who has waited long enough and now looks; None while there is nothing to do.

    An uncertain operation is resolved by what its engine really has; what stands in the way of others, or is paused
    for good, is cancelled; what waits for its cutover gets it; what is drained is opened again. What an engine has
    left without an answer for long is given up, and what waits behind that for good is cancelled. silent_s: how long an
    engine will still answer nothing, as only somebody beside it knows.
    """
    for one in look.operations:
        if silent_s(one.deployment) > 0 and one.state not in _OVER and one.was_sent:
            return _giving_up(look, one) if one.is_unheard else None
    for one in look.operations:
        if one.state == "uncertain" and one.age_s > _LONG_S:
            return _resolution(look, one, engines[one.deployment])
    waits = [
        one for one in look.operations if one.state == "pending" and silent_s(one.deployment) == math.inf
    ]
    if lost := [one.deployment for one in waits if one.age_s > _LONG_S and not one.open_wishes]:
        # Nobody will ever settle what is outstanding there.
        return lambda _ports: ask(Verb.CANCEL, lost)
    if any(one.age_s < _A_WHILE_S for one in look.operations):
        return None
    if drained := [one.deployment for one in look.operations if one.is_drained]:
        return lambda _ports: open_again(drained)
    stuck = [one.deployment for one in look.operations if one.state in {"pending", "stopped"}]
    waiting = [one for one in look.operations if one.state == "waiting_for_cutover"]
    unasked = [one.deployment for one in waiting if not one.open_wishes]
    stopped = any(one.state == "stopped" and not one.open_wishes for one in look.operations)
    if stuck and (stopped or (look.state == "paused" and not waiting)):
        # What stands in the way of the others is given up.
        return lambda _ports: ask(Verb.CANCEL, stuck)
    if unasked:
        return lambda _ports: ask(Verb.CUTOVER, unasked)
    return None


def _giving_up(look: ApplyLook, one: OperationLook) -> Callable[[Ports], None]:
    name = ScopeName(ApplyId(look.apply_id), one.deployment)
    return lambda ports: _resolve(ports, name, Resolved.ENDED, None, engine_is_gone=True)


def _resolution(look: ApplyLook, one: OperationLook, engine: SimEngine) -> Callable[[Ports], None] | None:
    name = ScopeName(ApplyId(look.apply_id), one.deployment)
    found = next((job for job in engine.jobs.values() if job.operation == str(name)), None)
    if one.remote_id is not None:
        job = engine.jobs.get(one.remote_id)
        if job is not None and job.operation == str(name):
            return None
        return lambda ports: _resolve(ports, name, Resolved.ENDED, None)
    if found is not None:
        remote_id = RemoteId(found.remote_id)
        before = [job.operation for job in engine.forgotten if job.remote_id == found.remote_id]

        def follow(ports: Ports) -> None:
            _resolve(ports, name, Resolved.REMOTE_ID, remote_id)
            # It may still be the id of whoever had it before the engine gave it out again.
            for holder in before:
                apply_id, _, deployment = holder.partition("/")
                taken_from = ScopeName(ApplyId(apply_id), deployment)
                _resolve(ports, name, Resolved.REMOTE_ID, remote_id, taken_from=taken_from)

        return follow
    if any(job.operation == str(name) for job in engine.forgotten):
        return lambda ports: _resolve(ports, name, Resolved.ENDED, None)
    return lambda ports: _resolve(ports, name, Resolved.NOT_STARTED, None)


def _resolve(
    ports: Ports,
    name: ScopeName,
    found: Resolved,
    remote_id: RemoteId | None,
    *,
    engine_is_gone: bool = False,
    taken_from: ScopeName | None = None,
) -> None:
    asked = Answered(
        name.apply_id,
        Selection((name.deployment,)),
        found,
        remote_id,
        "eve",
        "I looked",
        engine_is_gone=engine_is_gone,
        taken_from=taken_from,
    )
    with suppress(Refused, TryAgain, StorageUnavailable):
        answer(asked, ports)

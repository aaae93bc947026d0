"""Bringing an operator's wish forward on one operation: one call with its own id, or none (G2, G8, G9)."""

from typing import assert_never

from tern.domain.answer import PRINTED
from tern.domain.control import MOMENT, Step, Verb
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Forbidden, NeverStarted, RemoteCall, Resolution, Started, Unsupported
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.outstanding import is_heard
from tern.domain.scope import parse_message
from tern.domain.states import RANK, State
from tern.domain.timing import HALT_RETRY_MAX_S, backoff_s
from tern.flows.keep import keep_id
from tern.many import Turn
from tern.ports import (
    DeliveryClaimed,
    DeliverySettled,
    Due,
    DueControl,
    Engine,
    Fenced,
    NotClaimed,
    Ports,
)


def deliver(verb: Verb, operation_id: object, scope: object, ports: Ports) -> None:
    """Takes one wish one step forward. Returns quietly when there is nothing to do.

    Raises ScopeRefused for a message that does not fit the rows, StorageUnavailable when PostgreSQL is gone.
    """
    number, name = parse_message(operation_id, scope)
    if not verb.is_halting or ports.halts is None:
        _deliver(verb, number, name, ports, None)
        return
    turn = ports.halts.turn(DueControl(number, name, verb), ports.bells.control)
    if turn is None:
        # Another one is under way to the same deployment; this one stays due.
        return
    try:
        _deliver(verb, number, name, ports, turn)
    finally:
        turn.give_back()


def _deliver(verb: Verb, number: int, name: ScopeName, ports: Ports, turn: Turn | None) -> None:
    """turn: nobody waits for the answer of this call; None where the caller does."""
    claimed = ports.store.claim_delivery(number, name, verb)
    match claimed:
        case NotClaimed():
            return
        case DeliverySettled():
            ports.bells.advance(name.apply_id)
            return
        case DeliveryClaimed():
            pass
        case _:
            assert_never(claimed)
    engine = ports.engines.of(claimed.scope.deployment)
    if claimed.step is Step.RESOLVE:
        _resolve_first(claimed, engine, ports, turn)
    else:
        _call(claimed, engine, ports, turn)


def _call(claimed: DeliveryClaimed, engine: Engine, ports: Ports, turn: Turn | None) -> None:
    if claimed.scope.remote_id is None:
        # next_step never sends without an id; a call without its own id is never made (G2).
        _refused(claimed, "it has no remote id to carry", ports)
        return
    call = RemoteCall(
        claimed.scope.name,
        claimed.scope.remote_id,
        claimed.scope.environment,
        claimed.claim.fence,
        claimed.caller,
    )
    if turn is not None:
        engine.halt_later(claimed.verb, call, turn.later(lambda outcome: _answered(claimed, outcome, ports)))
        return
    if claimed.verb is Verb.START:
        if not _is_seen_stopped(claimed, engine, call, ports):
            return
        if not ports.store.may_go_forward(claimed.claim, is_new_work=True):
            words = "a stop, a cancel or a drain came before the call"
            ports.store.withdraw_start(claimed.claim, claimed.delivery_id, words)
            ports.bells.advance(claimed.scope.apply_id)
            return
    elif claimed.verb.is_forward and not _may_go_forward(claimed, ports):
        return
    _answered(claimed, _send(claimed, engine, call), ports)


def _answered(claimed: DeliveryClaimed, outcome: Outcome[int] | Outcome[None], ports: Ports) -> None:
    """Writes what came of the call, under the claim that it was made with."""
    match outcome:
        case Ok(volume) if volume is not None:
            ports.store.record_volume(claimed.claim, claimed.delivery_id, volume)
        case Ok():
            if ports.store.record_sent(claimed.claim, claimed.delivery_id) is Fenced.DONE:
                ports.bells.progress(Due(claimed.claim.operation_id, claimed.scope.name))
        case Refused() as refused if claimed.verb.is_halting and not refused.was_sent:
            # Nobody was asked: what keeps us from asking (a missing secret) is no answer of the engine's, and the
            # work may go on there. The wish stays open, with the words, until somebody has mended it.
            delay_s = _pause_s(claimed, ports)
            ports.store.record_undelivered(
                claimed.claim,
                claimed.delivery_id,
                refused.message,
                delay_s=delay_s,
                was_sent=False,
                is_heard=True,
            )
        case Refused(message, code=code):
            _refused(claimed, _with_way_out(claimed, message, code), ports)
        case Unknown() as unanswered:
            delay_s = _pause_s(claimed, ports)
            if claimed.verb in MOMENT:
                # The call may still be on its way; only what is seen after its deadline tells (CU3).
                delay_s += ports.deadline_s
            ports.store.record_undelivered(
                claimed.claim,
                claimed.delivery_id,
                unanswered.message,
                delay_s=delay_s,
                is_heard=is_heard(unanswered),
            )
    ports.bells.advance(claimed.scope.apply_id)


def _pause_s(claimed: DeliveryClaimed, ports: Ports) -> float:
    """Until the next try after no answer. A halt never waits long: the engine may be back by now, and run on."""
    delay_s = backoff_s(claimed.attempts, ports.chance.jitter())
    return min(delay_s, HALT_RETRY_MAX_S) if claimed.verb.is_halting else delay_s


def _may_go_forward(claimed: DeliveryClaimed, ports: Ports) -> bool:
    """The last look: a stop that came after the claim goes first, and this wish waits for its fate (G9)."""
    if ports.store.may_go_forward(claimed.claim):
        return True
    message = "a stop or cancel came before the call"
    ports.store.record_undelivered(claimed.claim, claimed.delivery_id, message, delay_s=1.0, was_sent=False)
    return False


def _is_seen_stopped(claimed: DeliveryClaimed, engine: Engine, call: RemoteCall, ports: Ports) -> bool:
    """The look before a Start, which alone may say that one is needed: what runs, or is through, is taken over as it
    is, and of what says neither nothing is concluded (SA4, G10). True where the operation was made `resuming`.
    """
    claim, delivery_id = claimed.claim, claimed.delivery_id
    match engine.progress(call):
        case Ok(sample) if why := ports.store.refuting(claim, sample):
            # Somebody else's job is neither started nor taken over; the next look puts the operation in doubt.
            words = f"nothing was sent: {call.remote_id} is other work at its engine: {why}"
            ports.store.record_look(claim, delivery_id, words, was_answered=False)
            ports.bells.progress(Due(claim.operation_id, claimed.scope.name))
        case Ok(sample) if sample.state is State.STOPPED:
            if ports.store.resume(claim, delivery_id) is Fenced.DONE:
                return True
        case Ok(sample) if sample.state in RANK:
            words = f"nothing was sent: its engine says {sample.said}"
            if ports.store.take_over(claim, delivery_id, words) is Fenced.DONE:
                ports.bells.progress(Due(claim.operation_id, claimed.scope.name))
        case Ok(sample):
            words = f"its engine says {sample.said}"
            ports.store.record_look(claim, delivery_id, words, was_answered=True)
            if sample.state is not None:
                # It is over; the look that follows takes that over.
                ports.bells.progress(Due(claim.operation_id, claimed.scope.name))
        case Refused() as refused:
            ports.store.record_look(claim, delivery_id, refused.message, was_answered=refused.was_sent)
        case Unknown() as unanswered:
            ports.store.record_look(
                claim,
                delivery_id,
                unanswered.message,
                was_answered=False,
                is_heard=is_heard(unanswered),
            )
    ports.bells.advance(claimed.scope.apply_id)
    return False


def _with_way_out(claimed: DeliveryClaimed, message: str, code: str) -> str:
    """A job that its engine does not know can't be ended there: only a person who looked leads out."""
    if code != "NOT_FOUND":
        return message
    command = f"tern resolve {claimed.scope.name} --as {PRINTED} --reason '…'"
    where = "its engine does not know it: look there, and if nothing runs any more"
    return f"{message}; {where}: {command} (or --as completed)"


def _send(claimed: DeliveryClaimed, engine: Engine, call: RemoteCall) -> Outcome[int] | Outcome[None]:
    """The one call of a verb; its answer is a volume where that is what was asked for."""
    match claimed.verb:
        case Verb.STOP:
            return engine.stop(call)
        case Verb.START:
            return engine.start(call)
        case Verb.CUTOVER:
            return engine.cutover(call)
        case Verb.CANCEL:
            return engine.cancel(call)
        case Verb.REVERT:
            return engine.revert(call)
        case Verb.SKIP_REVERT:
            return engine.skip_revert(call)
        case Verb.VOLUME if claimed.volume is not None:
            return engine.volume(call, claimed.volume)
        case Verb.RETRY | Verb.SKIP | Verb.RELEASE | Verb.VOLUME:
            # next_step never sends these; a request for a volume names it (a constraint).
            return Refused(f"{claimed.verb} is no call to an engine", "NO_CALL")
        case _:
            assert_never(claimed.verb)


def _refused(claimed: DeliveryClaimed, message: str, ports: Ports) -> None:
    delay_s = backoff_s(claimed.attempts, ports.chance.jitter())
    ports.store.record_delivery_refused(claimed.claim, claimed.delivery_id, message, delay_s=delay_s)
    ports.bells.progress(Due(claimed.claim.operation_id, claimed.scope.name))


def _resolve_first(claimed: DeliveryClaimed, engine: Engine, ports: Ports, turn: Turn | None) -> None:
    """A stop that meets an unanswered dispatch: its work is found or its key is killed before anything is said."""
    claim, scope = claimed.claim, claimed.scope
    if turn is not None:

        def write(outcome: Outcome[Resolution]) -> None:
            _resolved(claimed, outcome, ports)

        engine.resolve_later(scope, claim, claim.key, turn.later(write))
        return
    _resolved(claimed, engine.resolve(scope, claim, claim.key, forbid=True), ports)


def _resolved(claimed: DeliveryClaimed, outcome: Outcome[Resolution], ports: Ports) -> None:
    claim, scope, delivery_id = claimed.claim, claimed.scope, claimed.delivery_id
    match outcome:
        case Ok(resolution):
            match resolution:
                case Started(remote_id):
                    _adopt(claimed, remote_id, ports)
                case Forbidden():
                    ports.store.settle_undispatched(claim, delivery_id)
                    ports.bells.advance(scope.apply_id)
                case Unsupported() | NeverStarted():
                    message = f"{scope.deployment.name} can't say what became of the unanswered dispatch"
                    ports.store.hold_uncertain(claim, delivery_id, message)
                case _:
                    assert_never(resolution)
        case (Refused() | Unknown()) as unresolved:
            # Nothing of the wish has left; a Stop was not even due yet.
            delay_s = _pause_s(claimed, ports)
            ports.store.record_undelivered(
                claim,
                delivery_id,
                unresolved.message,
                delay_s=delay_s,
                was_sent=False,
                is_heard=is_heard(unresolved),
            )


def _adopt(claimed: DeliveryClaimed, remote_id: RemoteId, ports: Ports) -> None:
    """The unanswered dispatch had worked: its id first, then the state, then the wish again, now with an id (G3)."""
    claim, scope = claimed.claim, claimed.scope
    stored = ports.store.record_remote_id(claim, scope, remote_id)
    if stored is Fenced.LOST or stored is Fenced.CONFLICT:
        keep_id(claim, scope, remote_id, ports)
    if stored is not Fenced.DONE:
        return
    if ports.store.record_dispatched(claim) is Fenced.DONE:
        ports.bells.control(DueControl(claim.operation_id, scope.name, claimed.verb))

"""Handing one operation to its engine: intent, call, remote id, state (G3, G4, G6, G10)."""

from typing import assert_never

from tern.domain.dispatch import (
    BUSY,
    KEY_FORBIDDEN,
    NO_ANSWER,
    AfterUnknown,
    Approach,
    after_unknown,
    another_engine,
    is_spent,
)
from tern.domain.identity import RemoteId
from tern.domain.model import Forbidden, NeverStarted, OperationScope, Started, Unsupported
from tern.domain.outcome import Ok, Refused, Unknown
from tern.domain.outstanding import is_heard
from tern.domain.scope import parse_message
from tern.domain.timing import backoff_s
from tern.flows.keep import keep_id
from tern.ports import DispatchClaimed, Due, Engine, Fenced, NotClaimed, Ports, StorageUnavailable

_TRIES_TO_STORE_AN_ID = 3


def dispatch(operation_id: object, scope: object, ports: Ports) -> None:
    """Takes one operation one step: claimed, sent, recorded. Returns quietly when there is nothing to do.

    Raises ScopeRefused for a message that does not fit the rows, StorageUnavailable when PostgreSQL is gone.
    """
    number, name = parse_message(operation_id, scope)
    claimed = ports.store.claim_dispatch(number, name)
    following = (
        ports.store.next_dispatches(name.apply_id) if isinstance(claimed, NotClaimed) else claimed.following
    )
    for due in following:
        ports.bells.dispatch(due)
    if isinstance(claimed, NotClaimed):
        return
    engine = ports.engines.of(claimed.scope.deployment)
    match claimed.approach:
        case Approach.ATTACH:
            _follow(claimed, ports)
        case Approach.SEND:
            _send(claimed, engine, ports)
        case Approach.RESOLVE:
            _settle_by_resolve(claimed, engine, NO_ANSWER, ports, is_held=claimed.is_held)
        case Approach.ASK_PERSON | Approach.WAIT:
            # The claim itself settles these; nobody is handed one.
            ports.store.record_uncertain(claimed.claim, NO_ANSWER)
        case _:
            assert_never(claimed.approach)


def _send(claimed: DispatchClaimed, engine: Engine, ports: Ports) -> None:
    if not claimed.claim.is_first_sender and not _may_repeat(claimed, engine, ports):
        return
    # After that question, which may have taken its time: this look is the last before the call (G9).
    if not ports.store.may_go_forward(claimed.claim, is_new_work=True):
        _give_way(claimed, engine, ports)
        return
    match engine.apply(claimed.scope, claimed.claim):
        case Ok(remote_id):
            _record_id(claimed, remote_id, ports)
        case Refused(message, reason) as refused:
            if claimed.claim.is_first_sender and reason in BUSY:
                _wait_for_target(claimed, message, ports)
            elif claimed.claim.is_first_sender and reason != KEY_FORBIDDEN:
                ports.store.record_refused(claimed.claim, message, reason, key_is_dead=False)
                ports.bells.advance(claimed.scope.apply_id)
            else:
                # An earlier send of this key may have worked; this refusal says nothing about it (D17). Nor does one
                # that is about the key say anything about the change.
                _settle_by_resolve(claimed, engine, message, ports, refused)
        case Unknown() as unanswered:
            _unanswered(claimed, engine, unanswered, ports)


def _may_repeat(claimed: DispatchClaimed, engine: Engine, ports: Ports) -> bool:
    """The key may have been sent before. Whoever answers at the address by now is asked about it first: what a person
    declared holds for the engine that was sent it, and another one would begin a second job (G4). What the answer
    settles is written here. An engine that never knew keys can't be asked, and its declaration alone decides.
    """
    claim, scope = claimed.claim, claimed.scope
    if not scope.deployment.knows_keys:
        return True
    found = engine.resolve(scope, claim, claim.key, forbid=False)
    if shown := another_engine(scope.deployment, found):
        ports.store.record_uncertain(claim, f"{NO_ANSWER}; {shown}")
        return False
    match found:
        case Ok(Started(remote_id)):
            _record_id(claimed, remote_id, ports)
            return False
        case Ok(Forbidden()):
            _start_anew(claimed, f"{NO_ANSWER}, and its key is dead", ports)
            return False
        case Ok() | Refused():
            return True
        case Unknown(message):
            _repeat_or_ask(claimed, message, ports, engine_answers=False, is_heard=is_heard(found))
            return False
        case _:
            assert_never(found)


def _give_way(claimed: DispatchClaimed, engine: Engine, ports: Ports) -> None:
    """A stop, a drain, or something outstanding at the target, came between claim and call (G9)."""
    if claimed.claim.is_first_sender:
        # We know that nothing was ever sent under this key.
        ports.store.withdraw_intent(claimed.claim)
        ports.bells.advance(claimed.scope.apply_id)
        return
    message = "a stop, a cancel, a drain or something outstanding came before the repeated call"
    if not claimed.scope.deployment.capabilities.resolve:
        # A stop finds it unanswered; a drained one waits.
        ports.store.record_unanswered(claimed.claim, message, delay_s=0.0, engine_answers=False)
        return
    _settle_by_resolve(claimed, engine, message, ports, is_held=True)


def _record_id(claimed: DispatchClaimed, remote_id: RemoteId, ports: Ports) -> None:
    for attempt in range(1, _TRIES_TO_STORE_AN_ID + 1):
        try:
            stored = ports.store.record_remote_id(claimed.claim, claimed.scope, remote_id)
        except StorageUnavailable:
            # Writing the same id again is harmless, losing it costs a Resolve or a person.
            if attempt == _TRIES_TO_STORE_AN_ID:
                raise
            continue
        match stored:
            case Fenced.DONE:
                _follow(claimed, ports)
            case Fenced.LOST | Fenced.CONFLICT:
                keep_id(claimed.claim, claimed.scope, remote_id, ports)
            case Fenced.TAKEN:
                ports.bells.advance(claimed.scope.apply_id)
            case _:
                assert_never(stored)
        return


def _follow(claimed: DispatchClaimed, ports: Ports) -> None:
    if ports.store.record_dispatched(claimed.claim) is Fenced.DONE:
        ports.bells.progress(Due(claimed.claim.operation_id, claimed.scope.name))


def _unanswered(claimed: DispatchClaimed, engine: Engine, unanswered: Unknown, ports: Ports) -> None:
    """The call may have worked. What is harmless depends on the engine."""
    answers = isinstance(engine.health(), Ok)
    attempts, age_s = ports.store.dispatch_budget(claimed.claim)
    match after_unknown(
        deduplicates=claimed.scope.deployment.idempotent_dispatch,
        answered_attempts=attempts + int(answers),
        intent_age_s=age_s,
    ):
        case AfterUnknown.REPEAT:
            delay_s = backoff_s(claimed.claim.attempt, ports.chance.jitter())
            ports.store.record_unanswered(
                claimed.claim,
                unanswered.message,
                delay_s=delay_s,
                engine_answers=answers,
                is_heard=answers or is_heard(unanswered),
            )
        case AfterUnknown.RESOLVE:
            _settle_by_resolve(claimed, engine, unanswered.message, ports)
        case AfterUnknown.ASK_PERSON:
            ports.store.record_uncertain(claimed.claim, unanswered.message)


def _settle_by_resolve(
    claimed: DispatchClaimed,
    engine: Engine,
    message: str,
    ports: Ports,
    refused: Refused | None = None,
    *,
    is_held: bool = False,
) -> None:
    """Asks what became of the key and makes sure that nothing can come of it later. refused: what the engine said to
    the last call under it, where that was a no. is_held: where nothing came of it, something keeps the next try back,
    so that this one is no struggle with the engine.
    """
    claim, scope = claimed.claim, claimed.scope
    found = engine.resolve(scope, claim, claim.key, forbid=True)
    if shown := another_engine(scope.deployment, found):
        ports.store.record_uncertain(claim, f"{message}; {shown}")
        return
    match found:
        case Ok(resolution):
            match resolution:
                case Started(remote_id):
                    _record_id(claimed, remote_id, ports)
                case Forbidden() if is_held:
                    ports.store.record_key_dead(claim, f"{message}; its key started nothing and is dead")
                    ports.bells.advance(scope.apply_id)
                case Forbidden() if refused is not None and refused.reason in BUSY:
                    _wait_for_target(claimed, refused.message, ports)
                case Forbidden() if refused is not None and refused.reason != KEY_FORBIDDEN:
                    ports.store.record_refused(claim, refused.message, refused.reason, key_is_dead=True)
                    ports.bells.advance(scope.apply_id)
                case Forbidden():
                    _start_anew(claimed, message, ports)
                case Unsupported() | NeverStarted():
                    ports.store.record_uncertain(claim, _unresolved(message, scope))
                case _:
                    assert_never(resolution)
        case (Refused() | Unknown()) as unresolved:
            _repeat_or_ask(
                claimed,
                message,
                ports,
                engine_answers=isinstance(unresolved, Refused) and unresolved.was_sent,
                is_heard=is_heard(unresolved),
            )


def _start_anew(claimed: DispatchClaimed, message: str, ports: Ports) -> None:
    """Nothing came of the key and nothing can: the next try has another one. That the engine forbids again and again
    and never starts anything ends with a person, as every other way of trying does.
    """
    attempts, age_s = ports.store.dispatch_budget(claimed.claim)
    if is_spent(attempts + 1, age_s):
        ports.store.record_uncertain(claimed.claim, message, key_is_dead=True)
        return
    delay_s = backoff_s(attempts + 1, ports.chance.jitter())
    ports.store.record_key_dead(claimed.claim, message, delay_s=delay_s)
    ports.bells.advance(claimed.scope.apply_id)


def _wait_for_target(claimed: DispatchClaimed, message: str, ports: Ports) -> None:
    """Something else works at the target, of which Tern knows only what the engine says. That ends by itself, so it is
    asked again, under another key and for as long as it takes: waiting is no struggle with the engine.
    """
    delay_s = backoff_s(claimed.claim.attempt, ports.chance.jitter())
    ports.store.record_busy(claimed.claim, message, delay_s=delay_s)
    ports.bells.advance(claimed.scope.apply_id)


def _repeat_or_ask(
    claimed: DispatchClaimed, message: str, ports: Ports, *, engine_answers: bool, is_heard: bool
) -> None:
    """Nobody could say what became of the key: asked again under the same key, but not for ever (G10)."""
    attempts, age_s = ports.store.dispatch_budget(claimed.claim)
    if is_spent(attempts + int(engine_answers), age_s):
        ports.store.record_uncertain(claimed.claim, message)
        return
    delay_s = backoff_s(claimed.claim.attempt, ports.chance.jitter())
    ports.store.record_unanswered(
        claimed.claim, message, delay_s=delay_s, engine_answers=engine_answers, is_heard=is_heard
    )


def _unresolved(message: str, scope: OperationScope) -> str:
    return f"{message}; {scope.deployment.name} can't say what became of the earlier call"

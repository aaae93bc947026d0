"""Looking at what engines do: a deployment's batch, or one operation right after a call (G2, G10)."""

from typing import assert_never

from tern.domain.dispatch import NO_ANSWER, another_engine
from tern.domain.model import Forbidden, Started, Unsupported
from tern.domain.outcome import Ok
from tern.domain.outstanding import is_heard
from tern.domain.scope import parse_deployment, parse_message
from tern.flows.keep import keep_id
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Due, DueControl, NotClaimed, Poll, Ports


def poll(deployment: object, ports: Ports) -> None:
    """One look at everything that is due at a deployment.

    Raises ScopeRefused for a message without a deployment's name, StorageUnavailable when PostgreSQL is gone.
    """
    name = parse_deployment(deployment)
    begun = ports.store.begin_poll(name)
    if isinstance(begun, NotClaimed):
        return
    if begun.has_retryable and isinstance(ports.engines.of(begun.deployment).health(), Ok):
        ports.store.expedite_retries(name)
    _look(begun, ports)
    for due in begun.unanswered:
        _look_for_key(due, ports)
    for call_id in begun.outstanding:
        look_at_outstanding(call_id, ports)


def look(operation_id: object, scope: object, ports: Ports) -> None:
    """One look at one operation.

    Raises ScopeRefused for a message that does not fit the rows, StorageUnavailable when PostgreSQL is gone.
    """
    number, name = parse_message(operation_id, scope)
    begun = ports.store.begin_look(number, name)
    if not isinstance(begun, NotClaimed):
        _look(begun, ports)


def _look(begun: Poll, ports: Ports) -> None:
    looks = ports.engines.of(begun.deployment).batch_progress(begun.cursors) if begun.cursors else ()
    for due in ports.store.record_looks(begun, looks):
        match due:
            case Due():
                ports.bells.dispatch(due)
            case DueControl():
                ports.bells.control(due)
            case _:
                assert_never(due)


def _look_for_key(due: Due, ports: Ports) -> None:
    """What became of a dispatch without an answer. Nothing is forbidden: its first call may still be on its way."""
    begun = ports.store.begin_key_look(due.operation_id, due.scope)
    if isinstance(begun, NotClaimed):
        return
    claim, scope = begun.claim, begun.scope
    if begun.only_whether_there:
        answers = is_heard(ports.engines.of(scope.deployment).health())
        ports.store.record_key_look(begun, again=True, is_heard=answers)
        return
    found = ports.engines.of(scope.deployment).resolve(scope, claim, claim.key, forbid=False)
    is_told = isinstance(found, Ok) and isinstance(found.value, Forbidden | Unsupported)
    ports.store.record_key_look(begun, again=not is_told, is_heard=is_heard(found))
    if shown := another_engine(scope.deployment, found):
        ports.store.record_no_answer_by_key(begun, f"{NO_ANSWER}; {shown}")
    if isinstance(found, Ok) and isinstance(found.value, Started):
        keep_id(claim, scope, found.value.remote_id, ports)

"""Looking at what engines do: a deployment's batch, or one operation right after a call (G2, G10)."""

from typing import assert_never

from tern.domain.outcome import Ok
from tern.domain.scope import parse_deployment, parse_message
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

"""Looking at what is outstanding: what was sent and may still act although no operation follows it (G4, G10)."""

from tern.domain.identity import ApplyId
from tern.domain.outcome import Ok
from tern.domain.outstanding import Fate, OutstandingLook, found_by_id, found_by_key
from tern.ports import Fenced, NotClaimed, Ports


def look_at_outstanding(call_id: int, ports: Ports) -> None:
    """One look at one line. A key is forbidden, a job is looked at, and ended where somebody asked for that.

    Raises StorageUnavailable when PostgreSQL is gone.
    """
    begun = ports.store.begin_outstanding_look(call_id)
    if isinstance(begun, NotClaimed):
        return
    freed = _looked(begun, ports)
    for apply_id in freed:
        ports.bells.advance(apply_id)


def _looked(look: OutstandingLook, ports: Ports) -> tuple[ApplyId, ...]:
    engine = ports.engines.of(look.deployment)
    if look.scope is not None and look.claim is not None:
        found = found_by_key(engine.resolve(look.scope, look.claim, look.claim.key, forbid=True))
        return ports.store.record_outstanding(look.call_id, found, look.deployment.address)
    assert look.call is not None  # noqa: S101 - the other kind of line
    outcome = engine.progress(look.call)
    against = ports.store.refuting_outstanding(look.call_id, outcome)
    if look.ends and found_by_id(outcome, against).fate is Fate.LIVE:
        _end(look, ports)
        # What came of it is looked at once more, which alone acknowledges it.
        outcome = engine.progress(look.call)
        against = ports.store.refuting_outstanding(look.call_id, outcome)
    found = found_by_id(outcome, against)
    if found.fate in {Fate.LIVE, Fate.SETTLED} and isinstance(outcome, Ok):
        # Its operation may have no id, and miss just this one.
        adopted = ports.store.adopt_kept(look.call_id, look.deployment.address)
        if adopted is Fenced.DONE:
            return (look.call.name.apply_id,)
    return ports.store.record_outstanding(look.call_id, found, look.deployment.address)


def _end(look: OutstandingLook, ports: Ports) -> None:
    assert look.call is not None  # noqa: S101
    outcome = ports.engines.of(look.deployment).cancel(look.call)
    words = "" if isinstance(outcome, Ok) else outcome.message
    ports.store.record_outstanding_call(look.call_id, words)

"""What befalls an engine by itself, without anybody's call."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from tests.simulation.engines import OVER, SimEngine


def _fails(engine: SimEngine) -> None:
    """Every job that is not over."""
    for job in engine.jobs.values():
        if job.state not in OVER:
            job.error = "the disk is full"
            engine.move(job, "failed")


def _stops(engine: SimEngine) -> None:
    """Every job that is not over."""
    for job in engine.jobs.values():
        if job.state not in {*OVER, "stopped"}:
            engine.halt(job)


def _forgets(engine: SimEngine) -> None:
    """Every job that is not over; it works no more."""
    for job in [job for job in engine.jobs.values() if job.state not in OVER]:
        engine.forgotten.append(engine.jobs.pop(job.remote_id))
        engine.by_key.pop(job.key, None)


def _starts_over(engine: SimEngine) -> None:
    """It remembers nothing, keys, dead keys and fences included, and gives its ids out again from the first one."""
    engine.forgotten += engine.jobs.values()
    for memory in (engine.jobs, engine.by_key, engine.forbidden, engine.fences):
        memory.clear()
    engine.last_number = 0


def _is_replaced(engine: SimEngine) -> None:
    """Another one answers at its address: it knows nothing, and offers neither Resolve nor deduplication."""
    _starts_over(engine)
    engine.prefix += "'"
    engine.kind = replace(engine.kind, resolves=False, deduplicates=False, fences=False)


def _lends(engine: SimEngine) -> None:
    """It answers the next key with an id that it has given out already."""
    engine.lends_once = True


MISHAPS: Mapping[str, Callable[[SimEngine], None]] = {
    "fails": _fails,
    "stops": _stops,
    "forgets": _forgets,
    "starts-over": _starts_over,
    "replaced": _is_replaced,
    "taken-id": _lends,
}


def befall(engine: SimEngine, kind: str) -> None:
    """It happens now."""
    engine.get_on()
    MISHAPS[kind](engine)

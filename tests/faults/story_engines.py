"""How the engines of the stories behave: what each loses, refuses, and when its work is over."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.behaviour import Turn, fail, lose_answer, not_accepted
from tests.faults.fake_engine import FakeEngine


def loses_one_call_and_one_answer(engines: Mapping[str, FakeEngine]) -> None:
    completes(engines)
    engines["A"].script("Apply", fail("UNAVAILABLE"))
    engines["B"].script("Apply", lose_answer())


def completes(engines: Mapping[str, FakeEngine]) -> None:
    for engine in engines.values():
        engine.jobs._after_polls = 2


def completes_once_started(engines: Mapping[str, FakeEngine]) -> None:
    """A runs until it is stopped, and completes after it has been started again; the others complete at once."""
    for engine in engines.values():
        for method in ("Progress", "BatchProgress"):
            engine.always(method, completing_after_start(engine))


def completing_after_start(engine: FakeEngine) -> Callable[[Turn], Any]:
    def run(turn: Turn) -> Any:
        for job in list(engine.jobs.by_id.values()):
            may_end = engine.name != "A" or engine.effects("start")
            if job.state == "running" and may_end:
                engine.jobs.set_state(job.remote_id, "completed")
        return turn.perform()

    return run


def first_fails(engines: Mapping[str, FakeEngine]) -> None:
    """A's change fails while it is being watched."""
    engine = engines["A"]

    def run(turn: Turn) -> Any:
        for job in list(engine.jobs.by_id.values()):
            if job.state == "running":
                engine.jobs.set_state(job.remote_id, "failed", error="a duplicate key")
        return turn.perform()

    completes(engines)
    engine.always("Progress", run)
    engine.always("BatchProgress", run)


def first_is_refused(engines: Mapping[str, FakeEngine]) -> None:
    completes(engines)
    engines["A"].always("Apply", not_accepted("no such table"))


def first_is_refused_until_a_retry(engines: Mapping[str, FakeEngine]) -> None:
    """A refuses its change until somebody has mended what was wrong, and asks for a retry."""
    completes(engines)
    ledger: Any = engines["A"].ledger

    def run(turn: Turn) -> Any:
        asked = ledger.look("SELECT count(*) AS n FROM control_requests WHERE verb = 'retry'").n
        return turn.perform() if asked else not_accepted("no such table")(turn)

    engines["A"].always("Apply", run)


def answers_get_lost(engines: Mapping[str, FakeEngine]) -> None:
    completes(engines)
    engines["A"].script("Apply", lose_answer())


def answer_gets_lost_and_nothing_completes(engines: Mapping[str, FakeEngine]) -> None:
    engines["A"].script("Apply", lose_answer())


def nothing_arrives_before_a_stop(engines: Mapping[str, FakeEngine]) -> None:
    """Until its key is dead A is away."""
    engine = engines["A"]

    def run(turn: Turn) -> Any:
        if not engine.effects("forbid"):
            return fail("UNAVAILABLE")(turn)
        return turn.perform()

    engine.always("Apply", run)
    completes(engines)


def first_is_gone_until_it_is_given_up(engines: Mapping[str, FakeEngine]) -> None:
    """A takes its change and is gone. Once it is given up it answers again, and tells nobody what became of that."""
    completes(engines)
    engine = engines["A"]
    ledger: Any = engine.ledger

    def run(turn: Turn) -> Any:
        if not ledger.look("SELECT count(*) AS n FROM outstanding_calls").n:
            return fail("UNAVAILABLE")(turn)
        for job in list(engine.jobs.by_id.values()):
            engine.jobs.set_state(job.remote_id, "failed", error="its disk burned")
        return fail("FAILED_PRECONDITION")(turn)

    for method in ("Progress", "BatchProgress"):
        engine.always(method, run)


def first_is_refused_until_it_is_carried_on(engines: Mapping[str, FakeEngine]) -> None:
    """A refuses its change until somebody has mended what was wrong, and carries the rest on."""
    completes(engines)
    ledger: Any = engines["A"].ledger

    def run(turn: Turn) -> Any:
        mended = ledger.look("SELECT count(*) AS n FROM applies WHERE carries_on IS NOT NULL").n
        return turn.perform() if mended else not_accepted("no such table")(turn)

    engines["A"].always("Apply", run)


def nothing_completes(engines: Mapping[str, FakeEngine]) -> None:
    del engines

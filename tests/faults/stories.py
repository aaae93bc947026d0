"""The rollouts whose every crash point is tried: what people ask for, when, and how it must end.

A story is played by whoever is alive: a worker process until it dies, then another from the step that nobody was
told about. All its conditions are rows, so that it does not matter who plays.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.ports import Ports, StorageUnavailable
from tern.store.database import Database
from tern.store.store import PostgresStore
from tests.faults.behaviour import Turn, fail, lose_answer, not_accepted
from tests.faults.boundaries import Boundaries, WatchedBells
from tests.faults.fake_engine import FakeEngine
from tests.world import Fixed, World

LEASE_S = 30.0


class Stage(World):
    """A world in which the harness' own looks are no boundaries, and drivers survive a lost connection."""

    def __init__(
        self, database: Database, owner: str, boundaries: Boundaries | None = None, *, deaf: bool = False
    ) -> None:
        super().__init__(database, {}, lease_s=LEASE_S)
        self.boundaries = boundaries or Boundaries()
        self.deaf = deaf
        self.store = PostgresStore(database, owner=owner, lease_s=LEASE_S)
        self.bells = WatchedBells(self.boundaries)
        self.ports = Ports(self.store, self.directory, self.bells, Fixed())
        nobody = WatchedBells(self.boundaries, deaf=True)
        self.unheard = Ports(self.store, self.directory, nobody, Fixed())

    def do(self, kind: str, *given: Any, ports: Ports | None = None) -> None:
        # Deaf: what a flow rings for is never heard; only the sweeps' own findings are worked on.
        parts = self.unheard if self.deaf else (ports or self.ports)
        with contextlib.suppress(StorageUnavailable):  # the tick ends, as a task does; the rows stay due
            super().do(kind, *given, ports=parts)

    def sweep(self, ports: Ports | None = None) -> None:
        with contextlib.suppress(StorageUnavailable):
            super().sweep(ports)

    def lose_bells(self) -> None:
        """What people's requests rang for is not heard either."""
        if self.deaf:
            self.forget_bells()

    def pass_time(self, seconds: float) -> None:
        with self.boundaries.hidden():
            super().pass_time(seconds)

    def one(self, statement: str, **values: Any) -> Any:
        with self.boundaries.hidden():
            return super().one(statement, **values)

    def write(self, statement: str, **values: Any) -> None:
        with self.boundaries.hidden():
            super().write(statement, **values)

    def first_apply(self) -> ApplyId | None:
        """The only apply there is, if it is there already."""
        found = self.one("SELECT min(apply_identifier) AS name FROM applies").name
        return ApplyId(found) if found else None


@dataclass(frozen=True)
class Ask:
    """A wish, asked for as soon as a condition holds; `between` asks in the middle of the next dispatch's tick."""

    verb: Verb
    deployments: tuple[str, ...]
    when: Callable[[Stage], bool]
    between: bool = False


@dataclass(frozen=True)
class Story:
    """One rollout with all that people ask of it. `states` is how it must end."""

    name: str
    states: Mapping[str, tuple[str, ...]]
    apply_states: tuple[str, ...]
    policy: Policy = field(default_factory=Policy)
    asks: tuple[Ask, ...] = ()
    prepare: Callable[[Mapping[str, FakeEngine]], None] = lambda _engines: None
    declares: bool = True
    """A person has said of every engine that it runs a repeated Apply only once."""

    @property
    def deployments(self) -> tuple[str, ...]:
        """In rollout order."""
        return tuple(self.states)

    def is_over(self, stage: Stage) -> bool:
        """As far as Tern is concerned."""
        settled = ("completed", "failed", "cancelled", "stopped")
        row = stage.apply_row()
        open_wishes = stage.one(
            "SELECT count(*) AS n FROM control_deliveries WHERE state IN ('pending', 'sent')"
        ).n
        return row.state in settled and row.verdict_effects_done_at is not None and not open_wishes


def play(story: Story, stage: Stage, told: int, report: Callable[[str], None]) -> None:
    """Plays the story from the step that nobody was told about. Each acknowledged request is reported."""
    if told == 0:
        stage.last = _insist(lambda: stage.apply(*story.deployments, policy=story.policy, key="story"))
        stage.lose_bells()
        report(f"apply {stage.last}")
    else:
        found = stage.first_apply()
        assert found is not None, "an acknowledged apply is gone"
        stage.last = found
    for ask in story.asks[max(0, told - 1) :]:
        if ask.between:
            _ask_in_between(stage, ask, report)
        else:
            stage.run(until=lambda ask=ask: ask.when(stage))  # type: ignore[misc]
            _ask(stage, ask, report)
    stage.run(until=lambda: story.is_over(stage))
    _ring_again(story, stage)


def _ring_again(story: Story, stage: Stage) -> None:
    """Late and doubled messages of every kind, after all is over: nothing may come of them (G11)."""
    with stage.boundaries.hidden():
        for name in story.deployments:
            scope = str(stage.name(name))
            for kind in ("dispatch", "progress", *(ask.verb.value for ask in story.asks)):
                stage.do(kind, stage.operation(name).id, scope)
            stage.do("poll", name)
        stage.do("advance", stage.last)
        stage.answer_bells()


def _ask(stage: Stage, ask: Ask, report: Callable[[str], None]) -> None:
    receipt = _insist(lambda: stage.ask(ask.verb, *ask.deployments))
    stage.lose_bells()
    report(f"request {receipt.request_id or ''}")


def _insist(ask: Callable[[], Any]) -> Any:
    """Whoever asks and gets no answer asks again."""
    try:
        return ask()
    except StorageUnavailable:
        return ask()


def _ask_in_between(stage: Stage, ask: Ask, report: Callable[[str], None]) -> None:
    """Between a driver's claim and its last look: the stop must be seen there (G9)."""
    claim = stage.store.claim_dispatch
    asked: list[bool] = []

    def claim_then_ask(*args: Any) -> Any:
        claimed = claim(*args)
        if not asked and ask.when(stage):
            asked.append(True)
            _ask(stage, ask, report)
        return claimed

    stage.store.claim_dispatch = claim_then_ask  # type: ignore[method-assign]
    try:
        stage.run(
            until=lambda: bool(asked) or stage.remote_id("A") is not None or stage.state("A") == "stopped"
        )
        if not asked:
            _ask(stage, ask, report)  # who made the claim, or heard of the stop, has died since
    finally:
        del stage.store.claim_dispatch  # type: ignore[method-assign]


def _has_id(*names: str) -> Callable[[Stage], bool]:
    return lambda stage: all(stage.remote_id(name) for name in names)


def _is(state: str, *names: str) -> Callable[[Stage], bool]:
    return lambda stage: all(stage.state(name) == state for name in names)


def _always(stage: Stage) -> bool:
    del stage
    return True


def _loses_one_call_and_one_answer(engines: Mapping[str, FakeEngine]) -> None:
    _completes(engines)
    engines["A"].script("Apply", fail("UNAVAILABLE"))
    engines["B"].script("Apply", lose_answer())


def _completes(engines: Mapping[str, FakeEngine]) -> None:
    for engine in engines.values():
        engine.jobs._after_polls = 2


def _completes_once_started(engines: Mapping[str, FakeEngine]) -> None:
    """A runs until it is stopped, and completes after it has been started again; the others complete at once."""
    for engine in engines.values():
        for method in ("Progress", "BatchProgress"):
            engine.always(method, _completing_after_start(engine))


def _completing_after_start(engine: FakeEngine) -> Callable[[Turn], Any]:
    def run(turn: Turn) -> Any:
        for job in list(engine.jobs.by_id.values()):
            may_end = engine.name != "A" or engine.effects("start")
            if job.state == "running" and may_end:
                engine.jobs.set_state(job.remote_id, "completed")
        return turn.perform()

    return run


def _first_fails(engines: Mapping[str, FakeEngine]) -> None:
    """A's change fails while it is being watched."""
    engine = engines["A"]

    def run(turn: Turn) -> Any:
        for job in list(engine.jobs.by_id.values()):
            if job.state == "running":
                engine.jobs.set_state(job.remote_id, "failed", error="a duplicate key")
        return turn.perform()

    _completes(engines)
    engine.always("Progress", run)
    engine.always("BatchProgress", run)


def _first_is_refused(engines: Mapping[str, FakeEngine]) -> None:
    _completes(engines)
    engines["A"].always("Apply", not_accepted("no such table"))


def _first_is_refused_until_a_retry(engines: Mapping[str, FakeEngine]) -> None:
    """A refuses its change until somebody has mended what was wrong, and asks for a retry."""
    _completes(engines)
    ledger: Any = engines["A"].ledger

    def run(turn: Turn) -> Any:
        asked = ledger.look("SELECT count(*) AS n FROM control_requests WHERE verb = 'retry'").n
        return turn.perform() if asked else not_accepted("no such table")(turn)

    engines["A"].always("Apply", run)


def _answers_get_lost(engines: Mapping[str, FakeEngine]) -> None:
    _completes(engines)
    engines["A"].script("Apply", lose_answer())


def _answer_gets_lost_and_nothing_completes(engines: Mapping[str, FakeEngine]) -> None:
    engines["A"].script("Apply", lose_answer())


def _nothing_arrives_before_a_stop(engines: Mapping[str, FakeEngine]) -> None:
    """Until its key is dead A is away."""
    engine = engines["A"]

    def run(turn: Turn) -> Any:
        if not engine.effects("forbid"):
            return fail("UNAVAILABLE")(turn)
        return turn.perform()

    engine.always("Apply", run)
    _completes(engines)


def _nothing_completes(engines: Mapping[str, FakeEngine]) -> None:
    del engines


_MANUAL = Policy(cutover=Cutover.MANUAL)
_PARALLEL = Policy(copy=Copy.PARALLEL)

STORIES: Mapping[str, Story] = {
    story.name: story
    for story in (
        Story(
            "plain",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            prepare=_completes,
        ),
        Story(
            # Nobody declared anything: no key is sent twice, whoever dies where, and one whose call never came through
            # makes way for the next.
            "undeclared",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=Policy(copy=Copy.PARALLEL),
            prepare=_loses_one_call_and_one_answer,
            declares=False,
        ),
        Story(
            # One operation: its id lives in applies.external_id, and a stop comes between its claim and its call.
            "stop-before-dispatch",
            {"A": ("stopped",)},
            ("stopped",),
            asks=(Ask(Verb.STOP, (), lambda stage: stage.state("A") != "pending", between=True),),
            prepare=_nothing_completes,
        ),
        Story(
            "stop-after-dispatch",
            {"A": ("stopped",), "B": ("stopped",)},
            ("stopped",),
            asks=(Ask(Verb.STOP, (), _has_id("A")),),
            prepare=_nothing_completes,
        ),
        Story(
            "start-after-stop",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            asks=(
                Ask(Verb.STOP, (), _has_id("A")),
                Ask(Verb.START, ("A", "B"), _is("stopped", "A", "B")),
            ),
            prepare=_completes_once_started,
        ),
        Story(
            "manual-cutover",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=_MANUAL,
            asks=(
                Ask(Verb.CUTOVER, ("A",), _is("waiting_for_cutover", "A")),
                Ask(Verb.CUTOVER, ("B",), _is("waiting_for_cutover", "B")),
            ),
            prepare=_completes,
        ),
        Story(
            # Tern asks for each cutover by itself, one after the other, while both copies are done.
            "barrier-cutover",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=Policy(copy=Copy.BARRIER),
            prepare=_completes,
        ),
        Story(
            "failure-and-halt",
            {"A": ("failed",), "B": ("skipped",)},
            ("failed",),
            prepare=_first_fails,
        ),
        Story(
            "refusal-and-halt",
            {"A": ("failed",), "B": ("skipped",)},
            ("failed",),
            prepare=_first_is_refused,
        ),
        Story(
            # The refusal holds the rollout; after a retry B is let in after all.
            "retry-after-a-refusal",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=Policy(on_failure=OnFailure.PAUSE),
            asks=(Ask(Verb.RETRY, ("A",), _is("failed", "A")),),
            prepare=_first_is_refused_until_a_retry,
        ),
        Story(
            "cancel",
            {"A": ("cancelled",), "B": ("cancelled",)},
            ("cancelled",),
            asks=(Ask(Verb.CANCEL, (), _has_id("A")),),
            prepare=_nothing_completes,
        ),
        Story(
            "parallel-with-a-lost-answer",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=_PARALLEL,
            prepare=_answers_get_lost,
        ),
        Story(
            # The answer gets lost, and the stop comes between the claim and the look of the repetition.
            "stop-before-a-repeated-call",
            {"A": ("stopped",)},
            ("stopped",),
            asks=(Ask(Verb.STOP, (), lambda stage: stage.operation("A").attempt > 1, between=True),),
            prepare=_answer_gets_lost_and_nothing_completes,
        ),
        Story(
            # Nothing arrives, a stop kills the key, and a start begins the next generation.
            "start-over-a-dead-key",
            {"A": ("completed",)},
            ("completed",),
            asks=(
                Ask(Verb.STOP, (), _is("failed_retryable", "A")),
                Ask(Verb.START, (), _is("stopped", "A")),
            ),
            prepare=_nothing_arrives_before_a_stop,
        ),
        Story(
            # The stop meets an unanswered dispatch: it must be resolved first.
            "stop-over-a-lost-answer",
            {"A": ("stopped",), "B": ("stopped",)},
            ("stopped",),
            asks=(
                Ask(
                    Verb.STOP, (), lambda stage: stage.state("A") == "failed_retryable" or _has_id("A")(stage)
                ),
            ),
            prepare=_answer_gets_lost_and_nothing_completes,
        ),
    )
}

"""The rollouts whose every crash point is tried: what people ask for, when, and how it must end.

A story is played by whoever is alive: a worker process until it dies, then another from the step that nobody was
told about. All its conditions are rows, so that it does not matter who plays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.rest_asked import NewRest, rest_key
from tern.domain.selection import Selection
from tern.flows.accept import answer
from tern.flows.rest import send, show
from tern.ports import Answered, Resolved, StorageUnavailable
from tern.settling import settle_outstanding
from tests.faults.fake_engine import FakeEngine
from tests.faults.stage import Stage
from tests.faults.story_engines import (
    answer_gets_lost_and_nothing_completes,
    answers_get_lost,
    completes,
    completes_once_started,
    first_fails,
    first_is_gone_until_it_is_given_up,
    first_is_refused,
    first_is_refused_until_a_retry,
    first_is_refused_until_it_is_carried_on,
    loses_one_call_and_one_answer,
    nothing_arrives_before_a_stop,
    nothing_completes,
)


@dataclass(frozen=True)
class Ask:
    """A wish, asked for as soon as a condition holds; `between` asks in the middle of the next dispatch's tick."""

    verb: Verb
    deployments: tuple[str, ...]
    when: Callable[[Stage], bool]
    between: bool = False


@dataclass(frozen=True)
class Say:
    """Something else that a person says, as soon as a condition holds. Whoever says it again, because nobody was told,
    finds it said; returns what is reported.
    """

    what: Callable[[Stage], str]
    when: Callable[[Stage], bool]


@dataclass(frozen=True)
class Story:
    """One rollout with all that people ask of it. `states` is how it must end."""

    name: str
    states: Mapping[str, tuple[str, ...]]
    apply_states: tuple[str, ...]
    policy: Policy = field(default_factory=Policy)
    asks: tuple[Ask | Say, ...] = ()
    prepare: Callable[[Mapping[str, FakeEngine]], None] = lambda _engines: None
    declares: bool = True
    """A person has said of every engine that it runs a repeated Apply only once."""
    applies: int = 1
    """So many there are at the end, follow-ups included."""

    @property
    def deployments(self) -> tuple[str, ...]:
        """In rollout order."""
        return tuple(self.states)

    def is_over(self, stage: Stage) -> bool:
        """As far as Tern is concerned."""
        return not stage.one(
            "SELECT (SELECT count(*) FROM control_deliveries WHERE state IN ('pending', 'sent'))"
            " + (SELECT count(*) FROM applies WHERE verdict_effects_done_at IS NULL"
            "   OR state NOT IN ('completed', 'failed', 'cancelled', 'stopped')) AS n"
        ).n


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
        if isinstance(ask, Say):
            stage.run(until=lambda ask=ask: ask.when(stage))  # type: ignore[misc]
            report(_insist(lambda ask=ask: ask.what(stage)))  # type: ignore[misc]
            stage.lose_bells()
        elif ask.between:
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
            verbs = [ask.verb.value for ask in story.asks if isinstance(ask, Ask)]
            for kind in ("dispatch", "progress", *verbs):
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


def _gives_up(stage: Stage) -> str:
    """Ten tries and ten minutes are not played, but written."""
    if stage.state("A") != "failed":
        stage.write(
            "UPDATE apply_operations SET unheard_tries = 10, unheard_since = tern_clock() - interval '601 s'"
            " WHERE id = :id",
            id=stage.operation("A").id,
        )
        said = Answered(
            stage.last, Selection(("A",)), Resolved.ENDED, None, "eve", "it burned down", engine_is_gone=True
        )
        answer(said, stage.ports)
    return "request "


def _was_silent(stage: Stage) -> bool:
    return stage.operation("A").unheard_tries > 0 or stage.state("A") == "failed"


def _settles(stage: Stage) -> str:
    def say() -> None:
        if stage.one("SELECT count(*) AS n FROM outstanding_calls WHERE settled_at IS NULL").n:
            settle_outstanding("A", "eve", "nothing of it is there", stage.ports)

    try:
        say()
    except Refused:
        # Its engine's answer was lost; whoever is told so says it again.
        say()
    return "request "


def _is_looked_at(stage: Stage) -> bool:
    """What is outstanding at A has been asked for, and its engine has answered."""
    seen = "SELECT count(*) AS n FROM outstanding_calls WHERE last_seen <> '' OR settled_at IS NOT NULL"
    return bool(stage.one(seen).n)


def _carries_on(stage: Stage) -> str:
    new = NewRest(stage.last, Selection(("A",)), "ann", accept_drift=True)
    for group in show(new, stage.ports).groups:
        key = rest_key(group.digest)
        sent = replace(new, digest=group.digest, reason="it is mended", idempotency_key=key)
        return f"apply {send(sent, stage.ports).apply_id}"
    found = stage.one("SELECT apply_identifier AS name FROM applies WHERE carries_on IS NOT NULL")
    return f"apply {found.name}"


_MANUAL = Policy(cutover=Cutover.MANUAL)
_PARALLEL = Policy(copy=Copy.PARALLEL)
_CONTINUE = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)

STORIES: Mapping[str, Story] = {
    story.name: story
    for story in (
        Story(
            "plain",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            prepare=completes,
        ),
        Story(
            # Nobody declared anything: no key is sent twice, whoever dies where, and one whose call never came through
            # makes way for the next.
            "undeclared",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=Policy(copy=Copy.PARALLEL),
            prepare=loses_one_call_and_one_answer,
            declares=False,
        ),
        Story(
            # One operation: its id lives in applies.external_id, and a stop comes between its claim and its call.
            "stop-before-dispatch",
            {"A": ("stopped",)},
            ("stopped",),
            asks=(Ask(Verb.STOP, (), lambda stage: stage.state("A") != "pending", between=True),),
            prepare=nothing_completes,
        ),
        Story(
            "stop-after-dispatch",
            {"A": ("stopped",), "B": ("stopped",)},
            ("stopped",),
            asks=(Ask(Verb.STOP, (), _has_id("A")),),
            prepare=nothing_completes,
        ),
        Story(
            "start-after-stop",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            asks=(
                Ask(Verb.STOP, (), _has_id("A")),
                Ask(Verb.START, ("A", "B"), _is("stopped", "A", "B")),
            ),
            prepare=completes_once_started,
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
            prepare=completes,
        ),
        Story(
            # Tern asks for each cutover by itself, one after the other, while both copies are done.
            "barrier-cutover",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=Policy(copy=Copy.BARRIER),
            prepare=completes,
        ),
        Story(
            "failure-and-halt",
            {"A": ("failed",), "B": ("skipped",)},
            ("failed",),
            prepare=first_fails,
        ),
        Story(
            "refusal-and-halt",
            {"A": ("failed",), "B": ("skipped",)},
            ("failed",),
            prepare=first_is_refused,
        ),
        Story(
            # The refusal holds the rollout; after a retry B is let in after all.
            "retry-after-a-refusal",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=Policy(on_failure=OnFailure.PAUSE),
            asks=(Ask(Verb.RETRY, ("A",), _is("failed", "A")),),
            prepare=first_is_refused_until_a_retry,
        ),
        Story(
            "cancel",
            {"A": ("cancelled",), "B": ("cancelled",)},
            ("cancelled",),
            asks=(Ask(Verb.CANCEL, (), _has_id("A")),),
            prepare=nothing_completes,
        ),
        Story(
            "parallel-with-a-lost-answer",
            {"A": ("completed",), "B": ("completed",)},
            ("completed",),
            policy=_PARALLEL,
            prepare=answers_get_lost,
        ),
        Story(
            # The answer gets lost, and the stop comes between the claim and the look of the repetition.
            "stop-before-a-repeated-call",
            {"A": ("stopped",)},
            ("stopped",),
            asks=(Ask(Verb.STOP, (), lambda stage: stage.operation("A").attempt > 1, between=True),),
            prepare=answer_gets_lost_and_nothing_completes,
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
            prepare=nothing_arrives_before_a_stop,
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
            prepare=answer_gets_lost_and_nothing_completes,
        ),
        Story(
            # Its engine is gone and given up; what was sent holds the target until a second word settles it.
            "give-up-and-settle",
            {"A": ("failed",), "B": ("completed",)},
            ("failed",),
            policy=_CONTINUE,
            asks=(Say(_gives_up, _was_silent), Say(_settles, _is_looked_at)),
            prepare=first_is_gone_until_it_is_given_up,
        ),
        Story(
            # Refused, mended and carried on; a retry comes too late.
            "carry-on-the-rest",
            {"A": ("failed",), "B": ("completed",)},
            ("failed",),
            policy=_CONTINUE,
            asks=(Say(_carries_on, _is("failed", "A")), Ask(Verb.RETRY, ("A",), _always)),
            prepare=first_is_refused_until_it_is_carried_on,
            applies=2,
        ),
    )
}

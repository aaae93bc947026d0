"""The rollouts into which things go wrong: who asks for what, when, and how it ends when nothing does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tern.domain.control import Verb
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tests.simulation.backend import ApplyLook
from tests.simulation.engines import EngineKind
from tests.simulation.people import CHANGE

When = Callable[[tuple[ApplyLook, ...]], bool]


@dataclass(frozen=True)
class Ask:
    """A wish about one apply (the first one is 0), asked for as soon as the condition holds. No deployments: all."""

    verb: Verb
    when: When
    deployments: tuple[str, ...] | None = None
    apply: int = 0
    at_once: bool = False
    """Right after the one before, without a look at anything."""


@dataclass(frozen=True)
class Enqueue:
    """Another rollout, asked for as soon as the condition holds."""

    deployments: tuple[str, ...]
    when: When
    policy: Policy = field(default_factory=Policy)
    at_once: bool = False


@dataclass(frozen=True)
class Drain:
    """Deployments get no new work from now on, or do again."""

    deployments: tuple[str, ...]
    when: When
    drained: bool = True
    at_once: bool = False


@dataclass(frozen=True)
class CarryOn:
    """What is left of an apply is sent, as it is shown just then."""

    deployments: tuple[str, ...]
    when: When
    apply: int = 0
    at_once: bool = False


Act = Ask | Enqueue | Drain | CarryOn


@dataclass(frozen=True)
class Scenario:
    """One rollout with all that people ask of it. `ends`: the operations' states of the first apply, at last."""

    name: str
    ends: Mapping[str, str]
    policy: Policy = field(default_factory=Policy)
    acts: tuple[Act, ...] = ()
    engines: Mapping[str, EngineKind] = field(default_factory=dict)
    beats: int = 1
    changes: tuple[PlannedChange, ...] = (CHANGE,)

    @property
    def deployments(self) -> tuple[str, ...]:
        """In rollout order."""
        return tuple(self.ends)

    @property
    def pointless(self) -> frozenset[str]:
        """Wishes that are merely answered `already` or refused, wherever they come alone."""
        asked = {act.verb for act in self.acts if isinstance(act, Ask)}
        found = set()
        if not asked & {Verb.STOP, Verb.CANCEL}:
            found |= {"start", "start-first"}
        if self.policy.cutover is Cutover.AUTO:
            found |= {"cutover", "cutover-first"}
        if not any(
            kind.fails or kind.refuses or kind.refuses_first or kind.refuses_any or kind.breaks
            for kind in self.engines.values()
        ):
            found |= {"retry-first", "release-first"}
        if not any(isinstance(act, Drain) for act in self.acts):
            found |= {"undrain"}
        if len(self.ends) == 1:
            found |= {"skip-first"}
        if not any(isinstance(act, CarryOn) for act in self.acts):
            found |= {"carry-on", "carry-on-first"}
        return frozenset(found)


def _is(state: str, *names: str, apply: int = 0) -> When:
    return lambda looks: len(looks) > apply and all(looks[apply].state_of(name) == state for name in names)


def _has_id(*names: str) -> When:
    return lambda looks: all(looks[0].has_id(name) for name in names)


def _apply_is(state: str, apply: int = 0) -> When:
    return lambda looks: len(looks) > apply and looks[apply].state == state


def _always(_looks: tuple[ApplyLook, ...]) -> bool:
    return True


_PARALLEL = Policy(copy=Copy.PARALLEL)
_MANUAL = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL)
_BARRIER = Policy(copy=Copy.BARRIER)
_SLOW = EngineKind(works_s=4.0, stops_s=2.0)
_FAILS = EngineKind(fails=True)
_CONTINUE = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)
_TWO = tuple(
    PlannedChange("public", "orders", f"ALTER TABLE orders ADD COLUMN {name} text", Action.ALTER)
    for name in ("one", "two")
)

SCENARIOS: Mapping[str, Scenario] = {
    one.name: one
    for one in (
        Scenario("rolling", {"A": "completed", "B": "completed"}),
        Scenario("single", {"A": "completed"}),
        Scenario("parallel", {"A": "completed", "B": "completed"}, _PARALLEL),
        Scenario(
            "two-slots-for-three",
            {"A": "completed", "B": "completed", "C": "completed"},
            Policy(copy=Copy.PARALLEL, max_parallel=2),
        ),
        Scenario("no-beat", {"A": "completed", "B": "completed"}, beats=0),
        Scenario("five-beats", {"A": "completed"}, beats=5),
        Scenario(
            "stop-before-dispatch",
            {"A": "stopped", "B": "stopped"},
            acts=(Ask(Verb.STOP, _always),),
        ),
        Scenario(
            "stop-after-dispatch",
            {"A": "stopped", "B": "stopped"},
            acts=(Ask(Verb.STOP, _has_id("A")),),
            engines={"A": _SLOW},
        ),
        Scenario(
            "start-after-stop",
            {"A": "completed", "B": "completed"},
            acts=(
                Ask(Verb.STOP, _has_id("A")),
                Ask(Verb.START, _is("stopped", "A", "B"), ("A", "B")),
            ),
        ),
        Scenario(
            "start-over-a-stop-under-way",
            {"A": "completed"},
            acts=(Ask(Verb.STOP, _is("running", "A")), Ask(Verb.START, _always)),
            engines={"A": _SLOW},
        ),
        Scenario(
            "manual-cutover",
            {"A": "completed", "B": "completed"},
            _MANUAL,
            acts=(
                Ask(Verb.CUTOVER, _is("waiting_for_cutover", "A", "B"), ("B",)),
                Ask(Verb.CUTOVER, _is("completed", "B"), ("A",)),
            ),
        ),
        Scenario(
            "stop-while-waiting-for-cutover",
            {"A": "stopped"},
            Policy(cutover=Cutover.MANUAL),
            acts=(Ask(Verb.CUTOVER, _is("waiting_for_cutover", "A")), Ask(Verb.STOP, _always)),
        ),
        Scenario(
            "failure-and-halt",
            {"A": "failed", "B": "skipped"},
            engines={"A": _FAILS},
        ),
        Scenario(
            "failure-and-continue",
            {"A": "failed", "B": "completed"},
            Policy(on_failure=OnFailure.CONTINUE),
            engines={"A": _FAILS},
        ),
        Scenario(
            "refusal-and-halt",
            {"A": "failed", "B": "skipped"},
            engines={"A": EngineKind(refuses=True)},
        ),
        Scenario(
            "cancel",
            {"A": "cancelled", "B": "cancelled"},
            acts=(Ask(Verb.CANCEL, _has_id("A")),),
        ),
        Scenario(
            "cancel-what-is-stopped",
            {"A": "cancelled"},
            acts=(Ask(Verb.STOP, _has_id("A")), Ask(Verb.CANCEL, _is("stopped", "A"))),
        ),
        Scenario(
            "drain-and-undrain",
            {"A": "completed", "B": "completed"},
            acts=(
                Drain(("B",), _has_id("A")),
                Drain(("B",), _is("completed", "A"), drained=False),
            ),
        ),
        Scenario("revert-window", {"A": "completed"}, engines={"A": EngineKind(window_s=6.0)}),
        Scenario(
            "engine-without-dedup",
            {"A": "completed"},
            engines={"A": EngineKind(deduplicates=False)},
        ),
        Scenario(
            "engine-without-resolve",
            {"A": "stopped", "B": "stopped"},
            acts=(Ask(Verb.STOP, _has_id("A")),),
            engines={"A": EngineKind(resolves=False)},
        ),
        Scenario(
            "engine-without-anything",
            {"A": "completed"},
            engines={"A": EngineKind(deduplicates=False, resolves=False, fences=False)},
        ),
        Scenario(
            "another-apply-for-the-target",
            {"A": "stopped", "B": "stopped"},
            acts=(
                Ask(Verb.STOP, _has_id("A")),
                Enqueue(("A",), _apply_is("stopped")),
                Ask(Verb.START, _is("running", "A", apply=1), ("A",)),
            ),
        ),
        Scenario(
            "another-apply-takes-the-target-just-before-a-start",
            {"A": "completed"},
            acts=(
                Ask(Verb.STOP, _has_id("A")),
                Ask(Verb.START, _is("stopped", "A")),
                Enqueue(("A",), _always, at_once=True),
            ),
        ),
        Scenario(
            "another-apply-after-a-failure", {"A": "completed"}, acts=(Enqueue(("A",), _apply_is("failed")),)
        ),
        Scenario(
            "a-lost-answer", {"A": "completed", "B": "completed"}, engines={"A": EngineKind(swallows=1)}
        ),
        Scenario(
            "stop-over-a-lost-answer",
            {"A": "stopped", "B": "stopped"},
            acts=(Ask(Verb.STOP, _is("failed_retryable", "A")),),
            engines={"A": EngineKind(swallows=9)},
        ),
        Scenario(
            "start-over-a-dead-key",
            {"A": "completed"},
            acts=(
                Ask(Verb.STOP, _is("failed_retryable", "A")),
                Ask(Verb.START, _is("stopped", "A")),
            ),
            engines={"A": EngineKind(misses=1)},
        ),
        Scenario(
            "start-that-takes-its-time",
            {"A": "completed"},
            acts=(Ask(Verb.STOP, _has_id("A")), Ask(Verb.START, _is("stopped", "A"))),
            engines={"A": EngineKind(starts_s=6.0)},
        ),
        Scenario("barrier", {"A": "completed", "B": "completed", "C": "completed"}, _BARRIER),
        Scenario(
            "barrier-behind-a-slow-one",
            {"A": "completed", "B": "completed"},
            _BARRIER,
            engines={"A": EngineKind(works_s=4.0), "B": EngineKind(works_s=1.0)},
        ),
        Scenario(
            "barrier-by-hand",
            {"A": "completed", "B": "completed"},
            Policy(copy=Copy.BARRIER, cutover=Cutover.MANUAL),
            acts=(Ask(Verb.CUTOVER, _is("waiting_for_cutover", "A", "B"), ("A", "B")),),
        ),
        Scenario(
            "barrier-and-a-failure",
            {"A": "failed", "B": "completed"},
            _BARRIER,
            acts=(Ask(Verb.CUTOVER, _apply_is("paused"), ("B",)),),
            engines={"A": _FAILS},
        ),
        Scenario(
            "waves-that-bake",
            {"A": "completed", "B": "completed", "C": "completed"},
            Policy(copy=Copy.PARALLEL, waves=(Wave(deployments=("A",), bake_s=5.0), Wave())),
        ),
        Scenario(
            "canary-fails",
            {"A": "failed", "B": "skipped", "C": "skipped"},
            Policy(copy=Copy.PARALLEL, waves=(Wave(deployments=("A",), bake_s=5.0), Wave())),
            engines={"A": _FAILS},
        ),
        Scenario(
            "strict",
            {"A": "failed", "B": "completed", "C": "completed"},
            Policy(copy=Copy.PARALLEL, max_failures=1, strict=True),
            engines={"A": _FAILS},
        ),
        Scenario(
            "retry",
            {"A": "completed", "B": "completed"},
            Policy(on_failure=OnFailure.PAUSE),
            acts=(Ask(Verb.RETRY, _is("failed", "A"), ("A",)),),
            engines={"A": EngineKind(refuses_first=1)},
        ),
        Scenario(
            # Only an engine that is silent for long is given up; what its job may be doing is asked about first.
            "retry-of-what-was-given-up",
            {"A": "completed", "B": "completed"},
            _CONTINUE,
            acts=(Ask(Verb.RETRY, _is("failed", "A"), ("A",)),),
            engines={"A": EngineKind(swallows=1)},
        ),
        Scenario(
            "stop-of-a-retry-of-what-was-given-up",
            {"A": "completed", "B": "completed"},
            _CONTINUE,
            acts=(
                Ask(Verb.RETRY, _is("failed", "A"), ("A",)),
                Ask(Verb.STOP, _is("failed_retryable", "A"), ("A",)),
            ),
            engines={"A": EngineKind(swallows=1)},
        ),
        Scenario(
            "pause-and-release",
            {"A": "failed", "B": "completed"},
            Policy(on_failure=OnFailure.PAUSE),
            acts=(Ask(Verb.RELEASE, _apply_is("paused")),),
            engines={"A": _FAILS},
        ),
        Scenario(
            "skip",
            {"A": "completed", "B": "skipped", "C": "completed"},
            acts=(
                Ask(Verb.STOP, _always, ("B",)),
                Ask(Verb.SKIP, _is("stopped", "B"), ("B",)),
            ),
        ),
        Scenario(
            "revert",
            {"A": "reverted"},
            acts=(Ask(Verb.REVERT, _is("revert_window", "A")),),
            engines={"A": EngineKind(window_s=60.0)},
        ),
        Scenario(
            "skip-revert",
            {"A": "completed", "B": "completed"},
            acts=(Ask(Verb.SKIP_REVERT, _is("revert_window", "A"), ("A",)),),
            engines={"A": EngineKind(window_s=60.0)},
        ),
        Scenario(
            "volume",
            {"A": "completed"},
            acts=(Ask(Verb.VOLUME, _has_id("A")),),
            engines={"A": EngineKind(works_s=4.0)},
        ),
        Scenario(
            # The first of two statements is in; its rest is done by a follow-up, and by nobody else.
            "carry-on-what-is-half-done",
            {"A": "failed", "B": "completed"},
            _CONTINUE,
            acts=(
                CarryOn(("A",), _is("failed", "A")),
                Ask(Verb.RETRY, _always, ("A",), at_once=True),
            ),
            engines={"A": EngineKind(breaks=1)},
            changes=_TWO,
        ),
        Scenario(
            "carry-on-just-before-a-retry",
            {"A": "failed", "B": "completed"},
            _CONTINUE,
            acts=(
                CarryOn(("A",), _is("failed", "A")),
                Ask(Verb.RETRY, _always, ("A",), at_once=True),
            ),
            engines={"A": EngineKind(refuses_any=1)},
            changes=_TWO,
        ),
        Scenario(
            "carry-on-just-after-a-retry",
            {"A": "completed", "B": "completed"},
            _CONTINUE,
            acts=(
                Ask(Verb.RETRY, _is("failed", "A"), ("A",)),
                CarryOn(("A",), _always, at_once=True),
            ),
            engines={"A": EngineKind(refuses_any=1)},
            changes=_TWO,
        ),
        Scenario(
            # B is carried on and becomes cancelled; A, which was sent, is started where it is.
            "carry-on-what-was-never-sent-just-before-a-start",
            {"A": "completed", "B": "cancelled"},
            acts=(
                Ask(Verb.STOP, _always),
                CarryOn(("A", "B"), _is("stopped", "A", "B")),
                Ask(Verb.START, _always, ("A", "B"), at_once=True),
            ),
            changes=_TWO,
        ),
    )
}

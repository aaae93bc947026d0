"""Who checks the checkers: a true history that none of them minds, and for each of them one that it must reject."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tern.domain.policy import Copy, Policy
from tests.faults.history import Asked, Done, History, Job, Recorded
from tests.faults.invariants import violations
from tests.faults.rule import CHECKERS
from tests.faults.true_history import (
    CLAIMED,
    FOLLOWED,
    KEY,
    KEY_2,
    KNOWN,
    PARENT,
    PENDING,
    SCOPE_A,
    SCOPE_B,
    STOPPED,
    TRUE,
    A,
    B,
    op,
    row,
    with_calls,
    with_change,
    with_effects,
    with_event,
    without_event,
    wrote,
)

STARTED_AGAIN = Done(8.0, "a", "apply", "a-2", KEY, SCOPE_A)

FORGED: list[tuple[str, str, Callable[[], History]]] = [
    ("S1", "one key starts two jobs", lambda: with_effects(STARTED_AGAIN)),
    (
        "S1",
        "one operation runs twice under two keys",
        lambda: with_effects(replace(STARTED_AGAIN, key=KEY_2)),
    ),
    (
        "S2",
        "an id is replaced",
        lambda: with_change(6, op(6, 1, KNOWN, {**FOLLOWED, "engine_resume_context": "a-9"})),
    ),
    (
        "S2",
        "an id is emptied",
        lambda: with_change(6, op(6, 1, KNOWN, {**FOLLOWED, "engine_resume_context": None})),
    ),
    (
        "G1",
        "the parent of two holds an id",
        lambda: with_change(
            1, wrote(1, "applies", 1, {}, {"state": "pending", "operation_count": 2, "external_id": "a-1"})
        ),
    ),
    (
        "G1",
        "two operations of one deployment share an id",
        lambda: replace(TRUE, operations=(A, replace(B, deployment="A", remote_id="a-1"))),
    ),
    (
        "S3",
        "cutting over without an id",
        lambda: with_change(5, op(5, 1, CLAIMED, {**CLAIMED, "state": "cutting_over"})),
    ),
    ("S4", "an Apply without an intent", lambda: with_change(3, None)),
    (
        "S4",
        "an Apply before its intent",
        lambda: replace(TRUE, calls=(replace(TRUE.calls[0], at=2.0), *TRUE.calls[1:])),
    ),
    (
        "S4",
        "an Apply with a random key",
        lambda: replace(TRUE, calls=(replace(TRUE.calls[0], key="tern-other"), *TRUE.calls[1:])),
    ),
    (
        "G4",
        "an Apply though the id is there",
        lambda: with_calls(Asked(6.5, "a", "Apply", "", KEY, SCOPE_A, 2)),
    ),
    (
        "S5",
        "a new generation while the key lives",
        lambda: with_change(12, op(12, 2, PENDING, row("stopped", dispatch_generation=2))),
    ),
    (
        "S5",
        "a new generation over started work",
        lambda: with_change(
            20,
            op(
                20,
                1,
                {**FOLLOWED, "dispatch_key_is_dead": True},
                {**STOPPED, "dispatch_key_is_dead": True, "dispatch_generation": 2},
            ),
        ),
    ),
    ("S6", "a sibling's id", lambda: with_calls(Asked(16.0, "a", "Stop", "a-1", "", SCOPE_B))),
    ("S6", "the public id", lambda: with_calls(Asked(16.0, "a", "Cutover", "apl-1", "", SCOPE_A))),
    ("S6", "an empty id", lambda: with_calls(Asked(16.0, "a", "Progress", "", "", SCOPE_A))),
    (
        "S6",
        "a stranger in a batch",
        lambda: with_calls(Asked(16.0, "a", "BatchProgress", cursors=(("a-1", SCOPE_B),))),
    ),
    ("S7", "a write by one who lost the claim", lambda: with_event(5, who="w2")),
    ("S7", "an id stored by one who lost the claim", lambda: with_event(4, who="w2")),
    (
        "S7",
        "a claim without a higher fence",
        lambda: with_change(3, op(3, 1, PENDING, {**CLAIMED, "fence": 0})),
    ),
    (
        "S8",
        "a claim taken while the lease runs",
        lambda: with_change(
            5, op(5, 1, CLAIMED, {**KNOWN, "claim_token": "t2", "claim_owner": "w2", "fence": 2})
        ),
    ),
    ("S10", "a verdict by another job's sample", lambda: with_event(7, detail={"remote_id": "b-1"})),
    (
        "S10",
        "settled as never started while it runs",
        lambda: with_event(7, event="withdraw_stopped", who="bob", detail={}),
    ),
    (
        "S11",
        "the engine says otherwise",
        lambda: replace(TRUE, jobs=(replace(TRUE.jobs[0], state="running"),)),
    ),
    (
        "S11",
        "a job that nobody follows",
        lambda: replace(TRUE, jobs=(*TRUE.jobs, Job("b", "b-1", SCOPE_B, "running"))),
    ),
    (
        "G14",
        "a parent that one child decided",
        lambda: replace(TRUE, applies=(replace(TRUE.applies[0], state="failed"),)),
    ),
    (
        "G14",
        "a verdict over a live operation",
        lambda: replace(
            TRUE,
            changes=(
                *(change for change in TRUE.changes if change.number != 20),
                wrote(19, "applies", 1, {**PARENT, "state": "running"}, {**PARENT, "state": "stopped"}),
                op(20, 1, FOLLOWED, STOPPED),
            ),
        ),
    ),
    ("S12", "an arrow that is not there", lambda: with_change(12, op(12, 2, PENDING, row("cutting_over")))),
    ("S12", "an event that the table does not know", lambda: with_event(6, before="completed")),
    (
        "S12",
        "a finished apply that lives again",
        lambda: with_change(
            1, None, wrote(30, "applies", 1, {**PARENT, "state": "completed"}, {**PARENT, "state": "running"})
        ),
    ),
    ("S21", "a change without an event", lambda: without_event(6)),
    ("S21", "an event without a change", lambda: with_change(12, None)),
    ("S21", "an event in another transaction", lambda: with_event(6, xid=13)),
    ("S21", "a verdict that nobody recorded", lambda: without_event(8)),
    ("G15", "a broken chain", lambda: with_event(4, chain_holds=False)),
    (
        "G15",
        "a verdict told twice",
        lambda: replace(TRUE, events=(*TRUE.events, replace(TRUE.events[-1], id=10))),
    ),
    ("G15", "a verdict told to nobody", lambda: without_event(9)),
    ("S13", "a lost apply", lambda: replace(TRUE, applies=())),
    ("S13", "a lost request", lambda: replace(TRUE, requests=frozenset())),
    ("S14", "one wish, two effects", lambda: with_effects(Done(16.0, "a", "stop", "a-1", KEY, SCOPE_A))),
    (
        "S14",
        "an effect that nobody wished for",
        lambda: with_effects(Done(16.0, "a", "cutover", "a-1", KEY, SCOPE_A)),
    ),
    ("S15", "acknowledged, and never done", lambda: replace(TRUE, effects=TRUE.effects[:1])),
    (
        "S15",
        "called failed, and done",
        lambda: replace(TRUE, deliveries=(replace(TRUE.deliveries[0], state="failed"), TRUE.deliveries[1])),
    ),
    ("S16", "a call begun under a stop", lambda: with_calls(Asked(11.0, "a", "Cutover", "a-1", "", SCOPE_A))),
    (
        "S16",
        "an effect after the stop was acknowledged",
        lambda: with_effects(Done(25.0, "a", "start", "a-1", KEY, SCOPE_A)),
    ),
    (
        "S17",
        "stopped without asking what became of the dispatch",
        lambda: with_calls(Asked(11.0, "b", "Apply", "", B.key_of(1), SCOPE_B)),
    ),
    (
        "S17",
        "stopped while its intent stood",
        lambda: with_change(12, op(12, 2, PENDING, row("stopped", dispatch_key=B.key_of(1)))),
    ),
    (
        "S18",
        "B before A was through",
        lambda: replace(
            TRUE, events=(Recorded(0, 2, 1, 2, "claim", "w1", "", "pending", "running"), *TRUE.events)
        ),
    ),
    (
        "S18",
        "more at once than allowed",
        lambda: replace(
            TRUE,
            applies=(replace(TRUE.applies[0], policy=Policy(copy=Copy.PARALLEL, max_parallel=1)),),
            events=(*TRUE.events[:3], Recorded(0, 4, 1, 2, "claim", "w1", "", "pending", "running")),
        ),
    ),
    (
        "S18",
        "one more after the failure that halts",
        lambda: replace(
            TRUE,
            applies=(replace(TRUE.applies[0], policy=Policy(copy=Copy.PARALLEL)),),
            events=(
                *TRUE.events[:3],
                Recorded(0, 4, 1, 1, "observe_failed", "engine:A", "", "running", "failed"),
                Recorded(0, 4, 1, 2, "claim", "w1", "", "pending", "running"),
            ),
        ),
    ),
    (
        "S18",
        "started before one that was not let in, in a barrier",
        lambda: replace(
            TRUE,
            applies=(replace(TRUE.applies[0], policy=Policy(copy=Copy.BARRIER)),),
            changes=(op(1, 1, {}, PENDING), op(1, 2, {}, PENDING), op(3, 2, PENDING, row("running"))),
        ),
    ),
    (
        "S18",
        "started before the wave ahead of it is through",
        lambda: replace(
            TRUE,
            applies=(replace(TRUE.applies[0], policy=Policy(copy=Copy.PARALLEL)),),
            operations=(replace(A, wave=1), replace(B, wave=2)),
            events=(*TRUE.events[:3], Recorded(0, 4, 1, 2, "claim", "w1", "", "pending", "running")),
        ),
    ),
    (
        "S18",
        "more failures than a strict rollout bears",
        lambda: replace(
            TRUE,
            applies=(replace(TRUE.applies[0], policy=Policy(copy=Copy.PARALLEL, strict=True)),),
            events=(
                Recorded(0, 4, 1, 1, "refuse", "w1", "no", "pending", "failed"),
                Recorded(0, 4, 1, 2, "refuse", "w1", "no", "pending", "failed"),
            ),
        ),
    ),
    (
        "S18",
        "cut over before its turn",
        lambda: replace(
            TRUE,
            applies=(replace(TRUE.applies[0], policy=Policy(copy=Copy.BARRIER)),),
            effects=(*TRUE.effects, Done(16.0, "b", "cutover", "b-1", B.key_of(1), SCOPE_B)),
        ),
    ),
    (
        "S19",
        "live without its target",
        lambda: replace(TRUE, operations=(replace(A, state="running"), B), reservations=()),
    ),
    (
        "S19",
        "two live applies on one target",
        lambda: replace(
            TRUE,
            operations=(replace(A, state="running"), replace(B, apply_pk=2, deployment="A", state="running")),
            reservations=((1, "A"), (2, "A")),
        ),
    ),
    (
        "S19",
        "live for a while without its target",
        lambda: replace(
            TRUE, changes=(*TRUE.changes, op(15, 1, FOLLOWED, {**FOLLOWED, "holds_target": False}))
        ),
    ),
    (
        "S19",
        "a target kept by what is finished",
        lambda: replace(TRUE, operations=(replace(A, state="completed"), B)),
    ),
    (
        "S19",
        "a target kept by what was never sent and is stopped",
        lambda: replace(TRUE, reservations=((1, "A"), (1, "B"))),
    ),
    (
        "S19",
        "stopped at its engine without its target",
        lambda: replace(TRUE, reservations=()),
    ),
    (
        "S22",
        "a key that means two jobs",
        lambda: with_effects(Done(16.0, "a", "apply", "a-7", KEY, SCOPE_A, is_duplicate=True)),
    ),
    (
        "S22",
        "a dead key that starts something",
        lambda: replace(TRUE, effects=(Done(1.0, "a", "forbid", "", KEY, SCOPE_A), *TRUE.effects)),
    ),
    (
        "G8",
        "a wish left open",
        lambda: replace(TRUE, deliveries=(replace(TRUE.deliveries[0], state="sent"), TRUE.deliveries[1])),
    ),
]


def test_true_history_is_accepted() -> None:
    assert violations(TRUE) == []


def test_empty_history_is_accepted() -> None:
    assert violations(History()) == []


@pytest.mark.parametrize(
    ("rule", "what", "forge"), FORGED, ids=[f"{rule}: {what}" for rule, what, _ in FORGED]
)
def test_forged_history_is_rejected(rule: str, what: str, forge: Callable[[], History]) -> None:
    assert violations(forge(), rule), what


def test_every_checker_has_a_forgery() -> None:
    assert {rule for rule, _, _ in FORGED} == set(CHECKERS)


def test_call_already_under_way_is_no_violation() -> None:
    """S16: a call that began within the time allowed for those in flight."""
    late = replace(with_calls(Asked(11.0, "a", "Start", "a-1", "", SCOPE_A)), in_flight_s=5.0)
    assert not violations(late, "S16")

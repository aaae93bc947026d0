"""Every dead end prints what leads out of it, and that is taken: each command is typed as it stands there."""

import re
from collections.abc import Callable
from typing import Protocol

import pytest

from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.states import State
from tern.engine.locks import Blocker
from tests.cli.conftest import Tern
from tests.cli.test_carried_on import commands
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.gone import given_up, goes
from tests.flows.steps import settle
from tests.flows.test_effect import STATEMENTS, told
from tests.world import World

DRY = {"release", "retry", "start", "stop", "cancel", "skip", "cutover", "revert", "skip-revert", "resolve"}
PLACEHOLDERS = re.compile(r"\b(ADDRESS|REF)\b")
SITUATIONS = {
    "alone": ("A",),
    "halted": ("A", "B", "C"),
    "paused": ("A", "B", "C"),
    "going on": ("A", "B", "C"),
    "drained": ("A", "B"),
    "its target held": ("A",),
}
POLICIES = {
    "paused": Policy(copy=Copy.ROLLING, on_failure=OnFailure.PAUSE),
    "halted": Policy(copy=Copy.ROLLING),
}
GOES_ON = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)
FREE = {
    "refused",
    "failed",
    "half done",
    "unknown",
    "cancelled",
    "cancelled early",
    "reverted",
    "stopped early",
}
"""Those that hold no target, so that somebody else can have it."""


class Begin(Protocol):
    """Accepts the rollout, and hands over what may begin."""

    def __call__(self, *, hands_over: bool = True) -> None: ...


def refused(world: World, begin: Begin) -> None:
    world.engines["A"].script("Apply", not_accepted())
    begin()


def ended(state: State, *words: str) -> Callable[[World, Begin], None]:
    def end(world: World, begin: Begin) -> None:
        begin()
        told(world, state, *words, name="A")

    return end


def stopped(world: World, begin: Begin) -> None:
    begin()
    world.ask(Verb.STOP, "A")
    settle(world)


def early(verb: Verb) -> Callable[[World, Begin], None]:
    """Before anything was sent."""

    def end(world: World, begin: Begin) -> None:
        begin(hands_over=False)
        world.ask(verb, "A")
        settle(world)

    return end


def uncertain(world: World, begin: Begin) -> None:
    world.undeclared()
    world.engines["A"].offer(engine_service=False, deduplicates=False)
    world.engines["A"].script("Apply", lose_answer())
    begin()


def uncertain_with_an_id(world: World, begin: Begin) -> None:
    begin()
    world.engines["A"].jobs.by_id.clear()
    for _ in range(5):
        world.pass_time(5)
        world.sweep()


def lost(world: World, begin: Begin) -> None:
    begin()
    goes(world, "A", how=fail("UNAUTHENTICATED"))


def gone(world: World, begin: Begin) -> None:
    begin()
    given_up(world)


ENDS: dict[str, Callable[[World, Begin], None]] = {
    "refused": refused,
    "failed": ended(State.FAILED, "failed", "pending", "pending"),
    "half done": ended(State.FAILED, "completed", "failed", "pending"),
    "unknown": ended(State.FAILED, "completed", "running", "pending"),
    "cancelled": ended(State.CANCELLED, "completed", "completed", "pending"),
    "cancelled early": early(Verb.CANCEL),
    "reverted": ended(State.REVERTED, "pending", "pending", "pending"),
    "skipped": early(Verb.SKIP),
    "stopped": stopped,
    "stopped early": early(Verb.STOP),
    "can be reverted": ended(State.REVERT_WINDOW, "completed", "completed", "completed"),
    "uncertain": uncertain,
    "uncertain with an id": uncertain_with_an_id,
    "lost contact": lost,
    "given up": gone,
}


def arrange(world: World, end: str, situation: str) -> str:
    """The dead end at A, in that situation."""
    names = SITUATIONS[situation]

    def begin(*, hands_over: bool = True) -> None:
        world.apply(*names, policy=POLICIES.get(situation, GOES_ON), changes=STATEMENTS)
        if hands_over:
            world.answer_bells()

    ENDS[end](world, begin)
    source = world.last
    if situation == "drained":
        world.store.set_drained("A", drained=True)
    if situation == "its target held":
        world.apply("A", policy=GOES_ON)
        world.answer_bells()
        world.last = ApplyId(source)
    # A call may be answered for ten seconds, and nobody's word is taken before that.
    for _ in range(4):
        world.pass_time(20)
        world.sweep()
    return str(source)


@pytest.mark.parametrize(
    ("end", "situation"),
    [
        (end, situation)
        for end in ENDS
        for situation in SITUATIONS
        if end in FREE or situation != "its target held"
    ],
)
def test_every_dead_end_prints_what_leads_out_of_it_and_that_is_taken(
    end: str, situation: str, world: World, tern: Tern
) -> None:
    source = arrange(world, end, situation)
    found = [tuple(each) for look in looks(source) for each in commands(tern, *look)]
    of_one = [tuple(each) for each in commands(tern, "explain", f"{source}/A")]
    assert of_one, tern("explain", f"{source}/A").out
    for words in dict.fromkeys(found):
        taken(world, tern, words)


def test_who_is_in_the_way_of_a_lock_is_ended_by_a_statement_ready_to_copy(world: World, tern: Tern) -> None:
    """As the PostgreSQL engine says it: with the session's number, or the name of a prepared transaction."""
    apply_id = world.apply("A", policy=GOES_ON, changes=STATEMENTS)
    world.answer_bells()
    told(world, State.RUNNING, "waiting_for_lock", "pending", "pending", name="A")
    for blocker, end in (
        (Blocker(4711, 1260.0, "shop", "web", "10.0.0.7"), "SELECT pg_terminate_backend(4711)"),
        (Blocker(None, 90.0, "shop", prepared="it's"), "ROLLBACK PREPARED 'it''s'"),
    ):
        detail = f"attempt 3 in 2.0 s; in the way: {blocker}"
        world.write("UPDATE table_changes SET detail = :detail WHERE ordinal = 0", detail=detail)
        for subject in (apply_id, f"{apply_id}/A"):
            lines = [line.strip() for line in tern("explain", subject).out.splitlines()]
            assert lines.count(f"{end};") == 1, lines
        (way,) = tern("explain", f"{apply_id}/A", "--json").data["operations"][0]["ways"]
        assert way["command"] == f"{end};"


def looks(source: str) -> list[tuple[str, str]]:
    return [("explain", f"{source}/A"), ("explain", source), ("get", source)]


def taken(world: World, tern: Tern, words: tuple[str, ...]) -> None:
    """Typed as it stands there; where that would write, with --dry-run."""
    if PLACEHOLDERS.search(" ".join(words)):
        return
    typed = [word.replace("remote-id=R", f"remote-id={_id(world)}") for word in words]
    typed += ["--dry-run"] if words[0] in DRY else []
    if "--statement" in typed:
        assert tern(*typed).code == 2, "what has to be filled in must not be taken as it is copied"
        typed = [word.replace("…", "not-done") if "=…" in word else word for word in typed]
    if words[0] in {"watch", "wait"}:
        return
    done = tern(*typed)
    # What asks an engine says what it heard; and of a whole rollout something may be through already.
    also = {("deployments", "check"): 69, ("stop", str(world.last)): 6}.get(words[:2], 0)
    assert done.code in {0, also}, (words, done.out, done.err)
    if words[:2] == ("apply", "--rest-of"):
        assert "Nothing was sent" in done.out, (words, done.out)


def _id(world: World) -> str:
    return next(iter(world.engines["A"].jobs.by_id), "R")

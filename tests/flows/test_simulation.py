"""Random lives of a rollout: workers that die anywhere, lost answers, operators, engines that say no (G1-G15).

Each seed is a story that can be told again. After every step the invariants must hold; after a calm phase everything
is settled, and what the rows say is what the engines did.
"""

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.flows.sweep import reconcile, sweep_progress
from tern.ports import StorageUnavailable
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.faults.cut import Boundaries, Killed, lose_storage, spied
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
SEEDS = range(8)
STEPS = 60
LIVE_JOB = {"running", "waiting_for_cutover", "cutting_over", "stopped"}


class Story:
    """One seed's life of one rollout."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)  # noqa: S311 - repeatable by its seed
        self.told: list[str] = []
        self.policy = self.any_policy()
        count = 3 if self.policy.waves else self.chance.choice([1, 2, 3, 3])
        names = self.chance.sample("ABC", count)
        self.names = names
        world.apply(*names, policy=self.policy)

    def any_policy(self) -> Policy:
        """Any that does not contradict itself, in one wave or in two."""
        choose = self.chance.choice
        copy, on_failure = choose(list(Copy)), choose(list(OnFailure))
        bound = [None] if copy is Copy.ROLLING else [None, 1, 2]
        canary = Wave(deployments=("A",), max_parallel=choose(bound), bake_s=choose([0.0, 45.0]))
        return Policy(
            copy=copy,
            on_failure=on_failure,
            cutover=choose(list(Cutover)),
            max_parallel=choose(bound),
            max_failures=choose([0, 1]),
            strict=on_failure is not OnFailure.CONTINUE and choose([False, True]),
            waves=choose([(), (), (canary, Wave())]),
        )

    def step(self) -> None:
        happening = self.chance.choices(
            [
                self.answer,
                self.kill,
                self.hiccup,
                self.sweep,
                self.time,
                self.ask,
                self.script,
                self.move,
                self.lose,
            ],
            [8, 3, 2, 5, 5, 2, 2, 3, 1],
        )[0]
        self.told.append(happening.__name__)
        happening()

    def answer(self) -> None:
        if self.world.bells.queue:
            self.world.bells.queue.rotate(self.chance.randrange(len(self.world.bells.queue)))
            self.told.append(str(self.world.bells.queue[0]))
            self.world.answer_one(self.world.worker(self.chance.choice(["w1", "w2", "w3"])))

    def kill(self) -> None:
        if self.world.bells.queue:
            worker = Boundaries(at=self.chance.randrange(14)).around(self.world.worker("mortal"))
            self.told.append(str(self.world.bells.queue[0]))
            with suppress(Killed):
                self.world.answer_one(worker)

    def hiccup(self) -> None:
        """Some step's answer to COMMIT is lost."""
        if self.world.bells.queue:
            at = [self.chance.randrange(6)]

            def after(_name: str) -> None:
                at[0] -= 1
                if at[0] == 0:
                    lose_storage()

            with suppress(StorageUnavailable):
                self.world.answer_one(spied(self.world.worker("unlucky"), lambda _: None, after))

    def sweep(self) -> None:
        reconcile("sweeper", self.world.ports)
        sweep_progress("sweeper", self.world.ports)

    def time(self) -> None:
        self.world.pass_time(self.chance.choice([1, 6, 31, 31, 70]))

    def ask(self) -> None:
        often = (Verb.STOP, Verb.START, Verb.CUTOVER)
        verb = self.chance.choice([*often, *often, Verb.CANCEL, Verb.RELEASE, Verb.RETRY, Verb.SKIP])
        names = [] if verb is Verb.RELEASE else [self.chance.choice(self.names)]
        if verb is Verb.CUTOVER and self.chance.random() < 0.5:
            names = self.names
        self.told.append(f"{verb} {names}")
        with suppress(Refused):
            self.world.ask(verb, *names)

    def script(self) -> None:
        engine = self.world.engines[self.chance.choice(self.names)]
        method = self.chance.choice(["Apply", "Apply", "Resolve", "Stop", "Start", "Cutover", "Cancel"])
        behaviour = self.chance.choice(
            [lose_answer(), lose_answer("DEADLINE_EXCEEDED"), fail("UNAVAILABLE"), fail("PERMISSION_DENIED")]
            + ([not_accepted()] if method != "Resolve" else [])
        )
        engine.script(method, behaviour)

    def move(self) -> None:
        """An engine gets on with its work."""
        engine = self.world.engines[self.chance.choice(self.names)]
        for job in list(engine.jobs.by_id.values()):
            if job.state == "running":
                after = "waiting_for_cutover" if job.defers_cutover else "completed"
                engine.set_state(job.remote_id, self.chance.choice([after, after, "failed"]))
            elif job.state == "waiting_for_cutover" and self.chance.random() < 0.1:
                engine.set_state(job.remote_id, "failed")

    def lose(self) -> None:
        self.world.forget_bells()

    def calm_down(self) -> None:
        """No faults any more; whoever waits for a person gets one."""
        for engine in self.world.engines.values():
            engine._scripts.clear()
        for turn in range(60):
            if self.is_at_rest():
                return
            for name in self.names:
                state = self.world.state(name)
                self.move()
                if state == "waiting_for_cutover" and not self.is_asked(name):
                    with suppress(Refused):
                        self.world.ask(Verb.CUTOVER, name)
                if self.world.apply_row().state == "paused":
                    with suppress(Refused):
                        self.world.ask(Verb.RELEASE)
                if turn > 8 and state in {"uncertain", "stopped", "pending"}:
                    with suppress(Refused):
                        self.world.ask(Verb.CANCEL, name)
            self.world.pass_time(16)
            self.world.sweep()
        raise AssertionError(self.picture())

    def is_asked(self, name: str) -> bool:
        return bool(
            self.world.one(
                "SELECT count(*) AS n FROM control_deliveries WHERE operation_id = :id AND closed_at IS NULL",
                id=self.world.operation(name).id,
            ).n
        )

    def is_at_rest(self) -> bool:
        settled = self.world.apply_row().state in {"completed", "failed", "cancelled", "reverted", "stopped"}
        return settled and not any(self.is_asked(name) for name in self.names)

    def assert_engines_agree(self) -> None:
        """S11, S15, S17: at rest, nothing lives at an engine that the rows call ended."""
        for name in self.names:
            operation, remote_id = self.world.operation(name), self.world.remote_id(name)
            jobs = self.world.engines[name].jobs.by_id
            for job in jobs.values():
                assert job.remote_id == remote_id or job.state not in LIVE_JOB, self.picture()
            if remote_id is not None and operation.state in {"completed", "stopped", "cancelled"}:
                assert jobs[remote_id].state == operation.state, self.picture()

    def picture(self) -> str:
        jobs = [
            (job.remote_id, job.state)
            for engine in self.world.engines.values()
            for job in engine.jobs.by_id.values()
        ]
        events = [(e.deployment, e.event, e.before, e.after, e.why[:60]) for e in self.world.events()]
        lines = [
            "",
            str(self.policy),
            " ".join(self.told),
            str(jobs),
            *map(str, events),
            self.world.picture(),
        ]
        return "\n".join(lines)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_that_ends_well(make_world: MakeWorld, seed: int) -> None:
    story = Story(make_world("A", "B", "C"), seed)
    for _ in range(STEPS):
        story.step()
        assert_safe(story.world)
    story.calm_down()
    assert_safe(story.world)
    story.assert_engines_agree()

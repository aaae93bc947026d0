"""The store in memory is held equal to PostgreSQL: the same calls, the same answers, the same rows after each."""

import os
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import Capabilities, Deployment
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.samples import Sample, TableSample
from tern.domain.selection import Selection
from tern.domain.states import State
from tern.ports import Asked, DeliveryClaimed, DispatchClaimed, Looked, NewApply, Poll, Resolved
from tests.simulation import explore
from tests.simulation.people import CHANGE
from tests.simulation.postgres import PostgresBackend
from tests.simulation.run import play
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.twin import TwinBackend

NAMES = ("A", "B", "C")
EXAMPLES = int(os.environ.get("EQUALITY", "15"))
"""How many sequences of calls; more of them with EQUALITY=500."""
POLICIES = (
    Policy(),
    Policy(copy=Copy.PARALLEL, max_parallel=2),
    Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL, on_failure=OnFailure.CONTINUE),
    Policy(copy=Copy.BARRIER, on_failure=OnFailure.PAUSE),
    Policy(copy=Copy.BARRIER, max_parallel=2, cutover=Cutover.MANUAL),
    Policy(copy=Copy.PARALLEL, max_failures=1, strict=True),
    Policy(on_failure=OnFailure.PAUSE, waves=(Wave(deployments=("A",), bake_s=20.0), Wave())),
)
SAID = tuple(
    state for state in State if state not in {State.PENDING, State.RESUMING, State.SKIPPED, State.UNCERTAIN}
)


class Stores(RuleBasedStateMachine):
    """Any port call in any order: by drivers with and without a claim, by people, by the passing of time."""

    postgres: ClassVar[PostgresBackend]

    dispatches = Bundle("dispatches")
    deliveries = Bundle("deliveries")
    polls = Bundle("polls")

    def __init__(self) -> None:
        super().__init__()
        self._fresh = self.postgres.fresh()
        self._fresh.__enter__()
        self.twin = TwinBackend(self.postgres)
        self.owners = 0
        self.applies: list[str] = []

    def teardown(self) -> None:
        self._fresh.__exit__(None, None, None)

    def call(self, name: str, *given: Any, **named: Any) -> Any:
        """One port call of a worker of its own; a refusal is an answer too."""
        self.owners += 1
        self.twin.clock.pass_(0.001)
        with suppress(TernError):
            return getattr(self.twin.store(f"w{self.owners}"), name)(*given, **named)
        return None

    def operation(self, number: int) -> tuple[int, ScopeName]:
        rows = list(self.twin.db.operations.values())
        row = rows[number % len(rows)]
        return row.id, ScopeName(ApplyId(self.twin.db.applies[row.apply_id].apply_identifier), row.deployment)

    @initialize(
        policy=some.sampled_from(POLICIES),
        count=some.integers(1, 3),
        resolves=some.booleans(),
        dedups=some.booleans(),
    )
    def begin(self, policy: Policy, count: int, *, resolves: bool, dedups: bool) -> None:
        for position, name in enumerate(NAMES):
            self.call(
                "save_deployment",
                Deployment(
                    name,
                    "test",
                    "shop",
                    f"grpc://{name}:1",
                    f"target-{name}",
                    {"zone": name},
                    position,
                    capabilities=Capabilities(resolve=resolves),
                    idempotent_dispatch=dedups,
                ),
            )
        self.enqueue(policy, count)

    @rule(policy=some.sampled_from(POLICIES), count=some.integers(1, 3))
    def enqueue(self, policy: Policy, count: int) -> None:
        plan = self.call(
            "save_plan",
            environment="test",
            database="shop",
            database_type="postgres",
            changes=(CHANGE,),
            caller="ann",
        )
        key = f"key-{len(self.applies)}"
        new = NewApply(plan.plan_id, "test", NAMES[:count], policy, "ann", "because", key)
        accepted = self.call("accept_apply", new)
        if accepted is not None:
            self.applies.append(accepted.apply_id)

    @rule(seconds=some.sampled_from((0.5, 2.0, 6.0, 11.0, 31.0, 90.0)))
    def time_passes(self, seconds: float) -> None:
        self.twin.clock.pass_(seconds)

    @rule(
        verb=some.sampled_from(list(Verb)),
        number=some.integers(0, 5),
        chosen=some.lists(some.sampled_from(NAMES), max_size=3, unique=True),
        volume=some.integers(1, 11),
    )
    def somebody_asks(self, verb: Verb, number: int, chosen: list[str], volume: int) -> None:
        if verb is Verb.RELEASE:
            chosen = []
        apply_id = ApplyId(self.applies[number % len(self.applies)])
        loud = volume if verb is Verb.VOLUME else None
        asked = Asked(verb, apply_id, Selection(tuple(chosen)), "bob", "because", volume=loud)
        self.call("accept_wish", asked)

    @rule(target=dispatches, number=some.integers(0, 8))
    def somebody_claims(self, number: int) -> Any:
        claimed = self.call("claim_dispatch", *self.operation(number))
        return claimed if isinstance(claimed, DispatchClaimed) else multiple()

    @rule(
        claimed=dispatches, name=some.sampled_from(("may_go_forward", "withdraw_intent", "dispatch_budget"))
    )
    def the_driver_looks(self, claimed: DispatchClaimed, name: str) -> None:
        self.call(name, claimed.claim)

    @rule(claimed=dispatches, fresh=some.booleans())
    def the_driver_has_an_id(self, claimed: DispatchClaimed, *, fresh: bool) -> None:
        remote_id = RemoteId(
            f"{claimed.scope.name.deployment}-{claimed.claim.operation_id}{'' if fresh else '-x'}"
        )
        self.call("record_remote_id", claimed.claim, claimed.scope, remote_id)

    @rule(claimed=dispatches)
    def the_driver_follows(self, claimed: DispatchClaimed) -> None:
        self.call("record_dispatched", claimed.claim)

    @rule(
        claimed=consumes(dispatches),
        what=some.sampled_from(("refused", "dead", "unanswered", "answered", "uncertain")),
    )
    def the_driver_has_no_id(self, claimed: DispatchClaimed, what: str) -> None:
        match what:
            case "uncertain":
                self.call("record_uncertain", claimed.claim, "who knows")
            case "refused" | "dead":
                self.call("record_refused", claimed.claim, "no", "NO", key_is_dead=what == "dead")
            case _:
                answers = what == "answered"
                self.call("record_unanswered", claimed.claim, "silence", delay_s=4.0, engine_answers=answers)

    @rule(target=deliveries, verb=some.sampled_from(list(Verb)), number=some.integers(0, 8))
    def somebody_delivers(self, verb: Verb, number: int) -> Any:
        claimed = self.call("claim_delivery", *self.operation(number), verb)
        return claimed if isinstance(claimed, DeliveryClaimed) else multiple()

    @rule(
        one=deliveries,
        name=some.sampled_from(
            (
                "record_sent",
                "record_undelivered",
                "record_delivery_refused",
                "settle_undispatched",
                "hold_uncertain",
                "record_volume",
            )
        ),
    )
    def it_comes_to_something(self, one: DeliveryClaimed, name: str) -> None:
        match name:
            case "record_sent" | "settle_undispatched":
                self.call(name, one.claim, one.delivery_id)
            case "hold_uncertain":
                self.call(name, one.claim, one.delivery_id, "who knows")
            case "record_volume":
                if one.volume is not None:
                    self.call(name, one.claim, one.delivery_id, one.volume)
            case _:
                self.call(name, one.claim, one.delivery_id, "no", delay_s=3.0)

    @rule(one=deliveries)
    def it_finds_an_id(self, one: DeliveryClaimed) -> None:
        remote_id = RemoteId(f"{one.scope.name.deployment}-{one.claim.operation_id}")
        self.call("record_remote_id", one.claim, one.scope, remote_id)
        self.call("record_dispatched", one.claim)

    @rule(target=polls, name=some.sampled_from(NAMES))
    def somebody_polls(self, name: str) -> Any:
        begun = self.call("begin_poll", name)
        return begun if isinstance(begun, Poll) else multiple()

    @rule(target=polls, number=some.integers(0, 8))
    def somebody_looks(self, number: int) -> Any:
        begun = self.call("begin_look", *self.operation(number))
        return begun if isinstance(begun, Poll) else multiple()

    @rule(
        begun=polls,
        said=some.sampled_from((*SAID, None, "lost", "silent", "refused", "unchanged")),
        revision=some.integers(1, 9),
    )
    def it_was_seen(self, begun: Poll, said: Any, revision: int) -> None:
        looks = [
            Looked(cursor, _outcome(cursor.call.remote_id, said, revision))
            for cursor in begun.cursors
            if said != "unchanged"
        ]
        self.call("record_looks", begun, tuple(looks))

    @rule(number=some.integers(0, 8), found=some.sampled_from(list(Resolved)))
    def somebody_resolves(self, number: int, found: Resolved) -> None:
        operation_id, name = self.operation(number)
        remote_id = RemoteId(f"{name.deployment}-{operation_id}") if found is Resolved.REMOTE_ID else None
        self.call("resolve_uncertain", name, found, remote_id, "eve", "I looked")

    @rule(
        name=some.sampled_from(("reconcile", "progress")),
        owner=some.sampled_from(("x", "y")),
        ends=some.booleans(),
    )
    def somebody_sweeps(self, name: str, owner: str, *, ends: bool) -> None:
        self.call("seconds_since_sweep", name)
        if self.call("begin_sweep", name, owner):
            self.call("due_work")
            self.call("due_deployments")
        if ends:
            self.call("finish_sweep", name, owner)

    @rule(number=some.integers(0, 5), most=some.sampled_from((1, 100)))
    def somebody_advances(self, number: int, most: int) -> None:
        apply_id = ApplyId(self.applies[number % len(self.applies)])
        self.call("settle_uncalled", apply_id, most)
        self.call("advance_apply", apply_id)
        self.call("claim_verdict_effects", apply_id)

    @rule(name=some.sampled_from(NAMES), drained=some.booleans())
    def somebody_drains(self, name: str, *, drained: bool) -> None:
        self.call("set_drained", name, drained=drained)
        self.call("expedite_retries", name)


def _outcome(remote_id: RemoteId, said: Any, revision: int) -> Outcome[Sample]:
    match said:
        case "lost":
            return Refused("no such job", "APPLY_NOT_FOUND", "NOT_FOUND")
        case "refused":
            return Refused("who are you?", "", "PERMISSION_DENIED")
        case "silent":
            return Unknown("nobody answers", "", "UNAVAILABLE")
        case None:
            return Ok(Sample(remote_id, None, "no_active_change", revision=revision))
        case state:
            table = TableSample("public", "orders", CHANGE.ddl, state.value, revision * 10, revision, None)
            error = "a duplicate key" if state is State.FAILED else ""
            return Ok(Sample(remote_id, state, state.value, "so far", error, (table,), revision))


@pytest.mark.timeout(600)
def test_any_calls_in_any_order(postgres: PostgresBackend) -> None:
    Stores.postgres = postgres
    run_state_machine_as_test(
        Stores,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            # Shrinking asks for hundreds of sequences; whoever looks for a difference has the patience.
            phases=list(Phase) if "EQUALITY" in os.environ else [Phase.explicit, Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(1, 7))
def test_what_drivers_do_when_much_goes_wrong(seed: int, postgres: PostgresBackend) -> None:
    last = list(explore.walk(seed))[-1]
    with postgres.fresh():
        result = play(last.scenario, last.plan, TwinBackend(postgres))
    assert result.wrong == last.wrong


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_drivers_do_when_all_goes_well(name: str, postgres: PostgresBackend) -> None:
    with postgres.fresh():
        result = play(SCENARIOS[name], (), TwinBackend(postgres))
    assert not result.wrong, str(result)

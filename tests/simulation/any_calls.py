"""Any port calls in any order, made at both stores: what test_equality.py draws from."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from hypothesis import strategies as some
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)

from tern.domain.control import Verb
from tern.domain.errors import IllegalTransition, TernError
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import Capabilities, Deployment
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.samples import Sample, TableSample
from tern.domain.selection import Selection
from tern.domain.states import OBSERVED, State
from tern.ports import Asked, DeliveryClaimed, DispatchClaimed, Looked, NewApply, Poll, Resolved
from tests.simulation.memory.rows import OperationRow
from tests.simulation.people import CHANGE
from tests.simulation.postgres import PostgresBackend
from tests.simulation.twin import TwinBackend

NAMES = ("A", "B", "C")
POLICIES = (
    Policy(),
    Policy(copy=Copy.PARALLEL, max_parallel=2),
    Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL, on_failure=OnFailure.CONTINUE),
    Policy(copy=Copy.BARRIER, on_failure=OnFailure.PAUSE),
    Policy(copy=Copy.BARRIER, max_parallel=2, cutover=Cutover.MANUAL),
    Policy(copy=Copy.PARALLEL, max_failures=1, strict=True),
    Policy(on_failure=OnFailure.PAUSE, waves=(Wave(deployments=("A",), bake_s=20.0), Wave())),
)
ENDINGS = (
    "record_sent",
    "record_undelivered",
    "record_delivery_refused",
    "settle_undispatched",
    "hold_uncertain",
    "record_volume",
)
SAID = tuple(OBSERVED)


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
        with suppress(TernError, IllegalTransition):
            return getattr(self.twin.store(f"w{self.owners}"), name)(*given, **named)
        return None

    def operation(
        self, number: int, likely: Callable[[OperationRow], bool] = lambda _row: True
    ) -> tuple[int, ScopeName]:
        """One for which the call may mean something, if there is any; now and then any other."""
        rows = list(self.twin.db.operations.values())
        if number % 7:
            rows = [row for row in rows if likely(row)] or rows
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
        if not self.applies:
            self.enqueue(Policy(), count)  # that one was refused: a wave that nobody is in

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

    @rule(seconds=some.sampled_from((2.0, 11.0, 31.0, 90.0)))
    def time_passes(self, seconds: float) -> None:
        self.twin.clock.pass_(seconds)

    @rule(
        verb=some.sampled_from(list(Verb)),
        number=some.integers(0, 5),
        chosen=some.lists(some.sampled_from(NAMES), max_size=3, unique=True),
        volume=some.integers(1, 11),
    )
    def somebody_asks(self, verb: Verb, number: int, chosen: list[str], volume: int) -> None:
        apply_id = ApplyId(self.applies[number % len(self.applies)])
        apply = self.twin.db.apply_named(apply_id)
        ours = [] if apply is None else [row.deployment for row in self.twin.db.operations_of[apply.id]]
        chosen = [name for name in chosen if name in ours] or ours
        if verb is Verb.RELEASE:
            chosen = []
        loud = volume if verb is Verb.VOLUME else None
        asked = Asked(verb, apply_id, Selection(tuple(chosen)), "bob", "because", volume=loud)
        self.call("accept_wish", asked)

    @rule(target=dispatches, number=some.integers(0, 20))
    def somebody_claims(self, number: int) -> Any:
        due = self.operation(number, lambda row: row.next_attempt_at is not None and row.claim_token is None)
        claimed = self.call("claim_dispatch", *due)
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

    @rule(number=some.integers(0, 20), seconds=some.sampled_from((0.0, 31.0)))
    def somebody_dispatches(self, number: int, seconds: float) -> None:
        """A whole tick that goes well, or comes too late."""
        self.call("advance_apply", ApplyId(self.applies[number % len(self.applies)]))
        due = self.operation(number, lambda row: row.next_attempt_at is not None and row.claim_token is None)
        claimed = self.call("claim_dispatch", *due)
        if isinstance(claimed, DispatchClaimed):
            self.twin.clock.pass_(seconds)
            self.call("may_go_forward", claimed.claim)
            self.the_driver_has_an_id(claimed, fresh=True)
            self.call("record_dispatched", claimed.claim)

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

    @rule(target=deliveries, verb=some.sampled_from(list(Verb)), number=some.integers(0, 20))
    def somebody_delivers(self, verb: Verb, number: int) -> Any:
        wishes = [row for row in self.twin.db.deliveries.values() if row.is_open]
        if wishes and number % 7:
            wish = wishes[number % len(wishes)]
            place = self.operation(number, lambda row: row.id == wish.operation_id)
            claimed = self.call("claim_delivery", *place, Verb(wish.verb))
        else:
            claimed = self.call("claim_delivery", *self.operation(number), verb)
        return claimed if isinstance(claimed, DeliveryClaimed) else multiple()

    @rule(
        target=deliveries,
        verb=some.sampled_from([*Verb, Verb.STOP, Verb.STOP, Verb.START, Verb.CUTOVER, Verb.CANCEL]),
        number=some.integers(0, 20),
        seconds=some.sampled_from((0.0, 31.0)),
        then=some.sampled_from(("", "record_sent", "record_sent", *ENDINGS)),
    )
    def somebody_asks_and_is_heard(self, verb: Verb, number: int, seconds: float, then: str) -> Any:
        """A wish for one operation, driven right away, and perhaps to its end."""
        free = self.operation(number, lambda row: row.claim_token is None and _welcomes(verb, row.state))
        self.twin.clock.pass_(seconds)
        loud = 7 if verb is Verb.VOLUME else None
        chosen = Selection(() if verb is Verb.RELEASE else (free[1].deployment,))
        self.call("accept_wish", Asked(verb, free[1].apply_id, chosen, "bob", "because", volume=loud))
        claimed = self.call("claim_delivery", *free, verb)
        if isinstance(claimed, DeliveryClaimed) and then:
            self.it_comes_to_something(claimed, then)
        return claimed if isinstance(claimed, DeliveryClaimed) else multiple()

    @rule(
        one=deliveries,
        name=some.sampled_from(ENDINGS),
    )
    def it_comes_to_something(self, one: DeliveryClaimed, name: str) -> None:
        if name in {"settle_undispatched", "hold_uncertain"} and not one.verb.is_halting:
            return  # only what halts is settled here, or left to a person
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

    @rule(target=polls, number=some.integers(0, 20))
    def somebody_looks(self, number: int) -> Any:
        followed = self.operation(number, lambda row: self.twin.db.remote_id(row) is not None)
        begun = self.call("begin_look", *followed)
        return begun if isinstance(begun, Poll) else multiple()

    @rule(
        number=some.integers(0, 20),
        said=some.sampled_from((*SAID, "lost", "silent")),
        revision=some.integers(1, 9),
    )
    def somebody_sees(self, number: int, said: Any, revision: int) -> None:
        """A whole look."""
        followed = self.operation(number, lambda row: self.twin.db.remote_id(row) is not None)
        begun = self.call("begin_look", *followed)
        if isinstance(begun, Poll):
            self.it_was_seen(begun, said, revision)

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

    @rule(number=some.integers(0, 20), found=some.sampled_from(list(Resolved)))
    def somebody_resolves(self, number: int, found: Resolved) -> None:
        operation_id, name = self.operation(number, lambda row: row.state == "uncertain")
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


def _welcomes(verb: Verb, state: str) -> bool:
    match verb:
        case Verb.START:
            return state == "stopped"
        case Verb.CUTOVER:
            return state == "waiting_for_cutover"
        case Verb.RETRY:
            return state == "failed"
        case Verb.SKIP:
            return state in {"pending", "stopped"}
        case Verb.REVERT | Verb.SKIP_REVERT:
            return state == "revert_window"
        case _:
            return state in {"running", "stopped", "failed_retryable", "waiting_for_cutover"}


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

"""The people of the chaos: they roll out, stop, start, cut over, cancel, and look at engines where Tern can't judge."""

import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.selection import Selection
from tern.flows.accept import accept_apply, answer, ask
from tern.ports import Answered, Asked, Bells, NewApply, Ports, Resolved, StorageUnavailable
from tern.store.database import Database
from tern.store.sql import text
from tern.store.store import PostgresStore
from tern.wire.routing import EngineDirectory
from tests.faults.place import Place
from tests.world import Fixed

CHANGES = (
    ("ALTER TABLE orders ADD COLUMN {} text", Action.ALTER),
    ("ALTER TABLE orders ADD COLUMN {} text", Action.ALTER),
    ("CREATE INDEX {} ON orders (amount)", Action.CREATE),
)
"""Each rollout brings a name of its own into the targets."""

LOST = (StorageUnavailable, psycopg.Error)
LIVE = "a.state NOT IN ('completed', 'failed', 'cancelled')"
_HOLDS = "(o.state = 'stopped' AND EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = o.id))"


@dataclass
class Office:
    """Everybody who asks anything of Tern."""

    database: Database
    bells: Bells
    draw: random.Random
    places: Mapping[str, Place]
    """Which engine serves a deployment."""
    in_flight_s: float
    """How long a call may still be on its way; nobody judges an engine before that."""
    figures: Counter[str] = field(default_factory=Counter)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    _unanswered: list[NewApply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._store = PostgresStore(self.database, owner="office")
        self._ports = Ports(self._store, EngineDirectory(), self.bells, Fixed())
        self._number = 0
        self._uncertain_since: dict[tuple[str, str], float] = {}

    def do_something(self) -> None:
        """One thing at random; whoever got no answer asks again, with the same key."""
        with contextlib.suppress(*LOST):
            if self._unanswered:
                self._enqueue(self._unanswered[0])
                return
            live = self.operations(LIVE)
            taken = {row.deployment for row in live}
            free = [name for name in self.places if name not in taken]
            self._judge(live)
            open_places = {self.places[name].name for name in free}
            waited_for = [row for row in live if self.places[row.deployment].name not in open_places]
            if waited_for and self.draw.random() < 0.3:
                # Somebody else wants the target.
                self._bring_on(self.draw.choice(waited_for))
            elif free and self.draw.random() < 0.7:
                self._enqueue(self._new(free))
            elif live:
                self._wish(self.draw.choice(live))

    def calm_down(self) -> int:
        """One round of bringing everything to its end; how many operations are not there yet."""
        for new in list(self._unanswered):
            self._enqueue(new)
        # What is stopped at its engine holds its target, also once its rollout has failed.
        live = self.operations(f"({LIVE} OR {_HOLDS})")
        self._judge(live)
        for row in live:
            self._bring_on(row)
        return len(live)

    def _bring_on(self, row: Any) -> None:
        if row.state == "stopped" and row.apply_state != "pending":
            self.ask(Verb.START, row)
        elif row.state == "waiting_for_cutover":
            self.ask(Verb.CUTOVER, row)
        elif row.state == "pending" and row.apply_state == "paused":
            self.ask(Verb.CANCEL, row)

    def all_is_quiet(self) -> bool:
        """No wish is open, no verdict's effects are due."""
        with self.database.connect() as tx:
            return not tx.execute(
                text(
                    "SELECT EXISTS (SELECT 1 FROM control_deliveries WHERE state IN ('pending', 'sent'))"
                    " OR EXISTS (SELECT 1 FROM applies WHERE verdict_effects_done_at IS NULL)"
                )
            ).scalar_one()

    def has_swept(self) -> bool:
        """Somebody drives."""
        with self.database.connect() as tx:
            swept = text("SELECT EXISTS (SELECT 1 FROM sweep_leases WHERE finished_at IS NOT NULL)")
            return bool(tx.execute(swept).scalar_one())

    def held(self, names: Sequence[str]) -> list[str]:
        """Whose work, or whose call that may still act, holds a target of these."""
        with self.database.connect() as tx:
            rows = tx.execute(
                text(
                    "SELECT t.deployment, o.state, a.apply_identifier, a.state AS apply_state"
                    " FROM target_reservations t LEFT JOIN apply_operations o ON o.id = t.operation_id"
                    " LEFT JOIN applies a ON a.id = t.apply_id"
                    " WHERE t.deployment = ANY(:names) AND NOT tern_wait_is_over(held_since, held_for_s, tern_clock())"
                ),
                {"names": list(names)},
            )
            return [
                f"{row.deployment} is held by {row.apply_identifier} ({row.apply_state}), which is {row.state} there"
                for row in rows
            ]

    def enqueue(self, *deployments: str, policy: Policy | None = None) -> ApplyId:
        """A rollout that must be taken."""
        new = self._new(list(deployments), policy or Policy(), deployments)
        self._unanswered.remove(new)
        accepted = accept_apply(new, self._ports)
        self.acknowledged.append(("apply", accepted.apply_id))
        return accepted.apply_id

    def ask(self, verb: Verb, row: Any) -> None:
        """A wish about one operation, sometimes about its whole apply."""
        everyone = not verb.is_forward and self.draw.random() < 0.3
        chosen = Selection() if everyone else Selection((row.deployment,))
        with contextlib.suppress(TernError):
            receipt = ask(Asked(verb, ApplyId(row.apply_identifier), chosen, "bob", "chaos"), self._ports)
            if receipt.request_id is not None:
                self.figures[f"{verb} accepted"] += 1
                self.acknowledged.append(("request", str(receipt.request_id)))

    def states(self) -> dict[str, int]:
        """How many operations ended how."""
        return Counter(row.state for row in self.operations("true"))

    def changes(self, deployment: str) -> dict[str, str]:
        """How the operation ended that was to bring each name into a target."""
        with self.database.connect() as tx:
            found = tx.execute(
                text(
                    "SELECT substring(c.ddl FROM 'note_[0-9]+') AS name, o.state FROM table_changes c"
                    " JOIN apply_operations o ON o.id = c.operation_id WHERE o.deployment = :deployment"
                ),
                {"deployment": deployment},
            )
            return {row.name: row.state for row in found}

    def picture(self) -> str:
        """What is not settled, who swept last, and which wishes are open, for people."""
        lines = [str(dict(row._mapping)) for row in self.operations(LIVE)]
        with self.database.connect() as tx:
            for table, where in (
                ("sweep_leases", "name IN ('reconcile', 'progress')"),
                ("control_deliveries", "state IN ('pending', 'sent')"),
            ):
                found = tx.execute(text(f"SELECT * FROM {table} WHERE {where}"))
                lines += [f"{table}: {dict(row._mapping)}" for row in found]
        return "\n".join(lines)

    def operations(self, where: str) -> list[Any]:
        """Rows of operations with their applies."""
        with self.database.connect() as tx:
            return list(
                tx.execute(
                    text(
                        "SELECT a.apply_identifier, a.state AS apply_state, o.deployment, o.state, o.claim_owner,"
                        " o.next_attempt_at, o.next_poll_at, o.error_message, o.poll_error,"
                        " coalesce(o.engine_resume_context, CASE a.operation_count WHEN 1 THEN a.external_id END)"
                        " AS remote_id FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
                        f" WHERE {where} ORDER BY o.id"
                    )
                )
            )

    def _new(
        self, free: list[str], policy: Policy | None = None, names: tuple[str, ...] | None = None
    ) -> NewApply:
        self._number += 1
        count = min(len(free), self.draw.choice((1, 2, 3, 4, 5)))
        ddl, action = self.draw.choice(CHANGES)
        change = PlannedChange("public", "orders", ddl.format(f"note_{self._number}"), action)
        plan = self._store.save_plan(
            environment="test", database="shop", database_type="postgres", changes=(change,), caller="ann"
        )
        new = NewApply(
            plan.plan_id,
            "test",
            names or self._choice(free, count),
            policy or self._policy(),
            "ann",
            "chaos",
            f"chaos-{self._number}",
        )
        self._unanswered.append(new)
        return new

    def _choice(self, free: list[str], count: int) -> tuple[str, ...]:
        """Each kind of engine as often as the others, however many deployments it has; the only one of its kind often
        alone, so that it doesn't wait for others.
        """
        only = [name for name in free if len(self.places[name].names) == 1]
        if only and self.draw.random() < 0.4:
            return (self.draw.choice(only),)
        kinds = sorted({self.places[name].name for name in free})
        chosen: list[str] = []
        for kind in self.draw.choices(kinds, k=count):
            left = [name for name in free if self.places[name].name == kind and name not in chosen]
            chosen += self.draw.sample(left, min(1, len(left)))
        return tuple(chosen)

    def _policy(self) -> Policy:
        copy = self.draw.choice(tuple(Copy))
        return Policy(
            copy=copy,
            on_failure=self.draw.choice(tuple(OnFailure)),
            cutover=self.draw.choice((Cutover.AUTO, Cutover.AUTO, Cutover.AUTO, Cutover.MANUAL)),
            max_parallel=None if copy is Copy.ROLLING else self.draw.choice((None, 2)),
            max_failures=self.draw.choice((0, 0, 1)),
        )

    def _enqueue(self, new: NewApply) -> None:
        try:
            accepted = accept_apply(new, self._ports)
        except TernError as refused:
            self.figures["rollouts refused"] += 1
            logging.getLogger(__name__).info("refused: %s", refused)
        else:
            self.figures["rollouts accepted"] += 1
            self.acknowledged.append(("apply", accepted.apply_id))
        self._unanswered.remove(new)

    def _wish(self, row: Any) -> None:
        if row.state == "stopped":
            verb = self.draw.choice((Verb.START, Verb.START, Verb.CANCEL))
        elif row.state == "waiting_for_cutover":
            verb = self.draw.choice((Verb.CUTOVER, Verb.CUTOVER, Verb.STOP))
        else:
            verb = self.draw.choice((Verb.STOP,) * 5 + (Verb.CANCEL, Verb.CUTOVER))
        self.ask(verb, row)

    def _judge(self, live: list[Any]) -> None:
        """An operation that Tern can't judge: a person looks at the engine, once nothing is on its way any more."""
        unsure = {
            (row.apply_identifier, row.deployment)
            for row in live
            if row.state == "uncertain" and row.remote_id is None
        }
        now = time.monotonic()
        self._uncertain_since = {key: self._uncertain_since.get(key, now) for key in unsure}
        for (apply_id, deployment), since in self._uncertain_since.items():
            if now - since < self.in_flight_s:
                continue
            place, scope = self.places[deployment], f"{apply_id}/{deployment}"
            _, done = place.told()
            ids = [one.remote_id for one in done if one.kind == "apply" and one.operation == scope]
            found = Resolved.REMOTE_ID if ids else Resolved.NOT_STARTED
            with contextlib.suppress(TernError):
                remote_id = RemoteId(ids[-1]) if ids else None
                selection, why = Selection((deployment,)), "looked at the engine's ledger"
                answer(Answered(ApplyId(apply_id), selection, found, remote_id, "bob", why), self._ports)
                self.figures[f"resolved as {found}"] += 1

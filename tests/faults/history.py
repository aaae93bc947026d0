"""What happened, as frozen rows: Tern's own tables, an audit that Tern doesn't know of, and the engines' ledgers.

`install_audit(database)` once; `read_history(database, ledgers, jobs)` when all is said and done. The checkers of
invariants.py read nothing else, so that they can be fed forged histories too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tern.domain.identity import ApplyId, DispatchKey, ScopeName, dispatch_key
from tern.domain.policy import Policy
from tern.store.database import Database
from tern.store.sql import text
from tests.faults.ledger import Ledger, read_ledger

_WATCHED = (
    "state, claim_token, claim_owner, claim_expires_at, dispatch_key, dispatch_generation, dispatch_key_is_dead,"
    " engine_resume_context, fence, next_attempt_at"
)

_AUDIT = f"""
CREATE TABLE fault_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at float NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
    clock float NOT NULL DEFAULT extract(epoch FROM tern_clock()),
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    what text NOT NULL, row_id bigint NOT NULL, old jsonb NOT NULL, new jsonb NOT NULL
);
CREATE FUNCTION fault_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_audit (what, row_id, old, new) VALUES (TG_TABLE_NAME, NEW.id,
        CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(OLD) ELSE '{{}}' END,
        to_jsonb(NEW) || CASE TG_TABLE_NAME WHEN 'apply_operations' THEN jsonb_build_object('holds_target', EXISTS (
            SELECT FROM target_reservations t WHERE t.apply_id = (to_jsonb(NEW) ->> 'apply_id')::bigint
            AND t.deployment = to_jsonb(NEW) ->> 'deployment')) ELSE '{{}}' END);
    RETURN NULL;
END $$;
CREATE TRIGGER fault_audit_insert AFTER INSERT ON apply_operations FOR EACH ROW EXECUTE FUNCTION fault_audit();
CREATE TRIGGER fault_audit_update AFTER UPDATE ON apply_operations FOR EACH ROW WHEN (
    ({", ".join(f"OLD.{name.strip()}" for name in _WATCHED.split(","))}) IS DISTINCT FROM
    ({", ".join(f"NEW.{name.strip()}" for name in _WATCHED.split(","))})) EXECUTE FUNCTION fault_audit();
CREATE TRIGGER fault_audit AFTER INSERT OR UPDATE ON applies FOR EACH ROW EXECUTE FUNCTION fault_audit();
CREATE TRIGGER fault_audit AFTER INSERT OR UPDATE ON control_deliveries
    FOR EACH ROW EXECUTE FUNCTION fault_audit();
CREATE TRIGGER fault_audit AFTER INSERT ON apply_events FOR EACH ROW EXECUTE FUNCTION fault_audit();
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write of one row. `at` is the machine's clock, `clock` is Tern's own."""

    number: int
    at: float
    clock: float
    xid: int
    table: str
    row: int
    old: Mapping[str, Any]
    new: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as it stands at the end."""

    id: int
    apply_pk: int
    scope: str
    deployment: str
    position: int
    state: str
    remote_id: str | None
    generation: int = 1
    key: str | None = None
    claim_token: str | None = None
    wave: int = 0

    def key_of(self, generation: int) -> DispatchKey:
        """The key that every worker must compute."""
        apply_id, _, deployment = self.scope.partition("/")
        return dispatch_key(ScopeName(ApplyId(apply_id), deployment), generation)

    @property
    def keys(self) -> tuple[DispatchKey, ...]:
        """The keys of all generations so far."""
        return tuple(self.key_of(generation) for generation in range(1, self.generation + 1))


@dataclass(frozen=True, slots=True)
class Apply:
    """An apply as it stands at the end."""

    pk: int
    identifier: str
    state: str
    operation_count: int
    external_id: str | None
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of apply_events, with the hash that somebody else computed over it."""

    id: int
    xid: int
    apply_pk: int
    operation_id: int | None
    event: str
    who: str
    why: str = ""
    before: str = ""
    after: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    chain_holds: bool = True


@dataclass(frozen=True, slots=True)
class Delivered:
    """One wish on one operation as it stands at the end."""

    id: int
    request_id: int
    operation_id: int
    verb: str
    state: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that an engine got. `cursors` are the (remote id, operation) pairs of a batch."""

    at: float
    engine: str
    method: str
    remote_id: str = ""
    key: str = ""
    operation: str = ""
    fence: int | None = None
    cursors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """Something that an engine did, or would have done again."""

    at: float
    engine: str
    kind: str
    remote_id: str
    key: str
    operation: str
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine says of a job when asked at the end."""

    engine: str
    remote_id: str
    operation: str
    state: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything. `in_flight_s` is how long a call may have been under way when a stop was committed."""

    applies: tuple[Apply, ...] = ()
    operations: tuple[Operation, ...] = ()
    events: tuple[Recorded, ...] = ()
    deliveries: tuple[Delivered, ...] = ()
    requests: frozenset[int] = frozenset()
    reservations: tuple[tuple[int, str], ...] = ()
    """Targets that work holds; without those that only wait for a last call, which may still act."""
    changes: tuple[Change, ...] = ()
    calls: tuple[Asked, ...] = ()
    effects: tuple[Done, ...] = ()
    jobs: tuple[Job, ...] = ()
    acknowledged: tuple[tuple[str, str], ...] = ()
    """What clients were told: ("apply", public id) or ("request", number)."""
    in_flight_s: float = 0.0
    at_rest: bool = True

    def writes(self, table: str) -> tuple[Change, ...]:
        """The writes of one table, in order."""
        return tuple(change for change in self.changes if change.table == table)


def install_audit(database: Database) -> None:
    """Puts the recorder into a migrated database."""
    with database.begin() as tx:
        tx.execute(text(_AUDIT))


def from_ledger(name: str, ledger: Ledger) -> tuple[list[Asked], list[Done]]:
    """What a fake engine in this process was asked and did."""
    asked = [
        Asked(
            call.at,
            name,
            call.method,
            call.remote_id,
            call.key,
            call.operation,
            call.fence,
            tuple((cursor.apply_id, cursor.operation) for cursor in getattr(call.request, "cursors", ())),
        )
        for call in ledger.calls()
    ]
    done = [
        Done(e.at, name, e.kind, e.remote_id, e.key, e.operation, e.is_duplicate) for e in ledger.effects()
    ]
    return asked, done


def from_file(name: str, path: Path) -> tuple[list[Asked], list[Done]]:
    """The same, of a fake engine that was a process (or several, one after the other)."""
    asked: list[Asked] = []
    done: list[Done] = []
    for line in read_ledger(path) if path.exists() else ():
        if line["what"] == "call":
            values = {key: line[key] for key in ("at", "method", "remote_id", "key", "operation", "fence")}
            cursors = tuple((remote_id, operation) for remote_id, operation in line.get("cursors", ()))
            asked.append(Asked(engine=name, cursors=cursors, **values))
        else:
            names = ("at", "kind", "remote_id", "key", "operation", "is_duplicate")
            done.append(Done(engine=name, **{key: line[key] for key in names}))
    return asked, done


def read_history(
    database: Database,
    ledgers: Iterable[tuple[list[Asked], list[Done]]],
    jobs: Iterable[Job] = (),
    *,
    acknowledged: Iterable[tuple[str, str]] = (),
    in_flight_s: float = 0.0,
    at_rest: bool = True,
) -> History:
    """All of it in one snapshot."""
    pairs = list(ledgers)
    with database.begin() as tx:
        tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))

        def rows(statement: str) -> Any:
            return tx.execute(text(statement)).all()

        xids = {row.row_id: row.xid for row in rows("SELECT * FROM fault_audit WHERE what = 'apply_events'")}
        return History(
            applies=tuple(
                Apply(
                    row.id,
                    row.apply_identifier,
                    row.state,
                    row.operation_count,
                    row.external_id,
                    Policy.from_json(row.policy),
                )
                for row in rows("SELECT * FROM applies ORDER BY id")
            ),
            operations=tuple(
                Operation(
                    row.id,
                    row.apply_id,
                    f"{row.apply_identifier}/{row.deployment}",
                    row.deployment,
                    row.position,
                    row.state,
                    row.external_id if row.operation_count == 1 else row.engine_resume_context,
                    row.dispatch_generation,
                    row.dispatch_key,
                    row.claim_token,
                    row.wave,
                )
                for row in rows(
                    "SELECT o.*, a.apply_identifier, a.external_id, a.operation_count FROM apply_operations o"
                    " JOIN applies a ON a.id = o.apply_id ORDER BY o.id"
                )
            ),
            events=tuple(
                Recorded(
                    row.id,
                    xids.get(row.id, 0),
                    row.apply_id,
                    row.operation_id,
                    row.event,
                    row.who,
                    row.why,
                    row.before,
                    row.after,
                    row.detail,
                    row.follows and row.is_true,
                )
                for row in rows(
                    "SELECT e.*, e.number = row_number() OVER chain AND e.previous_hash = coalesce(lag(e.hash)"
                    " OVER chain, '\\x00'::bytea) AS follows, e.hash = sha256(e.previous_hash || convert_to(e.number"
                    " || ':' || (SELECT string_agg(coalesce(length(field) || ':' || field, '-'), '' ORDER BY place)"
                    " FROM unnest(ARRAY[e.id::text, e.apply_id::text, e.operation_id::text,"
                    " (extract(epoch FROM e.at) * 1000000)::bigint::text, e.event, e.who, e.why, e.before, e.after,"
                    " e.detail::text]) WITH ORDINALITY AS f(field, place)), 'UTF8')) AS is_true FROM apply_events e"
                    " WINDOW chain AS (PARTITION BY e.apply_id, e.operation_id ORDER BY e.number) ORDER BY e.id"
                )
            ),
            deliveries=tuple(
                Delivered(row.id, row.request_id, row.operation_id, row.verb, row.state)
                for row in rows("SELECT * FROM control_deliveries ORDER BY id")
            ),
            requests=frozenset(row.id for row in rows("SELECT id FROM control_requests")),
            reservations=tuple(
                (row.apply_id, row.deployment)
                for row in rows("SELECT * FROM target_reservations WHERE held_since IS NULL")
            ),
            changes=tuple(
                Change(row.id, row.at, row.clock, row.xid, row.what, row.row_id, row.old, row.new)
                for row in rows("SELECT * FROM fault_audit WHERE what <> 'apply_events' ORDER BY id")
            ),
            calls=tuple(sorted((call for asked, _ in pairs for call in asked), key=lambda call: call.at)),
            effects=tuple(sorted((one for _, done in pairs for one in done), key=lambda one: one.at)),
            jobs=tuple(jobs),
            acknowledged=tuple(acknowledged),
            in_flight_s=in_flight_s,
            at_rest=at_rest,
        )


def epoch(moment: str | float | None) -> float:
    """A timestamp out of a row's JSON."""
    if not isinstance(moment, str):
        return moment or 0.0  # a forged row keeps seconds
    return datetime.fromisoformat(moment).timestamp()

"""What is outstanding at a target: the SQL that every gate reads, and how it is read (G13)."""

from collections.abc import Mapping

from psycopg import IntegrityError

from tern.domain.outstanding import Outstanding
from tern.store.scope import REMOTE_ID
from tern.store.sql import Row, text


def where_asked(line: str) -> str:
    """Where what is outstanding as this line may be asked about: where its engine was proven to be since, or else where
    it was sent.
    """
    return f"coalesce(nullif({line}.proven_address, ''), {line}.address)"


WHERE_ASKED = where_asked("c")

OUTSTANDING_COLUMNS: Mapping[str, str] = {
    "id": "c.id",
    "apply": "ca.apply_identifier",
    "deployment": "c.deployment",
    "remote_id": "c.remote_id",
    "dispatch_key": "c.dispatch_key",
    "why": "c.why",
    "address": WHERE_ASKED,
    "now_at": "coalesce((SELECT d.address FROM deployments d WHERE d.name = c.deployment LIMIT 1), '')",
    "last_seen": "c.last_seen",
    "last_seen_age_s": "greatest(0, extract(epoch FROM tern_clock() - c.last_seen_at))::float",
    "looks": "c.looks",
    "silent_looks": "c.silent_looks",
    "age_s": "greatest(0, extract(epoch FROM tern_clock() - c.opened_at))::float",
    "cancel_asked": "c.cancel_asked_at IS NOT NULL",
    "is_own": (
        "(c.remote_id IS NULL OR coalesce((SELECT i.operation_id = c.operation_id FROM remote_ids i"
        " WHERE i.engine_number = c.engine_number AND i.remote_id = c.remote_id), c.engine_number IS NULL))"
    ),
    "in_doubt": (
        "(c.remote_id IS NOT NULL AND (SELECT w.doubt FROM apply_operations w WHERE w.id = c.operation_id) = 'taken')"
    ),
}
"""What outstanding_from() reads of line c and its apply ca."""

SELECTED = ", ".join(f"{sql} AS {name}" for name, sql in OUTSTANDING_COLUMNS.items())
_PAIRS = ", ".join(f"'{name}', {sql}" for name, sql in OUTSTANDING_COLUMNS.items())
_OBJECT = f"jsonb_build_object({_PAIRS})"

_IS_ANY = "EXISTS (SELECT FROM outstanding_calls WHERE settled_at IS NULL)"
_ROWS = (
    "FROM tern_outstanding(a.environment, a.database, o.deployment) k JOIN outstanding_calls c ON c.id = k.id"
    " JOIN applies ca ON ca.id = c.apply_id"
    # Its own job, followed under its own id, is what a start of it is about.
    f" WHERE NOT coalesce(c.operation_id = o.id AND c.remote_id = {REMOTE_ID}, false)"
)
IS_OUTSTANDING = f"({_IS_ANY} AND EXISTS (SELECT {_ROWS}))"
"""Something that no operation follows may still act at the target of operation o of apply a: nothing begins there."""

OUTSTANDING_AT = f"(CASE WHEN {_IS_ANY} THEN (SELECT {_OBJECT} {_ROWS} ORDER BY c.id LIMIT 1) END)"
"""The first of it, as an object that outstanding_from() reads; NULL for nothing."""


BEFORE = text(
    f"SELECT w.name, {SELECTED} FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS w(name, place)"
    # By LIMIT each is looked up by its key, however many are asked about.
    " CROSS JOIN LATERAL (SELECT * FROM deployments WHERE name = w.name LIMIT 1) d"
    " CROSS JOIN LATERAL (SELECT min(o.id) AS id FROM tern_outstanding(d.environment, d.database, d.name) o) k"
    f" JOIN outstanding_calls c ON c.id = k.id JOIN applies ca ON ca.id = c.apply_id WHERE {_IS_ANY} ORDER BY w.place"
)
"""The first of what is outstanding at the target of each of these deployments; no row for nothing."""


def begins_nothing(error: IntegrityError) -> bool:
    """The database has refused a dispatch or a Start because of something that is outstanding at its target."""
    return error.diag.constraint_name == "apply_operations_begin_nothing"


def outstanding_in(row: Row) -> Outstanding:
    """From SELECTED."""
    return outstanding_from(dict(row._mapping))  # noqa: SLF001 - our Row's own; no column can be called so


def outstanding_from(found: Mapping[str, object]) -> Outstanding:
    """The same from an object of these names."""
    age = found["last_seen_age_s"]
    return Outstanding(
        call_id=int(str(found["id"])),
        scope=f"{found['apply']}/{found['deployment']}",
        deployment=str(found["deployment"]),
        remote_id=None if found["remote_id"] is None else str(found["remote_id"]),
        key=None if found["dispatch_key"] is None else str(found["dispatch_key"]),
        why=str(found["why"]),
        address=str(found["address"]),
        now_at=str(found["now_at"]),
        last_seen=str(found["last_seen"]),
        last_seen_age_s=None if age is None else float(str(age)),
        silent_looks=int(str(found["silent_looks"])),
        looks=int(str(found["looks"])),
        age_s=float(str(found["age_s"])),
        cancel_asked=bool(found["cancel_asked"]),
        is_own=bool(found["is_own"]),
        in_doubt=bool(found["in_doubt"]),
    )

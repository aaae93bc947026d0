"""What an operation's row knows about whose work its id is, and what a look makes of it (tern.domain.own_work)."""

from collections.abc import Iterable

from tern.domain.doubt import Doubt
from tern.domain.entries import entries_by_statement
from tern.domain.model import Claim
from tern.domain.own_work import Evidence, Kept, Statement, Work, weigh
from tern.domain.samples import Sample, TableSample
from tern.doors.change import POSTGRES
from tern.store.scope import REMOTE_ID
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_NAMESPACE_OF_POSTGRES = "public"
_MOST_WORKS = 1_000
_HOLDERS = (
    # By either home of an id, each through its index.
    "SELECT f.id, f.remote_started_at, f.deployment, f.engine_number FROM apply_operations f"
    " WHERE f.engine_resume_context = {remote_id} AND f.completed_at IS NOT NULL"
    " UNION ALL SELECT f.id, f.remote_started_at, f.deployment, f.engine_number FROM applies fa"
    " JOIN apply_operations f ON f.apply_id = fa.id"
    " WHERE fa.external_id = {remote_id} AND f.completed_at IS NOT NULL"
)
_STATEMENTS = text(
    "SELECT namespace, table_name, ddl FROM table_changes WHERE operation_id = :id ORDER BY ordinal"
)


def evidence_columns(remote_id: str) -> str:
    """What is read of operation o, its apply a and its plan p. An id may come again once its work is finished: that is
    looked up until the first look counts, and never after that.
    """
    return (
        "o.remote_identity, o.remote_started_at, o.doubt, o.same_work_at IS NOT NULL AS is_vouched_for,"
        " p.digest AS plan_digest, p.database_type, a.database,"
        f" CASE WHEN o.sampled_at IS NULL THEN (SELECT h.remote_started_at FROM ({_HOLDERS}) h WHERE h.id <> o.id"
        "   AND (h.deployment = o.deployment OR h.engine_number = o.engine_number) ORDER BY h.id DESC LIMIT 1) END"
        "   AS earlier_started_at"
    ).replace("{remote_id}", remote_id)


_OWN = text(
    f"SELECT o.id, {evidence_columns(REMOTE_ID)} FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " JOIN plans p ON p.id = a.plan_id WHERE o.id = :id"
)


class Judge:
    """Weighs looks. What engines wrote in them is read before any transaction begins: an engine may send what it
    likes, and nobody's lock is to wait for that.
    """

    _works: dict[tuple[str, str], Work] = {}  # noqa: RUF012 - one memory for all threads of the process, by content

    def __init__(self, samples: Iterable[Sample]) -> None:
        # Only who looks reads DDL; it would cost every other process its start.
        from tern.doors.fingerprint import STATEMENTS  # noqa: PLC0415

        self._statements = STATEMENTS
        self._theirs = STATEMENTS.read_all(
            (table.namespace or _NAMESPACE_OF_POSTGRES, table.ddl)
            for sample in samples
            for table in sample.tables
        )

    def weigh(self, tx: Connection, row: Row, sample: Sample) -> Evidence:
        """What a look says of the operation whose row has evidence_columns()."""
        return weigh(kept_in(row), self._work(tx, row), sample, self._read_theirs)

    def told(self, tx: Connection, row: Row, sample: Sample) -> tuple[TableSample | None, ...]:
        """What a look says of each statement of the operation whose row has evidence_columns(), in their order."""
        if not sample.tables:
            return ()
        return entries_by_statement(self._work(tx, row), sample.tables, self._read_theirs)

    def _work(self, tx: Connection, row: Row) -> Work:
        """By the digest of the plan: all operations of a rollout have the same statements, which never change."""
        key = (row.plan_digest, row.database)
        known = self._works.get(key)
        if known is not None:
            return known
        is_postgres = row.database_type == POSTGRES
        found = [
            (each.namespace, each.table_name, each.ddl) for each in tx.execute(_STATEMENTS, {"id": row.id})
        ]
        work = Work.of(
            found,
            self._statements.read if is_postgres else _unread,
            _NAMESPACE_OF_POSTGRES if is_postgres else row.database,
        )
        if len(self._works) >= _MOST_WORKS:
            self._works.clear()
        self._works[key] = work
        return work

    def _read_theirs(self, ddl: str, namespace: str) -> Statement | None:
        return self._theirs.get((namespace, ddl))


class OwnWorkSteps(Steps):
    """Looks that are made beside a poll."""

    def refuting(self, claim: Claim, sample: Sample) -> str:
        """See ports.EvidenceStore."""
        judge = Judge((sample,))
        with transaction(self.engine) as tx:
            row = tx.execute(_OWN, {"id": claim.operation_id}).one()
            return "; ".join(judge.weigh(tx, row, sample).against)


def kept_in(row: Row) -> Kept:
    """What is known of the id from before."""
    return Kept(
        identity=row.remote_identity,
        started_at=row.remote_started_at,
        is_vouched_for=row.is_vouched_for,
        is_in_doubt=row.doubt == Doubt.FOREIGN.value,
        earlier_started_at=row.earlier_started_at,
    )


def _unread(_ddl: str, _namespace: str) -> None:
    """Statements of another database's language."""

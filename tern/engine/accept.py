"""Accepting an Apply: everything that is checked before a job exists, and the one transaction that makes it."""

import hashlib
import json
import secrets

from tern.engine import job as books
from tern.engine import keys
from tern.engine.controls import ID_BEGINS
from tern.engine.errors import EngineError, Reason, invalid, precondition
from tern.engine.identity import EngineIdentity
from tern.engine.keys import CallContext
from tern.engine.names import Name
from tern.engine.preview import Asked, Verdict, refusal
from tern.engine.session import Connection, row, value
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tern.wire.options import ApplyOptions, Wrong, read_options

TYPE = "postgres"
MOST_CHANGES = 1_000


class BusyError(Exception):
    """Another job changes a table at this moment: nothing is wrong with the request, and nothing of it was kept."""

    def __init__(self, words: str, table: Name, holder: str) -> None:
        super().__init__(words)
        self.words = words
        self.table = table
        self.holder = holder


def options_of(request: contract.ApplyRequest, identity: EngineIdentity) -> ApplyOptions:
    """What is asked for beside the changes; refuses what can't be read or isn't offered."""
    if request.direct_execution.ByteSize():
        message = "direct_execution is not offered: no statement is executed under a lock that stops the application"
        raise precondition(Reason.NOT_OFFERED, message)
    if request.target_shards:
        message = "target_shards is not offered: this engine works at one database"
        raise precondition(Reason.NOT_OFFERED, message)
    target = request.target or identity.target
    return read_options(dict(request.options), target=target, refuse=_option, reverts=False)


def _option(wrong: Wrong) -> EngineError:
    return invalid(wrong.words) if wrong.is_offered else precondition(Reason.NOT_OFFERED, wrong.words)


def check_request(request: contract.ApplyRequest, identity: EngineIdentity) -> list[Asked]:
    """Refuses a request that isn't for us or can't be read; returns the changes asked for."""
    wrong = identity.mismatch(
        environment=request.environment, database=request.database, target=request.target
    )
    if wrong:
        raise precondition(Reason.TARGET_MISMATCH, wrong)
    if request.type not in {"", TYPE}:
        raise precondition(Reason.TYPE_MISMATCH, f"this engine is for {TYPE}, the request for {request.type}")
    if not request.ddl_changes:
        message = "the request holds no change"
        raise invalid(message)
    if request.schema_files:
        _refuse_unordered(request)
    if len(request.ddl_changes) > MOST_CHANGES:
        message = f"the request holds {len(request.ddl_changes)} changes, at most {MOST_CHANGES} are accepted"
        raise invalid(message)
    return [
        Asked(each.namespace or "public", each.table_name, each.ddl, each.change_type)
        for each in request.ddl_changes
    ]


def _refuse_unordered(request: contract.ApplyRequest) -> None:
    """A request that carries its plan's files beside the statements may have them in another order than the plan, and
    plans are not kept here: of several statements on one table nobody could say which comes first.
    """
    met: set[tuple[str, str]] = set()
    for each in request.ddl_changes:
        table = (each.namespace or "public", each.table_name)
        if table in met:
            words = (
                f"several statements on {Name(*table)} come with schema_files, and the order that holds is the one kept"
                f" under the plan; no plan {request.plan_id!r} is kept here. Send them without schema_files, in"
                " the order in which they are to be executed"
            )
            raise precondition(Reason.PLAN_UNKNOWN, words)
        met.add(table)


def request_hash(request: contract.ApplyRequest) -> bytes:
    """What makes two requests the same; who asks and under which key doesn't."""
    bare = contract.ApplyRequest()
    bare.CopyFrom(request)
    bare.ClearField("idempotency_key")
    bare.ClearField("caller")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()


def find_started(connection: Connection, request: contract.ApplyRequest, context: CallContext) -> str | None:
    """The job that this very request started before, or None; refused keys and strangers raise.

    Asked before the statements are judged: after the job's end they would be refused, for they are done.
    """
    if not request.idempotency_key:
        return None
    with connection.transaction():
        known = keys.find_key(connection, request.idempotency_key)
        if known is None:
            # Not a fence is kept of a request that may still be refused: insert() keeps it with the job.
            return None
        keys.raise_fence(connection, context)
        return _known_job(connection, known, request, context)


def insert(
    connection: Connection,
    request: contract.ApplyRequest,
    context: CallContext,
    verdicts: list[Verdict],
    options: ApplyOptions,
) -> str:
    """Makes the job, or finds the one that a rival made with the same key; a refusal leaves nothing.

    The key comes before the verdicts: a rival under the same key may have made the change while we judged it, and what
    is done is judged impossible. That is the job's answer, not a refusal (G4).
    """
    with connection.transaction():
        keys.raise_fence(connection, context)
        job = f"{ID_BEGINS}{secrets.token_hex(10)}"
        if request.idempotency_key:
            known = keys.claim_key(
                connection, request.idempotency_key, job=job, request_hash=request_hash(request)
            )
            if known.job != job:
                return _known_job(connection, known, request, context)
        _refuse(verdicts, options)
        _insert_job(connection, job, request, context, options)
        _reserve_tables(connection, job, verdicts)
        _insert_changes(connection, job, request, verdicts)
        books.tell(
            connection,
            job,
            "accepted",
            f"Accepted {len(verdicts)} changes from {request.caller or 'nobody named'}.",
            new="pending",
            operation=context.operation or "",
        )
    return job


def _refuse(verdicts: list[Verdict], options: ApplyOptions) -> None:
    for verdict in verdicts:
        if verdict.refused is not None:
            raise refusal(verdict)
        if verdict.unsafe and not options.allow_unsafe:
            message = (
                f"{verdict.words}: {'; '.join(verdict.unsafe)}; set allow_unsafe to apply it all the same"
            )
            raise precondition(Reason.UNSAFE_CHANGE, message)


def _known_job(
    connection: Connection, known: keys.KnownKey, request: contract.ApplyRequest, context: CallContext
) -> str:
    job = keys.started_by(known, request.idempotency_key, request_hash(request))
    keys.check_operation(value(connection, "SELECT operation FROM _tern.job WHERE id = %s", (job,)), context)
    return job


def _insert_job(
    connection: Connection,
    job: str,
    request: contract.ApplyRequest,
    context: CallContext,
    options: ApplyOptions,
) -> None:
    connection.execute(
        "INSERT INTO _tern.job (id, operation, environment, database, target, plan_id, caller, options, time_zone,"
        "                       defer_cutover)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, current_setting('TimeZone'), %s)",
        (
            job,
            context.operation,
            request.environment,
            request.database,
            request.target,
            request.plan_id,
            request.caller,
            json.dumps(dict(request.options)),
            options.defer_cutover,
        ),
    )


def _reserve_tables(connection: Connection, job: str, verdicts: list[Verdict]) -> None:
    """Takes the tables, always in the same order, so that two applies never wait for each other."""
    for table in sorted({table for verdict in verdicts for table in verdict.tables}):
        taken = connection.execute(
            "INSERT INTO _tern.tbl (job, namespace, table_name) VALUES (%s, %s, %s)"
            "    ON CONFLICT (namespace, table_name) WHERE active DO NOTHING RETURNING 1",
            (job, table.namespace, table.name),
        ).fetchone()
        if taken is None:
            raise _busy(connection, table)


def _busy(connection: Connection, table: Name) -> Exception:
    holder = row(
        connection,
        "SELECT job.id, job.operation, job.state FROM _tern.tbl JOIN _tern.job ON job.id = tbl.job"
        " WHERE tbl.active AND tbl.namespace = %s AND tbl.table_name = %s",
        (table.namespace, table.name),
    )
    by = (
        f"{holder['id']} ({holder['operation'] or 'no operation'}, {holder['state']})"
        if holder
        else "another apply"
    )
    return BusyError(f"{table} is being changed by {by}", table, holder["id"] if holder else "")


def _insert_changes(
    connection: Connection, job: str, request: contract.ApplyRequest, verdicts: list[Verdict]
) -> None:
    number = 0
    with connection.cursor() as cursor:
        for n, verdict in enumerate(verdicts):
            cursor.execute(
                "INSERT INTO _tern.change (job, n, namespace, table_name, ddl, change_type, class, recipe, rows_total,"
                "                          is_instant) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    job,
                    n,
                    verdict.asked.namespace,
                    verdict.asked.table,
                    verdict.asked.ddl,
                    request.ddl_changes[n].change_type,
                    verdict.change_class.value,
                    verdict.recipe,
                    verdict.estimated_rows,
                    verdict.is_instant,
                ),
            )
            if not verdict.steps:
                cursor.execute(
                    "UPDATE _tern.change SET status = 'completed', percent = 100, detail = 'nothing to do'"
                    " WHERE job = %s AND n = %s",
                    (job, n),
                )
            for atom, step in verdict.steps:
                cursor.execute(
                    "INSERT INTO _tern.step (job, n, change, atom, body) VALUES (%s, %s, %s, %s, %s)",
                    (job, number, n, atom, json.dumps(step.to_json())),
                )
                number += 1

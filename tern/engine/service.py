"""The engine for a caller in this process: one method per RPC, protobuf in and out.

Every answer comes from the database, so any process may give it; the work is done by adopt.py and runner.py.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import NoReturn

import grpc
import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from tern.engine import accept, controls, failure, health, keys, preview, progress
from tern.engine.adopt import Adopter
from tern.engine.contact import Contact, Watched, first_connection
from tern.engine.controls import Answer
from tern.engine.errors import EngineError, Reason, invalid, precondition, unavailable
from tern.engine.identity import EngineIdentity, read_identity
from tern.engine.job import Job
from tern.engine.keys import CallContext
from tern.engine.session import CONNECT_SECONDS, Connection, application_name, settle, value
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.v1 import tern_pb2 as contract

MOST_CURSORS = 500
MOST_PREVIEWED = 1_000
DEFAULT_LOGS, MOST_LOGS = 100, 10_000
POOL_SECONDS = 5.0
POOL_SIZE = 8
VERSION = version("tern")
CAPABILITIES = (ours.DESCRIPTOR.services_by_name["EngineService"].full_name,)
"""What is offered beside the contract, for those who ask Health."""
# What keeps a pool from its server is told once, by contact.py, and not at each try.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class EngineService:
    """The PostgreSQL engine of one environment, database and target.

    Several processes may each have one for the same database; each job is carried out by one of them.
    """

    def __init__(
        self, dsn: str, identity: EngineIdentity, *, name: str = "engine", runs_jobs: bool = True
    ) -> None:
        self._dsn = dsn
        self._runs_jobs = runs_jobs
        self.identity = identity
        self.name = name
        self._ready = False
        self._contact = Contact()
        self.works_at = ""
        """SYSTEM-IDENTIFIER/DATABASE-OID of the database behind the connections; '' until one has been made, and where
        the role may not read it.
        """
        self._adopter: Adopter | None = None
        self._pool: ConnectionPool[Watched] = ConnectionPool(
            dsn,
            connection_class=Watched,
            min_size=0,
            max_size=POOL_SIZE,
            timeout=POOL_SECONDS,
            max_idle=60,
            # Then it is tried anew with the next call; the default lets the pauses grow to minutes.
            reconnect_timeout=POOL_SECONDS,
            open=False,
            name=name,
            configure=self._settle,
            check=ConnectionPool.check_connection,
            kwargs={
                "autocommit": True,
                "application_name": application_name(name, "rpc"),
                "connect_timeout": CONNECT_SECONDS,
                "contact": self._contact,
            },
        )

    def start(self) -> None:
        """Creates the engine's schema where it is missing, and resumes unfinished jobs, now and from now on; one that
        runs no jobs only answers.

        A database that doesn't answer is no error: calls say why, and the rest follows once it is back.
        """
        self._pool.open()
        try:
            self._make_ready()
        except EngineError as error:
            if error.reason != Reason.DATABASE_UNAVAILABLE:
                self._pool.close()
                raise
        except BaseException:
            self._pool.close()
            raise
        if self._runs_jobs:
            self._adopter = Adopter(self._dsn, self.name, self._contact)
            self._adopter.start()

    def close(self) -> None:
        """Stops working. Unfinished jobs stay as they are and are resumed by the next process."""
        if self._adopter is not None:
            self._adopter.leave()
            self._adopter = None
        self._pool.close()

    # tern.v1.Tern

    def apply(self, request: contract.ApplyRequest, context: CallContext) -> contract.ApplyResponse:
        """Accepts a change and starts it; the same key and request are accepted once."""
        asked = accept.check_request(request, self.identity)
        options = accept.options_of(request, self.identity)
        try:
            with self._connection() as connection:
                job = accept.find_started(connection, request, context)
                if job is None:
                    verdicts = preview.judge(connection, asked)
                    job = accept.insert(connection, request, context, verdicts, options)
                operation = value(connection, "SELECT operation FROM _tern.job WHERE id = %s", (job,))
        except accept.BusyError as busy:
            # No error code: the contract's clients take every one of them for the end of the work.
            conflict = contract.ApplyConflict(table=busy.table.name, holder_external_id=busy.holder)
            return contract.ApplyResponse(accepted=False, error_message=busy.words, conflict=conflict)
        self._wake(job)
        return contract.ApplyResponse(
            accepted=True,
            apply_id=job,
            apply_operation_id=operation or job,
            operation_key=request.options["target"] if request.generation_operation_keys else "",
        )

    def progress(self, request: contract.ProgressRequest, context: CallContext) -> contract.ProgressResponse:
        """How far a job is."""
        with self._connection() as connection:
            job = self._find(connection, request, context)
            controls.check_scope(job, request.apply_operation_id)
            seen = progress.for_clients(progress.of_jobs(connection, [job.id])[job.id])
        seen.apply_operation_id = request.apply_operation_id
        return seen

    def logs(self, request: contract.LogsRequest, context: CallContext) -> contract.LogsResponse:
        """The newest lines of a job's log."""
        wrong = self.identity.mismatch(environment="", database=request.database, target=request.target)
        if wrong:
            raise precondition(Reason.TARGET_MISMATCH, wrong)
        if request.limit < 0:
            message = "limit is negative"
            raise invalid(message)
        with self._connection() as connection:
            job = self._find(connection, request, context)
            limit = min(request.limit or DEFAULT_LOGS, MOST_LOGS)
            return contract.LogsResponse(apply_id=job.id, logs=progress.logs(connection, job.id, limit))

    def stop(self, request: contract.StopRequest, context: CallContext) -> contract.StopResponse:
        """Stops a job so that it can be started again."""
        answer = self._control(request, context, controls.stop)
        return contract.StopResponse(
            accepted=answer.accepted,
            error_message=answer.words,
            stopped_count=answer.met,
            skipped_count=answer.skipped,
        )

    def start_again(self, request: contract.StartRequest, context: CallContext) -> contract.StartResponse:
        """Resumes a stopped job: the RPC Start."""
        answer = self._control(request, context, controls.start)
        return contract.StartResponse(
            accepted=answer.accepted,
            error_message=answer.words,
            started_count=answer.met,
            skipped_count=answer.skipped,
        )

    def cancel(self, request: contract.CancelRequest, context: CallContext) -> contract.CancelResponse:
        """Ends a job for good."""
        answer = self._control(request, context, controls.cancel)
        return contract.CancelResponse(
            accepted=answer.accepted,
            error_message=answer.words,
            cancelled_count=answer.met,
            skipped_count=answer.skipped,
        )

    def cutover(self, request: contract.CutoverRequest, context: CallContext) -> contract.CutoverResponse:
        """Lets a waiting job do what the application can notice."""
        answer = self._control(request, context, controls.cutover)
        return contract.CutoverResponse(accepted=answer.accepted, error_message=answer.words)

    def health(self, request: contract.HealthRequest, context: CallContext) -> contract.HealthResponse:  # noqa: ARG002 - the contract's shape
        """`ok`, or what is missing."""
        with self._connection() as connection:
            status = health.status(connection)
        return contract.HealthResponse(status=status, version=VERSION, capabilities=CAPABILITIES)

    def revert(self, request: contract.RevertRequest, context: CallContext) -> NoReturn:  # noqa: ARG002
        """Not offered: there is no revert window."""
        controls.refuse_older_numbering(request)
        raise _not_offered("Revert", "this engine keeps no revert window; apply the opposite change")

    def skip_revert(self, request: contract.SkipRevertRequest, context: CallContext) -> NoReturn:  # noqa: ARG002
        """Not offered: there is no revert window."""
        controls.refuse_older_numbering(request)
        raise _not_offered("SkipRevert", "this engine keeps no revert window")

    def volume(self, request: contract.VolumeRequest, context: CallContext) -> NoReturn:  # noqa: ARG002
        """Not offered: no rows are copied, so there is nothing to pace."""
        controls.refuse_older_numbering(request)
        raise _not_offered("Volume", "this engine copies no rows, so there is nothing to pace")

    def plan(self, request: contract.PlanRequest, context: CallContext) -> NoReturn:  # noqa: ARG002
        """Not offered: plans are made by Tern."""
        raise _not_offered("Plan", "give the statements to tern plan, and this engine previews them")

    def plan_diff(self, request: contract.PlanRequest, context: CallContext) -> NoReturn:  # noqa: ARG002
        """Not offered: plans are made by Tern."""
        raise _not_offered("PlanDiff", "give the statements to tern plan, and this engine previews them")

    def pull_schema(self, request: contract.PullSchemaRequest, context: CallContext) -> NoReturn:  # noqa: ARG002
        """Not offered."""
        raise _not_offered("PullSchema", "use pg_dump --schema-only")

    # tern.engine.v1.EngineService

    def resolve(self, request: ours.ResolveRequest, context: CallContext) -> ours.ResolveResponse:
        """What became of a key; with `forbid`, it never starts anything from now on."""
        if not request.idempotency_key:
            message = "idempotency_key is empty"
            raise invalid(message)
        self._check_environment(request.environment)
        with self._connection() as connection, connection.transaction():
            if request.forbid:
                keys.raise_fence(connection, context)
                known: keys.KnownKey | None = keys.claim_key(
                    connection, request.idempotency_key, job=None, request_hash=None
                )
            else:
                known = keys.find_key(connection, request.idempotency_key)
            if known is None:
                return ours.ResolveResponse()
            if known.job is not None:
                bound = value(connection, "SELECT operation FROM _tern.job WHERE id = %s", (known.job,))
                keys.check_operation(bound, context)
            return ours.ResolveResponse(apply_id=known.job or "", forbidden=known.forbidden)

    def batch_progress(
        self,
        request: ours.BatchProgressRequest,
        context: CallContext,  # noqa: ARG002 - each cursor names its own operation
    ) -> ours.BatchProgressResponse:
        """The progress of every job that has changed since its cursor."""
        self._check_environment(request.environment)
        if len(request.cursors) > MOST_CURSORS:
            message = f"{len(request.cursors)} cursors, at most {MOST_CURSORS} are answered"
            raise invalid(message)
        with self._connection() as connection:
            return progress.batch(connection, request.cursors)

    def preview(self, request: ours.PreviewRequest, context: CallContext) -> ours.PreviewResponse:  # noqa: ARG002
        """What each change would do; nothing of it lasts."""
        wrong = self.identity.mismatch(
            environment=request.environment, database=request.database, target=request.target
        )
        if wrong:
            raise precondition(Reason.TARGET_MISMATCH, wrong)
        if len(request.changes) > MOST_PREVIEWED:
            message = f"{len(request.changes)} changes, at most {MOST_PREVIEWED} are previewed"
            raise invalid(message)
        asked = [preview.Asked(each.namespace or "public", each.table, each.ddl) for each in request.changes]
        with self._connection() as connection:
            return preview.told(preview.judge(connection, asked))

    def _check_environment(self, environment: str) -> None:
        wrong = self.identity.mismatch(environment=environment)
        if wrong:
            raise precondition(Reason.TARGET_MISMATCH, wrong)

    def _find(
        self,
        connection: Connection,
        request: contract.ProgressRequest | contract.LogsRequest,
        context: CallContext,
    ) -> Job:
        controls.refuse_older_numbering(request)
        return controls.find(connection, self.identity, request.apply_id, request.environment, context)

    def _control(
        self,
        request: contract.StopRequest
        | contract.StartRequest
        | contract.CancelRequest
        | contract.CutoverRequest,
        context: CallContext,
        wish: Callable[[Connection, Job], Answer],
    ) -> Answer:
        """Judges and notes a wish in one transaction, with the fence and the job's row locked, in this order."""
        controls.refuse_older_numbering(request)
        with self._connection() as connection:
            # Refused calls must not raise a fence, hence the look before the lock.
            found = controls.find(connection, self.identity, request.apply_id, request.environment, context)
            if isinstance(request, contract.CutoverRequest):
                controls.check_scope(found, request.apply_operation_id)
            with connection.transaction():
                keys.raise_fence(connection, context)
                job = controls.find(
                    connection, self.identity, request.apply_id, request.environment, context, lock=True
                )
                answer = wish(connection, job)
        self._wake(job.id)
        return answer

    def _wake(self, job: str) -> None:
        if self._adopter is not None:
            self._adopter.wake(job)

    def _make_ready(self) -> None:
        with first_connection(self._dsn, self.name, "setup", self._contact) as connection:
            self.works_at = read_identity(connection)
        self._ready = True

    def _settle(self, connection: Connection) -> None:
        """With each new connection it is asked again which database this is: behind one address, another server may
        stand while this process lives (a restored copy, a new master).
        """
        settle(connection)
        self.works_at = read_identity(connection)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection for one call; a database that doesn't answer becomes UNAVAILABLE, never a guess."""
        try:
            if not self._ready or self._contact.words:
                # Whoever asks is told at once what it is, rather than after the pool's patience that it is something.
                self._make_ready()
            with self._pool.connection() as connection:
                yield connection
        except (PoolTimeout, TooManyRequests) as error:
            raise unavailable(self._contact.words or "the database does not answer") from error
        except psycopg.DataError as error:
            # A NUL in a text, a number out of range: the request's own values, and nothing of it was kept.
            raise invalid(failure.words(error)) from error
        except psycopg.Error as error:
            if failure.meaning(error) in {failure.Meaning.TRANSIENT, failure.Meaning.LOCKED}:
                raise unavailable(failure.words(error)) from error
            raise


def _not_offered(method: str, words: str) -> EngineError:
    return EngineError(grpc.StatusCode.UNIMPLEMENTED, Reason.NOT_OFFERED, f"{method} is not offered: {words}")

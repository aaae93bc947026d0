"""The engine inside this process, for deployments at `local:postgresql://…`: no gRPC, the same rules.

Deadlines hold here too, and an answer that misses its deadline is as lost as one on the network: the work goes on.
"""

import atexit
import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from tern.domain.model import Deployment
from tern.wire.credentials import read_reference
from tern.wire.transport import (
    APPLY,
    BATCH_PROGRESS,
    CANCEL,
    CUTOVER,
    FENCE_KEY,
    HEALTH,
    LOGS,
    OPERATION_KEY,
    PREVIEW,
    PROGRESS,
    RESOLVE,
    REVERT,
    SKIP_REVERT,
    START,
    STOP,
    VOLUME,
    Answer,
    AnswerT,
    CallFailed,
    Done,
    Metadata,
    Method,
    NotSent,
    RequestT,
    closing,
)

if TYPE_CHECKING:
    from tern.engine.keys import CallContext
    from tern.engine.service import EngineService

LOCAL_SCHEME = "local:"
CALLS_MAX = 16
METHODS = {
    APPLY.path: "apply",
    PROGRESS.path: "progress",
    LOGS.path: "logs",
    STOP.path: "stop",
    # EngineService.start() takes up the engine's own work.
    START.path: "start_again",
    CUTOVER.path: "cutover",
    CANCEL.path: "cancel",
    REVERT.path: "revert",
    SKIP_REVERT.path: "skip_revert",
    VOLUME.path: "volume",
    HEALTH.path: "health",
    RESOLVE.path: "resolve",
    BATCH_PROGRESS.path: "batch_progress",
    PREVIEW.path: "preview",
}
"""Which method of EngineService answers which RPC."""


@dataclass(frozen=True, slots=True)
class _Home:
    """One engine: what it is told about itself, and where its password is."""

    dsn: str
    environment: str
    database: str
    target: str
    password: str


class LocalEngines:
    """The engines of this process: one per address and target, started by the first call, closed with the process."""

    def __init__(self, *, run_jobs: bool = True) -> None:
        self._run_jobs = run_jobs
        self._lock = threading.Lock()
        self._running: dict[_Home, _Running] = {}
        self._closed = False
        atexit.register(self.close)

    def transport(self, deployment: Deployment) -> "LocalTransport":
        """The way to the deployment's engine; raises NotSent for an address that none can have."""
        home = _Home(
            dsn=_dsn(deployment.address),
            environment=deployment.environment,
            database=deployment.database,
            target=deployment.target,
            password=deployment.credentials.password,
        )
        return LocalTransport(lambda: self._engine(home))

    def close(self) -> None:
        """Closes every engine. Idempotent."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
            self._running.clear()
        atexit.unregister(self.close)
        with ExitStack() as ends:  # one that fails to close doesn't keep the others open
            for engine in running:
                ends.callback(engine.service.close)

    def _engine(self, home: _Home) -> "_Running":
        # Under the lock, so that two first calls don't start two engines for one database.
        with self._lock:
            if self._closed:
                raise closing()
            if home not in self._running:
                self._running[home] = _start(home, run_jobs=self._run_jobs)
            return self._running[home]


@dataclass(frozen=True, slots=True)
class _Running:
    service: "EngineService"
    secret: str


class LocalTransport:
    """Calls to one engine in this process."""

    def __init__(self, engine: Callable[[], _Running]) -> None:
        self._engine = engine
        self._free = threading.BoundedSemaphore(CALLS_MAX)

    def call(
        self, method: Method[RequestT, AnswerT], request: RequestT, *, timeout_s: float, metadata: Metadata
    ) -> Answer[AnswerT]:
        """The answer; raises NotSent or CallFailed."""
        if not self._free.acquire(timeout=timeout_s):
            code = "DEADLINE_EXCEEDED"
            raise CallFailed(code, f"{CALLS_MAX} earlier calls have not ended")
        answers: queue.SimpleQueue[Answer[AnswerT] | Exception] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put(self._run(method, request, metadata))
            except Exception as error:  # noqa: BLE001 - it is raised again where it is waited for
                answers.put(error)
            finally:
                self._free.release()

        # A daemon: an engine that hangs must not keep the process, and for its database this is a crash like any.
        threading.Thread(target=run, name=f"tern-local-{method.name}", daemon=True).start()
        try:
            answer = answers.get(timeout=timeout_s)
        except queue.Empty:
            code = "DEADLINE_EXCEEDED"
            raise CallFailed(code, f"no answer within {timeout_s:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call_later(
        self,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        *,
        timeout_s: float,
        metadata: Metadata,
        done: Done[AnswerT],
    ) -> None:
        """See Transport."""

        def wait() -> None:
            try:
                found = self.call(method, request, timeout_s=timeout_s, metadata=metadata)
            except (NotSent, CallFailed) as failed:
                done(failed)
            else:
                done(found)

        threading.Thread(target=wait, name=f"tern-local-{method.name}-later", daemon=True).start()

    def _run(
        self, method: Method[RequestT, AnswerT], request: RequestT, metadata: Metadata
    ) -> Answer[AnswerT]:
        engine = self._engine()
        try:
            call: Callable[[RequestT, CallContext], AnswerT] = getattr(engine.service, METHODS[method.path])
            answer = call(request, _context(metadata))
        except Exception as error:  # noqa: BLE001 - what gRPC would turn into a status, we do
            failure = _failure(error, engine.secret)
            if isinstance(failure, CallFailed):
                failure.identity = engine.service.works_at
            raise failure from None
        return Answer(answer, engine.service.works_at)


def _start(home: _Home, *, run_jobs: bool) -> _Running:
    secret = _read_password(home.password)
    try:
        # Only where it is needed: the engine's parser is heavy, and most processes only know remote ones.
        from tern.engine.identity import EngineIdentity  # noqa: PLC0415
        from tern.engine.service import EngineService  # noqa: PLC0415

        identity = EngineIdentity(home.environment, home.database, home.target)
        service = EngineService(_with_password(home.dsn, secret), identity, runs_jobs=run_jobs)
        service.start()
    except Exception as error:  # noqa: BLE001 - a database that is down is no reason to fail an operation
        raise _failure(error, secret, otherwise="UNAVAILABLE") from None
    return _Running(service, secret)


def _context(metadata: Metadata) -> "CallContext":
    from tern.engine.keys import CallContext  # noqa: PLC0415 - as above

    known = dict(metadata)
    fence = known.get(FENCE_KEY)
    return CallContext(operation=known.get(OPERATION_KEY), fence=None if fence is None else int(fence))


def _failure(error: Exception, secret: str, otherwise: str = "INTERNAL") -> Exception:
    """EngineError says its code; anything else is what a server would call INTERNAL."""
    if isinstance(error, NotSent | CallFailed):
        return error
    code = getattr(getattr(error, "code", None), "name", None)
    message = str(getattr(error, "message", error)) or type(error).__name__
    if secret:
        message = message.replace(secret, "…")
    if not isinstance(code, str):
        return CallFailed(otherwise, f"{type(error).__name__}: {message}")
    return CallFailed(code, message, str(getattr(error, "reason", "")))


def _dsn(address: str) -> str:
    """The URL without `local:`; raises NotSent where it is none, or holds a password."""
    dsn = address.removeprefix(LOCAL_SCHEME)
    try:
        url = urlsplit(dsn)
        has_password = url.password is not None
        # The port is read to be checked; and libpq knows no fragments, so what follows a # is not what it seems.
        is_known = url.port != 0 and url.scheme in {"postgresql", "postgres"} and "#" not in dsn
    except ValueError:
        url, has_password, is_known = urlsplit(""), False, False
    if has_password or any(key.lower() in {"password", "passfile"} for key, _ in parse_qsl(url.query)):
        reason = "PASSWORD_IN_ADDRESS"
        raise NotSent(
            reason, "its address holds a password; credentials.password is given by reference instead"
        )
    if not is_known or not url.path.strip("/"):
        reason = "ADDRESS_MALFORMED"
        raise NotSent(
            reason, "its address can't be read; it is written local:postgresql://USER@HOST:PORT/DATABASE"
        )
    return dsn


def _read_password(reference: str) -> str:
    return read_reference("password", reference).decode(errors="replace") if reference else ""


def _with_password(dsn: str, password: str) -> str:
    if not password:
        return dsn
    return f"{dsn}{'&' if '?' in dsn else '?'}password={quote(password, safe='')}"

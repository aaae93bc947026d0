"""The jobs of a fake engine: keys, tombstones, bindings, fences, states and revisions, all in memory."""

import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.faults.behaviour import Rejected
from tests.faults.ledger import Effect, Ledger

CURSORS_MAX = 500
SECOND_SERVICE = frozenset({"Resolve", "BatchProgress", "Preview"})
_READS = frozenset({"Progress", "Logs", "Resolve", "Preview"})
OVER = frozenset({"completed", "failed", "cancelled", "reverted"})
_FITS = {
    "Cutover": {"waiting_for_cutover", "cutting_over"},
    "Revert": {"revert_window", "reverting"},
    "SkipRevert": {"revert_window"},
}
"""The states in which a job takes the call at all."""
_KIND = {"SkipRevert": "skip-revert"}
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@dataclass(slots=True)
class Job:
    """One accepted change."""

    remote_id: str
    key: str
    operation: str
    environment: str
    fingerprint: str
    defers_cutover: bool
    tables: tuple[tuple[str, str, str], ...]
    state: str = "running"
    error: str = ""
    revision: int = 1
    polls: int = 0
    running_since: float = 0.0
    volume: int = 5
    started_at: str = ""


class FakeJobs:
    """What the engine knows and what it does with each request."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        *,
        deduplicates: bool,
        complete_after_s: float | None,
        complete_after_polls: int | None,
        unlucky: int = 0,
    ) -> None:
        self.by_id: dict[str, Job] = {}
        self.by_key: dict[str, Job] = {}
        self.forbidden: set[str] = set()
        self.ignored: frozenset[str] = frozenset()
        self._fences: dict[str, int] = {}
        self.name = name
        self._ledger = ledger
        self._deduplicates = deduplicates
        self._after_s = complete_after_s
        self._after_polls = complete_after_polls
        self._unlucky = unlucky
        self._offers_second = True
        self._lock = threading.RLock()
        self._offered: Mapping[str, Callable[[Any, dict[str, str]], Message]] = {
            "Apply": self._apply,
            "Progress": self._progress,
            "BatchProgress": self._batch_progress,
            "Resolve": self._resolve,
            "Preview": self._preview,
            "Logs": self._logs,
            "Health": lambda _request, _metadata: tern_v1.HealthResponse(status="ok"),
            "Stop": self._control(tern_v1.StopResponse, "Stop", "stopped"),
            "Start": self._control(tern_v1.StartResponse, "Start", "running"),
            "Cutover": self._control(tern_v1.CutoverResponse, "Cutover", "completed"),
            "Cancel": self._control(tern_v1.CancelResponse, "Cancel", "cancelled"),
            "Revert": self._control(tern_v1.RevertResponse, "Revert", "reverted"),
            "SkipRevert": self._control(tern_v1.SkipRevertResponse, "SkipRevert", "completed"),
            "Volume": self._volume,
        }

    def perform(self, method: str, request: Message, metadata: dict[str, str]) -> Message:
        """The right answer to a request, with its effect; raises Rejected."""
        offered = self._offered.get(method)
        if offered is None or (method in SECOND_SERVICE and not self._offers_second):
            raise Rejected(grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED", f"{method} is not offered")
        with self._lock:
            return offered(request, metadata)

    def set_state(self, remote_id: str, state: str, *, error: str = "") -> None:
        """Moves a job; raises KeyError for an id or a word that does not exist."""
        tern_v1.State.Value(f"STATE_{state.upper()}")
        with self._lock:
            job = self.by_id[remote_id]
            job.state = state
            job.error = error
            job.revision += 1
            if state == "running":
                job.running_since = time.monotonic()
                job.polls = 0

    def forget(self) -> None:
        """No job, no key, no fence was ever heard of."""
        with self._lock:
            self.by_id.clear()
            self.by_key.clear()
            self.forbidden.clear()
            self._fences.clear()

    def change(self, *, offers: bool, deduplicates: bool) -> None:
        """What is offered and how a key is taken, from now on."""
        with self._lock:
            self._offers_second, self._deduplicates = offers, deduplicates

    def replay(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Takes over what the ledger of an earlier process says was done."""
        states = {"stop": "stopped", "start": "running", "cutover": "completed", "cancel": "cancelled"}
        states |= {"revert": "reverted", "skip-revert": "completed"}
        for line in lines:
            if line["what"] == "call" and line["fence"] is not None and line["method"] not in _READS:
                self._fences[line["operation"]] = max(line["fence"], self._fences.get(line["operation"], 0))
            if line["what"] != "effect" or line["is_duplicate"]:
                continue
            if line["kind"] == "apply":
                tables = tuple((table[0], table[1], table[2]) for table in line["tables"])
                keep = ("remote_id", "key", "operation", "environment", "fingerprint", "defers_cutover")
                self._keep(Job(**{name: line[name] for name in keep}, tables=tables))
            elif line["kind"] == "forbid":
                self.forbidden.add(line["key"])
            elif line["kind"] in states:
                self.set_state(line["remote_id"], states[line["kind"]])

    def _apply(self, request: tern_v1.ApplyRequest, metadata: dict[str, str]) -> Message:
        key = request.idempotency_key
        operation = metadata.get("tern-operation", "")
        self._check_fence(operation, metadata)
        if key in self.forbidden:
            raise Rejected(_PRECONDITION, "KEY_FORBIDDEN", f"the key {key} is dead")
        fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        known = self.by_key.get(key) if key and self._deduplicates else None
        if known is not None:
            if known.fingerprint != fingerprint:
                code = grpc.StatusCode.ALREADY_EXISTS
                raise Rejected(code, "KEY_REUSED", f"the key {key} started something else")
            self._check_operation(known, operation)
            self._note("apply", known, is_duplicate=True)
            return tern_v1.ApplyResponse(accepted=True, apply_id=known.remote_id)
        if self._is_unlucky("refuse", key):
            return tern_v1.ApplyResponse(accepted=False, error_message="there is no such table")
        job = Job(
            remote_id=f"{self.name}-{len(self.by_id) + 1}",
            key=key,
            operation=operation,
            environment=request.environment,
            fingerprint=fingerprint,
            defers_cutover=request.options.get("defer_cutover") == "true",
            tables=tuple((change.namespace, change.table_name, change.ddl) for change in request.ddl_changes),
        )
        self._keep(job)
        self._note("apply", job)
        return tern_v1.ApplyResponse(accepted=True, apply_id=job.remote_id)

    def _resolve(self, request: engine_v1.ResolveRequest, metadata: dict[str, str]) -> Message:
        key = request.idempotency_key
        if not key:
            raise Rejected(_INVALID, "INVALID_REQUEST", "a key is needed")
        known = self.by_key.get(key)
        if known is not None:
            self._check_operation(known, metadata.get("tern-operation", ""))
            return engine_v1.ResolveResponse(apply_id=known.remote_id)
        if request.forbid and key not in self.forbidden:
            self.forbidden.add(key)
            operation = metadata.get("tern-operation", "")
            self._ledger.add_effect(Effect(time.time(), "forbid", "", key, operation, is_duplicate=False))
        return engine_v1.ResolveResponse(forbidden=key in self.forbidden)

    def _progress(self, request: tern_v1.ProgressRequest, metadata: dict[str, str]) -> Message:
        job = self._find(request.apply_id, metadata.get("tern-operation", ""))
        self._look(job)
        return _progress_of(job)

    def _batch_progress(self, request: engine_v1.BatchProgressRequest, _metadata: dict[str, str]) -> Message:
        if len(request.cursors) > CURSORS_MAX:
            raise Rejected(_INVALID, "INVALID_REQUEST", f"at most {CURSORS_MAX} cursors")
        answer = engine_v1.BatchProgressResponse()
        for cursor in request.cursors:
            try:
                job = self._find(cursor.apply_id, cursor.operation)
            except Rejected as rejected:
                error = engine_v1.ProgressError(
                    code=rejected.code.value[0], message=rejected.message, reason=rejected.reason
                )
                answer.entries.add(apply_id=cursor.apply_id, error=error)
                continue
            self._look(job)
            if cursor.revision != job.revision:
                answer.entries.add(apply_id=job.remote_id, revision=job.revision, progress=_progress_of(job))
        return answer

    def _preview(self, request: engine_v1.PreviewRequest, _metadata: dict[str, str]) -> Message:
        return engine_v1.PreviewResponse(
            changes=[
                engine_v1.ChangePreview(
                    namespace=change.namespace,
                    table=change.table,
                    change_class=engine_v1.CHANGE_CLASS_METADATA,
                    recipe="fake",
                )
                for change in request.changes
            ]
        )

    def _logs(self, request: tern_v1.LogsRequest, metadata: dict[str, str]) -> Message:
        job = self._find(request.apply_id, metadata.get("tern-operation", ""))
        line = tern_v1.ApplyLog(id=1, level="info", event_type="state", message=f"it is {job.state}")
        return tern_v1.LogsResponse(apply_id=job.remote_id, logs=[line])

    def _control(
        self, answer_type: Callable[..., Message], method: str, state: str
    ) -> Callable[[Any, dict[str, str]], Message]:
        def act(request: Any, metadata: dict[str, str]) -> Message:
            operation = metadata.get("tern-operation", "")
            job = self._find(request.apply_id, operation)
            self._check_fence(operation, metadata)
            if job.state in OVER:
                return answer_type(accepted=False, error_message=f"it is {job.state} already")
            if job.state not in _FITS.get(method, {job.state}):
                return answer_type(accepted=False, error_message=f"it is {job.state}, and {method} fits not")
            is_duplicate = method in self.ignored or job.state == state
            if not is_duplicate:
                self.set_state(job.remote_id, state)
            self._note(_KIND.get(method, method.lower()), job, is_duplicate=is_duplicate)
            return answer_type(accepted=True)

        return act

    def _volume(self, request: tern_v1.VolumeRequest, metadata: dict[str, str]) -> Message:
        operation = metadata.get("tern-operation", "")
        job = self._find(request.apply_id, operation)
        self._check_fence(operation, metadata)
        if job.state in OVER:
            return tern_v1.VolumeResponse(accepted=False, error_message=f"it is {job.state} already")
        before, job.volume = job.volume, request.volume
        self._note("volume", job, is_duplicate=before == job.volume)
        return tern_v1.VolumeResponse(accepted=True, previous_volume=before, new_volume=job.volume)

    def _find(self, remote_id: str, operation: str) -> Job:
        if not remote_id:
            raise Rejected(_INVALID, "INVALID_REQUEST", "an apply_id is needed")
        job = self.by_id.get(remote_id)
        if job is None:
            raise Rejected(grpc.StatusCode.NOT_FOUND, "APPLY_NOT_FOUND", f"no job {remote_id} here")
        self._check_operation(job, operation)
        return job

    def _check_operation(self, job: Job, operation: str) -> None:
        if operation and operation != job.operation:
            said = f"job {job.remote_id} is {job.operation or 'nobody'}'s, not {operation}'s"
            raise Rejected(_PRECONDITION, "OPERATION_MISMATCH", said)

    def _check_fence(self, operation: str, metadata: dict[str, str]) -> None:
        fence = metadata.get("tern-fence")
        if not operation or fence is None:
            return
        seen = self._fences.get(operation, 0)
        if int(fence) < seen:
            raise Rejected(_PRECONDITION, "STALE_DRIVER", f"fence {fence} is older than {seen}")
        self._fences[operation] = int(fence)

    def _look(self, job: Job) -> None:
        """Lets a running job get on, as seen by whoever looks."""
        if job.state != "running":
            return
        job.polls += 1
        in_time = self._after_s is not None and time.monotonic() - job.running_since >= self._after_s
        if in_time or (self._after_polls is not None and job.polls >= self._after_polls):
            if self._is_unlucky("fail", job.key):
                self.set_state(job.remote_id, "failed", error="a duplicate key")
                return
            self.set_state(job.remote_id, "waiting_for_cutover" if job.defers_cutover else "completed")

    def _is_unlucky(self, how: str, key: str) -> bool:
        """One in so many, and always the same: an engine that was killed does not change its mind."""
        return bool(self._unlucky) and zlib.crc32(f"{how} {key}".encode()) % self._unlucky == 0

    def _keep(self, job: Job) -> None:
        job.running_since = time.monotonic()
        self.by_id[job.remote_id] = job
        self.by_key.setdefault(job.key, job)

    def _note(self, kind: str, job: Job, *, is_duplicate: bool = False) -> None:
        self._ledger.add_effect(
            Effect(
                at=time.time(),
                kind=kind,
                remote_id=job.remote_id,
                key=job.key,
                operation=job.operation,
                is_duplicate=is_duplicate,
                environment=job.environment,
                fingerprint=job.fingerprint,
                defers_cutover=job.defers_cutover,
                tables=job.tables,
            )
        )


def _progress_of(job: Job) -> tern_v1.ProgressResponse:
    done = job.state == "completed"
    return tern_v1.ProgressResponse(
        apply_id=job.remote_id,
        state=tern_v1.State.Value(f"STATE_{job.state.upper()}"),
        engine=tern_v1.ENGINE_POSTGRES,
        summary=f"{len(job.tables)} changes, {job.state}",
        error_message=job.error,
        started_at=job.started_at,
        tables=[
            tern_v1.TableProgress(
                namespace=namespace,
                table_name=table_name,
                ddl=ddl,
                status=job.state,
                rows_copied=1000 if done else 0,
                rows_total=1000,
                percent_complete=100 if done else 0,
            )
            for namespace, table_name, ddl in job.tables
        ],
    )

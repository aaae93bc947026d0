"""Engines in memory, in domain words: what they know, what they were asked, and what they did.

Their ledgers are out of Tern's reach and keep effects before and after deduplication apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tern.domain.identity import DispatchKey, RemoteId
from tern.domain.model import (
    Claim,
    Forbidden,
    NeverStarted,
    OperationScope,
    RemoteCall,
    Resolution,
    Started,
    Unsupported,
)
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.samples import Sample, TableSample
from tern.domain.states import State
from tern.ports import Cursor, Looked
from tests.faults.history import Asked, Done
from tests.simulation.clock import Clock

OVER = frozenset({"completed", "failed", "cancelled", "reverted"})


@dataclass(frozen=True, slots=True)
class EngineKind:
    """What an engine offers and how its work goes. All seconds are virtual.

    works_s: how long a job runs. stops_s, starts_s: how long a stop or start takes to come through. window_s: how long
    a revert window stands open, 0 for none. refuses_first, swallows, misses: so many of an operation's first Applies
    are refused, done without an answer, or never arrive. refuses_any, breaks: so many of the first Applies here,
    whosever they are, are refused; of the first jobs here, fail at their last statement, when the others are in.
    fences: it knows operations and their fences, and refuses a call for another one's job. lends_ids: each new key is
    answered with the first id that it has given out.
    """

    deduplicates: bool = True
    resolves: bool = True
    fences: bool = True
    works_s: float = 1.9
    stops_s: float = 0.0
    starts_s: float = 0.0
    cutover_s: float = 1.0
    window_s: float = 0.0
    fails: bool = False
    refuses: bool = False
    refuses_first: int = 0
    swallows: int = 0
    misses: int = 0
    lends_ids: bool = False
    refuses_any: int = 0
    breaks: int = 0


@dataclass(slots=True)
class Job:
    """One accepted change."""

    remote_id: str
    key: str
    operation: str
    defers_cutover: bool
    tables: tuple[tuple[str, str, str], ...]
    state: str = "running"
    error: str = ""
    revision: int = 1
    due_at: float | None = None
    """When the present phase ends."""
    left_s: float = 0.0
    """Of a stopped job: what is still to be done."""
    stops_at: float | None = None
    volume: int = 0
    breaks: bool = False
    """It fails at its last statement."""


@dataclass
class SimEngine:
    """One deployment's engine. `instant` is the clock of its ledger: the one that the audit has, too."""

    name: str
    kind: EngineKind
    clock: Clock
    instant: Callable[[], float]
    jobs: dict[str, Job] = field(default_factory=dict)
    by_key: dict[str, Job] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    fences: dict[str, int] = field(default_factory=dict)
    calls: list[Asked] = field(default_factory=list)
    effects: list[Done] = field(default_factory=list)
    forgotten: list[Job] = field(default_factory=list)
    statements: list[tuple[Job, str]] = field(default_factory=list)
    """Job and DDL of each statement that is in, as often as it was done."""
    prefix: str = ""
    """Of its ids, behind its name: another engine at the same address has another one."""
    last_number: int = 0
    lends_once: bool = False

    # What is asked

    def apply(self, scope: OperationScope, claim: Claim, begun_at: float | None = None) -> Outcome[RemoteId]:
        """ports.Engine.apply. begun_at: when the driver looked last, which is when it began the call (G9)."""
        operation = str(scope.name)
        self._asked("Apply", begun_at, key=claim.key, operation=operation, fence=claim.fence)
        if (stale := self._stale(operation, claim.fence)) is not None:
            return stale
        if claim.key in self.forbidden:
            return Refused(f"the key {claim.key} is dead", "KEY_FORBIDDEN", "FAILED_PRECONDITION")
        heard = sum(one.method == "Apply" and one.operation == operation for one in self.calls)
        if heard <= self.kind.misses:
            return Unknown("connection refused", "", "UNAVAILABLE")
        asked = sum(one.method == "Apply" for one in self.calls)
        if self.kind.refuses or heard <= self.kind.refuses_first or asked <= self.kind.refuses_any:
            return Refused("no such table", "", "INVALID_ARGUMENT")
        known = self.by_key.get(claim.key) if self.kind.deduplicates else None
        if known is not None:
            self._done("apply", known, is_duplicate=True)
            return Ok(RemoteId(known.remote_id))
        if self.jobs and (self.kind.lends_ids or self.lends_once):
            self.lends_once = False
            return Ok(RemoteId(next(iter(self.jobs))))
        job = Job(
            remote_id=self._next_id(),
            key=claim.key,
            operation=operation,
            defers_cutover=scope.policy.defers_cutover,
            tables=tuple((c.change.namespace, c.change.table_name, c.change.ddl) for c in scope.changes),
            due_at=self.clock.elapsed + self.kind.works_s,
            breaks=self.last_number <= self.kind.breaks,
        )
        self.jobs[job.remote_id] = job
        self.by_key.setdefault(job.key, job)
        self._done("apply", job)
        if heard <= self.kind.swallows:
            return Unknown("the answer got lost", "", "DEADLINE_EXCEEDED")
        return Ok(RemoteId(job.remote_id))

    def resolve(
        self, scope: OperationScope, claim: Claim, key: DispatchKey, *, forbid: bool
    ) -> Outcome[Resolution]:
        """ports.Engine.resolve."""
        self._asked("Resolve", key=key, operation=str(scope.name), fence=claim.fence)
        if not self.kind.resolves:
            return Ok(Unsupported())
        known = self.by_key.get(key)
        if known is not None:
            return Ok(Started(RemoteId(known.remote_id)))
        if forbid and key not in self.forbidden:
            self.forbidden.add(key)
            self.effects.append(Done(self.instant(), self.name, "forbid", "", key, str(scope.name)))
        return Ok(Forbidden() if key in self.forbidden else NeverStarted())

    def progress(self, call: RemoteCall) -> Outcome[Sample]:
        """ports.Engine.progress."""
        self._asked("Progress", remote_id=call.remote_id, operation=str(call.name), fence=call.fence)
        return self._look(call)

    def batch_progress(self, cursors: Sequence[Cursor]) -> tuple[Looked, ...]:
        """ports.Engine.batch_progress."""
        pairs = tuple((str(cursor.call.remote_id), str(cursor.call.name)) for cursor in cursors)
        self._asked("BatchProgress", cursors=pairs)
        looked = []
        for cursor in cursors:
            outcome = self._look(cursor.call)
            unchanged = isinstance(outcome, Ok) and outcome.value.revision == cursor.revision
            if not unchanged:
                looked.append(Looked(cursor, outcome))
        return tuple(looked)

    def stop(self, call: RemoteCall) -> Outcome[None]:
        """ports.Engine.stop."""
        return self._control("Stop", call, self._stop)

    def start(self, call: RemoteCall, begun_at: float | None = None) -> Outcome[None]:
        """ports.Engine.start."""
        return self._control("Start", call, self._start, begun_at)

    def cutover(self, call: RemoteCall, begun_at: float | None = None) -> Outcome[None]:
        """ports.Engine.cutover."""
        return self._control("Cutover", call, self._cutover, begun_at)

    def cancel(self, call: RemoteCall) -> Outcome[None]:
        """ports.Engine.cancel."""
        return self._control("Cancel", call, self._cancel)

    def revert(self, call: RemoteCall, begun_at: float | None = None) -> Outcome[None]:
        """ports.Engine.revert."""
        return self._control("Revert", call, self._revert, begun_at)

    def skip_revert(self, call: RemoteCall, begun_at: float | None = None) -> Outcome[None]:
        """ports.Engine.skip_revert."""
        return self._control("SkipRevert", call, self._skip_revert, begun_at)

    def volume(self, call: RemoteCall, volume: int, begun_at: float | None = None) -> Outcome[int]:
        """ports.Engine.volume."""

        def turn(job: Job) -> bool:
            before, job.volume = job.volume, volume
            return before == volume

        match self._control("Volume", call, turn, begun_at):
            case Ok():
                return Ok(volume)
            case failed:
                return failed

    def health(self) -> Outcome[str]:
        """ports.Engine.health."""
        return Ok("ok")

    # What it does

    def disowned(self, *, declares: bool) -> list[Job]:
        """Jobs that it forgot and whose keys it then took for new: it forbade them, or, although a person had declared
        that it deduplicates, it ran them again. Nobody can know better who has but its word.
        """
        dead = {one.key for one in self.effects if one.kind == "forbid"}
        return [
            job
            for job in self.forgotten
            if job.key in dead or (declares and any(other.key == job.key for other in self.jobs.values()))
        ]

    def _next_id(self) -> str:
        self.last_number += 1
        return f"{self.name}{self.prefix}-{self.last_number}"

    def move(self, job: Job, state: str, due_in: float | None = None) -> None:
        """The job is in that state now."""
        job.state = state
        if state == "completed":
            self.statements += [(job, ddl) for _, _, ddl in job.tables]
        job.revision += 1
        job.due_at = None if due_in is None else self.clock.elapsed + due_in

    def get_on(self) -> None:
        """Everything that is due by now has happened."""
        for job in self.jobs.values():
            self._get_on(job)

    def _get_on(self, job: Job) -> None:
        now = self.clock.elapsed
        if job.stops_at is not None and now >= job.stops_at:
            job.stops_at = None
            if job.state not in OVER:
                self.halt(job)
        while job.due_at is not None and now >= job.due_at:
            match job.state:
                case "running" if self.kind.fails:
                    job.error = "a duplicate key"
                    self.move(job, "failed")
                case "running" if job.breaks:
                    job.error = "a duplicate key"
                    self.statements += [(job, ddl) for _, _, ddl in job.tables[:-1]]
                    self.move(job, "failed")
                case "running" if job.defers_cutover:
                    self.move(job, "waiting_for_cutover")
                case "running" | "cutting_over" if self.kind.window_s:
                    self.move(job, "revert_window", self.kind.window_s)
                case "stopped":
                    self.move(job, "running", job.left_s)
                case "reverting":
                    self.move(job, "reverted")
                case _:
                    self.move(job, "completed")

    def _look(self, call: RemoteCall) -> Outcome[Sample]:
        job = self.jobs.get(call.remote_id)
        if job is None:
            return Refused(f"no job {call.remote_id} here", "APPLY_NOT_FOUND", "NOT_FOUND")
        if self.kind.fences and job.operation != str(call.name):
            return Refused("it is somebody else's", "OPERATION_MISMATCH", "FAILED_PRECONDITION")
        self._get_on(job)
        done = job.state == "completed"
        tables = tuple(
            TableSample(namespace, name, ddl, word, 100 if done else 10, 1000 if done else 100, 1000)
            for (namespace, name, ddl), word in zip(job.tables, _words(job), strict=True)
        )
        summary = f"{len(tables)} changes, {job.state}"
        return Ok(
            Sample(call.remote_id, State(job.state), job.state, summary, job.error, tables, job.revision)
        )

    def _control(
        self,
        method: str,
        call: RemoteCall,
        act: Callable[[Job], bool | Refused],
        begun_at: float | None = None,
    ) -> Outcome[None]:
        operation = str(call.name)
        self._asked(method, begun_at, remote_id=call.remote_id, operation=operation, fence=call.fence)
        job = self.jobs.get(call.remote_id)
        if job is None:
            return Refused(f"no job {call.remote_id} here", "APPLY_NOT_FOUND", "NOT_FOUND")
        if self.kind.fences and job.operation != operation:
            return Refused("it is somebody else's", "OPERATION_MISMATCH", "FAILED_PRECONDITION")
        if (stale := self._stale(operation, call.fence)) is not None:
            return stale
        self._get_on(job)
        if job.state in OVER:
            return Refused(f"it is {job.state} already", "", "FAILED_PRECONDITION")
        match act(job):
            case Refused() as refused:
                return refused
            case is_duplicate:
                self._done(method.lower(), job, is_duplicate=is_duplicate)
                return Ok(None)

    def _stop(self, job: Job) -> bool | Refused:
        if job.state == "stopped":
            job.due_at = None  # a start that is under way comes to nothing
            return True
        if job.stops_at is not None:
            return True
        if self.kind.stops_s:
            job.stops_at = self.clock.elapsed + self.kind.stops_s
        else:
            self.halt(job)
        return False

    def halt(self, job: Job) -> None:
        """Stopped, with what is left to do."""
        job.left_s = max(0.5, (job.due_at or self.clock.elapsed) - self.clock.elapsed)
        self.move(job, "stopped")

    def _start(self, job: Job) -> bool | Refused:
        if job.stops_at is not None:
            job.stops_at = None
            return False
        if job.state != "stopped" or job.due_at is not None:
            return True
        if self.kind.starts_s:
            job.due_at = self.clock.elapsed + self.kind.starts_s
        else:
            self.move(job, "running", job.left_s)
        return False

    def _cutover(self, job: Job) -> bool | Refused:
        if job.state == "cutting_over":
            return True
        if job.state != "waiting_for_cutover":
            return Refused(f"it is {job.state}, not waiting for cutover", "", "FAILED_PRECONDITION")
        self.move(job, "cutting_over", self.kind.cutover_s)
        return False

    def _revert(self, job: Job) -> bool | Refused:
        if job.state == "reverting":
            return True
        if job.state != "revert_window":
            return Refused(f"it is {job.state}, not in its revert window", "", "FAILED_PRECONDITION")
        self.move(job, "reverting", self.kind.cutover_s)
        return False

    def _skip_revert(self, job: Job) -> bool | Refused:
        if job.state != "revert_window":
            return Refused(f"it is {job.state}, not in its revert window", "", "FAILED_PRECONDITION")
        self.move(job, "completed")
        return False

    def _cancel(self, job: Job) -> bool | Refused:
        self.move(job, "cancelled")
        return False

    def _stale(self, operation: str, fence: int) -> Refused | None:
        if not self.kind.fences:
            return None
        seen = self.fences.get(operation, 0)
        if fence < seen:
            return Refused(f"fence {fence} is older than {seen}", "STALE_DRIVER", "FAILED_PRECONDITION")
        self.fences[operation] = fence
        return None

    # The ledger

    def _asked(
        self,
        method: str,
        begun_at: float | None = None,
        *,
        remote_id: str = "",
        key: str = "",
        operation: str = "",
        fence: int | None = None,
        cursors: tuple[tuple[str, str], ...] = (),
    ) -> None:
        at = self.instant() if begun_at is None else begun_at
        self.calls.append(Asked(at, self.name, method, str(remote_id), str(key), operation, fence, cursors))

    def _done(self, kind: str, job: Job, *, is_duplicate: bool = False) -> None:
        self.effects.append(
            Done(self.instant(), self.name, kind, job.remote_id, job.key, job.operation, is_duplicate)
        )


def _words(job: Job) -> list[str]:
    """What is said of each statement."""
    if job.breaks and job.state == "failed" and job.error:
        return ["completed"] * (len(job.tables) - 1) + ["failed"]
    return [job.state] * len(job.tables)

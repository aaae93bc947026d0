"""The thread that carries one job out: which step is next, when to try again, when to stop.

Everything is decided from the job's rows as they are now; a runner that starts after a crash takes the same path.
"""

import threading
import time
from collections.abc import Callable

import psycopg
import structlog

from tern.engine import attempt, failure, reconcile
from tern.engine import job as books
from tern.engine.ending import leftovers, settle, settle_stopped, tell_failure
from tern.engine.failure import Meaning
from tern.engine.job import FencedOutError, Job, KeptStep, State
from tern.engine.locks import Patience, blockers, in_the_way, listing
from tern.engine.order import next_before_cutover
from tern.engine.recipes.model import Step, StepKind
from tern.engine.sampling import BuildSampler, ValidationSampler
from tern.engine.session import Connection, connect
from tern.engine.tenure import Tenure, end_builders, hold

POLL_SECONDS = 0.25
log = structlog.get_logger(__name__)


class LeaveError(Exception):
    """This process wants to go: the job is left as it is, and any process may resume it."""


class ControlArrivedError(Exception):
    """A control arrived while a step was waiting or running."""


class Runner(threading.Thread):
    """Carries one job out until it is settled, stopped, taken over, or this process leaves."""

    def __init__(self, dsn: str, job: str, num: int, on_end: Callable[[str, bool, str], None]) -> None:
        super().__init__(name=f"tern-{job}", daemon=True)
        self._dsn = dsn
        self._job = job
        self._num = num
        self._on_end = on_end
        self._leaving = threading.Event()
        self._wake = threading.Event()
        self._work: Connection | None = None
        self._patience = Patience()
        self._patience_for: tuple[int, str] | None = None

    def wake(self) -> None:
        """Lets the runner look at its job's row now."""
        self._wake.set()

    def leave(self) -> None:
        """Asks the runner to end soon; what runs is interrupted, the job stays resumable."""
        self._leaving.set()
        self._wake.set()

    def run(self) -> None:
        """Takes the job over and carries it out."""
        broken, words = True, ""
        try:
            with hold(self._dsn, self._job, self._num) as tenure:
                if tenure is not None:
                    self._drive(tenure)
            broken = False
        except (LeaveError, FencedOutError):
            broken = False
        except psycopg.Error as error:
            # The database went away. Whoever sees it first when it is back adopts the job again.
            words = failure.words(error)
        except Exception:
            log.exception("engine.runner.failed", job=self._job)
        finally:
            self._close_work()
            self._on_end(self._job, broken, words)

    def _drive(self, tenure: Tenure) -> None:
        while True:
            job = self._load(tenure)
            if job.state.is_settled:
                return
            try:
                if not self._advance(tenure, job):
                    return
            except ControlArrivedError:
                continue

    def _advance(self, tenure: Tenure, job: Job) -> bool:
        """Does the next thing; False when there is nothing more to do for this runner."""
        control = tenure.control
        kept = books.steps(control, job.id)
        if job.control == "cancel" and job.ending is None:
            with books.fenced(control, job.id, job.epoch):
                control.execute(
                    "UPDATE _tern.job SET ending = 'cancelled', revision = revision + 1 WHERE id = %s",
                    (job.id,),
                )
            return True
        if job.ending is not None:
            self._close_work()
            end_builders(control, job.id)
            todo = leftovers(kept)
            if not todo:
                settle(control, job, State(job.ending))
                return False
            self._try(tenure, job, todo[0], todo[0].step.undo or todo[0].step)
            return True
        if job.control == "stop":
            self._close_work()
            end_builders(control, job.id)
            return not settle_stopped(control, job)
        todo = books.unfinished(kept)
        if not todo:
            settle(control, job, State.COMPLETED)
            return False
        following = self._following(job, kept, todo)
        if following is None:
            if job.state is not State.WAITING_FOR_CUTOVER:
                with books.fenced(control, job.id, job.epoch):
                    books.enter(control, job, State.WAITING_FOR_CUTOVER, "Ready; waits for the cutover.")
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            return True
        wanted = State.CUTTING_OVER if job.defer_cutover and job.cutover_allowed else State.RUNNING
        if job.state is not wanted:
            with books.fenced(control, job.id, job.epoch):
                books.enter(
                    control, job, wanted, "Cutting over." if wanted is State.CUTTING_OVER else "Running."
                )
        self._try(tenure, job, following, following.step)
        return True

    @staticmethod
    def _following(job: Job, kept: list[KeptStep], todo: list[KeptStep]) -> KeptStep | None:
        """The next step; None where all that are left wait for the cutover."""
        if not job.defer_cutover or job.cutover_allowed:
            return todo[0]
        if job.state is State.WAITING_FOR_CUTOVER:
            # Nothing moves by itself any more, and who waits for days looks four times a second.
            return None
        return next_before_cutover(kept)

    def _try(self, tenure: Tenure, job: Job, kept: KeptStep, step: Step) -> None:
        """One attempt at a step, and what follows from its outcome."""
        patience = self._patience_of(kept, step)
        try:
            if step.kind is StepKind.DIRECT:
                self._direct(tenure, job, kept, step, patience)
            elif step.kind is StepKind.VALIDATE:
                self._validate(tenure, job, kept, step)
            else:
                self._concurrently(tenure, job, kept, step)
        except reconcile.TakenError as taken:
            tell_failure(tenure.control, job, kept, str(taken))
        except psycopg.Error as error:
            if tenure.control.closed or tenure.control.broken:
                raise
            self._after_error(tenure, job, kept, step, error, patience)

    def _patience_of(self, kept: KeptStep, step: Step) -> Patience:
        if self._patience_for != (kept.n, step.sql):
            self._patience_for, self._patience = (kept.n, step.sql), Patience()
        return self._patience

    def _direct(self, tenure: Tenure, job: Job, kept: KeptStep, step: Step, patience: Patience) -> None:
        mode = attempt.lock_of(step)
        standing = in_the_way(blockers(tenure.control, step.locks))
        if standing:
            self._wait_for_lock(tenure, job, kept, listing(standing), patience)
            return
        connection = self._connection(tenure, reconcile.WORKER)
        if step is kept.step:
            with books.fenced(tenure.control, job.id, job.epoch):
                books.start_step(tenure.control, job.id, kept)
                books.show(tenure.control, job.id, kept.change, status="running", detail="")
        attempt.run_direct(
            connection, job, kept, step, budget_ms=patience.budget_ms(mode), hold_ms=patience.hold_ms
        )

    def _validate(self, tenure: Tenure, job: Job, kept: KeptStep, step: Step) -> None:
        connection = self._connection(tenure, reconcile.WORKER)
        with books.fenced(tenure.control, job.id, job.epoch):
            books.start_step(tenure.control, job.id, kept)
            books.show(tenure.control, job.id, kept.change, status="validating", detail="reads every row")
        pid, sampler = connection.info.backend_pid, ValidationSampler(tenure.control, job, kept)
        self._watch(tenure, pid, lambda: attempt.run_validate(connection, job, kept, step), sampler.sample)

    def _concurrently(self, tenure: Tenure, job: Job, kept: KeptStep, step: Step) -> None:
        """Builds or drops an index; before and after, the catalogue says where we are."""
        control = tenure.control
        sampler = BuildSampler(control, job, kept)
        self._wait_for_builder(tenure, job, sampler)
        if reconcile.settle_index(control, job, kept, step):
            return
        with books.fenced(control, job.id, job.epoch):
            if step is kept.step:
                books.start_step(control, job.id, kept)
            status = "building_index" if step.kind is StepKind.BUILD_INDEX else "running"
            books.show(control, job.id, kept.change, status=status, detail="")
        connection = self._connection(tenure, reconcile.BUILDER)
        statement = reconcile.next_statement(control, step)
        pid = connection.info.backend_pid
        try:
            self._watch(
                tenure,
                pid,
                lambda: attempt.run_concurrently(connection, job, statement),
                lambda: sampler.sample(pid),
            )
        finally:
            self._close_work()  # it carries the owner's role and no time limit

    def _wait_for_builder(self, tenure: Tenure, job: Job, sampler: BuildSampler) -> None:
        """Waits for the statement of a killed engine that the server still carries out."""
        while building := reconcile.builders(tenure.control, job.id):
            sampler.sample(building[0])
            try:
                self._pause(tenure, POLL_SECONDS)
            except ControlArrivedError:
                for pid in building:
                    reconcile.terminate(tenure.control, pid)
                raise

    def _watch(self, tenure: Tenure, pid: int, run: Callable[[], None], sample: Callable[[], None]) -> None:
        """Runs a long statement while following its progress and the job's controls."""
        statement = attempt.LongStatement(f"{self.name}-statement", run)
        statement.start()
        interrupted: Exception | None = None
        try:
            while not statement.wait(POLL_SECONDS):
                if interrupted is None:
                    try:
                        self._look(tenure)
                        sample()
                    except (ControlArrivedError, LeaveError, FencedOutError) as reason:
                        interrupted = reason
                if interrupted is not None:
                    # Again and again: a cancel that arrives between two statements is lost.
                    reconcile.cancel(tenure.control, pid)
        except BaseException:
            # Without a control connection nobody can end the statement for us; our own can.
            self._abandon(statement)
            raise
        if interrupted is not None:
            statement.join()
            raise interrupted
        statement.result()

    def _abandon(self, statement: attempt.LongStatement) -> None:
        while not statement.wait(POLL_SECONDS):
            work = self._work
            if work is not None and not work.closed:
                try:
                    work.cancel_safe(timeout=2)
                except psycopg.Error:
                    log.warning("engine.runner.cancel_failed", job=self._job)
                    return

    def _after_error(
        self, tenure: Tenure, job: Job, kept: KeptStep, step: Step, error: psycopg.Error, patience: Patience
    ) -> None:
        if self._work is not None and (self._work.closed or self._work.broken):
            self._close_work()
        match failure.meaning(error):
            case Meaning.LOCKED:
                found = blockers(tenure.control, step.locks)
                self._wait_for_lock(
                    tenure, job, kept, listing(found) or "a lock that is gone by now", patience
                )
            case Meaning.DEFINITIVE if step is kept.step:
                tell_failure(tenure.control, job, kept, failure.words(error))
            case _:
                if error.sqlstate == "57014":
                    patience.lengthen_hold()
                words = failure.words(error)
                seconds = patience.pause()
                with books.fenced(tenure.control, job.id, job.epoch):
                    detail = f"tries again in {seconds:.0f} s after: {words}"
                    books.show(tenure.control, job.id, kept.change, status="running", detail=detail)
                    books.tell(tenure.control, job.id, "retry", words, change=kept.change, level="warning")
                self._pause(tenure, seconds)

    def _wait_for_lock(
        self, tenure: Tenure, job: Job, kept: KeptStep, words: str, patience: Patience
    ) -> None:
        seconds = patience.pause()
        with books.fenced(tenure.control, job.id, job.epoch):
            detail = f"attempt {patience.attempts} in {seconds:.1f} s; in the way: {words}"
            books.show(tenure.control, job.id, kept.change, status="waiting_for_lock", detail=detail)
            books.tell(
                tenure.control,
                job.id,
                "waiting_for_lock",
                words,
                change=kept.change,
                attempts=patience.attempts,
            )
        self._pause(tenure, seconds)

    def _pause(self, tenure: Tenure, seconds: float) -> None:
        """Waits, but not beyond the arrival of a control."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._wake.wait(min(left, POLL_SECONDS))
            self._wake.clear()
            self._look(tenure)

    def _look(self, tenure: Tenure) -> None:
        """Raises if this runner should do something else now."""
        job = self._load(tenure)
        if job.control is not None and job.ending is None:
            raise ControlArrivedError

    def _load(self, tenure: Tenure) -> Job:
        if self._leaving.is_set():
            raise LeaveError
        job = books.load(tenure.control, self._job)
        if job is None or job.epoch != tenure.epoch:
            raise FencedOutError(self._job)
        return job

    def _connection(self, tenure: Tenure, role: str) -> Connection:
        """The connection for statements; a builder's is used once."""
        if self._work is None:
            self._work = connect(self._dsn, tenure.job, role, survives_client=role == reconcile.BUILDER)
        return self._work

    def _close_work(self) -> None:
        if self._work is not None:
            self._work.close()
            self._work = None

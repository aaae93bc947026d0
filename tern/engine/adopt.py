"""Finding jobs without a runner and giving them one: after a start, after a crash, after somebody else's crash."""

import threading
import time

import psycopg
import structlog

from tern.engine import failure
from tern.engine import job as books
from tern.engine.contact import Contact, first_connection
from tern.engine.errors import EngineError
from tern.engine.runner import Runner
from tern.engine.schema import LOCK_CLASS
from tern.engine.session import Connection

# A runner that died is replaced after at most this long, by whichever process looks first.
LOOK_SECONDS = 1.0
# While the database is away.
RETRY_SECONDS = 2.0
# Threads of one process; more jobs wait their turn.
MOST_RUNNERS = 32
LEAVE_SECONDS = 5.0
# A job whose runner broke is left alone for a moment, or a bug would become a storm of connections.
REST_SECONDS = 2.0
log = structlog.get_logger(__name__)


class Adopter(threading.Thread):
    """Looks for jobs that nobody runs, and runs them."""

    def __init__(self, dsn: str, name: str, contact: Contact) -> None:
        super().__init__(name=f"{name}-adopter", daemon=True)
        self._dsn = dsn
        self._contact = contact
        self._who = name
        self._wake = threading.Event()
        self._leaving = threading.Event()
        self._guard = threading.Lock()
        self._runners: dict[str, Runner] = {}
        self._resting: dict[str, float] = {}
        self._told: dict[str, str] = {}

    def wake(self, job: str) -> None:
        """A job's row has changed: its runner, or else whoever adopts it, shall look now."""
        with self._guard:
            runner = self._runners.get(job)
        if runner is not None:
            runner.wake()
        self._wake.set()

    def leave(self) -> None:
        """Ends all runners; their jobs stay resumable."""
        self._leaving.set()
        self._wake.set()
        self.join(LEAVE_SECONDS)
        with self._guard:
            running = list(self._runners.values())
        for runner in running:
            runner.leave()
        deadline = time.monotonic() + LEAVE_SECONDS
        for runner in running:
            runner.join(max(deadline - time.monotonic(), 0.0))

    def run(self) -> None:
        """Looks again and again, also when the database comes and goes."""
        while not self._leaving.is_set():
            try:
                with first_connection(self._dsn, self._who, "adopt", self._contact) as connection:
                    with self._guard:
                        self._told.clear()
                    self._look_on(connection)
            except EngineError:
                # It is told already, once.
                pass
            except psycopg.Error as error:
                self._contact.lost(failure.words(error))
            except Exception:
                log.exception("engine.adopt.failed")
            self._leaving.wait(RETRY_SECONDS)

    def _look_on(self, connection: Connection) -> None:
        while not self._leaving.is_set():
            self._wake.clear()
            with self._guard:
                room = MOST_RUNNERS - len(self._runners)
            for found in books.adoptable(connection, LOCK_CLASS, limit=room) if room else []:
                self._begin(found["id"], found["num"])
            self._wake.wait(LOOK_SECONDS)

    def _begin(self, job: str, num: int) -> None:
        with self._guard:
            if job in self._runners or self._leaving.is_set():
                return
            if time.monotonic() < self._resting.get(job, 0.0):
                return
            self._resting.pop(job, None)
            runner = self._runners[job] = Runner(self._dsn, job, num, self._ended)
            runner.start()

    def _ended(self, job: str, broken: bool, words: str) -> None:  # noqa: FBT001 - a callback
        """`words`: what the database said to a runner that it kept from its work; the same is told once."""
        with self._guard:
            self._runners.pop(job, None)
            if broken:
                self._resting[job] = time.monotonic() + REST_SECONDS
            is_new = bool(words) and words != self._told.get(job)
            self._told.pop(job, None)
            if words:
                self._told[job] = words
        if is_new:
            log.warning("engine.runner.lost", job=job, error=words)
        # It may have ended while somebody asked for more (a start right after a stop).
        self._wake.set()

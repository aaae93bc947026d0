"""Statements that go to the server in one message and come back in one: psycopg's pipeline, with fewer journeys.

psycopg's own sends each statement by itself and, at the end, waits once more for an answer that it may have already.
Both are right where results are wanted as they come; here they are wanted at the end, and each journey costs a wake-up
on both sides: as much as most statements here do.
"""

from typing import Any

import psycopg
from psycopg import generators
from psycopg.abc import PQGen


class Together(psycopg.Pipeline):
    """A pipeline that sends when it is waited for."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection)
        self._is_synced = True

    def _communicate_gen(self) -> PQGen[None]:
        # psycopg calls this after each statement; the sync that ends the block is what everything waits for.
        self._is_synced = False
        yield from ()

    def _sync_gen(self) -> PQGen[None]:
        self._enqueue_sync()
        self._is_synced = True
        yield from self._fetch_gen(flush=False)

    def _exit_gen(self) -> PQGen[None]:
        # After a COMMIT there is nothing to wait for. After an error there is, answers or none: until a sync the
        # server hears nothing any more, not a ROLLBACK either.
        if not self._is_synced:
            yield from self._sync_gen()

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        while self.command_queue:
            self.command_queue.popleft()()
        yield from generators.send(self.pgconn)
        yield from super()._fetch_gen(flush=flush)


def begin_together(connection: psycopg.Connection[Any]) -> None:
    """The next `connection.pipeline()` is of this kind."""
    connection._pipeline = Together(connection)  # noqa: SLF001 - there is no other way to bring one's own

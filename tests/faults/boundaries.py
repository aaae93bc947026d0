"""Where a worker can die: each commit, each call to an engine, each bell; on request each database round trip.

Nothing of this is in the product. `watch(boundaries)` puts a spy around the functions that every worker passes:
psycopg's commit and the steps that commit by themselves (or psycopg's `wait`, which every round trip passes),
GrpcTransport.call, and the ringing of a bell.

Between the effect of one boundary and the next boundary a worker touches nothing outside of itself, so dying just
before boundary k+1 leaves the world as dying just after boundary k does. `before` and `after` of all K are run all
the same where time allows.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tern.store.database import Database
from tern.wire.channels import GrpcTransport
from tern.wire.transport import CallFailed
from tests.world import QueuedBells

DEAD = 77
"""The exit status of a worker that died where it was told to."""


@dataclass
class Boundaries:
    """Counts what is crossed and acts at number `at`, before or after the effect.

    mode: `die` is os._exit; `lose` breaks the connection there, so that the answer gets lost and the worker lives.
    """

    at: int | None = None
    after: bool = True
    mode: str = "die"
    every_round_trip: bool = False
    crossed: list[str] = field(default_factory=list)
    quiet: int = 0

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """What the harness itself does is no boundary."""
        self.quiet += 1
        try:
            yield
        finally:
            self.quiet -= 1

    def around(self, name: str, act: Callable[[], Any], broken: Callable[[], Exception] | None) -> Any:
        """Crosses one boundary."""
        with self.crossing(name, broken):
            return act()

    @contextmanager
    def crossing(self, name: str, broken: Callable[[], Exception] | None) -> Iterator[None]:
        """One boundary, whose effect is in the block."""
        if self.quiet:
            yield
            return
        is_it = self.at == len(self.crossed)
        self.crossed.append(name)
        if is_it and not self.after:
            self._end(broken)
        yield
        if is_it and self.after:
            self._end(broken)

    def _end(self, broken: Callable[[], Exception] | None) -> None:
        if self.mode == "die":
            os._exit(DEAD)
        if broken is not None:
            raise broken()


@contextmanager
def watch(boundaries: Boundaries) -> Iterator[None]:
    """Spies in place for a block."""
    connection: Any = psycopg.Connection
    database: Any = Database
    transport: Any = GrpcTransport
    commit, wait, single, call = connection.commit, connection.wait, database.single, transport.call

    def no_answer() -> Exception:
        return psycopg.OperationalError("the connection is lost")

    def watched_commit(self: Any) -> Any:
        def broken() -> Exception:
            self.close()
            return no_answer()

        return boundaries.around("commit", lambda: commit(self), broken)

    @contextmanager
    def watched_single(self: Any) -> Iterator[Any]:
        with boundaries.crossing("commit", no_answer), single(self) as taken:
            yield taken

    def watched_wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        def broken() -> Exception:
            self.pgconn.finish()
            return no_answer()

        return boundaries.around("round trip", lambda: wait(self, *args, **kwargs), broken)

    def watched_call(self: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
        def broken() -> Exception:
            return CallFailed("UNAVAILABLE", "the connection was reset")

        return boundaries.around(method.name, lambda: call(self, method, *args, **kwargs), broken)

    if boundaries.every_round_trip:
        connection.wait = watched_wait
    else:
        connection.commit, database.single = watched_commit, watched_single
    transport.call = watched_call
    try:
        yield
    finally:
        connection.commit, connection.wait, database.single, transport.call = commit, wait, single, call


class WatchedBells(QueuedBells):
    """Bells whose ringing is a boundary. `deaf`: the broker takes every message and delivers none."""

    def __init__(self, boundaries: Boundaries, *, deaf: bool = False) -> None:
        super().__init__()
        self._boundaries = boundaries
        self.deaf = deaf

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"dispatch", "control", "progress", "poll", "advance"}:
            return found

        def ring(given: Any) -> None:
            def publish() -> None:
                if not self.deaf:
                    found(given)

            # Bells never raise: a broker that fails is a bell that nobody hears.
            self._boundaries.around(f"bell {name}", publish, None)

        return ring

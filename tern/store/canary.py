"""Durable steps of canaries: one row a queue, however often somebody asks."""

from collections.abc import Mapping
from dataclasses import dataclass

from tern.store.session import transaction
from tern.store.sql import text
from tern.store.step import Steps


@dataclass(frozen=True, slots=True)
class Answer:
    """The last worker that answered from a queue, how long ago, and by how much its clock was ahead of the database's,
    in seconds.
    """

    token: str
    answered_by: str
    age_s: float
    clock_ahead_s: float | None = None


class CanarySteps(Steps):
    """The canaries of ports.SweepStore on PostgreSQL."""

    def answer_canary(self, queue: str, token: str, who: str, clock_s: float | None = None) -> None:
        """See ports.SweepStore."""
        with transaction(self.engine) as tx:
            tx.execute(
                text(
                    "INSERT INTO worker_canaries (queue, token, answered_by, clock_ahead_s)"
                    " VALUES (:queue, :token, :who, CAST(:clock_s AS float) - extract(epoch FROM tern_clock())::float)"
                    " ON CONFLICT (queue) DO UPDATE SET token = excluded.token, answered_by = excluded.answered_by,"
                    " answered_at = excluded.answered_at, clock_ahead_s = excluded.clock_ahead_s"
                ),
                {"queue": queue, "token": token, "who": who, "clock_s": clock_s},
            )

    def canaries(self) -> Mapping[str, Answer]:
        """The last answer from each queue."""
        with transaction(self.engine) as tx:
            rows = tx.execute(
                text(
                    "SELECT queue, token, answered_by, clock_ahead_s,"
                    " extract(epoch FROM tern_clock() - answered_at)::float AS age_s FROM worker_canaries"
                )
            )
            return {
                row.queue: Answer(row.token, row.answered_by, row.age_s, row.clock_ahead_s) for row in rows
            }

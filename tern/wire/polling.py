"""Many looks at one engine: in batches where it has them, else one by one with a few at a time.

Bounded in time as a whole, so that one engine that swallows packets can't hold a worker for as many deadlines as
it has operations.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import groupby

from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.samples import Sample
from tern.domain.silence import CALLS_AT_ONCE
from tern.ports import Cursor, Looked
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.outcomes import About
from tern.wire.translation import read_entry
from tern.wire.transport import Answer

CURSORS_MAX = 500
REMEMBERED_S = 3600.0

AskBatch = Callable[[str, Sequence[Cursor], float], Outcome[Answer[engine_v1.BatchProgressResponse]]]
AskOne = Callable[[RemoteCall, float], Outcome[Sample]]


class Polling:
    """How one engine is polled, and for an hour the memory that it has no batches."""

    def __init__(
        self,
        deployment: str,
        ask_batch: AskBatch,
        ask_one: AskOne,
        deadline_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment = deployment
        self._ask_batch = ask_batch
        self._ask_one = ask_one
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._single_until = float("-inf")

    def look(self, cursors: Sequence[Cursor]) -> tuple[Looked, ...]:
        """An answer for every cursor but the unchanged ones."""
        ends_at = self._monotonic() + 2 * self._deadline_s
        looked: list[Looked] = []
        for environment, group in groupby(
            sorted(cursors, key=lambda cursor: cursor.call.environment),
            lambda cursor: cursor.call.environment,
        ):
            for chunk in _chunks(group):
                looked.extend(self._look_at(environment, chunk, ends_at))
        return tuple(looked)

    def remember(self, *, offers_batches: bool) -> None:
        """What a call or a probe just found out."""
        with self._lock:
            self._single_until = float("-inf") if offers_batches else self._monotonic() + REMEMBERED_S

    def _look_at(self, environment: str, chunk: Sequence[Cursor], ends_at: float) -> list[Looked]:
        with self._lock:
            one_by_one = self._monotonic() < self._single_until
        if one_by_one:
            return self._one_by_one(chunk, ends_at)
        time_left = min(self._deadline_s, ends_at - self._monotonic())
        if time_left <= 0:
            return [Looked(cursor, self._too_late(cursor.call)) for cursor in chunk]
        match self._ask_batch(environment, chunk, time_left):
            case Ok(answer):
                return self._matched(chunk, answer)
            case Refused(code="UNIMPLEMENTED"):
                self.remember(offers_batches=False)
                return self._one_by_one(chunk, ends_at)
            case Refused(code="INVALID_ARGUMENT" | "FAILED_PRECONDITION"):
                # One cursor that the engine can't bear must not keep the others from being seen (CL4). Each is asked
                # about in a batch of its own first: the public contract tells less than a batch does.
                return self._one_by_one(chunk, ends_at, batches=len(chunk) > 1)
            case Refused() | Unknown() as failed:
                return [Looked(cursor, failed) for cursor in chunk]

    def _matched(
        self, chunk: Sequence[Cursor], answer: Answer[engine_v1.BatchProgressResponse]
    ) -> list[Looked]:
        """By id: an entry that answers no cursor is a stranger's, a second one for the same cursor a repetition.

        No entry means unchanged, except for a cursor at 0, which is always to be answered: taken for a sample of
        now, the silence would hide that nothing was seen.
        """
        asked = {str(cursor.call.remote_id): cursor for cursor in chunk}
        looked: list[Looked] = []
        for entry in answer.message.entries:
            cursor = asked.pop(entry.apply_id, None)
            if cursor is not None:
                about = self._about(cursor.call)
                looked.append(Looked(cursor, read_entry(about, cursor, entry, answer.identity)))
        words = "the engine left it out of its answer"
        looked.extend(
            Looked(cursor, self._about(cursor.call).unknown("LEFT_OUT", words, "OK"))
            for cursor in asked.values()
            if cursor.revision == 0
        )
        return looked

    def _one_by_one(self, chunk: Sequence[Cursor], ends_at: float, *, batches: bool = False) -> list[Looked]:
        def look(cursor: Cursor) -> tuple[Looked, ...]:
            if batches:
                return tuple(self._look_at(cursor.call.environment, (cursor,), ends_at))
            time_left = min(self._deadline_s, ends_at - self._monotonic())
            if time_left <= 0:
                return (Looked(cursor, self._too_late(cursor.call)),)
            return (Looked(cursor, self._ask_one(cursor.call, time_left)),)

        if len(chunk) == 1:
            return list(look(chunk[0]))
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="tern-look") as threads:
            # In the caller's context: who waits for an answer here is still the caller.
            asked = [threads.submit(copy_context().run, look, cursor) for cursor in chunk]
            return [looked for each in asked for looked in each.result()]

    def _about(self, call: RemoteCall) -> About:
        return About("Progress", self._deployment, call.name, call.remote_id)

    def _too_late(self, call: RemoteCall) -> Unknown:
        words = "the engine was too slow to be asked about all of its work in one poll"
        return self._about(call).unknown("POLL_TOO_SLOW", words, "DEADLINE_EXCEEDED")


def _chunks(cursors: Iterable[Cursor]) -> Iterable[Sequence[Cursor]]:
    """At most 500 at a time and no id twice in one request, since answers are matched by id."""
    waiting = list(cursors)
    while waiting:
        chunk: dict[str, Cursor] = {}
        later: list[Cursor] = []
        for cursor in waiting:
            if len(chunk) < CURSORS_MAX and cursor.call.remote_id not in chunk:
                chunk[cursor.call.remote_id] = cursor
            else:
                later.append(cursor)
        yield tuple(chunk.values())
        waiting = later

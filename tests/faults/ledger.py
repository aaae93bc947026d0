"""What an engine was asked and what it did, append-only and out of Tern's reach."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in, before anything was decided about it."""

    at: float
    method: str
    metadata: dict[str, str]
    request: Any

    @property
    def remote_id(self) -> str:
        """The id that the request carries; empty when it has none."""
        return str(getattr(self.request, "apply_id", ""))

    @property
    def key(self) -> str:
        """The idempotency key that the request carries."""
        return str(getattr(self.request, "idempotency_key", ""))

    @property
    def operation(self) -> str:
        """The tern-operation metadata."""
        return self.metadata.get("tern-operation", "")

    @property
    def fence(self) -> int | None:
        """The tern-fence metadata."""
        fence = self.metadata.get("tern-fence")
        return None if fence is None else int(fence)


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that the engine did. A duplicate changed nothing: it is what a key or a settled state absorbed."""

    at: float
    kind: str
    remote_id: str
    key: str
    operation: str
    is_duplicate: bool
    environment: str = ""
    fingerprint: str = ""
    defers_cutover: bool = False
    tables: tuple[tuple[str, str, str], ...] = ()


class Ledger:
    """Calls and effects in the order in which they came; also as JSON lines in a file that survives kill -9."""

    def __init__(self, path: Path | None = None, *, remembers: bool = True) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._effects: list[Effect] = []
        self._remembers = remembers
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add_call(self, method: str, metadata: dict[str, str], request: Message) -> None:
        """Notes a request."""
        call = Call(time.time(), method, metadata, request)
        with self._lock:
            if self._remembers:
                self._calls.append(call)
        if self._file is not None:
            self._write(
                "call",
                at=call.at,
                method=method,
                remote_id=call.remote_id,
                key=call.key,
                operation=call.operation,
                fence=call.fence,
                cursors=[(c.apply_id, c.operation) for c in getattr(request, "cursors", ())],
            )

    def add_effect(self, effect: Effect) -> None:
        """Notes what was done."""
        with self._lock:
            if self._remembers:
                self._effects.append(effect)
        if self._file is not None:
            self._write("effect", **asdict(effect))

    def calls(self, method: str | None = None) -> list[Call]:
        """All calls so far, or those of one method."""
        with self._lock:
            return [call for call in self._calls if method in {None, call.method}]

    def effects(self, kind: str | None = None) -> list[Effect]:
        """All effects so far, duplicates included, or those of one kind."""
        with self._lock:
            return [effect for effect in self._effects if kind in {None, effect.kind}]

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, what: str, **fields: Any) -> None:
        line = json.dumps({"what": what, **fields}, separators=(",", ":")) + "\n"
        if self._file is not None:
            os.write(
                self._file, line.encode()
            )  # one write with O_APPEND: a line is there whole or not at all


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a ledger file, of a process that may still be writing it."""
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)

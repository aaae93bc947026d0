"""The bearer tokens of an engine's callers, one a line of a file that is read again when it changes.

So a token is renewed without a moment in which nobody is let in: the new one is added, callers change over, the old
one goes.
"""

import threading
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


class FileTokens:
    """The tokens that count now; none while the file can't be read. Raises OSError and ValueError for one that it can't
    begin with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = self._stamp_now()
        self._known = self._read()

    def __call__(self) -> tuple[str, ...]:
        """Looked at with each call: a token that is withdrawn is so at once."""
        with self._lock:
            try:
                stamp = self._stamp_now()
                if stamp != self._stamp:
                    self._known, self._stamp = self._read(), stamp
            except (OSError, ValueError) as error:
                if self._known:
                    word = getattr(error, "strerror", None) or str(error)
                    log.warning("engine.tokens.unreadable", file=str(self._path), error=word)
                self._known, self._stamp = (), (0, 0, 0)
            return self._known

    def _stamp_now(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[str, ...]:
        try:
            found = tuple(line.strip() for line in self._path.read_text().splitlines() if line.strip())
        except UnicodeDecodeError:
            message = "not text"
            raise ValueError(message) from None
        if not found:
            message = "it is empty"
            raise ValueError(message)
        return found

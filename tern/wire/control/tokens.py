"""Who calls, and what they may do: bearer tokens in two capabilities, named by reference and compared in constant time.

What a reference holds is one line a token: `CALLER CAPABILITY TOKEN`, where the capability is `read` or `act` and the
token itself or `sha256:` and its hash. Blank lines and lines that begin with # are skipped. The caller's name stands in
the record, so nobody who calls can choose it.
"""

import hashlib
import hmac
import os
import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tern.domain.errors import Misconfigured, NotAllowed

SHORTEST_TOKEN = 20
"""Of a token in plain text; a shorter one can be guessed."""
UNAUTHENTICATED = "UNAUTHENTICATED"

_CALLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._:+/-]{0,99}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_TOKEN = re.compile(r"[!-~]+")
_SCHEME = "bearer "


class Capability(StrEnum):
    """What a caller may do."""

    READ = "read"
    ACT = "act"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    name: str
    capability: Capability

    def check(self, needed: Capability) -> None:
        """Raises NotAllowed."""
        if needed is Capability.ACT and self.capability is not Capability.ACT:
            what = f"{self.name} may read and not act"
            raise NotAllowed(what, next_step="Use a token with the capability act.")


class Gate(Protocol):
    """Tells who calls."""

    def caller(self, authorization: str) -> Caller:
        """From the header of a call; raises NotAllowed, and Misconfigured where nobody can be told from another."""


@dataclass(frozen=True, slots=True)
class OpenGate:
    """For a listener that only this machine reaches: everybody there is the same caller and may act."""

    name: str

    def caller(self, authorization: str) -> Caller:  # noqa: ARG002 - nobody is asked for anything
        """The one name."""
        return Caller(self.name, Capability.ACT)


class TokenGate:
    """Tokens from `env:NAME` or `file:/path`. A file is read again when it changes: a token is withdrawn at once."""

    def __init__(self, reference: str) -> None:
        kind, _, self._where = reference.partition(":")
        if not (kind == "env" and self._where) and not (kind == "file" and self._where.startswith("/")):
            what = "the tokens are no reference"
            raise Misconfigured(
                what, why=("it is written env:NAME or file:/path",), reason="TOKENS_UNREADABLE"
            )
        self._is_file = kind == "file"
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._known: tuple[tuple[bytes, Caller], ...] = ()
        self._load()

    def caller(self, authorization: str) -> Caller:
        """See Gate."""
        given = (
            authorization[len(_SCHEME) :].strip() if authorization[: len(_SCHEME)].lower() == _SCHEME else ""
        )
        digest = hashlib.sha256(given.encode(errors="replace")).digest()
        found: Caller | None = None
        # Every token is compared, so that the time tells neither whether nor where one fits.
        for known, caller in self._load():
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None or not given:
            what = "the bearer token is missing or not known here"
            step = "Send the metadata `authorization: Bearer TOKEN`."
            raise NotAllowed(what, next_step=step, reason=UNAUTHENTICATED)
        return found

    def _load(self) -> tuple[tuple[bytes, Caller], ...]:
        """The tokens as they are now; raises Misconfigured."""
        with self._lock:
            try:
                stamp = self._stamp_now()
                if stamp != self._stamp:
                    text = Path(self._where).read_text() if self._is_file else os.environ.get(self._where, "")
                    self._known, self._stamp = _parse(text), stamp
            except (OSError, ValueError) as error:
                self._stamp = ()
                what = "the tokens can't be read, so nobody is let in"
                word = error.strerror if isinstance(error, OSError) and error.strerror else "they are no text"
                raise Misconfigured(what, why=(word,), reason="TOKENS_UNREADABLE") from None
            return self._known

    def _stamp_now(self) -> tuple[int, ...]:
        if not self._is_file:
            return (1,)
        found = Path(self._where).stat()
        return (found.st_mtime_ns, found.st_size, found.st_ino)


def _parse(text: str) -> tuple[tuple[bytes, Caller], ...]:
    """Raises Misconfigured; a token is never quoted."""
    found: dict[bytes, Caller] = {}
    why: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        wrong = _complaint(words)
        if wrong:
            why.append(f"line {number}: {wrong}")
            continue
        name, capability, token = words
        digest = (
            bytes.fromhex(token.removeprefix("sha256:"))
            if _HASH.fullmatch(token)
            else hashlib.sha256(token.encode()).digest()
        )
        if digest in found:
            why.append(f"line {number}: the token of {found[digest].name} stands here a second time")
        found[digest] = Caller(name, Capability(capability))
    if not found and not why:
        why.append("there is no token")
    if why:
        what = "the tokens can't be used"
        raise Misconfigured(
            what,
            why=tuple(why),
            next_step="Write CALLER read TOKEN, or CALLER act TOKEN.",
            reason="TOKENS_UNREADABLE",
        )
    return tuple(found.items())


def _complaint(words: list[str]) -> str:
    if len(words) != 3:  # noqa: PLR2004 - caller, capability, token
        return "it is not CALLER CAPABILITY TOKEN"
    name, capability, token = words
    if _CALLER.fullmatch(name) is None:
        return "its caller is no name"
    if capability not in set(Capability):
        return "its capability is neither read nor act"
    if token.startswith("sha256:"):
        return "" if _HASH.fullmatch(token) else "its hash is not 64 hexadecimal digits"
    if _TOKEN.fullmatch(token) is None:
        return "its token holds something other than visible ASCII characters"
    return "" if len(token) >= SHORTEST_TOKEN else f"its token is shorter than {SHORTEST_TOKEN} characters"

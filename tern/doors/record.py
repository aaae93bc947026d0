"""What an apply's record tells, as values: entries of the audit, the apply as it was, and whether the record holds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tern.domain.chain import Finding
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.states import ApplyState, State


@dataclass(frozen=True, slots=True)
class Fate:
    """What came of a wish on one operation. after_s: seconds from the wish to its end, None while it is open."""

    deployment: str
    state: str
    attempts: int
    engine_words: str
    after_s: float | None

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "deployment": self.deployment,
            "state": self.state,
            "attempts": self.attempts,
            "engine_words": self.engine_words or None,
            "after_s": None if self.after_s is None else round(self.after_s, 3),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """Something asked for, with what came of it, or something that happened.

    kind is `request` or `event`; entry_id is unique within its kind. what: the verb, or the event's name. apply_id is
    the public one.
    outcomes: the answer that a request was given on each deployment.
    """

    kind: str
    entry_id: int
    at: datetime
    deployment: str
    what: str
    who: str
    why: str
    before: str
    after: str
    hash: str
    detail: Mapping[str, object]
    outcomes: tuple[Mapping[str, object], ...] = ()
    fates: tuple[Fate, ...] = ()
    apply_id: str = ""

    def as_json(self) -> dict[str, object]:
        """For `--json` and `--jsonl`."""
        return {
            "kind": self.kind,
            f"{self.kind}_id": self.entry_id,
            "at": self.at.isoformat(),
            "apply_id": self.apply_id,
            "deployment": self.deployment or None,
            "what": self.what,
            "who": self.who,
            "why": self.why or None,
            "before": self.before or None,
            "after": self.after or None,
            "detail": dict(self.detail),
            "outcomes": [dict(line) for line in self.outcomes],
            "came_of_it": [fate.as_json() for fate in self.fates],
            "hash": self.hash,
        }


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification counted and found. findings: chain (a deployment's name, or "" for the apply) and fault."""

    apply_id: ApplyId
    chains: int
    events: int
    requests: int
    findings: tuple[tuple[str, Finding], ...]
    seal: str
    """One hash over the ends of all chains: kept elsewhere, it shows that nobody rewrote the whole record."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Several records that were looked at again, the oldest apply first."""

    records: tuple[Verified, ...]

    @property
    def broken(self) -> tuple[Verified, ...]:
        """Those that are not as they were written."""
        return tuple(found for found in self.records if found.findings)

    @property
    def events(self) -> int:
        """How many events they hold."""
        return sum(found.events for found in self.records)

    @property
    def seal(self) -> str:
        """One hash over all of their seals."""
        told = "".join(f"{found.apply_id}:{found.seal}\n" for found in self.records)
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PastOperation:
    """One operation as its events tell that it was. since: of that state; attempt: claims for dispatch until then."""

    deployment: str
    position: int
    state: State
    since: datetime | None
    remote_id: RemoteId | None
    attempt: int
    who: str
    why: str


@dataclass(frozen=True, slots=True)
class PastWish:
    """A wish that was open then, on so many operations."""

    request_id: int
    verb: str
    caller: str
    reason: str
    asked_at: datetime
    operations: int


@dataclass(frozen=True, slots=True)
class PastApply:
    """An apply as it was at a moment, in rollout order."""

    apply_id: ApplyId
    environment: str
    database: str
    at: datetime
    state: ApplyState
    created_at: datetime
    caller: str
    reason: str
    operations: tuple[PastOperation, ...]
    wishes: tuple[PastWish, ...]

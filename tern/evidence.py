"""The part of ports.Store about what an answer proves: ids that can't be stored, dispatches without an answer, what is
found at an engine and what a person says, and which engine is which.
"""

from collections.abc import Mapping
from typing import Protocol

from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Capabilities, Claim, OperationScope
from tern.domain.samples import Sample
from tern.domain.statement import StatementAnswer
from tern.domain.work import Fenced, Kept, KeyLook, NotClaimed, Question, Resolved, Sighting


class EvidenceStore(Protocol):
    """Durable steps of evidence."""

    def keep_id(self, claim: Claim, scope: OperationScope, remote_id: RemoteId) -> Kept:
        """An id that could not be stored: what it stands for may act, so it is written down with where it was sent."""

    def adopt_kept(self, call_id: int, asked_at: str) -> Fenced:
        """The engine at that address knows the kept id: it is the operation's, unless that has another by now, was sent
        again, or is called somewhere else.
        """

    def begin_key_look(self, operation_id: int, name: ScopeName) -> KeyLook | NotClaimed:
        """What the engine is asked about a dispatch without an answer; no claim. Raises ScopeRefused."""

    def record_key_look(self, look: KeyLook, *, again: bool, is_heard: bool) -> None:
        """Somebody looked: the next look is a second later, or much later where only a person decides, or there is
        none. is_heard: whether anything was heard of the engine.
        """

    def record_no_answer_by_key(self, look: KeyLook, shown: str) -> Fenced:
        """The answer about its key came from another engine than the one that was sent it, and what was declared of
        that one does not hold for this: `shown` says what was seen. LOST where somebody works on the operation now.
        """

    def record_probes(self, found: Mapping[str, Capabilities | None]) -> None:
        """What was found at each of these deployments; None where nobody answered: what was found there before stays,
        and is old. Nobody's declaration changes.
        """

    def unite_engines(self, one: int, other: int) -> None:
        """Two numbers are one engine, says a proof: the younger's rows get the older number. Where both have an id, it
        keeps its number, and of its two operations only a person can tell whose it is.
        """

    def declare(self, name: str, *, deduplicates: bool) -> None:
        """What a person says of its engine; raises NotFound."""

    def resolve_uncertain(
        self,
        name: ScopeName,
        found: Resolved,
        remote_id: RemoteId | None,
        caller: str,
        reason: str,
        *,
        taken_from: ScopeName | None = None,
        dry_run: bool = False,
        sighting: Sighting | None = None,
    ) -> None:
        """A person's answer; raises Refused when the operation is not uncertain, somebody is just calling for it, or
        the answer does not fit. taken_from: whose the id was said to be until now. With dry_run nothing is written. A
        remote id is stored only with a sighting: what the engine just said of it, which is judged like any look, under
        the fence that the operation still has.
        """

    def settle_statements(self, answer: StatementAnswer) -> None:
        """What a person says of single statements, all of it or nothing; raises NotFound, Refused where one of them is
        known, or its operation is not over.
        """

    def question(self, name: ScopeName, remote_id: RemoteId, taken_from: ScopeName | None = None) -> Question:
        """Whom to ask about an id that a person named for an uncertain operation; raises NotFound, Refused where the
        answer would not fit whatever the engine says.
        """

    def refuting(self, claim: Claim, sample: Sample) -> str:
        """Why a look that was made before a call is not about the operation's own work; empty where it may be."""

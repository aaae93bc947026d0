"""The part of ports.Store about engines that are gone: what a person says of them, and what was sent and may still act
although no operation follows it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.outcome import Outcome
from tern.domain.outstanding import Found, Outstanding, OutstandingLook
from tern.domain.samples import Sample
from tern.domain.work import Fenced, NotClaimed, Resolved


class OutstandingStore(Protocol):
    """Durable steps about what is outstanding."""

    def give_up(
        self, name: ScopeName, found: Resolved, caller: str, reason: str, *, dry_run: bool = False
    ) -> None:
        """A person says that its engine is gone, and what to take the operation for. What was sent becomes outstanding,
        open wishes end. Raises Refused where the engine was heard, or not asked long enough; NotFound.
        """

    def begin_outstanding_look(self, call_id: int) -> OutstandingLook | NotClaimed:
        """What is to be asked about one line that is due, and where; nobody else looks meanwhile."""

    def outstanding_here(self, call_id: int, remote_id: RemoteId | None = None) -> OutstandingLook | None:
        """What is to be asked about a line at the address that its deployment has by now; None where it is asked there
        anyway, where its operation follows it, or where its id belongs to another operation. remote_id: the id that its
        key has there.
        """

    def end_here(self, call_id: int, remote_id: RemoteId, caller: str, reason: str) -> OutstandingLook | None:
        """A person says that the job of this id at the deployment's address is that of the line: it is to be ended
        there. None as above.
        """

    def record_outstanding(self, call_id: int, found: Found, asked_at: str) -> tuple[ApplyId, ...]:
        """What a look at that address found: settled, at work, or nothing new; nothing, where the line is asked about
        elsewhere by now. Returns the applies that may go on by it.
        """

    def refuting_outstanding(self, call_id: int, outcome: Outcome[Sample]) -> tuple[str, ...]:
        """Why a look at a job is about other work, or another engine's; it is judged like any look. Empty for ours."""

    def record_outstanding_call(self, call_id: int, words: str) -> None:
        """A cancel of the job was sent; what its engine said, '' where it took it. Only a look acknowledges it."""

    def adopt_kept(self, call_id: int, asked_at: str) -> Fenced:
        """The engine at that address knows the kept id: it is the operation's (tern.evidence)."""

    def outstanding_at(self, deployment: str) -> tuple[Outstanding, ...]:
        """What is not settled at the target of a deployment, under its own name."""

    def outstanding_before(self, deployments: Sequence[str]) -> Mapping[str, Outstanding]:
        """Of these, those at whose targets something is outstanding, under whatever name, and the first of it: nothing
        is sent there before it is settled.
        """

    def make_outstanding_due(self, deployment: str) -> None:
        """Somebody wants to know now: it is looked at whatever pause it has."""

    def settle_by_word(
        self, deployment: str, call_ids: Sequence[int], caller: str, reason: str
    ) -> tuple[ApplyId, ...]:
        """A person's second word about these lines, where they are as they were. Raises Refused where one is at work.
        Returns the applies that may go on by it.
        """

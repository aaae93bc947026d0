"""What Tern can be asked, whoever asks and wherever it runs: the protocol behind every way in.

Two keep it: desk.py in this process, wire/control/client.py over gRPC. The command line, Python services, messages
and ControlService all ask one of them, so that validation, idempotency and reasons are the same everywhere.
"""

from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from typing import Protocol

from tern.domain.identity import ApplyId, ScopeName
from tern.domain.model import Plan
from tern.domain.statement import StatementAnswer
from tern.domain.states import ApplyState
from tern.domain.subject import Subject
from tern.doors.answers import Apply, Event, Explanation, KeyFate, Progress, Receipt, Summary
from tern.doors.record import Verified
from tern.doors.request import EnqueueRequest
from tern.doors.rest import RestShown
from tern.ports import Answered, Asked, Enqueued, NewRest


class Door(Protocol):
    """Raises TernError and its kinds for whatever is refused or does not answer, and nothing else on purpose."""

    def enqueue(self, request: EnqueueRequest) -> Enqueued:
        """Takes a rollout in: the one that the same key made before, or a new one."""

    def enqueued(self, key: str) -> KeyFate:
        """What became of a key."""

    def ask(self, asked: Asked) -> Receipt:
        """Takes a wish in: one outcome per operation. Accepted is not done."""

    def resolve(self, answered: Answered) -> Receipt:
        """Says what became of uncertain operations: one outcome for each."""

    def settle_statements(self, answer: StatementAnswer) -> Receipt:
        """Says whether single statements of one operation are in, of which nobody could know: all of it or nothing."""

    def rest(self, new: NewRest) -> RestShown:
        """What is left of an apply over all that carries it on, in groups with a digest each; writes nothing."""

    def carry_on(self, new: NewRest) -> Enqueued:
        """The group that the digest names, as a new apply, or the one that the same key made before."""

    def get(self, apply_id: ApplyId) -> Apply:
        """One apply with all of its operations."""

    def applies(
        self,
        *,
        environment: str = "",
        states: Sequence[ApplyState] = (),
        limit: int = 50,
        before: ApplyId | None = None,
    ) -> tuple[Summary, ...]:
        """The newest applies that are older than `before`, newest first. No states means all."""

    def watch(
        self,
        apply_id: ApplyId,
        *,
        revision: int = 0,
        until_person: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Apply, None, None]:
        """Every change that can be seen, until it is settled; at once, or once the revision is another one.

        until_person: ends as well where nothing moves without a person. is_wanted is asked from time to time.
        """

    def explain(self, subject: Subject) -> Explanation:
        """All reasons why an apply, or one operation, does not move."""

    def events(self, subject: Subject, *, limit: int = 100, after: int = 0) -> tuple[Event, ...]:
        """The oldest events that are newer than `after`; for an operation its own and the apply's."""

    def verify(
        self,
        apply_id: ApplyId | None,
        *,
        since: datetime | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Verified, None, None]:
        """The record of an apply computed again; or those of all, or of all that were accepted since then, the oldest
        first. Raises UsageError for an apply and a time. is_wanted is asked between two records.
        """

    def close(self) -> None:
        """Gives back what it holds."""


class FrontDesk(Door, Protocol):
    """A door at which an engine's own clients may ask as well, one operation at a time."""

    def only_operation(self, apply_id: ApplyId, verb: str) -> ScopeName:
        """The operation that an unscoped call means; raises ScopeRefused for an apply with more than one (G7)."""

    def known_as(self, name: ScopeName) -> str:
        """The operation that whoever asked for this one calls it, another Tern; empty for anybody else."""

    def progress(self, name: ScopeName) -> Progress:
        """One operation alone."""

    def newest_events(self, name: ScopeName, limit: int) -> tuple[Event, ...]:
        """The newest lines about one operation and the apply itself, oldest first."""

    def deployment_of_target(self, environment: str, database: str, target: str) -> str:
        """The deployment with this name or target; raises Refused unless there is exactly one."""

    def kept_plan(self, plan_id: str) -> Plan | None:
        """The plan with this id; None where none is kept here."""

    def check_health(self) -> None:
        """Raises StorageUnavailable while the database does not answer."""

    def end_watches(self) -> None:
        """Whoever watches or verifies is told to come back: this process ends."""

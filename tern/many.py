"""What flows ask for so that many go on beside each other: which dispatch is next, who is silent, calls that nobody
waits for. A part of ports.py, which says what a protocol here is.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from tern.domain.control import Verb
from tern.domain.identity import ApplyId, DispatchKey
from tern.domain.model import Claim, OperationScope, RemoteCall, Resolution
from tern.domain.outcome import Outcome
from tern.domain.silence import CallKind, Silence
from tern.domain.work import Due, DueControl

Value = TypeVar("Value")


class ManyStore(Protocol):
    """Durable steps for many at once."""

    def next_dispatches(self, apply_id: ApplyId) -> tuple[Due, ...]:
        """The next dispatches of the apply, marked as notified; none while enough of it are on their way."""

    def record_silence(self, deployment: str, kind: CallKind) -> Silence | None:
        """One more call of this kind ended without an answer; None where there is no such deployment any more."""

    def record_answer(self, deployment: str, kind: CallKind) -> None:
        """A call of this kind was answered: those before it count no longer."""

    def silences(self) -> tuple[Silence, ...]:
        """Every deployment whose last call of a kind had no answer, as all workers know it."""


class UnwaitedCalls(Protocol):
    """The part of an engine that answers later."""

    def halt_later(self, verb: Verb, call: RemoteCall, done: Callable[[Outcome[None]], None]) -> None:
        """Stop or cancel without waiting: `done` is given the answer, once, on any thread."""

    def resolve_later(
        self,
        scope: OperationScope,
        claim: Claim,
        key: DispatchKey,
        done: Callable[[Outcome[Resolution]], None],
    ) -> None:
        """resolve() that forbids, in the same way."""


class Turn(Protocol):
    """The right to have one halting call under way to a deployment, until its answer is written or it is given back."""

    def later(self, write: Callable[[Outcome[Value]], None]) -> Callable[[Outcome[Value]], None]:
        """What a call is given to hand its answer to: it is written by another thread, and the turn ends with that."""

    def give_back(self) -> None:
        """No call was made. Does nothing once `later` was asked for."""


class Halts(Protocol):
    """Stop and cancel in a process where nobody waits for their answers."""

    def turn(self, due: DueControl, again: Callable[[DueControl], None]) -> Turn | None:
        """None while another halting call to the same deployment is under way. `again` rings for one that had no
        answer, once it is due.
        """

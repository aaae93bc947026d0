"""What every durable step needs: the pool, who this process is, and how long its claims last."""

import secrets
from dataclasses import dataclass, field

from tern.domain.model import Claim
from tern.domain.states import State
from tern.domain.timing import (
    LEASE_S,
    RPC_DEADLINE_S,
    UNANSWERED_LOOK_S,
    PollPace,
    longest_control_wait_s,
    longest_dispatch_wait_s,
    longest_poll_wait_s,
)
from tern.store.database import Database
from tern.store.sql import Connection, Row, text

NOW = "(SELECT tern_clock())"
"""The clock as a scalar subquery: compared with the bare volatile function, an index would not be used."""

CLAIMED_FOR_S = "extract(epoch FROM o.claim_expires_at - greatest(tern_clock(), o.claim_began_at))::float"
"""How long the claim of operation o still runs. One that begins ahead of now, because the clock was set back, runs for
its whole length: a sweep lets it begin now (store/clock.py), and until then nobody takes it over.
"""

HEARD = "unheard_since = NULL, unheard_tries = 0"
"""Its engine answered, be it with a refusal."""
UNHEARD = (
    "unheard_since = coalesce(unheard_since, tern_clock()), unheard_tries = unheard_tries + 1,"
    " unheard_look = CASE WHEN unheard_since IS NULL THEN looks ELSE unheard_look END"
)
"""One more try that its engine gave no usable answer."""
TRIED_AGAIN = "TRIED_AGAIN"
"""The error_reason of a retryable operation whose key is that of a dispatch that a person called ended: it is settled
before anything is sent.
"""
SENDS_APPLY = (
    "unanswered_call = 'apply', unanswered_since = tern_clock(),"
    # From here on it is like any dispatch that may have come through.
    f" error_reason = CASE WHEN error_reason <> '{TRIED_AGAIN}' THEN error_reason ELSE '' END"
)
"""Of a claim that is followed by an Apply."""
ANSWERED = "unanswered_call = '', unanswered_since = NULL"
"""Nothing that was called for the operation may act any more without being known of."""
APPLY_IS_ANSWERED = (
    f"{HEARD},"
    " unanswered_since = CASE WHEN unanswered_call <> 'apply' THEN unanswered_since END,"
    " unanswered_call = CASE WHEN unanswered_call <> 'apply' THEN unanswered_call ELSE '' END"
)
"""The same, where an id has answered an Apply; a Start or Cutover that is unanswered stays so."""
LOOK_BY_KEY = (
    "CASE WHEN unanswered_call = 'apply' AND dispatch_key IS NOT NULL AND NOT dispatch_key_is_dead"
    f" THEN tern_clock() + make_interval(secs => {UNANSWERED_LOOK_S}) END"
)
"""When an operation without an id is looked at next: a dispatch without an answer may have come through, whatever state
it leaves its operation in, so its engine is asked about the key, soon and often. NULL where nothing can come of it.
"""


def heard(is_heard: bool | None) -> str:  # noqa: FBT001 - three values, of one fact
    """SET items for what a call says of its engine; '' where none was made."""
    if is_heard is None:
        return ""
    return HEARD if is_heard else UNHEARD


@dataclass
class Steps:
    """A process's way into the store. `owner` names it in claims; lease_s is a claim's length, deadline_s how long an
    engine may take for one answer.
    """

    engine: Database
    owner: str = "tern"
    lease_s: float = LEASE_S
    deadline_s: float = RPC_DEADLINE_S
    pace: PollPace = field(default_factory=PollPace)

    @property
    def longest_dispatch_s(self) -> float:
        """A dispatch further ahead than this is due."""
        return longest_dispatch_wait_s(self.lease_s)

    @property
    def longest_control_s(self) -> float:
        """A wish further ahead than this is due."""
        return longest_control_wait_s(self.lease_s, self.deadline_s)

    @property
    def longest_poll_s(self) -> float:
        """A look further ahead than this is due."""
        return longest_poll_wait_s(self.pace)


def new_token() -> str:
    """A fresh proof for one claim."""
    return secrets.token_hex(12)


def lock_apply(tx: Connection, apply_pk: int) -> None:
    """First in the lock order. Excludes every other transaction that admits or moves an operation of this apply;
    lets an operator's request be inserted (it needs only a key-share).
    """
    tx.execute(text("SELECT 1 FROM applies WHERE id = :id FOR NO KEY UPDATE"), {"id": apply_pk})


def lock_apply_of(tx: Connection, operation_id: int) -> int | None:
    """Locks the apply of an operation; None when there is no such operation."""
    statement = text(
        "SELECT a.id FROM applies a WHERE a.id = (SELECT apply_id FROM apply_operations WHERE id = :id)"
        " FOR NO KEY UPDATE"
    )
    return tx.execute(statement, {"id": operation_id}).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class HeldOperation:
    """An operation's row under its lock, with the proof of our claim checked."""

    operation_id: int
    apply_pk: int
    state: State
    deployment: str
    row: Row


def hold(tx: Connection, claim: Claim) -> HeldOperation | None:
    """Locks apply and operation in order and proves the claim's token; None when the claim is lost (S7)."""
    apply_pk = lock_apply_of(tx, claim.operation_id)
    if apply_pk is None:
        return None
    statement = text(
        "SELECT o.*, a.operation_count, a.external_id, a.apply_identifier FROM apply_operations o"
        " JOIN applies a ON a.id = o.apply_id"
        " WHERE o.id = :id AND o.claim_token = :token FOR NO KEY UPDATE OF o"
    )
    row = tx.execute(statement, {"id": claim.operation_id, "token": claim.token}).one_or_none()
    if row is None:
        return None
    return HeldOperation(claim.operation_id, apply_pk, State(row.state), row.deployment, row)


def stored_id(held: HeldOperation) -> str | None:
    """The remote id that stands, wherever its home is (G1)."""
    stored = held.row.external_id if held.row.operation_count == 1 else held.row.engine_resume_context
    return stored or None


def unanswered_reason(row: Row) -> str:
    """The error_reason of a dispatch that goes on without an answer: asking alone has not settled an earlier try."""
    return TRIED_AGAIN if row.error_reason == TRIED_AGAIN else "UNANSWERED"

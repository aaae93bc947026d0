"""Refused messages that asked for a rollout: their senders have no answer, and look here by their key."""

import json

from tern.domain.errors import TernError
from tern.domain.text import within
from tern.store.session import transaction
from tern.store.sql import text
from tern.store.step import Steps

MOST_KEPT = 10_000
"""A broker that anybody can write to must not be able to fill the database."""
LONGEST_WHY = 20
LONGEST_TEXT = 2_000


class RefusalSteps(Steps):
    """The refusals of ports.ApplyStore on PostgreSQL."""

    def record_refusal(self, key: str, caller: str, refusal: TernError) -> None:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            newest = tx.execute(
                text(
                    "INSERT INTO enqueue_refusals (idempotency_key, caller, reason, what, why, next_step)"
                    " VALUES (:key, :caller, :reason, :what, CAST(:why AS jsonb), :next_step) RETURNING id"
                ),
                {
                    "key": key,
                    "caller": caller,
                    "reason": refusal.reason,
                    "what": _short(refusal.what),
                    "why": json.dumps([_short(line) for line in refusal.why[:LONGEST_WHY]]),
                    "next_step": _short(refusal.next_step),
                },
            ).scalar_one()
            tx.execute(text("DELETE FROM enqueue_refusals WHERE id <= :id"), {"id": newest - MOST_KEPT})


def _short(words: str) -> str:
    """What fits, in characters that PostgreSQL can hold: a refusal may quote the message."""
    clean = words.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return within(clean, LONGEST_TEXT)

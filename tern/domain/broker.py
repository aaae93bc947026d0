"""What a broker says of itself, and which of it is dangerous for messages. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NEARLY_FULL = 0.9
_EVICTS_ANYTHING = "allkeys-"
"""Other policies let go only of what has a time to live, and messages have none."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """unasked: why it did not say; empty where it did. most_bytes: 0 for no limit. stray: messages for Tern that wait
    in a queue which no worker of Tern's reads, by queue and name.
    """

    policy: str = ""
    most_bytes: int = 0
    used_bytes: int = 0
    is_replica: bool = False
    unasked: str = ""
    stray: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def evicts(self) -> bool:
        """It throws messages away once its memory is full."""
        return self.most_bytes > 0 and self.policy.startswith(_EVICTS_ANYTHING)

    @property
    def is_nearly_full(self) -> bool:
        """Soon it takes no more messages, or throws some away."""
        return self.most_bytes > 0 and self.used_bytes >= NEARLY_FULL * self.most_bytes


def dangers(state: BrokerState) -> tuple[tuple[str, str], ...]:
    """Each in words, with what to do; empty where all is well or nothing could be asked."""
    found = []
    if state.is_replica:
        found.append(
            (
                "it is a replica, which takes no messages",
                "Point TERN_BROKER_URL at the server that it follows.",
            )
        )
    if state.evicts:
        found.append(
            (
                f"its maxmemory-policy is {state.policy}: once its memory is full it throws messages away",
                "Set it: CONFIG SET maxmemory-policy noeviction",
            )
        )
    if state.is_nearly_full:
        share = round(100 * state.used_bytes / state.most_bytes)
        found.append(
            (
                f"{share} % of its maxmemory is used",
                "Give it more memory, or find out what fills it: redis-cli --bigkeys",
            )
        )
    return tuple(found)

"""Which part of all plans one test run plays: all of them take minutes."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Plan = TypeVar("Plan")
SHARES = 10


@dataclass(frozen=True, slots=True)
class Share:
    """Every `of_so_many`-th plan, beginning with that number: one after the other they are all plans."""

    number: int = 0
    of_so_many: int = 1

    def of(self, plans: Sequence[Plan]) -> Sequence[Plan]:
        """Its part of them."""
        return plans[self.number % self.of_so_many :: self.of_so_many]

    def __str__(self) -> str:
        return f"SIM_SHARE={self.number}/{self.of_so_many}"


ALL = Share()


def share() -> Share:
    """The one that SIM_SHARE asks for; else today's, so that each is played every so many days."""
    return named_share(Share(int(time.time() // 86_400) % SHARES, SHARES))


def named_share(otherwise: Share = ALL) -> Share:
    """The one that SIM_SHARE asks for."""
    number, _, of_so_many = os.environ.get("SIM_SHARE", "").partition("/")
    return Share(int(number), int(of_so_many)) if of_so_many else otherwise

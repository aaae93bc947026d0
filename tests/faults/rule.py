"""What a rule is: a function over a history that yields its violations in words, registered under its name."""

from collections.abc import Callable, Iterator

from tern.domain.states import SETTLED, Event, State
from tests.faults.history import History

Checker = Callable[[History], Iterator[str]]
CHECKERS: dict[str, Checker] = {}

EVENTS = frozenset(event.value for event in Event)
OPEN = ("pending", "sent")
WITHDRAWN = ("withdraw_stopped", "withdraw_cancelled")


def checks(rule: str) -> Callable[[Checker], Checker]:
    """Registers a checker under the number of what must hold."""

    def register(checker: Checker) -> Checker:
        CHECKERS[rule] = checker
        return checker

    return register


def is_live(state: str) -> bool:
    """Of an operation."""
    return State(state) not in SETTLED

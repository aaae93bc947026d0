"""What must hold whatever happened, as functions over a history (S1-S22), in one module for each family of rules.

    found = violations(read_history(database, ledgers, jobs))

S20 (the broker delivers nothing, the verdicts are the same) is a property of two runs, not of one history: every
other crash point recovers without a bell.
"""

from tests.faults import claim_rules, dispatch_rules, verdict_rules, wish_rules
from tests.faults.history import History
from tests.faults.rule import CHECKERS

FAMILIES = (dispatch_rules, claim_rules, verdict_rules, wish_rules)
"""Importing them registers their rules."""


def violations(history: History, *only: str) -> list[str]:
    """Everything that does not hold, each line with the name of its rule."""
    names = only or tuple(CHECKERS)
    return [f"{name}: {words}" for name in names for words in CHECKERS[name](history)]

"""Plans that once broke something. What each found and what was done stands in docs/reliability.md."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Regression:
    """A plan with the name of what it broke."""

    name: str
    scenario: str
    plan: str


REGRESSIONS = (
    Regression(
        "a-cutover-that-was-sent-is-not-called-failed-while-nobody-knows", "manual-cutover", "54 forgets"
    ),
)

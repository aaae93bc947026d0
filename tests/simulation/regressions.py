"""Plans that once broke something. What each found and what was done stands in docs/reliability.md."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Regression:
    """A plan with the name of what it broke, and the calls that its faults befall: the numbers alone would go on being
    played at other calls when a story gets a step more.
    """

    name: str
    scenario: str
    plan: str
    calls: tuple[str, ...]


REGRESSIONS = (
    Regression(
        "a-cutover-that-was-sent-is-not-called-failed-while-nobody-knows",
        "manual-cutover",
        "54 forgets",
        ("look engine.batch_progress",),
    ),
    Regression(
        "a-clock-that-is-set-back-before-the-first-sweep-is-noticed",
        "revert",
        "25 clock-back-an-hour",
        ("poll engine.batch_progress",),
    ),
    Regression(
        "a-start-that-a-stop-has-ended-meanwhile-is-not-sent",
        "start-that-takes-its-time",
        "40 stop-first",
        ("start engine.progress",),
    ),
    Regression(
        "a-cancel-of-what-its-engine-forgot-leads-to-a-person",
        "cancel-what-is-stopped",
        "31 forgets",
        ("look engine.batch_progress",),
    ),
)

"""Virtual time, in seconds. Nothing waits for it: the hub moves it on.

Two readings of it: how much has gone by, which only grows, and what the clock of Tern's database says, which somebody
may set back. The world (engines, people, frozen workers, the audit) goes by the first, Tern knows the second only.
"""

EPOCH = 1_000_000.0
"""Where every run begins; a round number, so that times read well in a failing run."""


class Clock:
    """The only clock of a run; each port call takes a little of it, so that no two things happen at once."""

    def __init__(self) -> None:
        self.elapsed = EPOCH
        self.ahead_s = 0.0
        """By how much the database's clock is ahead of what has gone by; negative once it was set back."""

    @property
    def now(self) -> float:
        """What the database's clock says."""
        return round(self.elapsed + self.ahead_s, 6)

    def pass_(self, seconds: float) -> None:
        """Time goes by. Microseconds are all that PostgreSQL keeps, so there are no smaller ones here."""
        self.elapsed = round(self.elapsed + seconds, 6)

    def jump_to(self, moment: float) -> None:
        """Time goes by until so much has; never backwards."""
        self.elapsed = max(self.elapsed, round(moment, 6))

    def set_back(self, seconds: float) -> None:
        """The database's clock goes back; the world does not."""
        self.ahead_s = round(self.ahead_s - seconds, 6)

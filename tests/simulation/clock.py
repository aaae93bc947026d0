"""Virtual time, in seconds. Nothing waits for it: the hub moves it on."""

EPOCH = 1_000_000.0
"""Where every run begins; a round number, so that times read well in a failing run."""


class Clock:
    """The only clock of a run; each port call takes a little of it, so that no two things happen at once."""

    def __init__(self) -> None:
        self.now = EPOCH

    def pass_(self, seconds: float) -> None:
        """Time goes by. Microseconds are all that PostgreSQL keeps, so there are no smaller ones here."""
        self.now = round(self.now + seconds, 6)

    def jump_to(self, moment: float) -> None:
        """Time goes by until then; never backwards."""
        self.now = max(self.now, round(moment, 6))

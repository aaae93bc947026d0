"""Workers and beats under a process manager: who ends by himself is replaced, and it is a violation."""

import time
from dataclasses import dataclass, field

from tests.e2e.processes import Fleet, Process

LEAVES_WITHIN_S = 20.0
"""SIGTERM to the end of a process: the last tick with all its deadlines, on a machine that is busy."""

IS_UP_AFTER_S = 8.0
"""Before that a process may not have got so far that it knows what SIGTERM means."""

LAST_LINES = 25


@dataclass
class Crew:
    """Who drives and who rings."""

    fleet: Fleet
    workers: list[Process] = field(default_factory=list)
    beats: list[Process] = field(default_factory=list)
    leaving: list[tuple[float, Process]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)
    """How long each warm end took."""

    def hire(self, workers: int, beats: int) -> None:
        """As many as that."""
        self.workers += [self.fleet.worker() for _ in range(workers)]
        self.beats += [self.fleet.beat() for _ in range(beats)]

    def replace(self, process: Process) -> None:
        """A new one in the place of one that is gone or leaves."""
        if process in self.workers:
            self.workers[self.workers.index(process)] = self.fleet.worker()
        elif process in self.beats:
            self.beats[self.beats.index(process)] = self.fleet.beat()

    def send_off(self, process: Process) -> None:
        """A deploy: SIGTERM, and a new one beside it at once. One that is only just coming up stays."""
        if time.monotonic() - process.started < IS_UP_AFTER_S:
            return
        process.leave()
        self.leaving.append((time.monotonic(), process))
        self.replace(process)

    def look_after(self) -> None:
        """What a process manager does at any time."""
        for process in [*self.workers, *self.beats]:
            if process.has_ended_by_itself:
                self.complaints.append(f"{process.name} ended by itself, {_last_words(process)}")
                self.replace(process)
        for since, process in list(self.leaving):
            took_s = time.monotonic() - since
            if process.is_running and took_s < LEAVES_WITHIN_S:
                continue
            self.leaving.remove((since, process))
            if process.is_running:
                self.complaints.append(f"{process.name} did not leave within {took_s:.0f} s of SIGTERM")
                process.abort()
            elif process.exit_code != 0:
                self.complaints.append(f"{process.name} left badly, {_last_words(process)}")
            else:
                self.left_s.append(took_s)

    def picture(self) -> str:
        """How each log ends; with what each thread of the living workers did, who live no longer after it."""
        for worker in self.workers:
            worker.abort()
        return self.fleet.picture()


def _last_words(process: Process) -> str:
    lines = process.output().splitlines()[-LAST_LINES:]
    return f"exit code {process.exit_code}; its last lines:\n    " + "\n    ".join(lines)

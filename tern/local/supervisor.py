"""Runs named programs side by side and leaves none of them behind, however this process ends.

Each program runs in a session of its own, writes to a file of its own, and is tied to us three times: we stop
it when the block ends (Ctrl-C, TERM and exceptions included), Linux signals it when we die (launcher.py), and
a guard process ends its whole group when we are killed outright (guard.py).

Start programs from the main thread: Linux sends the parent-death signal when the starting *thread* ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from tern.domain.errors import TernError
from tern.local.launching import HERE, launched

POLL_SECONDS = 0.05
LAST_LINES = 15
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# A program that ran for so long is not one that dies at its start.
LASTING_SECONDS = 60.0


class ProgramFailed(TernError):  # noqa: N818 - reads as the outcome that it is
    """A supervised program ended by itself, or did not get ready in time."""

    default_reason = "PROGRAM_FAILED"


def always() -> bool:
    """The ready-check of a program that has none."""
    return True


@dataclass(frozen=True)
class Program:
    """What to run, as whom, how to see that it is ready, how to stop it, and whether it ends by itself."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    ready: Callable[[], bool] = always
    ready_seconds: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    account: tuple[int, int] | None = None
    ends: bool = False


@dataclass
class Running:
    """A started program."""

    program: Program
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)
    pause_seconds: float = 0.0
    """Before it is started again, if it ended by itself; longer each time that it does not last."""
    back_at: float | None = None

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group."""
        return self.process.pid

    def last_lines(self) -> tuple[str, ...]:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return tuple(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        return ()


class Supervisor:
    """A block in which programs run: `with Supervisor(directory) as programs: programs.start(…)`."""

    def __init__(self, log_directory: Path) -> None:
        self.log_directory = log_directory
        self.running: list[Running] = []
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, program: Program) -> Running:
        """Starts a program without waiting for it; its log is a new file, the last run's is kept beside."""
        log = self.log_directory / f"{program.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        # A signal between the fork and the append would leave a program that nobody knows.
        with _signals_held():
            guard = self._guard = self._guard or _start_guard()
            with log.open("wb") as output:
                process = subprocess.Popen(  # noqa: S603 - the caller's own programs
                    launched(program.argv, stop_signal=program.stop_signal, ids=program.account),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if program.env is None else dict(program.env),
                    cwd=program.cwd,
                    start_new_session=True,
                )
            running = Running(program, process, log)
            self.running.append(running)
            _tell(guard, f"watch {process.pid} {program.stop_signal.value}")
        return running

    def wait_until_ready(self, *programs: Running) -> None:
        """Returns when each ready-check holds; raises ProgramFailed if a program dies or takes too long."""
        for running in programs:
            deadline = running.started + running.program.ready_seconds
            while not running.program.ready():
                self.check()
                if time.monotonic() > deadline:
                    what = f"{running.program.name} was not ready after {running.program.ready_seconds:.0f} s"
                    raise ProgramFailed(what, why=running.last_lines(), next_step=f"Read {running.log}")
                time.sleep(POLL_SECONDS)
        self.check()

    def wait_until_done(self, *programs: Running) -> None:
        """Returns when programs that end by themselves have done so; raises ProgramFailed if one fails."""
        while any(running.process.poll() is None for running in programs):
            self.check()
            time.sleep(POLL_SECONDS)
        self.check()
        for running in programs:
            # Its process id is free for others from here on; a later stop must not signal whoever gets it.
            self._let_go(running)

    def check(self) -> None:
        """Raises ProgramFailed with the end of its log if a program ended by itself."""
        for running in self.running:
            status = running.process.poll()
            if status is not None and not (running.program.ends and status == 0):
                what = f"{running.program.name} ended by itself ({describe_status(status)})"
                raise ProgramFailed(
                    what,
                    why=running.last_lines(),
                    unchanged="The other programs are being stopped.",
                    next_step=f"Read {running.log}",
                )

    def revive(self) -> Iterator[str]:
        """Starts again what ended by itself, after a pause; yields a line for people at each end and each start.

        Returns at once; call it again and again.
        """
        now = time.monotonic()
        for running in list(self.running):
            status = running.process.poll()
            if status is None:
                continue
            name = running.program.name
            if running.back_at is None:
                lasted = now - running.started >= LASTING_SECONDS
                twice = min(2 * running.pause_seconds, LONGEST_PAUSE_SECONDS)
                running.pause_seconds = FIRST_PAUSE_SECONDS if lasted else max(twice, FIRST_PAUSE_SECONDS)
                running.back_at = now + running.pause_seconds
                how = describe_status(status)
                yield f"{name} ended by itself ({how}); starting it again in {running.pause_seconds:.0f} s"
            elif now >= running.back_at:
                # What it left in its group would work beside the new one.
                _signal_group(running.pid, signal.SIGKILL)
                self._let_go(running)
                again = self.start(running.program)
                again.pause_seconds = running.pause_seconds
                yield f"{name} runs again; what it said before it ended: {again.log.with_suffix('.log.1')}"

    def stop(self) -> None:
        """Stops everything: each its own signal, KILL after its grace. A second Ctrl-C kills at once."""
        if not self.running and self._guard is None:
            return
        with _impatience() as impatient:
            doomed = self.running[::-1]
            for running in doomed:
                # Only the program itself: how it ends its own children is its business, and part of what we
                # test.
                _signal_process(running.process, running.program.stop_signal)
            since = time.monotonic()
            for running in doomed:
                while running.process.poll() is None:
                    if impatient() or time.monotonic() > since + running.program.grace_seconds:
                        _signal_group(running.pid, signal.SIGKILL)
                    time.sleep(POLL_SECONDS)
                # What it left in its group is an orphan now.
                _signal_group(running.pid, signal.SIGKILL)
                self._let_go(running)
            if self._guard is not None:
                # Its pipe ends here; it watches nothing any more, so it leaves quietly.
                self._guard.communicate()
                self._guard = None

    def _let_go(self, running: Running) -> None:
        if self._guard is not None:
            _tell(self._guard, f"forget {running.pid}")
        self.running.remove(running)


def describe_status(status: int) -> str:
    """A return code in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


@contextlib.contextmanager
def terminating_signals_raise() -> Iterator[None]:
    """TERM, HUP and Ctrl-C end the block as an exception, so that everything is cleaned up."""

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's shape is given
        raise SystemExit(128 + number)

    # A script that starts us in the background has made us deaf to INT, and somebody may send one all the same.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Under nohup it is ignored on purpose.
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, leave)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        # They would end us without any cleaning up, and mean nothing here.
        before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _impatience() -> Iterator[Callable[[], bool]]:
    """While programs are being stopped a further Ctrl-C or TERM means "now", never "leave the rest alone"."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's shape is given
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        # Not the main thread: signals are somebody else's.
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_process(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        process.send_signal(number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _start_guard() -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, "-I", "-S", str(HERE / "guard.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        start_new_session=True,
    )


def _tell(guard: subprocess.Popen[str], line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        if guard.stdin is not None:
            guard.stdin.write(line + "\n")
            guard.stdin.flush()

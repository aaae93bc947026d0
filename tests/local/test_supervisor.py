"""Supervised programs: started, watched, and none of them left, whatever ends the supervisor."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tern.local import supervisor
from tern.local.discovery import RunningProcess, began
from tern.local.supervisor import Program, ProgramFailed, Supervisor, terminating_signals_raise

Eventually = Callable[[Callable[[], bool]], bool]

SLEEPER = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(300)")
DEAF = (
    sys.executable,
    "-c",
    """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
""",
)
# A program with a child of its own, which ignores TERM.
FAMILY = (
    sys.executable,
    "-c",
    """
import subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
print(subprocess.Popen([sys.executable, "-c", code]).pid, flush=True)
time.sleep(300)
""",
)


def identity(pid: int) -> RunningProcess:
    return RunningProcess(pid, began(pid))


def first_line(log: Path, eventually: Eventually) -> str:
    assert eventually(lambda: log.exists() and "\n" in log.read_text())
    return log.read_text().splitlines()[0]


def test_programs_run_side_by_side_and_end_with_the_block(tmp_path: Path, eventually: Eventually) -> None:
    with Supervisor(tmp_path) as programs:
        running = [programs.start(Program(name, SLEEPER)) for name in ("one", "two")]
        for each in running:
            assert first_line(each.log, eventually) == "here"
        processes = [identity(each.pid) for each in running]
        assert all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)


def test_programs_end_when_the_block_raises(tmp_path: Path) -> None:
    processes: list[RunningProcess] = []

    def fail() -> None:
        with Supervisor(tmp_path) as programs:
            processes.append(identity(programs.start(Program("one", SLEEPER)).pid))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not processes[0].is_alive()


def test_a_program_that_ignores_its_signal_is_killed_after_its_grace(
    tmp_path: Path, eventually: Eventually
) -> None:
    with Supervisor(tmp_path) as programs:
        running = programs.start(Program("deaf", DEAF, grace_seconds=0.3))
        first_line(running.log, eventually)
        programs.stop()
        assert running.process.returncode == -signal.SIGKILL


def test_a_child_of_a_program_does_not_stay(tmp_path: Path, eventually: Eventually) -> None:
    with Supervisor(tmp_path) as programs:
        running = programs.start(Program("family", FAMILY))
        child = identity(int(first_line(running.log, eventually)))
        assert child.is_alive()
    assert eventually(lambda: not child.is_alive())


def test_a_program_that_dies_is_named_with_its_last_words(tmp_path: Path, eventually: Eventually) -> None:
    with Supervisor(tmp_path) as programs:
        programs.start(Program("healthy", SLEEPER))
        words = "print('the last words'); raise SystemExit(3)"
        running = programs.start(Program("worker-1", (sys.executable, "-c", words)))
        assert eventually(lambda: running.process.poll() is not None)
        with pytest.raises(ProgramFailed, match=r"worker-1 ended by itself \(exit code 3\); the last words"):
            programs.check()


def test_a_program_that_is_killed_is_named_with_the_signal(tmp_path: Path, eventually: Eventually) -> None:
    with Supervisor(tmp_path) as programs:
        running = programs.start(Program("worker-1", SLEEPER))
        running.process.kill()
        assert eventually(lambda: running.process.poll() is not None)
        with pytest.raises(ProgramFailed, match=r"worker-1 ended by itself.*SIGKILL"):
            programs.check()


def test_a_program_that_ended_is_started_again_later_each_time(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.1)
    words = "print('the last words'); raise SystemExit(3)"
    said: list[str] = []
    with Supervisor(tmp_path) as programs:
        healthy = programs.start(Program("healthy", SLEEPER))
        programs.start(Program("worker-1", (sys.executable, "-c", words)))

        def ended_three_times() -> bool:
            said.extend(programs.revive())
            return sum("exit code 3" in line for line in said) == 3

        assert eventually(ended_three_times)
        assert healthy.process.poll() is None
        pauses = [running.pause_seconds for running in programs.running if running is not healthy]
    assert pauses == [0.4]
    assert said[1] == f"worker-1 runs again; what it said before it ended: {tmp_path / 'worker-1.log.1'}"
    assert "the last words" in (tmp_path / "worker-1.log.1").read_text()


def test_a_program_that_lasted_is_started_again_soon(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LASTING_SECONDS", 0.0)
    with Supervisor(tmp_path) as programs:
        running = programs.start(Program("worker-1", SLEEPER))
        running.pause_seconds = supervisor.LONGEST_PAUSE_SECONDS
        running.process.kill()
        assert eventually(lambda: "SIGKILL" in "".join(programs.revive()))
        assert running.pause_seconds == supervisor.FIRST_PAUSE_SECONDS


def test_a_program_that_is_not_ready_in_time_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as programs:
        running = programs.start(Program("slow", SLEEPER, ready=lambda: False, ready_seconds=0.2))
        with pytest.raises(ProgramFailed, match="slow was not ready"):
            programs.wait_until_ready(running)


def test_waiting_for_readiness_notices_a_program_that_died(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as programs:
        program = Program("gone", (sys.executable, "-c", "raise SystemExit(7)"), ready=lambda: False)
        with pytest.raises(ProgramFailed, match="exit code 7"):
            programs.wait_until_ready(programs.start(program))


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as programs:
        program = Program("ghost", ("/no/such/program",), ready=lambda: False)
        with pytest.raises(ProgramFailed, match="cannot run /no/such/program"):
            programs.wait_until_ready(programs.start(program))


def test_programs_that_end_by_themselves_are_waited_for_and_let_go(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as programs:
        done = programs.start(Program("done", (sys.executable, "-c", "pass"), ends=True))
        programs.wait_until_done(done)
        assert programs.running == []


def test_a_program_that_should_end_well_and_does_not_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as programs:
        sad = programs.start(Program("sad", (sys.executable, "-c", "raise SystemExit('no room')"), ends=True))
        with pytest.raises(ProgramFailed, match=r"sad ended by itself.*no room"):
            programs.wait_until_done(sad)


def test_the_log_of_the_last_run_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    for word in ("first", "second"):
        with Supervisor(tmp_path) as programs:
            running = programs.start(Program("talker", (sys.executable, "-c", f"print({word!r})")))
            running.process.wait()
    assert (tmp_path / "talker.log").read_text() == "second\n"
    assert (tmp_path / "talker.log.1").read_text() == "first\n"


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminating_signals_raise():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_means_nothing_here_ends_nothing() -> None:
    with terminating_signals_raise():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)


def test_term_ends_the_block_like_an_interrupt() -> None:
    with pytest.raises(SystemExit, match="143"), terminating_signals_raise():
        signal.raise_signal(signal.SIGTERM)


PARENT = """
import signal, sys, time
from pathlib import Path
# Whoever runs the tests may ignore hang-ups, and a child inherits that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from tern.local.supervisor import Program, Supervisor, terminating_signals_raise
folder = Path(sys.argv[1])
with terminating_signals_raise(), Supervisor(folder) as programs:
    family = programs.start(Program("family", {family!r}, grace_seconds=2))
    sleeper = programs.start(Program("sleeper", {sleeper!r}))
    while not family.log.read_text().endswith("\\n"):
        time.sleep(0.02)
    print(family.pid, sleeper.pid, family.log.read_text().strip(), programs._guard.pid, flush=True)
    time.sleep(300)
"""


def start_parent(folder: Path) -> tuple[subprocess.Popen[str], list[RunningProcess]]:
    script = textwrap.dedent(PARENT).format(family=FAMILY, sleeper=SLEEPER)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        processes = [identity(int(pid)) for pid in parent.stdout.readline().split()]
    assert [process.is_alive() for process in processes] == [True] * 4
    return parent, processes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_when_the_supervisor_is_signalled(
    tmp_path: Path, eventually: Eventually, number: signal.Signals
) -> None:
    parent, processes = start_parent(tmp_path)
    parent.send_signal(number)
    parent.wait()
    assert eventually(lambda: not any(process.is_alive() for process in processes))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of the dead")
def test_programs_end_even_when_supervisor_and_guard_are_killed(
    tmp_path: Path, eventually: Eventually
) -> None:
    parent, processes = start_parent(tmp_path)
    family, sleeper, child, guard = processes
    os.kill(guard.pid, signal.SIGKILL)
    parent.kill()
    parent.wait()
    assert eventually(lambda: not family.is_alive() and not sleeper.is_alive())
    os.kill(child.pid, signal.SIGKILL)


def test_a_second_interrupt_kills_at_once(tmp_path: Path, eventually: Eventually) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tern.local.supervisor import Program, Supervisor, terminating_signals_raise\n"
        "with terminating_signals_raise(), Supervisor(Path(sys.argv[1])) as programs:\n"
        f"    deaf = programs.start(Program('deaf', {DEAF!r}, grace_seconds=100))\n"
        "    time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.DEVNULL)
    first_line(tmp_path / "deaf.log", eventually)
    for _ in range(2):
        parent.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two signals at the same instant are one
    assert parent.wait(timeout=20) != 0

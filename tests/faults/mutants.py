"""Planted bugs. Each is a guard that somebody could innocently remove; some test must go red for every one of them.

    python -m tests.faults.mutants [WORD …]     only those whose guard or name holds one of the words

The tree is copied, a text is replaced, the smallest selection of tests that must find it is run. Exits with 1 when a
mutant survives, when a text is no longer there to be replaced, or when the tests are red without any mutant.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARALLEL = 2
LIMIT_S = 400
_COPIED = ("tern", "tasks", "tests", "migrations", "docs", "proto", "pyproject.toml", "Makefile", "README.md")
_CRASH = "tests/faults/test_crash_points.py"


def calm(story: str) -> str:
    """The story without a fault."""
    return f"{_CRASH}::test_story_ends_well_without_any_fault[{story}]"


def crash(story: str) -> str:
    """The story with a death at every boundary."""
    return " ".join(f"{_CRASH}::test_worker_dies_at_each_boundary[{part}-{story}]" for part in (1, 0))


@dataclass(frozen=True)
class Mutant:
    """One planted bug: (file, old text, new text) for each edit, and the tests that must find it."""

    guard: str
    name: str
    tests: str
    edits: tuple[tuple[str, str, str], ...]


def mutant(guard: str, name: str, tests: str, *edit: str) -> Mutant:
    """Edits are given flat: file, old, new, and again file, old, new."""
    return Mutant(guard, name, tests, tuple(zip(edit[::3], edit[1::3], edit[2::3], strict=True)))


_DISPATCH, _CONTROL = "tern/flows/dispatch.py", "tern/flows/control.py"
_S_DISPATCH, _S_DELIVERY, _S_POLL = "tern/store/dispatch.py", "tern/store/delivery.py", "tern/store/poll.py"
_S_ANSWER = "tern/store/answer.py"
_S_PROJECTION, _S_SWEEP, _STEP = "tern/store/projection.py", "tern/store/sweep.py", "tern/store/step.py"
_D_CONTROL, _D_DISPATCH, _D_POLICY = (
    "tern/domain/control.py",
    "tern/domain/dispatch.py",
    "tern/domain/policy.py",
)
_IDENTITY, _MIGRATION = "tern/domain/identity.py", "migrations/versions/0001_first_schema.py"
_FLOWS = "tests/flows/test_"

MUTANTS = (
    mutant(
        "G1",
        "the parent holds the id of a multi apply",
        calm("plain"),
        _IDENTITY,
        "return RemoteIdHome.APPLY if operation_count == 1 else RemoteIdHome.OPERATION",
        "return RemoteIdHome.APPLY",
    ),
    mutant(
        "G2",
        "stop carries the public id",
        calm("stop-after-dispatch"),
        "tern/wire/engine_client.py",
        "tern_v1.StopRequest(apply_id=call.remote_id,",
        "tern_v1.StopRequest(apply_id=call.name.apply_id,",
    ),
    mutant(
        "G3",
        "state before id",
        calm("plain"),
        _DISPATCH,
        "            stored = ports.store.record_remote_id(",
        "            ports.store.record_dispatched(claimed.claim)\n            stored = ports.store.record_remote_id(",
        _S_DISPATCH,
        "            if _stored_id(held) is None:\n",
        "            if False:\n",
    ),
    mutant(
        "G3",
        "an id that is there is not followed after a crash",
        crash("plain"),
        _S_DISPATCH,
        "_CLAIMABLE = (State.PENDING, State.RUNNING, State.FAILED_RETRYABLE)",
        "_CLAIMABLE = (State.PENDING, State.FAILED_RETRYABLE)",
    ),
    mutant(
        "G4",
        "random key",
        calm("plain"),
        _IDENTITY,
        'hashlib.sha256(f"{scope}#{generation}".encode())',
        'hashlib.sha256(__import__("os").urandom(8))',
    ),
    mutant(
        "G4",
        "a new key for every claim",
        crash("plain"),
        _S_DISPATCH,
        "            if row.dispatch_key\n",
        "            if False\n",
        _S_DISPATCH,
        "else dispatch_key(scope.name, row.dispatch_generation)",
        "else dispatch_key(scope.name, row.attempt + 1)",
    ),
    mutant(
        "G4",
        "a stored id does not end dispatching",
        crash("plain"),
        _D_DISPATCH,
        "    if has_remote_id:\n",
        "    if False:\n",
        "tern/wire/guard.py",
        "    if scope.remote_id is not None:\n",
        "    if False:\n",
    ),
    mutant(
        "G4",
        "an old intent is repeated to an engine that may do it twice",
        f"{_FLOWS}dispatch.py::test_d16_an_old_intent_is_not_repeated_to_an_engine_that_may_do_it_twice",
        _D_DISPATCH,
        "    if not has_earlier_intent or idempotent_dispatch:",
        "    if True:",
    ),
    mutant(
        "G4",
        "every sender thinks that it is the first",
        f"{_FLOWS}dispatch.py::test_d17_a_refusal_after_a_lost_answer_settles_nothing",
        _S_DISPATCH,
        "is_first_sender=row.dispatch_key is None and scope.remote_id is None,",
        "is_first_sender=True,",
    ),
    mutant(
        "G4",
        "a start over a dead key keeps the generation",
        calm("start-over-a-dead-key"),
        "tern/store/uncalled.py",
        '" dispatch_generation = dispatch_generation + CAST(dispatch_key_is_dead AS integer),"',
        '" dispatch_generation = dispatch_generation,"',
    ),
    mutant(
        "G5",
        "another answer replaces a stored id",
        f"{_FLOWS}dispatch.py -k d7",
        _S_DISPATCH,
        "            if stored is not None:\n",
        "            if False:\n",
    ),
    mutant(
        "G6",
        "running without an id is taken for ambiguous",
        crash("plain"),
        _S_DISPATCH,
        "            if State(row.state) not in _CLAIMABLE:",
        "            if State(row.state) not in _CLAIMABLE or (row.state == 'running' and scope.remote_id is None):",
    ),
    mutant(
        "G7",
        "an operation of another apply is taken",
        "tests/domain/test_scope.py",
        "tern/domain/scope.py",
        "    if found.apply_id != asked.apply_id:",
        "    if False:",
    ),
    mutant(
        "G7",
        "the deployment asked for is not compared",
        "tests/domain/test_scope.py",
        "tern/domain/scope.py",
        "    if found.deployment_name != asked.deployment:",
        "    if False:",
    ),
    mutant(
        "G7",
        "an apply-scoped call when the operations can't be counted",
        "tests/domain/test_scope.py",
        "tern/domain/scope.py",
        "    if operation_count == 1:\n",
        "    if operation_count in (1, None):\n",
    ),
    mutant(
        "G8",
        "a stop takes 'no id' for 'never dispatched'",
        calm("stop-over-a-lost-answer"),
        _D_CONTROL,
        "    if facts.was_never_dispatched:\n        return Step.SETTLE_LOCALLY",
        "    if True:\n        return Step.SETTLE_LOCALLY",
    ),
    mutant(
        "G8",
        "a wish is closed when it is sent",
        f"{_FLOWS}stop.py",
        _S_ANSWER,
        "\"state = 'sent', sent_at",
        "\"state = 'acknowledged', closed_at = tern_clock(), sent_at",
        _S_ANSWER,
        '" next_attempt_at = tern_clock() + make_interval(secs => :delay_s)",\n            delay_s=RESEND_S,',
        '" next_attempt_at = CASE WHEN :delay_s < 0 THEN tern_clock() END",\n            delay_s=RESEND_S,',
    ),
    mutant(
        "G9",
        "no look before the call",
        calm("stop-before-dispatch"),
        _DISPATCH,
        "    if not ports.store.may_go_forward(claimed.claim):",
        "    if False:",
    ),
    mutant(
        "G9",
        "the look does not see a stop",
        calm("stop-before-dispatch"),
        _S_DISPATCH,
        "return row is not None and row.stop_in_force is None",
        "return row is not None",
    ),
    mutant(
        "G9",
        "a repeated dispatch under a stop is withdrawn as if never sent",
        calm("stop-before-a-repeated-call"),
        _DISPATCH,
        "    if claimed.claim.is_first_sender:\n        # We know",
        "    if True:\n        # We know",
    ),
    mutant(
        "G9",
        "a wish that was overtaken by a stop goes forward",
        f"{_FLOWS}races.py {_FLOWS}cutover.py {_FLOWS}stop.py {_FLOWS}control_crash.py",
        _CONTROL,
        "    if claimed.verb.is_forward and not _may_go_forward(claimed, ports):",
        "    if False:",
    ),
    mutant(
        "G10",
        "no answer is a failure",
        calm("parallel-with-a-lost-answer"),
        _DISPATCH,
        "            _unanswered(claimed, engine, message, ports)",
        '            ports.store.record_refused(claimed.claim, message, "", key_is_dead=False)',
    ),
    mutant(
        "G10",
        "a stop asks what became of the key, and leaves it alive",
        calm("start-over-a-dead-key"),
        _CONTROL,
        "match engine.resolve(scope, claim, claim.key, forbid=True):",
        "match engine.resolve(scope, claim, claim.key, forbid=False):",
    ),
    mutant(
        "G11",
        "the sweep overlooks dispatches whose driver died",
        crash("plain"),
        _S_SWEEP,
        'f" WHERE next_attempt_at <= {NOW} AND (rung_at',
        "f\" WHERE state <> 'running' AND next_attempt_at <= {NOW} AND (rung_at",
    ),
    mutant(
        "G11",
        "the sweep overlooks wishes",
        calm("manual-cutover"),
        _S_SWEEP,
        "f\" WHERE d.state IN ('pending', 'sent') AND d.next_attempt_at <= {NOW}\"",
        "f\" WHERE d.state = 'nothing' AND d.next_attempt_at <= {NOW}\"",
    ),
    mutant(
        "G12",
        "unfenced write",
        f"{_FLOWS}dispatch_crash.py -k k5",
        _STEP,
        '" WHERE o.id = :id AND o.claim_token = :token FOR NO KEY UPDATE OF o"',
        '" WHERE o.id = :id AND (o.claim_token = :token OR true) FOR NO KEY UPDATE OF o"',
    ),
    mutant(
        "G12",
        "a claim shows the engine an old fence",
        calm("plain"),
        _S_DISPATCH,
        "            fence=row.fence + 1,\n            attempt=row.attempt + 1,",
        "            fence=row.fence,\n            attempt=row.attempt + 1,",
    ),
    mutant(
        "G12",
        "a running claim is taken over",
        f"{_FLOWS}dispatch_crash.py -k k8",
        "tern/store/gate.py",
        "    return max(0.0, float(row.claimed_for_s))",
        "    return 0.0",
    ),
    mutant(
        "G12",
        "a sample asked for under an old fence is applied",
        f"{_FLOWS}poll.py -k overtaken",
        _S_POLL,
        " and row.fence == cursors[row.id].call.fence",
        "",
        _S_POLL,
        '" WHERE o.id = s.id AND o.fence = s.fence"',
        '" WHERE o.id = s.id"',
    ),
    mutant(
        "G13",
        "a start does not take its target again",
        calm("start-after-stop"),
        _S_DELIVERY,
        "        taken = take(\n",
        "        taken = True or take(\n",
    ),
    mutant(
        "G13",
        "the target is kept after the verdict",
        calm("plain"),
        _S_PROJECTION,
        'text("DELETE FROM target_reservations WHERE apply_id = :id")',
        'text("DELETE FROM target_reservations WHERE apply_id = :id AND false")',
    ),
    mutant(
        "G14",
        "one stopped child decides",
        calm("stop-after-dispatch"),
        "tern/domain/projection.py",
        "    if moving or startable:",
        "    if (moving or startable) and not tally.count(State.STOPPED):",
    ),
    mutant(
        "G15",
        "a change without its event",
        calm("plain"),
        _S_PROJECTION,
        "    if after is not state or why:",
        "    if why:",
    ),
    mutant(
        "G15",
        "a verdict's effects are driven by everybody",
        calm("plain"),
        "tern/store/apply.py",
        '" AND a.verdict_effects_done_at IS NULL"',
        '""',
    ),
    mutant(
        "S14",
        "a cutover is repeated without a fresh sample",
        crash("manual-cutover"),
        _D_CONTROL,
        "return Step.SEND if facts.is_fresh or verb not in MOMENT else Step.WAIT",
        "return Step.SEND",
    ),
    mutant(
        "S18",
        "rolling without an order",
        calm("plain"),
        _D_POLICY,
        "            elif ahead:",
        "            elif False:",
        _D_POLICY,
        "return 1 if ahead == 0 and tally.admitted == 0 else 0",
        "return 1",
    ),
    mutant(
        "S18",
        "a failure halts nothing",
        calm("failure-and-halt"),
        _D_POLICY,
        "    return policy.on_failure is OnFailure.HALT and tally.count(State.FAILED) > policy.max_failures",
        "    return False",
    ),
    mutant(
        "G5",
        "the database lets an id be replaced",
        "tests/store/test_tables.py",
        _MIGRATION,
        "    IF OLD.engine_resume_context IS NOT NULL\n",
        "    IF false\n",
    ),
)


@dataclass(frozen=True)
class Fate:
    """What became of one mutant."""

    mutant: Mutant
    verdict: str
    seconds: float
    output: str = ""

    @property
    def is_dead(self) -> bool:
        return self.verdict == "killed"


def copy_tree(target: Path) -> None:
    """What the tests need, without what this machine has made."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.exists():
            shutil.copy2(source, target / name)


def try_mutant(tree: Path, one: Mutant) -> Fate:
    """Plants it in a copy of the tree and runs its tests."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tern-mutant-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(tree, copy)
        for file, old, new in one.edits:
            source = copy / file
            content = source.read_text() if source.exists() else ""
            if content.count(old) != 1:
                times = content.count(old)
                return Fate(one, f"does not apply: the text stands {times} times in {file}", 0.0)
            source.write_text(content.replace(old, new))
        status, output = run_tests(copy, one.tests)
    verdict = {0: "SURVIVED", 1: "killed", -1: "killed"}.get(status, f"tests can't run ({status})")
    return Fate(one, verdict, time.monotonic() - began, output)


def run_tests(tree: Path, tests: str) -> tuple[int, str]:
    """Pytest's exit status, -1 for a mutant that never came to an end."""
    arguments = tests.split()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--show-capture=no",
        "-p",
        "no:randomly",
        *arguments,
    ]
    # Each mutant has its own servers; nothing of ours may be found by it.
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("TERN_", "PYTEST_"))
    }
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return -1, f"{late}"
    return done.returncode, done.stdout[-3000:] + done.stderr[-1000:]


def main() -> int:
    """Runs them, prints the table; how many did not die."""
    words = sys.argv[1:]
    chosen = [one for one in MUTANTS if not words or any(w in f"{one.guard} {one.name}" for w in words)]
    with tempfile.TemporaryDirectory(prefix="tern-mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        with ThreadPoolExecutor(PARALLEL) as pool:
            fates = list(pool.map(lambda one: _told(try_mutant(tree, one)), chosen))
        healthy = _control(tree, chosen)
    dead = sum(fate.is_dead for fate in fates)
    print(f"{dead} of {len(fates)} killed; without a mutant the tests are {'green' if healthy else 'RED'}")  # noqa: T201
    return 0 if healthy and dead == len(fates) else 1


def _told(fate: Fate) -> Fate:
    print(f"{fate.mutant.guard:4} {fate.mutant.name:64} {fate.verdict} {fate.seconds:5.0f} s", flush=True)  # noqa: T201
    if not fate.is_dead:
        print(fate.output[-1500:], flush=True)  # noqa: T201
    return fate


def _control(tree: Path, chosen: list[Mutant]) -> bool:
    """The same selections on the tree as it is: red there would mean that nothing was found."""
    selections = {one.tests for one in chosen}
    plain = sorted({word for tests in selections if " -k " not in tests for word in tests.split()})
    runs = [" ".join(plain)] * bool(plain) + sorted(tests for tests in selections if " -k " in tests)
    for tests in runs:
        status, output = run_tests(tree, tests)
        if status != 0:
            print(f"red without a mutant: {tests}\n{output}")  # noqa: T201
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())

"""What a planted bug is: a text and its replacement, and the smallest selection of tests that must go red."""

from dataclasses import dataclass

_CRASH = "tests/faults/test_crash_points.py"

DISPATCH, CONTROL = "tern/flows/dispatch.py", "tern/flows/control.py"
S_DISPATCH, S_DELIVERY, S_POLL = "tern/store/dispatch.py", "tern/store/delivery.py", "tern/store/poll.py"
S_ANSWER, S_PROJECTION, S_SWEEP = "tern/store/answer.py", "tern/store/projection.py", "tern/store/sweep.py"
S_APPLY, S_UNCALLED, S_HALT = "tern/store/apply.py", "tern/store/uncalled.py", "tern/store/halt.py"
STEP, GATE, RESERVATION = "tern/store/step.py", "tern/store/gate.py", "tern/store/reservation.py"
S_SEEN, S_NOTIFY, S_IDENTITY = "tern/store/seen.py", "tern/store/notify.py", "tern/store/identity.py"
S_START, S_WITHDRAW, S_WISH = "tern/store/start.py", "tern/store/withdraw.py", "tern/store/wish.py"
D_ENDING = "tern/domain/ending.py"
D_CONTROL, D_DISPATCH, D_ADMISSION = (
    "tern/domain/control.py",
    "tern/domain/dispatch.py",
    "tern/domain/admission.py",
)
D_PROJECTION, D_BUDGET, D_OPENING = (
    "tern/domain/projection.py",
    "tern/domain/budget.py",
    "tern/domain/opening.py",
)
D_BARRIER, D_HOLDS, IDENTITY = "tern/domain/barrier.py", "tern/domain/holds.py", "tern/domain/identity.py"
MIGRATION = "migrations/versions/0001_first_schema.py"
FLOWS = "tests/flows/test_"


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


def calm(story: str) -> str:
    """The story without a fault."""
    return f"{_CRASH}::test_story_ends_well_without_any_fault[{story}]"


def crash(story: str) -> str:
    """The story with a death at every boundary."""
    return " ".join(f"{_CRASH}::test_worker_dies_at_each_boundary[{part}-{story}]" for part in (1, 0))

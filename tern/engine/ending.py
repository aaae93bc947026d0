"""How a job ends: what is still to be removed, and the words that say what stays."""

from collections import defaultdict

from tern.engine import job as books
from tern.engine.job import Job, KeptStep, State
from tern.engine.recipes.model import StepKind
from tern.engine.session import Connection, row


def leftovers(kept: list[KeptStep]) -> list[KeptStep]:
    """The steps whose traces have to go because their atom will never be finished, the last one first.

    A direct step that did not commit left nothing, and what it would have made may by now be somebody else's; an
    index build may have left an invalid index whether or not it got an answer.
    """
    atoms: dict[tuple[int, int], list[KeptStep]] = defaultdict(list)
    for each in kept:
        atoms[(each.change, each.atom)].append(each)
    return [
        each
        for atom in reversed(atoms.values())
        if any(step.status != "done" for step in atom)
        for each in reversed(atom)
        if each.step.undo is not None
        and (each.status == "done" or (each.status == "started" and each.step.kind is StepKind.BUILD_INDEX))
    ]


def tell_failure(control: Connection, job: Job, kept: KeptStep, words: str) -> None:
    """Notes a definitive failure: the job fails as soon as the leftovers are removed."""
    with books.fenced(control, job.id, job.epoch):
        books.show(control, job.id, kept.change, status="failed", detail=words)
        named = row(
            control,
            "SELECT namespace || '.' || table_name AS table, ddl FROM _tern.change WHERE job = %s AND n = %s",
            (job.id, kept.change),
        )
        where = named["table"] if named else "?"
        control.execute(
            "UPDATE _tern.job SET ending = 'failed', error = %s, revision = revision + 1 WHERE id = %s",
            (f"change {kept.change + 1} on {where}: {words}", job.id),
        )
        books.tell(control, job.id, "change_failed", words, change=kept.change, level="error")


def settle(control: Connection, job: Job, state: State) -> None:
    """Writes the verdict and lets go of the tables."""
    with books.fenced(control, job.id, job.epoch):
        note = _note(control, job, state)
        books.enter(control, job, state, note, note=note)


def settle_stopped(control: Connection, job: Job) -> bool:
    """Stops the job unless the wish was withdrawn meanwhile.

    A cutover that isn't finished has to be asked for again: what was safe to do before a stop may not be after it.
    """
    with books.fenced(control, job.id, job.epoch):
        now = books.load(control, job.id, lock=True)
        if now is None or now.control != "stop":
            return False
        books.enter(
            control, now, State.STOPPED, "Stopped; can be started again.", control=None, cutover_allowed=False
        )
    return True


def _note(control: Connection, job: Job, state: State) -> str:
    counts = row(
        control,
        "SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed,"
        "       (SELECT count(*) FROM _tern.step WHERE job = %(job)s AND status = 'done') AS steps"
        "  FROM _tern.change WHERE job = %(job)s",
        {"job": job.id},
    )
    total, completed, steps = (counts["total"], counts["completed"], counts["steps"]) if counts else (0, 0, 0)
    if state is State.COMPLETED:
        return f"{total} of {total} changes completed."
    stay = (
        f"{completed} of {total} changes were completed and stay."
        if completed
        else "No change was completed."
    )
    if state is State.CANCELLED and not completed and not steps:
        stay = "Nothing was changed."
    return f"{'Cancelled' if state is State.CANCELLED else 'Failed'}. {stay}"

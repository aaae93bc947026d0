"""Watching a long statement from outside, and writing what is seen into the change's row."""

import time

from tern.engine import job as books
from tern.engine import reconcile
from tern.engine.catalog import ESTIMATED_ROWS
from tern.engine.job import Job, KeptStep
from tern.engine.locks import session
from tern.engine.session import Connection, row

# What one core reads, checks or indexes per second; only for estimates, and said to be one.
VALIDATED_ROWS_PER_SECOND = 800_000
# The last percent belongs to the statement's own end.
ALMOST = 99


class BuildSampler:
    """Follows CREATE INDEX CONCURRENTLY by the server's own counters.

    The build passes its phases once; the counters start anew in each, so each has its share of the percentage.
    """

    _SHARES = (
        ("waiting for writers before build", 0, 0),
        ("building index: scanning table", 0, 40),
        ("building index: sorting", 40, 45),
        ("building index: loading", 45, 60),
        ("building index", 0, 60),
        ("waiting for writers before validation", 60, 60),
        ("index validation: scanning index", 60, 70),
        ("index validation: sorting", 70, 72),
        ("index validation: scanning table", 72, 95),
        ("waiting for old snapshots", 95, 95),
        ("waiting for readers", 95, 95),
    )

    def __init__(self, control: Connection, job: Job, kept: KeptStep) -> None:
        self._control = control
        self._job = job
        self._kept = kept
        self._since = time.monotonic()

    def sample(self, pid: int) -> None:
        """Writes how far the build of that process is."""
        build = reconcile.build_progress(self._control, pid)
        if build is None:
            return
        low, high = next(((a, b) for phase, a, b in self._SHARES if build.phase.startswith(phase)), (0, 0))
        fraction = min(build.done / build.total, 1.0) if build.total else 0.0
        percent = int(low + (high - low) * fraction)
        detail = build.phase
        if build.waits_for is not None:
            detail += f", behind {session(self._control, build.waits_for)}"
        total = _estimated_rows(self._control, self._job, self._kept)
        elapsed = time.monotonic() - self._since
        eta = int(elapsed * (100 - percent) / percent) if percent else 0
        _write(self._control, self._job, self._kept, percent, total, detail, eta)


class ValidationSampler:
    """Estimates how far a validation is: the server has no counter for it."""

    def __init__(self, control: Connection, job: Job, kept: KeptStep) -> None:
        self._control = control
        self._job = job
        self._kept = kept
        self._since = time.monotonic()
        self._total = _estimated_rows(control, job, kept)

    def sample(self) -> None:
        """Writes the estimate."""
        expected = self._total / VALIDATED_ROWS_PER_SECOND
        elapsed = time.monotonic() - self._since
        percent = min(int(100 * elapsed / expected), 95) if expected else 0
        eta = max(int(expected - elapsed), 0)
        _write(
            self._control,
            self._job,
            self._kept,
            percent,
            self._total,
            "reads every row (progress is estimated)",
            eta,
        )


def _write(
    control: Connection, job: Job, kept: KeptStep, percent: int, total: int, detail: str, eta: int
) -> None:
    """The percentage of the step, as its share of the change."""
    with books.fenced(control, job.id, job.epoch):
        counts = row(
            control,
            "SELECT count(*) AS heavy, count(*) FILTER (WHERE status = 'done') AS done FROM _tern.step"
            " WHERE job = %s AND change = %s AND body->>'kind' IN ('validate', 'build_index')",
            (job.id, kept.change),
        )
        heavy, done = (max(counts["heavy"], 1), counts["done"]) if counts else (1, 0)
        whole = min(int((done * 100 + percent) / heavy), ALMOST)
        books.show(
            control,
            job.id,
            kept.change,
            detail=detail,
            percent=whole,
            rows_total=total,
            rows_done=total * whole // 100,
            eta_seconds=eta,
        )


def _estimated_rows(control: Connection, job: Job, kept: KeptStep) -> int:
    found = row(
        control,
        f"SELECT {ESTIMATED_ROWS} AS rows FROM pg_class AS c"
        "  JOIN _tern.change AS ch ON ch.job = %s AND ch.n = %s"
        " WHERE c.oid = to_regclass(format('%%I.%%I', ch.namespace, ch.table_name))::oid",
        (job.id, kept.change),
    )
    return int(found["rows"]) if found else 0

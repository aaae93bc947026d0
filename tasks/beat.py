"""The metronome's two entries. No message expires, by whatever clock: a sweep that comes too soon ends at once, because
its row says when the last one began (store/sweep.py), so ticks that have piled up cost a read each.
"""

from typing import Any

from tern.domain.timing import SWEEP_PERIOD_S

SCHEDULE: dict[str, dict[str, Any]] = {
    "poll-progress": {
        "task": "tern.progress.sweep",
        "schedule": SWEEP_PERIOD_S["progress"],
    },
    "reconcile": {
        "task": "tern.sweep",
        "schedule": SWEEP_PERIOD_S["reconcile"],
    },
}

"""The metronome's two entries. Both expire before the next one, so that ticks never pile up."""

from typing import Any

SCHEDULE: dict[str, dict[str, Any]] = {
    "poll-progress": {
        "task": "tern.progress.sweep",
        "schedule": 1.0,
        "options": {"expires": 0.9},
    },
    "reconcile": {
        "task": "tern.sweep",
        "schedule": 2.0,
        "options": {"expires": 1.8},
    },
}

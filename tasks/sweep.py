"""The metronome's tasks."""

from tasks.app import app
from tasks.process import EXPECTED, OWNER, ports
from tern.flows import sweep


# Ticks are kept out of Flower, which is there to show operations.
@app.task(name="tern.progress.sweep", throws=EXPECTED, send_events=False)
def progress_sweep() -> None:
    """Rings one poll per deployment that is due."""
    sweep.sweep_progress(f"beat@{OWNER}", ports())


@app.task(name="tern.sweep", throws=EXPECTED, send_events=False)
def reconcile() -> None:
    """Rings for everything else that is due."""
    sweep.reconcile(f"beat@{OWNER}", ports())

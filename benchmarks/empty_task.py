"""The task that does nothing but be counted: what Celery itself takes for a message."""

import itertools
import os
from pathlib import Path

from tasks.app import app

_done = itertools.count(1)


@app.task(name="bench.empty")
def empty(*, last: int) -> None:
    """Counts itself in memory; the last one says that it was."""
    if next(_done) % last == 0:
        with Path(os.environ["BENCH_EMPTY_DONE"]).open("a") as file:
            file.write("done\n")

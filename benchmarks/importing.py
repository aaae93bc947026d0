"""How long `tern deployments import` takes, as a whole process: `python -m benchmarks.importing`.

Ten thousand beside one thousand, so that what is quadratic shows itself; then once more with every entry replaced.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figure import Figure, table
from benchmarks.ground import ground

SIZES = (1_000, 10_000)


def measure(sizes: Sequence[int] = SIZES) -> list[Figure]:
    """Seconds from the start of the process to its end."""
    figures = []
    taken: dict[int, float] = {}
    with ground() as here:
        for size in sizes:
            here.settings["TERN_DATABASE_URL"] = here.database(f"import_{size}")[0]
            file = here.folder / f"{size}.json"
            file.write_text(json.dumps(_entries(size, "grpc://127.0.0.1:1")))
            taken[size] = _seconds(here.settings, file)
            figures.append(Figure(f"import of {size:,}", taken[size], "s", at_most=10))
        file.write_text(json.dumps(_entries(size, "grpc://127.0.0.1:2")))
        again = _seconds(here.settings, file, "--replace")
    figures.append(Figure(f"the same {size:,}, each replaced", again, "s", at_most=10))
    small, large = sizes
    figures.append(Figure(f"{large:,} / {small:,}", taken[large] / taken[small], at_most=large / small))
    return figures


def _entries(count: int, address: str) -> list[dict[str, object]]:
    return [
        {
            "name": f"place-{number:05}",
            "environment": "bench",
            "database": "shop",
            "address": address,
            "target": f"target-{number:05}",
            "labels": {"region": f"r{number % 20}"},
            "position": number,
            "credentials": {"token": "env:TOKEN"},
        }
        for number in range(count)
    ]


def _seconds(settings: dict[str, str], file: Path, *more: str) -> float:
    begun = time.perf_counter()
    subprocess.run(
        (sys.executable, "-m", "tern", "deployments", "import", str(file), *more),
        env={**os.environ, **settings},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(table("importing", measure()))

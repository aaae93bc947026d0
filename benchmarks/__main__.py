"""All benchmarks, or some: `python -m benchmarks --only dispatch,poll`. Ends with 1 if a target is missed."""

import argparse
import importlib
import sys
import time

from benchmarks.figure import Verdict, table

ALL = {
    "dispatch": "dispatch: 2,000 operations, beside Celery, a bare loop and DBOS",
    "poll": "poll: 10,000 live operations on 100 deployments, one in a hundred changed",
    "flat": "flat: claims and sweeps with 1,000, 100,000 and 1,000,000 operations in the tables",
    "start_up": "start-up: what a person waits for, with an apply of 10,000 operations",
    "memory": "memory: a worker's, over its ticks",
    "stop": "stop: of 10,000 operations, without a broker",
    "importing": "importing: 10,000 deployments, as a whole command",
}


def main() -> int:
    """Measures, prints, and says whether all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ALL), help=f"some of {', '.join(ALL)}")
    chosen = parser.parse_args().only.split(",")
    if unknown := set(chosen) - set(ALL):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    missed = 0
    tables = []
    for name in chosen:
        begun = time.monotonic()
        print(f"{ALL[name]} …", file=sys.stderr, flush=True)
        figures = importlib.import_module(f"benchmarks.{name}").measure()
        tables.append(table(f"{ALL[name]} ({time.monotonic() - begun:.0f} s)", figures))
        missed += sum(figure.verdict is Verdict.MISSED for figure in figures)
    print("\n".join(tables))
    print(f"\n{missed} targets missed" if missed else "\nall targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

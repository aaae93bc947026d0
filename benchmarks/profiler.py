"""What a worker's threads are seen doing, a few hundred times a second: `-I benchmarks.profiler` in a worker.

Only threads that work are counted; those that wait in a known place are not. Written to BENCH_PROFILE when the worker
ends. A sampler inside the process sees threads where they let go of the interpreter, so take it for a hint.
"""

import atexit
import collections
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

_INTERVAL_S = 0.003
_WAITS = {
    "wait",
    "poll",
    "select",
    "_wait_for_tstate_lock",
    "get",
    "sleep",
    "_worker",
    "read",
    "recv",
    "_recv",
}
_leaves: collections.Counter[str] = collections.Counter()
_within: collections.Counter[str] = collections.Counter()
_seen = 0


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-3:])}:{code.co_qualname}"


def _sample() -> None:
    global _seen  # noqa: PLW0603
    mine = threading.get_ident()
    while True:
        time.sleep(_INTERVAL_S)
        _seen += 1
        for thread, top in sys._current_frames().items():  # noqa: SLF001
            if thread == mine or top.f_code.co_name in _WAITS:
                continue
            _leaves[_place(top)] += 1
            frame: FrameType | None = top
            places: set[str] = set()
            while frame is not None:
                places.add(_place(frame))
                frame = frame.f_back
            _within.update(places)


def _write() -> None:
    lines = [f"{_seen} looks", "", "at the top of a stack"]
    lines += [f"{count:7} {place}" for place, count in _leaves.most_common(60)]
    lines += ["", "anywhere in a stack"]
    lines += [f"{count:7} {place}" for place, count in _within.most_common(120)]
    Path(os.environ["BENCH_PROFILE"]).write_text("\n".join(lines) + "\n")


if "BENCH_PROFILE" in os.environ:
    atexit.register(_write)
    threading.Thread(target=_sample, daemon=True, name="bench-profiler").start()

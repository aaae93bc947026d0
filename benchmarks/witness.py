"""Notes each forward call of a worker with the moment of its last look: `-I benchmarks.witness` in a worker.

A line a call in BENCH_WITNESS: when the look was begun, when the call was begun, whose it is. Seconds since 1970 of
this machine's clock, which is the database's as well.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

from tern.store.store import PostgresStore
from tern.wire.channels import GrpcTransport

_look = threading.local()
_lines = Path(os.environ["BENCH_WITNESS"]).open("a", buffering=1)  # noqa: SIM115 - until the worker ends
_look_once_more = PostgresStore.may_go_forward
_call = GrpcTransport.call


def _noted_look(self: PostgresStore, claim: Any, **how: Any) -> bool:
    _look.begun = time.time()
    return _look_once_more(self, claim, **how)


def _noted_call(self: GrpcTransport, method: Any, request: Any, **how: Any) -> Any:
    if method.name in {"Apply", "Start", "Cutover"}:
        _lines.write(f"{_look.begun} {time.time()} {dict(how['metadata']).get('tern-operation')}\n")
    return _call(self, method, request, **how)


PostgresStore.may_go_forward = _noted_look  # type: ignore[method-assign]
GrpcTransport.call = _noted_call  # type: ignore[method-assign, assignment]

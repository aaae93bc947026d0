"""What must hold after a run: the rules of the fault harness over its history, and that it came to rest in time."""

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.history import Done, History, Job
from tests.faults.invariants import violations

if TYPE_CHECKING:
    from tests.simulation.engines import Job as SimJob
    from tests.simulation.engines import SimEngine
    from tests.simulation.run import Result, Run

REST_S = 330.0
"""From the end of all trouble until everything is at rest. The longest of all: a stop that its engine refuses ten
times, with pauses that double up to a minute.
"""

EXCUSED = (("stops", "S15: start of"), ("stops", "S15: stop of"))
"""A job that stops by itself just after its start lets the start look as if it had not worked, and makes a stop true
without a call.
"""


def check(run: "Run", result: "Result", *, at_rest: bool) -> None:
    """Adds whatever does not hold to the result."""
    for engine in run.engines.values():
        engine.get_on()
    history = history_of(run)
    result.told = timeline(history)
    kinds = {fault.kind for fault in result.plan}
    result.wrong += [
        line
        for line in (violations(history) if at_rest else ())
        if not any(kind in kinds and line.startswith(words) for kind, words in EXCUSED)
    ]
    result.wrong += new_work_while_drained(run.drains, history)
    result.wrong += new_work_beside_outstanding(history)
    if "refused" not in kinds:  # by somebody before the engine, whose ledger has no such question then
        # What an engine has refused may be sent to it again as it is, by a retry.
        knowing = {
            name
            for name, kind in run.kinds.items()
            if kind.resolves and not (kind.refuses or kind.refuses_first or kind.refuses_any)
        }
        result.wrong += sent_again_unasked(knowing, history)
    result.wrong += done_twice(run.backend.chains(), run.engines, disowned(run))
    if result.rest_s > REST_S:
        result.wrong.append(f"liveness: at rest {result.rest_s:.0f} s after the end of all trouble")
    if not result.plan and result.states != dict(result.scenario.ends):
        result.wrong.append(f"control run: it ended as {result.states}")
    enqueued = Counter(kind for kind, _ in run.acknowledged)["apply"]
    if len(history.applies) < enqueued:
        result.wrong.append(f"S13: {enqueued} rollouts were acknowledged, {len(history.applies)} are there")


def history_of(run: "Run") -> History:
    """What the checkers read. A job that was given up, or is forgotten, is what a person said of it."""
    states = {
        (f"{one.apply_id}/{each.deployment}", each.remote_id): each.state
        for one in run.backend.look()
        for each in one.operations
    }
    given_up = run.backend.given_up()
    jobs = [
        Job(
            name,
            job.remote_id,
            job.operation,
            states.get((job.operation, job.remote_id), job.state) if job.operation in given_up else job.state,
        )
        for name, engine in run.engines.items()
        for job in engine.jobs.values()
        # Of one that was given up before its answer came nobody knows the id: its key is outstanding.
        if not (job.operation in given_up and (job.operation, None) in states)
    ]
    jobs += [
        Job(name, job.remote_id, job.operation, states[job.operation, job.remote_id])
        for name, engine in run.engines.items()
        for job in engine.forgotten
        if (job.operation, job.remote_id) in states
    ]
    denied = disowned(run)
    ledgers = [(engine.calls, judged(engine.effects, denied)) for engine in run.engines.values()]
    return run.backend.history(ledgers, jobs, run.acknowledged)


def new_work_while_drained(drains: Iterable[tuple[float, str, bool]], history: History) -> Iterator[str]:
    """No Apply and no Start begins at a deployment that somebody was told is drained."""
    for call in history.calls:
        if call.method not in {"Apply", "Start"}:
            continue
        told = [(at, drained) for at, name, drained in drains if name == call.engine and at < call.at]
        at, is_drained = max(told, default=(0.0, False))
        if is_drained:
            yield f"drained: {call.method} of {call.operation} began {call.at - at:.3f} s after it"


def new_work_beside_outstanding(history: History) -> Iterator[str]:
    """No Apply and no Start begins at a target where something is outstanding, but a Start of that very job."""
    spans: dict[int, tuple[float, float, str, str | None]] = {}
    for change in history.changes:
        if change.table != "outstanding_calls":
            continue
        if not change.old and change.new["settled_at"] is None:
            spans[change.row] = (
                change.at,
                math.inf,
                change.new["deployment"],
                change.new["remote_id"],
            )
        elif change.row in spans and change.new["settled_at"] is not None and not change.old["settled_at"]:
            begun, _, name, remote_id = spans[change.row]
            spans[change.row] = (begun, change.at, name, remote_id)
    for call in history.calls:
        for begun, ended, name, remote_id in spans.values():
            is_own = call.method == "Start" and call.remote_id == remote_id
            if (
                call.method in {"Apply", "Start"}
                and call.engine == name
                and begun < call.at < ended
                and not is_own
            ):
                yield (
                    f"outstanding: {call.method} of {call.operation} began {call.at - begun:.3f} s after"
                    f" {remote_id or 'a key'} was"
                )


def sent_again_unasked(knowing: Container[str], history: History) -> Iterator[str]:
    """No engine that was found to know keys is sent one again before it, or whoever has its place by then, was asked
    about it since.
    """
    unasked: set[tuple[str, str]] = set()
    for call in sorted(history.calls, key=lambda call: call.at):
        known = (call.engine, call.key)
        if call.method == "Resolve":
            unasked.discard(known)
        elif call.method == "Apply" and call.engine in knowing:
            if known in unasked:
                yield f"repetition: the key of {call.operation} was sent again to {call.engine}, which nobody asked"
            unasked.add(known)


def disowned(run: "Run") -> list["SimJob"]:
    """Work that its engine has denied on its own word."""
    return [
        job for name, engine in run.engines.items() for job in engine.disowned(declares=run.declares(name))
    ]


def judged(effects: Iterable[Done], jobs: Iterable["SimJob"]) -> list[Done]:
    """The ledger as its engine would tell it: what it has denied is no work that was started."""
    denied = {(job.operation, job.key, job.remote_id) for job in jobs}
    told: list[Done] = []
    for one in effects:
        found = (one.operation, one.key, one.remote_id)
        if one.kind == "apply" and found in denied:
            # Once: under the same key it may have given the same id again.
            denied.discard(found)
            told.append(replace(one, is_duplicate=True))
        else:
            told.append(one)
    return told


def done_twice(
    chains: Mapping[str, str], engines: Mapping[str, "SimEngine"], denied: Sequence["SimJob"] = ()
) -> Iterator[str]:
    """No statement of an operation is done by it and by a follow-up, or by two of those. chains: of each operation the
    one with which its chain begins.
    """
    for engine in engines.values():
        done = Counter(
            (chains.get(job.operation, job.operation), ddl)
            for job, ddl in engine.statements
            if not any(job is other for other in denied)
        )
        yield from (
            f"carried on: at {engine.name} {ddl!r} of {first} was done {count} times"
            for (first, ddl), count in done.items()
            if count > 1
        )


def timeline(history: History) -> list[str]:
    """The record, and what the engines did, in order."""
    lines = [
        f"{event.id:3} {event.operation_id} {event.who}: {event.event} {event.before}->{event.after} {event.why}"
        for event in history.events
    ]
    done = [
        f"{one.at:.3f} {one.engine} {one.kind} {one.remote_id}{' again' if one.is_duplicate else ''}"
        for one in history.effects
    ]
    return lines + done

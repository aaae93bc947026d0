"""Fault plans: what goes wrong, and at which port call. Sparse: a call that no fault names goes well.

A plan is written `17 die-after, 30 late`: the number counts the port calls of the run, which is the same in every
run up to the first fault, and after it the same in every run of that plan.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that goes wrong at one port call."""

    at: int
    kind: str

    def __str__(self) -> str:
        return f"{self.at} {self.kind}"


Plan = tuple[Fault, ...]


def read_plan(text: str) -> Plan:
    """`17 die-after, 30 late`; raises KeyError for a kind that does not exist, ValueError for no number."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        number, _, kind = part.partition(" ")
        assert kind in KINDS, f"there is no fault {kind!r}"
        found.append(Fault(int(number), kind))
    return tuple(found)


def write_plan(plan: Plan) -> str:
    """What read_plan reads."""
    return ", ".join(map(str, plan))


@dataclass(frozen=True, slots=True)
class Point:
    """One port call of a run: a place where something may go wrong. `alone`: nobody else could go just then;
    `wrote`: it left something behind; `situation`: what everything looked like, without the time, 0 if nobody asked.
    """

    step: int
    actor: str
    port: str
    name: str
    alone: bool = False
    wrote: bool = False
    situation: int = 0

    def __str__(self) -> str:
        return f"{self.actor} {self.port}.{self.name}"

    @property
    def is_metronome(self) -> bool:
        """Part of a sweep: what it finds is worked on elsewhere."""
        return self.actor in {"reconcile", "sweep_progress", "self_sweep"}


def _driver(point: Point) -> bool:
    return not point.is_metronome and not point.actor.startswith("person")


def _leaves(point: Point) -> bool:
    """Something is left behind that a death, or a lost answer, can come after."""
    if point.port == "engine":
        return point.name not in {"health", "progress", "batch_progress"}
    return point.port == "store" and point.wrote and not point.actor.startswith("person")


def _lost_commit(point: Point) -> bool:
    return point.port == "store" and point.wrote


def _work(point: Point) -> bool:
    """A call of a driver whose moment matters: before it, somebody else may come."""
    return _driver(point) and (
        point.port == "engine" or (point.port == "store" and point.name != "dispatch_budget")
    )


def _begins(point: Point) -> bool:
    """The first call of a tick: before it, a frozen worker is no more than a late message."""
    return point.port == "store" and point.name.startswith(("claim_", "begin_look", "advance_apply"))


def _amid(point: Point) -> bool:
    return _work(point) and not _begins(point)


def _in_company(point: Point) -> bool:
    return _amid(point) and not point.alone


def _engine(point: Point) -> bool:
    return point.port == "engine"


def _look(point: Point) -> bool:
    return point.port == "engine" and point.name in {"progress", "batch_progress"}


def _refusable(point: Point) -> bool:
    return point.port == "engine" and point.name != "health"


def _new_or_known(point: Point) -> bool:
    """An engine is handed something over, or asked for what it was handed."""
    return _look(point) or _handing_over(point) or (point.port == "engine" and point.name == "resolve")


def _handing_over(point: Point) -> bool:
    return point.port == "engine" and point.name == "apply"


def _control(point: Point) -> bool:
    return point.port == "engine" and point.name not in {"health", "progress", "batch_progress"}


def _bell(point: Point) -> bool:
    return point.port == "bells"


def _claim(point: Point) -> bool:
    return point.port == "store" and point.name in {"claim_dispatch", "claim_delivery"}


def _retried(point: Point) -> bool:
    """Somebody catches the storage error and tries again."""
    return point.port == "store" and (point.name == "record_remote_id" or point.actor.startswith("person"))


KINDS: Mapping[str, Callable[[Point], bool]] = {
    # The worker
    "die-after": _leaves,
    "freeze": _amid,
    "yield": _in_company,
    # The store
    "unavailable": _retried,
    "unknown": _lost_commit,
    "busy": _claim,
    "database-down": _begins,
    "clock-back-a-little": _work,
    "clock-back-an-hour": _work,
    # The engine
    "lost": _engine,
    "unanswered": _control,
    "late": _control,
    "refused": _refusable,
    "away": _engine,
    "senseless": _look,
    "fails": _look,
    "stops": _look,
    "forgets": _look,
    "gone": _new_or_known,
    "comes-back": _new_or_known,
    "starts-over": _new_or_known,
    "replaced": _new_or_known,
    "taken-id": _handing_over,
    # The broker
    "lose": _bell,
    "double": _bell,
    "race": _bell,
    "postpone": _bell,
    "broker-down": _begins,
    # People
    "stop": _work,
    "stop-first": _work,
    "cancel": _work,
    "cancel-first": _work,
    "start": _work,
    "start-first": _work,
    "cutover": _work,
    "cutover-first": _work,
    "retry-first": _work,
    "skip-first": _work,
    "release-first": _work,
    "drain": _work,
    "drain-first": _work,
    "undrain": _work,
    "carry-on": _work,
    "carry-on-first": _work,
}
"""Each kind of fault, and where a single one makes a difference.

die-after: the worker is killed once the call had its effect. To be killed before a call is to be killed after the one
before it. freeze: the worker stands still for longer than its lease, just before the call. yield: everybody else goes
first. unavailable, unknown: PostgreSQL does not answer, without or with the effect. busy: somebody else holds the
row. clock-back-…: the database's clock is set back by a tenth of a second, or by an hour. lost, unanswered: no
answer, without or with the effect; late: no answer, and the effect some seconds after. away: the engine is gone for a
while; gone: for good; comes-back: gone until long after a person has given it up. senseless: a look that says
nothing. fails, stops, forgets: the job does so by itself. starts-over, replaced: the engine remembers nothing and
gives its ids out again, or is another one that knows nothing and offers nothing. taken-id: a new key is answered with
an id that was given out before. lose, double, race, postpone: of a message; the second copy of a race is worked on in
step with the first. stop, cancel, start, cutover, retry, skip, release, drain, undrain, carry-on: somebody asks for
it, for the whole apply; with -first it is driven before the call goes on.
"""

ASKS = ("stop", "cancel", "start", "cutover", "retry", "skip", "release", "drain", "undrain", "carry-on")

NOT_YET: Mapping[str, str] = {}
"""Kinds that Tern does not stand yet, with the reason. They are played when asked for by name (`--kinds`) only; whoever
builds the rule takes its kind off the list.
"""


def distinct(trace: list[Point]) -> list[Point]:
    """Without the calls that somebody has made in just this situation before, as each look at a job that runs on."""
    seen: set[tuple[str, str, str, int]] = set()
    kept = []
    for point in trace:
        key = (point.actor, point.port, point.name, point.situation)
        if not point.situation or key not in seen:
            kept.append(point)
        seen.add(key)
    return kept


def single_faults(
    trace: list[Point], after: int = 0, without: Container[str] = (), only: Container[str] = ()
) -> list[Fault]:
    """Every fault that makes a difference at some call of the run behind `after`; of those kinds only, if any are
    named.
    """
    wanted = only or [kind for kind in KINDS if kind not in NOT_YET]
    kinds = [(kind, fits) for kind, fits in KINDS.items() if kind in wanted and kind not in without]
    return [
        Fault(point.step, kind)
        for point in trace
        if point.step > after
        for kind, fits in kinds
        if fits(point)
    ]

"""Making a failing plan as small as it can be: the fewest faults, each as simple and as early as possible."""

from collections.abc import Callable, Iterator

from tests.simulation.plan import Fault, Plan

_SIMPLER = {
    "stop-first": ("stop",),
    "cancel-first": ("stop-first", "cancel"),
    "start-first": ("start",),
    "cutover-first": ("cutover",),
    "away": ("lost",),
    "late": ("unanswered", "lost"),
    "freeze": ("yield",),
    "race": ("double",),
    "broker-down": ("lose",),
    "database-down": ("unavailable",),
}


def shrink(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """The smallest plan found that still fails; `fails` is asked about each candidate."""
    found = plan
    changed = True
    while changed:
        changed = False
        for candidate in _smaller(found):
            if fails(candidate):
                found, changed = candidate, True
                break
    return found


def _smaller(plan: Plan) -> Iterator[Plan]:
    for number in range(len(plan)):
        yield plan[:number] + plan[number + 1 :]
    for number, fault in enumerate(plan):
        for kind in _SIMPLER.get(fault.kind, ()):
            yield (*plan[:number], Fault(fault.at, kind), *plan[number + 1 :])
    # A fault whose predecessor went may have moved: a few calls earlier it is often the same one.
    for number, fault in enumerate(plan):
        before = plan[number - 1].at if number else 0
        for at in range(max(before + 1, fault.at - 3), fault.at):
            yield (*plan[:number], Fault(at, fault.kind), *plan[number + 1 :])

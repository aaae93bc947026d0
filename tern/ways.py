"""What leads on from where one operation stands: every command that is taken now, each with what it would do. Pure.

A reason that holds it is told in domain/holds.py; who moves it away, and how, is told here and nowhere else.
"""

import re
from collections.abc import Iterable, Iterator

from tern.blocking import hint_of_silence
from tern.domain.control import LIVE_FOR_THE_APPLICATION
from tern.domain.holds import ClearedBy, Hold, HoldKind
from tern.domain.policy import OnFailure
from tern.domain.states import State
from tern.leftover import may_be_carried_on, may_be_retried, needs_its_name, way_of, ways_out
from tern.operation import OperationView
from tern.view import ApplyView

Way = tuple[str, str]
"""A command, ready to be copied, and its consequence."""

MOST_NAMED = 6

_ENDS_A_BLOCKER = re.compile(
    r"to end it: (SELECT pg_terminate_backend\(\d+\)|ROLLBACK PREPARED '(?:[^']|'')+')"
)
"""How the PostgreSQL engine names the statement (engine/locks.py)."""


def ways_of(view: ApplyView, operation: OperationView) -> tuple[Way, ...]:
    """Each once; first what somebody is needed for, and what lets the whole rollout go on."""
    needed = [(blocker.command, blocker.consequence) for blocker in view.blockers_of(operation.deployment)]
    held = (way for hold in operation.holds for way in _of_hold(view, operation, hold))
    found: dict[str, str] = {}
    for command, consequence in (*needed, *held, *_of_state(operation)):
        found.setdefault(command, consequence)
    return tuple(found.items())


def as_json(ways: Iterable[Way]) -> list[dict[str, str]]:
    """For `--json`."""
    return [{"command": command, "consequence": consequence} for command, consequence in ways]


def _of_hold(view: ApplyView, operation: OperationView, hold: Hold) -> Iterator[Way]:
    scope, name = operation.scope, operation.deployment
    match hold.kind:
        case HoldKind.FAILURES:
            yield from _of_failures(view)
            if operation.state is State.WAITING_FOR_CUTOVER and len(operation.holds) == 1:
                yield (
                    f"tern cutover {scope} --reason '…'",
                    "lets the application see the change there all the same",
                )
        case HoldKind.STOP if (
            operation.record.stop_in_force == "stop" and operation.state is not State.STOPPED
        ):
            yield f"tern start {scope} --reason '…'", "lets it go on: a start supersedes the stop"
        case HoldKind.DRAINED:
            yield f"tern deployments undrain {name}", "lets new work begin there"
        case HoldKind.SILENT:
            yield from hint_of_silence(operation.record, scope).ways
        case HoldKind.RESERVATION | HoldKind.SAME_TARGET if operation.record.blocked_by is not None:
            holder = operation.record.blocked_by.scope
            yield (
                f"tern explain {holder}",
                "says how far the one is that holds its target, and what moves that on",
            )
        case HoldKind.ORDER | HoldKind.WAVE | HoldKind.TURN | HoldKind.STRICT if (
            hold.cleared_by is ClearedBy.FIX
        ):
            yield from _of_whom_it_waits_for(view, operation)
        case _:
            # What clears by itself needs nobody; the rest is among what needs a person.
            return


def _of_failures(view: ApplyView) -> Iterator[Way]:
    """A pause is released; a halt is left by what takes a failure away."""
    apply_id = view.facts.apply_id
    if view.facts.policy.on_failure is OnFailure.PAUSE:
        yield f"tern release {apply_id} --reason '…'", "lets the others go on, until the next failure"
    if view.may_be_retried:
        yield f"tern retry {apply_id} --state failed --reason '…'", "tries again what no engine gave an id"


def _of_whom_it_waits_for(view: ApplyView, operation: OperationView) -> Iterator[Way]:
    """The first before it that a person has to move, with the ways of that one."""
    for each in view.standing[:2]:
        if each is operation:
            continue
        moves = view.blockers_of(each.deployment)
        if moves and each.state is State.STOPPED:
            yield moves[0].command, f"moves {each.deployment} on, which it waits for: {moves[0].consequence}"
        else:
            yield f"tern explain {each.scope}", f"says what moves {each.deployment} on, which it waits for"
        return


def _of_state(operation: OperationView) -> Iterator[Way]:
    """What may be asked for in this very state, needed or not."""
    scope, record = operation.scope, operation.record
    asked = {wish.verb.value for wish in record.open_wishes}
    match operation.state:
        case State.STOPPED if not asked & {"start", "cancel", "skip"}:
            yield f"tern cancel {scope} --reason '…'", "ends it for good, and lets what waits for it go on"
        case State.REVERT_WINDOW if not asked & {"revert", "skip-revert"}:
            yield f"tern skip-revert {scope} --reason '…'", "keeps the change for good, and closes the window"
            yield f"tern revert {scope} --reason '…'", "takes the change back"
        case State.RUNNING if operation.under_way is not None:
            for statement in _ENDS_A_BLOCKER.findall(operation.under_way.detail):
                words = f"typed at the database of {record.deployment}, ends who is in the way; what that did is undone"
                yield f"{statement};", words
        case state if state.is_finished:
            if record.blocked_by is not None:
                holder = record.blocked_by.scope
                yield f"tern explain {holder}", "says how far the one is that holds its target now"
            if record.carried_on is not None and not record.carried_on.leaves_more:
                yield way_of(record.carried_on, scope)
            yield from ways_out(scope, record)
        case _:
            return


def ways_of_all(view: ApplyView) -> Iterator[Way]:
    """The commands that lead on from everything that is over without being done, at once."""
    apply_id = view.facts.apply_id
    records = [each.record for each in view.operations if not each.record.is_done_since]
    if any(map(may_be_retried, records)):
        yield f"tern retry {apply_id} --state failed --reason '…'", "tries again what no engine gave an id"
    left = [each for each in records if may_be_carried_on(each)]
    if not left:
        return
    if drained := [each.deployment for each in left if each.drained]:
        yield (
            f"tern deployments undrain {' '.join(drained[:MOST_NAMED])}",
            "lets what is left there be carried on",
        )
    free = [each for each in left if not each.drained]
    if not all(map(needs_its_name, free)):
        yield f"tern apply --rest-of {apply_id}", "shows what is left; sends nothing"
    elif len(free) == 1:
        yield (
            f"tern apply --rest-of {apply_id}/{free[0].deployment}",
            "shows what is left there; sends nothing",
        )
    elif free:
        names = ",".join(each.deployment for each in free[:MOST_NAMED])
        more = f", of the first {MOST_NAMED}" if len(free) > MOST_NAMED else ""
        yield (
            f"tern apply --rest-of {apply_id} --deployments {names}",
            f"shows what is left there{more}; sends nothing",
        )


def ways_of_stopped(view: ApplyView) -> Iterator[Way]:
    """What resumes everything that was stopped, or what has to come before that."""
    stopped = [each.record for each in view.operations if each.state is State.STOPPED]
    blocked = [each for each in stopped if each.blocked_by is not None]
    drained = [each.deployment for each in stopped if each.drained and each.blocked_by is None]
    if drained:
        yield f"tern deployments undrain {' '.join(drained[:MOST_NAMED])}", "lets them be started again"
    for each in blocked[:1]:
        if each.blocked_by is not None:
            words = f"says how far the one is that holds the target of {each.deployment}"
            yield f"tern explain {each.blocked_by.scope}", words
    if len(blocked) + len(drained) < len(stopped):
        yield f"tern start {view.facts.apply_id} --all --reason '…'", "resumes every stopped deployment"


def may_be_stopped(view: ApplyView) -> bool:
    """Something of it is live, and can be halted: a change that the application sees already can't."""
    return any(each.state.is_live and each.state not in LIVE_FOR_THE_APPLICATION for each in view.operations)

"""What an operation that is over has left undone, who carries that on, and the command that leads on. Pure."""

from collections.abc import Iterator

from tern.domain.admission import AdmissionFacts, admit
from tern.domain.control import Delivery, Receipt, Verb
from tern.domain.counting import named, plural, verb
from tern.domain.effect import Effect, half_done
from tern.domain.statement import TO_SAY, printed_statements
from tern.domain.states import State
from tern.facts import CarriedOn, OperationRecord

_SHOWS = "shows what is left there, and how it is carried on; sends nothing"
_SETTLED = frozenset({Effect.DONE, Effect.NOT_DONE})


def _carries_on(scope: str, record: OperationRecord) -> tuple[str, str]:
    """A rollout of what is left is refused under a drain, so what opens that comes first."""
    if record.drained:
        opens = f"lets new work begin there; then what is left is shown by: tern apply --rest-of {scope}"
        return f"tern deployments undrain {record.deployment}", opens
    return f"tern apply --rest-of {scope}", _SHOWS


def way_of(carried: CarriedOn, scope: str) -> tuple[str, str]:
    """The command that leads on from who carries an operation on, and what it would do."""
    if carried.is_in_doubt:
        return f"tern explain {carried.by}", "says what nobody can tell there, and how that is settled"
    if carried.leaves_more:
        return f"tern apply --rest-of {scope}", _SHOWS
    return f"tern get {carried.by}", "shows it"


def ways_on(scope: str, record: OperationRecord, *, is_over: bool) -> Iterator[tuple[str, str, str]]:
    """What is the matter, the command, and what it would do; nothing while somebody carries it on, or has done so.

    is_over: its rollout has its verdict. Until then a failure that changed nothing is in nobody's way.
    """
    if record.is_done_since:
        return
    if (carried := record.carried_on) is not None:
        if carried.leaves_more:
            # Nobody carries it on any more, whoever ended it: the target is half done, and so is this one's part.
            yield (
                carried.words,
                *(way_of(carried, scope) if carried.is_in_doubt else _carries_on(scope, record)),
            )
        return
    unknown = [number for number, table in enumerate(record.tables, 1) if table.effect is Effect.UNKNOWN]
    if unknown:
        is_in = verb(len(unknown), "is in", "are in")
        what = (
            f"it is {record.state}, and nobody can tell whether {named('statement', unknown)} of it {is_in}"
        )
        command = f"tern resolve {scope} {printed_statements(unknown)} --reason '…'"
        yield what, command, f"settles that: {TO_SAY}; then what is left can be carried on"
    elif has_a_rest(record, is_over=is_over):
        done = sum(table.effect is Effect.DONE for table in record.tables)
        what = f"{record.state}, with {done} of {plural(len(record.tables), 'statement')} done"
        if record.follow_ups:
            what += f"; carried on in vain by {', '.join(record.follow_ups)}"
        yield from ((what, *way) for way in ways_out(scope, record))


def ways_out(scope: str, record: OperationRecord) -> Iterator[tuple[str, str]]:
    """Each command that is taken now of an operation that is over, and what it would do, needed or not."""
    for each in record.since_then[-1:]:
        yield f"tern get {each.scope}", "shows who came to its target since"
    if record.is_done_since:
        return
    if may_be_retried(record):
        yield f"tern retry {scope} --reason '…'", "tries all of it again: no engine gave it an id"
    if may_be_carried_on(record):
        yield _carries_on(scope, record)


def has_a_rest(record: OperationRecord, *, is_over: bool) -> bool:
    """Something of it is left that is carried on by a rollout of its own, nobody does that, and somebody should."""
    if not may_be_carried_on(record):
        return False
    is_half_done = half_done(record.state, [table.state for table in record.tables])
    return record.carried_on is not None or is_half_done or (is_over and record.state is State.FAILED)


def may_be_carried_on(record: OperationRecord) -> bool:
    """A follow-up that is asked for by its name finds something to do."""
    if (carried := record.carried_on) is not None:
        return carried.leaves_more and not carried.is_in_doubt
    is_over = record.state.is_finished and record.state is not State.COMPLETED
    is_revived = any(wish.verb in {Verb.START, Verb.RETRY} for wish in record.open_wishes)
    effects = {table.effect for table in record.tables}
    return is_over and not is_revived and Effect.NOT_DONE in effects and effects <= _SETTLED


def needs_its_name(record: OperationRecord) -> bool:
    """Somebody meant that it is not done: its rest is carried on only where it is named."""
    last = record.state if record.carried_on is None else record.carried_on.state
    left_behind = any(wish.verb is Verb.SKIP and wish.fate is Delivery.ACKNOWLEDGED for wish in record.wishes)
    return last in {State.CANCELLED, State.REVERTED} or (last is State.SKIPPED and left_behind)


def after_a_word(scope: str, record: OperationRecord) -> str:
    """What leads on once a person has said of statements of it whether they are in."""
    effects = [table.effect for table in record.tables]
    if unknown := [number for number, effect in enumerate(effects, 1) if effect is Effect.UNKNOWN]:
        return f"Still unknown: tern resolve {scope} {printed_statements(unknown)} --reason '…' ({TO_SAY})"
    if (carried := record.carried_on) is not None:
        return f"It is {carried.words}: {way_of(carried, scope)[0]}"
    if all(effect is Effect.DONE for effect in effects):
        return "All of its statements are done; nothing is left to be carried on."
    return f"What is left there can be carried on: tern apply --rest-of {scope}"


def may_be_retried(record: OperationRecord) -> bool:
    """A retry of it would be taken: whoever accepts it decides by the same rule, on the same facts."""
    effects = [table.effect for table in record.tables]
    retries = [wish.request_id for wish in record.open_wishes if wish.verb is Verb.RETRY]
    facts = AdmissionFacts(
        record.state,
        has_remote_id=record.remote_id is not None,
        doubt=record.doubt,
        stop_in_force=record.stop_in_force,
        open_request=retries[0] if retries else None,
        open_verbs=frozenset(wish.verb for wish in record.open_wishes),
        target_holder=None if record.blocked_by is None else record.blocked_by.words,
        carried_on_by=record.carried_on_by,
        is_partly_done=Effect.DONE in effects,
        is_asked_to_end=any(each.cancel_asked for each in record.outstanding),
    )
    return record.state is State.FAILED and admit(Verb.RETRY, facts).outcome is Receipt.ACCEPTED

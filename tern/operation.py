"""One operation with what follows from its place in the rollout, as every face of Tern shows it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from tern.domain.drift import Foretold
from tern.domain.holds import ClearedBy, Hold, HoldKind
from tern.domain.states import State
from tern.domain.timing import LOST_CONTACT_AFTER
from tern.domain.whole import Share
from tern.facts import CarriedOn, OperationRecord, TableFacts
from tern.leftover import way_of

_MOVES_BY_ITSELF = frozenset(
    {
        State.RUNNING,
        State.CUTTING_OVER,
        State.REVERT_WINDOW,
        State.REVERTING,
        State.RESUMING,
        State.FAILED_RETRYABLE,
    }
)

_CLEARED_BY_TIME = {HoldKind.CLAIMED, HoldKind.BACKOFF, HoldKind.BAKE}

_NOT_UNDER_WAY = frozenset({"pending", "unknown", *(state.value for state in State if state.is_settled)})


@dataclass(frozen=True, slots=True)
class OperationView:
    """One operation with what follows from its place in the rollout."""

    scope: str
    record: OperationRecord
    holds: tuple[Hold, ...]

    @property
    def deployment(self) -> str:
        """The deployment's name."""
        return self.record.deployment

    @property
    def state(self) -> State:
        """Where it is."""
        return self.record.state

    @property
    def lost_contact(self) -> bool:
        """Nobody at the engine has answered for so many looks in a row that its state is only the last known."""
        return self.record.poll_failures >= LOST_CONTACT_AFTER and self.state.is_live

    @property
    def percent(self) -> int:
        """Of all its statements together; each counts the same, because rows of different tables don't compare."""
        if self.state is State.COMPLETED:
            return 100
        tables = self.record.tables
        return sum(table.done_percent for table in tables) // len(tables) if tables else 0

    @property
    def rows_copied(self) -> int | None:
        """Of the statement that counts; None where none counts rows."""
        return None if (table := self.counting) is None else table.rows_copied

    @property
    def rows_total(self) -> int | None:
        """Of the statement that counts; None where none counts rows."""
        return None if (table := self.counting) is None else table.rows_total

    @property
    def counting(self) -> TableFacts | None:
        """The statement whose rows are its rows: the one under way, else the largest. Several about one table must not
        count its rows twice.
        """
        if (now := self.under_way) is not None and now.rows_total is not None:
            return now
        found = [table for table in self.record.tables if table.rows_total is not None]
        return max(found, key=lambda table: table.rows_total or 0, default=None)

    @property
    def under_way(self) -> TableFacts | None:
        """The first statement that has begun and is not done."""
        return next((table for table in self.record.tables if table.state not in _NOT_UNDER_WAY), None)

    @property
    def waits_for_lock(self) -> TableFacts | None:
        """The statement that can't begin because somebody holds its table; its engine says who."""
        table = self.under_way
        return table if table is not None and "lock" in table.state and self.state.is_live else None

    @property
    def eta_s(self) -> int | None:
        """Until its statements under way are done, as far as the engine says."""
        return _sum(table.eta_s for table in self.record.tables) if self.state in _MOVES_BY_ITSELF else None

    @property
    def moves_by_itself(self) -> bool:
        """Something is going to happen to it without a person."""
        if self.waits_for_undrain:
            return False
        if self.state in _MOVES_BY_ITSELF or self.record.is_driven:
            return True
        match self.state:
            case State.PENDING:
                return all(hold.kind in _CLEARED_BY_TIME for hold in self.holds)
            case State.WAITING_FOR_CUTOVER:
                return any(hold.kind is HoldKind.REFUSED and hold.until_s is not None for hold in self.holds)
            case State.UNCERTAIN:
                return self.record.word_in_s > 0
            case _:
                return False

    @property
    def goes_on(self) -> bool:
        """It gets to its end without a person, as far as one can see: it moves, or only waits for its turn."""
        if self.state is State.PENDING:
            return all(hold.cleared_by is ClearedBy.WAIT for hold in self.holds)
        return self.moves_by_itself and not self.lost_contact

    @property
    def waits_for_undrain(self) -> bool:
        """What was asked for, or was never answered, begins once its deployment is open again."""
        is_drained = any(hold.kind is HoldKind.DRAINED for hold in self.holds)
        stands = self.state in {State.STOPPED, State.FAILED_RETRYABLE} and not self.record.is_admitted
        return is_drained and stands and all(wish.waits for wish in self.record.open_wishes)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        record = self.record
        return {
            "scope": self.scope,
            "deployment": self.deployment,
            "position": record.position,
            "wave": record.wave or None,
            "target": record.target,
            "state": self.state.value,
            "state_age_s": round(record.state_age_s, 1),
            "remote_id": record.remote_id,
            "attempt": record.attempt,
            "percent": self.percent,
            "rows_copied": self.rows_copied,
            "rows_total": self.rows_total,
            "eta_s": self.eta_s,
            "volume": record.volume,
            "worked_s": _rounded(record.worked_s),
            "sampled_age_s": _rounded(record.sampled_age_s),
            "lost_contact": self.lost_contact,
            "summary": record.summary,
            "error": record.known_error or None,
            "error_reason": record.error_reason or None,
            "holds": [_hold_json(hold) for hold in self.holds],
            "outstanding": [each.as_json() for each in record.outstanding],
            "unheard_tries": record.unheard.tries,
            "unheard_for_s": round(record.unheard.for_s, 1) if record.unheard.tries else None,
            "preview": None if record.foretold is None else _foretold_json(record.foretold),
            "carries_on": record.carries_on,
            "carried_on_by": record.carried_on_by,
            "carried_on": None if record.carried_on is None else self._carried_on_json(record.carried_on),
            "follow_ups": list(record.follow_ups),
            "later": [each.as_json() for each in record.later],
            "earlier": [each.as_json() for each in record.earlier],
            "wishes": [wish.as_json() for wish in record.wishes],
            "tables": [table.as_json(number) for number, table in enumerate(record.tables, 1)],
        }

    def _carried_on_json(self, carried: CarriedOn) -> dict[str, object]:
        command, consequence = way_of(carried, self.scope)
        return {
            "by": carried.by,
            "state": carried.state.value,
            "command": command,
            "consequence": consequence,
        }


def share(operation: OperationView) -> Share:
    """Its part in the whole."""
    record = operation.record
    if operation.state is State.PENDING and not record.attempt:
        # There may be ten thousand, of which nothing was ever counted.
        return Share(0, goes_on=operation.goes_on)
    is_done = operation.state is State.COMPLETED
    ended_s_ago = record.ended_s_ago or 0.0
    table = operation.counting
    rows = None if table is None else table.rows_total
    return Share(
        operation.percent,
        goes_on=operation.goes_on,
        is_under_way=operation.state in _MOVES_BY_ITSELF,
        is_done=operation.state.is_finished,
        rows_copied=rows if is_done or table is None else table.rows_copied,
        rows_total=rows,
        eta_s=operation.eta_s,
        begun_s_ago=None if record.worked_s is None else ended_s_ago + record.worked_s,
        done_s_ago=ended_s_ago if is_done else None,
    )


def _sum(numbers: Iterator[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _foretold_json(foretold: Foretold) -> dict[str, object]:
    return {
        "outcome": foretold.look.value,
        "words": foretold.words or None,
        "drift": list(foretold.drift),
    }


def _hold_json(hold: Hold) -> dict[str, object]:
    return {
        "kind": hold.kind.value,
        "detail": hold.detail,
        "cleared_by": hold.cleared_by.value,
        "until_s": _rounded(hold.until_s),
    }

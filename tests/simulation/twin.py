"""Both stores at once: every port call goes to each, and results and rows must be the same afterwards."""

import dataclasses
from typing import Any

from tern.domain.errors import IllegalTransition, TernError
from tern.domain.states import State
from tests.simulation.backend import ApplyLook, MemoryBackend
from tests.simulation.clock import Clock
from tests.simulation.postgres import PostgresBackend

_SECRET = {"token", "claim_token"}
"""Proofs: only that one is there can be compared."""
_OWN = {
    "apply_events": {"id", "number", "previous_hash", "hash"},
    "sweep_leases": {"token"},
    "control_requests": {"hash"},
    "table_changes": {"id"},
}
"""Columns in which the stores may differ: the chain is the database's own, and an order that SQL leaves open."""


class StoresDifferError(AssertionError):
    """The stores are not alike."""


class TwinBackend(MemoryBackend):
    """A backend of a run: what is read comes from memory, what is written goes to both."""

    def __init__(self, postgres: PostgresBackend) -> None:
        super().__init__(Clock())
        self.postgres = postgres
        postgres.clock = self.clock

    def store(self, owner: str) -> Any:
        """A worker's way into both."""
        return TwinStore(self, super().store(owner), self.postgres.store(owner))

    def compare(self, after: str) -> None:
        """Raises StoresDifferError unless all visible rows are the same."""
        ours, theirs = self.rows(), self.postgres.rows()
        for table, rows in ours.items():
            own = _OWN.get(table, set())
            left = sorted((_shown(row, own) for row in rows), key=repr)
            right = sorted((_shown(row, own) for row in theirs[table]), key=repr)
            if left == right:
                continue
            for one, other in zip(left, right, strict=False):
                if one != other:
                    keys = sorted({*one, *other})
                    told = {
                        key: (one.get(key, "no such column"), other.get(key, "no such column"))
                        for key in keys
                        if one.get(key, ...) != other.get(key, ...)
                    }
                    message = f"after {after}, {table} (memory, PostgreSQL): {told}\n  {one}"
                    raise StoresDifferError(message)
            message = f"after {after}, {table} has {len(left)} rows in memory, {len(right)} in PostgreSQL"
            raise StoresDifferError(message)

    def look(self) -> tuple[ApplyLook, ...]:
        """The same from both."""
        ours, theirs = super().look(), self.postgres.look()
        if ours != theirs:
            message = f"looks differ: {ours} and {theirs}"
            raise StoresDifferError(message)
        return ours

    def next_due(self) -> tuple[float, float]:
        """The same from both."""
        ours, theirs = super().next_due(), self.postgres.next_due()
        if [round(one, 5) for one in ours] != [round(one, 5) for one in theirs]:
            message = f"what is due differs: {ours} and {theirs}"
            raise StoresDifferError(message)
        return ours


class TwinStore:
    """ports.Store, twice."""

    def __init__(self, backend: TwinBackend, memory: Any, postgres: Any) -> None:
        self._backend = backend
        self._memory = memory
        self._postgres = postgres
        self.claims: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            ours = _outcome(getattr(self._memory, name), given, named)
            theirs = _outcome(getattr(self._postgres, name), _translated(given), named)
            _remember(ours, theirs)
            if _normal(ours) != _normal(theirs):
                message = f"{name}{given}: memory {ours!r}, PostgreSQL {theirs!r}"
                raise StoresDifferError(message)
            self._backend.compare(f"{name}{given}{named or ''}")
            if isinstance(ours, Exception):
                raise ours
            return ours

        return call


_tokens: dict[str, str] = {}
"""The token that PostgreSQL gave where memory gave this one."""


def _outcome(method: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return method(*given, **named)
    except (TernError, IllegalTransition) as error:
        return error


def _remember(ours: Any, theirs: Any) -> None:
    mine, other = getattr(ours, "claim", None), getattr(theirs, "claim", None)
    if mine is not None and other is not None:
        _tokens[mine.token] = other.token
    if getattr(ours, "owner", None) and getattr(theirs, "owner", None):
        _tokens[ours.owner] = theirs.owner


def _translated(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_with_their_token(one) for one in given)


def _with_their_token(one: Any) -> Any:
    if hasattr(one, "token") and dataclasses.is_dataclass(one) and not isinstance(one, type):
        return dataclasses.replace(one, token=_tokens.get(one.token, one.token))
    if hasattr(one, "cursors") and dataclasses.is_dataclass(one) and not isinstance(one, type):
        return dataclasses.replace(one, owner=_tokens.get(one.owner, one.owner))
    return one


def _normal(value: Any) -> Any:
    if isinstance(value, TernError):
        return type(value).__name__, value.reason
    if isinstance(value, IllegalTransition):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, {
            one.name: bool(getattr(value, one.name))
            if one.name in {"token", "owner"}
            else _normal(getattr(value, one.name))
            for one in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return tuple(_normal(one) for one in value)
    if isinstance(value, float):
        return round(value, 5)
    return value


def _shown(row: dict[str, Any], own: set[str]) -> dict[str, Any]:
    return {key: _comparable(key, row[key]) for key in sorted(row) if key not in own}


def _comparable(key: str, value: Any) -> Any:
    match value:
        case _ if key in _SECRET:
            return value is not None
        case str() if key == "owner":
            return value.partition(":")[0]  # a poll's own token follows
        case State():
            return value.value
        case float():
            return round(value, 5)
        case _:
            return value

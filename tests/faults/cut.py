"""Cutting a worker off in the middle: its ports with an end at a chosen boundary.

Every call of a port has two boundaries, one before and one after it has had its effect. A worker that is cut there
raises Killed and does nothing more, as a process does that was killed; what it had committed stands.

    boundaries = Boundaries(at=7)
    with suppress(Killed):
        dispatch(operation_id, scope, boundaries.around(world.worker("w1")))
"""

from collections.abc import Callable
from typing import Any, cast

from tern.domain.model import Deployment
from tern.ports import Bells, Engine, Engines, Ports, StorageUnavailable, Store


class Killed(Exception):  # noqa: N818 - it is what happened
    """The worker is gone."""


Action = Callable[[], object]


class Spied:
    """Any port; `before` and `after` are told the name of every call around it."""

    def __init__(self, port: object, before: Callable[[str], object], after: Callable[[str], object]) -> None:
        self._port = port
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._before(name)
            answer = method(*args, **kwargs)
            self._after(name)
            return answer

        return call


class _SpiedEngines:
    def __init__(
        self, engines: Engines, before: Callable[[str], object], after: Callable[[str], object]
    ) -> None:
        self._engines = engines
        self._before = before
        self._after = after

    def of(self, deployment: Deployment) -> Engine:
        return cast("Engine", Spied(self._engines.of(deployment), self._before, self._after))


def spied(ports: Ports, before: Callable[[str], object], after: Callable[[str], object]) -> Ports:
    """The same worker, with somebody looking at every call of its store, engines and bells."""
    return Ports(
        cast("Store", Spied(ports.store, before, after)),
        _SpiedEngines(ports.engines, before, after),
        cast("Bells", Spied(ports.bells, before, after)),
        ports.chance,
    )


class Boundaries:
    """Counts the boundaries that a worker crosses, and kills it at number `at` (from 0)."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.crossed: list[str] = []

    def around(self, ports: Ports) -> Ports:
        return spied(
            ports, lambda name: self._cross(f"before {name}"), lambda name: self._cross(f"after {name}")
        )

    def _cross(self, name: str) -> None:
        number = len(self.crossed)
        self.crossed.append(name)
        if self.at is not None and number >= self.at:
            raise Killed(name)


def interrupted(
    ports: Ports, method: str, *, before: Action | None = None, after: Action | None = None
) -> Ports:
    """The same worker, to which something happens around its first call of one method."""
    left = {"before": before, "after": after}

    def happen(when: str) -> Callable[[str], object]:
        def told(name: str) -> None:
            if name == method and (action := left[when]) is not None:
                left[when] = None
                action()

        return told

    return spied(ports, happen("before"), happen("after"))


def kill() -> None:
    """An action: the worker ends here."""
    raise Killed


def lose_storage() -> None:
    """An action: PostgreSQL does not answer, or its answer to a COMMIT is lost when this happens after the call."""
    message = "the connection is gone"
    raise StorageUnavailable(message)

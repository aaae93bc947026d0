"""From a deployment to its engine, and from an apply to the one operation that an unscoped call may mean."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tern.domain.errors import ScopeRefused
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import Credentials, Deployment, RemoteCall
from tern.domain.outcome import Outcome
from tern.domain.scope import require_single
from tern.ports import Engine
from tern.wire.channels import Channels, GrpcTransport
from tern.wire.credentials import check_plaintext, parse_address
from tern.wire.engine_client import DEADLINE_S, EngineClient
from tern.wire.local_engine import LOCAL_SCHEME, LocalEngines
from tern.wire.transport import NoTransport, NotSent, TimedTransport, Transport

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Route:
    """What of a deployment's row decides how it is reached. Labels, position and the like don't."""

    environment: str
    database: str
    address: str
    target: str
    credentials: Credentials


class EngineDirectory:
    """Finds the engine of a deployment; safe for all threads of a process."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, run_local_jobs: bool = True) -> None:
        self._deadline_s = deadline_s
        self._channels = Channels()
        self._local = LocalEngines(run_jobs=run_local_jobs)
        self._lock = threading.Lock()
        self._clients: dict[str, tuple[_Route, EngineClient]] = {}

    def of(self, deployment: Deployment) -> Engine:
        """Its client; one whose every call is Refused with the reason where none can be made (S10)."""
        route = _Route(
            deployment.environment,
            deployment.database,
            deployment.address,
            deployment.target,
            deployment.credentials,
        )
        with self._lock:
            known = self._clients.get(deployment.name)
            if known is not None and known[0] == route:
                return known[1]
            transport = TimedTransport(self._transport(deployment))
            client = EngineClient(deployment, transport, deadline_s=self._deadline_s)
            self._clients[deployment.name] = (route, client)
            return client

    def close(self) -> None:
        """Ends every channel and every engine of this process."""
        with self._lock:
            self._clients.clear()
        self._channels.close()
        self._local.close()

    def _transport(self, deployment: Deployment) -> Transport:
        try:
            if not deployment.name:
                reason = "DEPLOYMENT_EMPTY"
                raise NotSent(reason, "a deployment without a name has no engine")  # noqa: TRY301
            if deployment.address.startswith(LOCAL_SCHEME):
                return self._local.transport(deployment)
            endpoint = parse_address(deployment.address)
            check_plaintext(endpoint, deployment.credentials)
            return GrpcTransport(self._channels, endpoint, deployment.credentials)
        except NotSent as why:
            return NoTransport(why.reason, why.message)


class ApplyVerb(StrEnum):
    """Calls that somebody may want to make for an apply without naming an operation."""

    PROGRESS = "progress"
    STOP = "stop"
    START = "start"
    CUTOVER = "cutover"
    CANCEL = "cancel"
    VOLUME = "volume"
    REVERT = "revert"
    SKIP_REVERT = "skip_revert"


@dataclass(frozen=True, slots=True)
class ApplyTarget:
    """An apply as an unscoped call sees it: the parent's id, and what is thought to be its only deployment."""

    apply_id: ApplyId
    external_id: RemoteId | None
    deployment: str
    environment: str
    fence: int


class ApplyScope:
    """The door for apply-scoped remote calls. It opens for an apply of exactly one operation (G7).

    The operations are counted, every time, with the lookup given. More than one, none, no lookup or one that
    fails: refused, and it changes nothing that the parent may hold an id, which would then be one child's.
    """

    def __init__(self, count_operations: Callable[[ApplyId], int] | None) -> None:
        self._count_operations = count_operations

    def send(
        self, verb: ApplyVerb, apply: ApplyTarget, send: Callable[[RemoteCall], Outcome[Value]]
    ) -> Outcome[Value]:
        """Sends the call with the apply's own id; raises ScopeRefused, and then nothing was sent."""
        require_single(apply.apply_id, self._count(apply.apply_id), verb.value)
        if not apply.external_id:
            message = f"{verb.value} of {apply.apply_id} was refused"
            raise ScopeRefused(
                message,
                why=("the apply has no remote id yet",),
                unchanged="Nothing was sent to any engine and nothing was written.",
                reason="EMPTY_REMOTE_ID",
            )
        name = ScopeName(apply.apply_id, apply.deployment)
        return send(RemoteCall(name, apply.external_id, apply.environment, apply.fence))

    def _count(self, apply_id: ApplyId) -> int | None:
        if self._count_operations is None:
            return None
        try:
            return self._count_operations(apply_id)
        except Exception:  # noqa: BLE001 - whatever kept us from counting, we have not counted
            return None

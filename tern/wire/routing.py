"""From a deployment to its engine. Which operation a call is about was decided before: a call carries its scope."""

import threading
from dataclasses import dataclass

from tern.domain.model import Credentials, Deployment
from tern.ports import Engine
from tern.wire.channels import Channels, GrpcTransport
from tern.wire.credentials import check_plaintext, parse_address
from tern.wire.engine_client import DEADLINE_S, EngineClient
from tern.wire.local_engine import LOCAL_SCHEME, LocalEngines
from tern.wire.transport import Listener, NoTransport, NotSent, TimedTransport, Transport


@dataclass(frozen=True, slots=True)
class _Route:
    """What of a deployment's row decides how it is reached, and whose answers count. Labels and the like don't."""

    environment: str
    database: str
    address: str
    target: str
    credentials: Credentials
    identity: str


class EngineDirectory:
    """Finds the engine of a deployment; safe for all threads of a process."""

    def __init__(
        self,
        *,
        deadline_s: float = DEADLINE_S,
        run_local_jobs: bool = True,
        listener: Listener | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._listener = listener
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
            deployment.engine_identity,
        )
        with self._lock:
            known = self._clients.get(deployment.name)
            if known is not None and known[0] == route:
                return known[1]
            transport = TimedTransport(self._transport(deployment), deployment.name, self._listener)
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

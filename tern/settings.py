"""Everything that Tern can be told through its environment; each variable has the prefix `TERN_`.

Nothing is opened here. Commands that need no settings must not import this module: validation costs more time than
the rest of `tern --help`.
"""

import getpass
import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tern.domain.errors import Misconfigured
from tern.domain.timing import LEASE_S, RPC_DEADLINE_S, SELF_SWEEP_AFTER_S, PollPace
from tern.local.discovery import default_home, discover

BROKER_SCHEMES = ("redis", "rediss", "redis+socket")

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class Settings(BaseSettings):
    """What one process of Tern was told. Empty URLs mean that nobody said and no embedded servers run."""

    model_config = SettingsConfigDict(
        env_prefix="TERN_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    database_url: str = Field(default="", repr=False)
    """Tern's own PostgreSQL: `postgresql://user:password@host:port/database`."""
    broker_url: str = Field(default="", repr=False)
    """Redis or Valkey: `redis://:password@host:port/0`. It may forget everything; only latency depends on it."""
    home: Path = Field(default_factory=default_home)
    """Where the embedded servers keep their data, and where they are looked for; `.tern` by default."""
    log_format: LogFormat = LogFormat.CONSOLE
    """`console` for people, `json` for one object a line."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """The least important lines that are written."""
    debug: bool = False
    """Show the traceback of an unexpected failure."""
    caller: str = ""
    """Who is recorded as asking; by default the account and machine that run the command."""

    lease_seconds: Seconds = LEASE_S
    """How long a claim holds; the time until a killed worker's operation is driven again."""
    rpc_deadline_seconds: Seconds = RPC_DEADLINE_S
    """How long an engine may take for one answer; must be shorter than the lease."""
    poll_eager_seconds: Seconds = 0.5
    """Between two looks at an operation about to cut over or under a control."""
    poll_steady_seconds: Seconds = 5.0
    """Between two looks at an operation that works."""
    poll_slow_seconds: Seconds = 30.0
    """Between two looks at what only a person moves on, or once contact is lost."""
    sweep_progress_seconds: Seconds = 1.0
    """How often beat rings for operations to be polled."""
    sweep_reconcile_seconds: Seconds = 2.0
    """How often beat rings for whatever else is due."""
    sweep_self_after_seconds: Seconds = SELF_SWEEP_AFTER_S
    """Without a finished sweep for so long, workers sweep for themselves."""
    worker_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Threads of one worker process."""
    pool_size: Annotated[int, Field(ge=1, le=256)] = 8
    """Connections to PostgreSQL that one process keeps."""
    prepared_statements: bool = True
    """Have PostgreSQL plan a frequent statement once a connection. `false` behind a pooler that loses them."""

    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Where this process answers Prometheus' scrapes; 0 for nowhere. Each process needs a port of its own."""
    metrics_address: str = "127.0.0.1"
    """The address of that port. Whoever reaches it may read states and rates, no names and no DDL."""

    @field_validator("broker_url")
    @classmethod
    def _broker_speaks_redis(cls, url: str) -> str:
        if url and urlsplit(url).scheme not in BROKER_SCHEMES:
            message = "the broker's address begins with redis:// or rediss://"
            raise ValueError(message)
        return url

    @field_validator("rpc_deadline_seconds")
    @classmethod
    def _deadline_is_shorter_than_the_lease(cls, seconds: float, info: object) -> float:
        lease = getattr(info, "data", {}).get("lease_seconds", LEASE_S)
        if seconds >= lease:
            # An answer that comes after the lease is lost would be written by nobody.
            message = f"must be shorter than TERN_LEASE_SECONDS, which is {lease:g}"
            raise ValueError(message)
        return seconds

    @property
    def pace(self) -> PollPace:
        """How often operations are polled."""
        return PollPace(self.poll_eager_seconds, self.poll_steady_seconds, self.poll_slow_seconds)

    def require_database_url(self) -> str:
        """Raises Misconfigured where nobody said where PostgreSQL is."""
        if not self.database_url:
            what = "nobody said where Tern's PostgreSQL is"
            why = (f"TERN_DATABASE_URL is not set, and no embedded servers run in {self.home}",)
            step = "Set TERN_DATABASE_URL, or start embedded servers with `tern up`."
            raise Misconfigured(what, why=why, next_step=step)
        return self.database_url

    def require_broker_url(self) -> str:
        """Raises Misconfigured where nobody said where the broker is."""
        if not self.broker_url:
            what = "nobody said where the broker is"
            why = (f"TERN_BROKER_URL is not set, and no embedded servers run in {self.home}",)
            step = "Set TERN_BROKER_URL, or start embedded servers with `tern up`."
            raise Misconfigured(what, why=why, next_step=step)
        return self.broker_url


def load() -> Settings:
    """Reads the environment; where neither URL is set, finds the embedded servers. Raises Misconfigured."""
    try:
        settings = Settings()
    except ValidationError as error:
        message = "the settings can't be used"
        raise Misconfigured(message, why=_words(error)) from None
    if settings.database_url or settings.broker_url:
        return settings
    servers = discover(settings.home)
    if servers is None:
        return settings
    found = {"database_url": servers.database_url, "broker_url": servers.broker_url}
    return settings.model_copy(update=found)


def caller(settings: Settings) -> str:
    """Who asks, as it stands in events and requests."""
    if settings.caller:
        return settings.caller
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a container's account without a name
        account = f"uid {os.getuid()}"
    return f"{account}@{socket.gethostname()}"


def _words(error: ValidationError) -> tuple[str, ...]:
    """One line a variable, without the value: it may be a secret."""
    return tuple(
        f"TERN_{'_'.join(str(part) for part in each['loc']).upper()}: "
        + each["msg"].removeprefix("Value error, ")
        for each in error.errors(include_input=False)
    )

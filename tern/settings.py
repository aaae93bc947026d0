"""Everything that Tern can be told through its environment; each variable has the prefix `TERN_`.

Nothing is opened here, and nothing is imported that costs time: every command reads this.
"""

import getpass
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tern.domain.errors import Misconfigured
from tern.domain.timing import LEASE_S, RPC_DEADLINE_S, UNANSWERED_S, PollPace
from tern.local.discovery import default_home, discover

BROKER_SCHEMES = ("redis", "rediss", "redis+socket")
_CERTIFICATE = frozenset({"required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE"})
PREFIX = "TERN_"
_NUMBER_OF_A_DATABASE = re.compile(r"/?|/[0-9]+")
_READ = "read"
_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO = frozenset({"0", "false", "f", "no", "n", "off"})
_DAY_S = 86_400
_ALIKE = 0.85
"""How much alike two names are, from 0 to 1, for one to be a slip of the other: TERN_TOKEN is no TERN_HOME."""


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


# Each reads one variable, and raises ValueError with what is wanted, never with the value: it may be a secret.


def _setting(default: Any, read: Callable[[str], object], *, repr: bool = True) -> Any:  # noqa: A002 - dataclass's word
    return field(default=default, repr=repr, metadata={_READ: read})


def _text(said: str) -> str:
    return said


def _broker(said: str) -> str:
    try:
        address = urlsplit(said)
    except ValueError:
        # It quotes what it could not read, and a password is in it.
        raise ValueError("it is written redis://:password@host:port/0") from None
    if address.scheme not in BROKER_SCHEMES:
        raise ValueError("the broker's address begins with redis:// or rediss://")
    if not set(parse_qs(address.query).get("ssl_cert_reqs", ())) <= _CERTIFICATE:
        raise ValueError("ssl_cert_reqs in the broker's address is required, optional or none")
    if address.scheme != "redis+socket" and not _NUMBER_OF_A_DATABASE.fullmatch(address.path):
        raise ValueError("the broker's address ends with the number of a database, as in redis://host:6379/0")
    return said


def _yes_or_no(said: str) -> bool:
    if said.lower() in _YES:
        return True
    if said.lower() in _NO:
        return False
    raise ValueError("it is true or false")


def _plain(said: str) -> str:
    """Python reads 1_0 as ten; whoever wrote it here made a slip."""
    if "_" in said:
        raise ValueError(said)
    return said


def _seconds(said: str) -> float:
    try:
        seconds = float(_plain(said))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _DAY_S:
        raise ValueError("it is a number of seconds, more than 0 and at most a day")
    return seconds


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(said: str) -> int:
        try:
            number = int(_plain(said))
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            message = f"it is a number from {least} to {most}"
            raise ValueError(message)
        return number

    return read


def _one_of(kind: Callable[[str], str], *choices: str) -> Callable[[str], str]:
    def read(said: str) -> str:
        if said not in choices:
            message = f"it is one of {', '.join(choices)}"
            raise ValueError(message)
        return kind(said)

    return read


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one process of Tern was told. Empty URLs mean that nobody said and no embedded servers run."""

    database_url: str = _setting("", _text, repr=False)
    """Tern's own PostgreSQL: `postgresql://user:password@host:port/database`."""
    broker_url: str = _setting("", _broker, repr=False)
    """Redis or Valkey: `redis://:password@host:port/0`. It may forget everything; only latency depends on it."""
    home: Path = field(default_factory=default_home, metadata={_READ: Path})
    """Where the embedded servers keep their data, and where they are looked for; `.tern` by default."""
    log_format: LogFormat = _setting(LogFormat.CONSOLE, _one_of(LogFormat, *LogFormat))  # noqa: RUF009
    """`console` for people, `json` for one object a line."""
    log_level: str = _setting("INFO", _one_of(str, "DEBUG", "INFO", "WARNING", "ERROR"))
    """The least important lines that are written."""
    debug: bool = _setting(default=False, read=_yes_or_no)
    """Show the traceback of an unexpected failure."""
    caller: str = _setting("", _text)
    """Who is recorded as asking; by default the account and machine that run the command."""

    lease_seconds: float = _setting(LEASE_S, _seconds)
    """How long a claim holds; the time until a killed worker's operation is driven again."""
    rpc_deadline_seconds: float = _setting(RPC_DEADLINE_S, _seconds)
    """How long an engine may take for one answer; must be shorter than the lease, and than 60."""
    poll_eager_seconds: float = _setting(0.5, _seconds)
    """Between two looks at an operation about to cut over or under a control."""
    poll_steady_seconds: float = _setting(5.0, _seconds)
    """Between two looks at an operation that works."""
    poll_slow_seconds: float = _setting(30.0, _seconds)
    """Between two looks at what only a person moves on, or once contact is lost."""
    worker_concurrency: int = _setting(8, _number(1, 256))
    """Threads of one worker process."""
    pool_size: int = _setting(8, _number(1, 256))
    """Connections to PostgreSQL that one process keeps."""
    prepared_statements: bool = _setting(default=True, read=_yes_or_no)
    """Have PostgreSQL plan a frequent statement once a connection. `false` behind a pooler that loses them."""

    metrics_port: int = _setting(0, _number(0, 65_535))
    """Where this process answers Prometheus' scrapes; 0 for nowhere. Each process needs a port of its own."""
    metrics_address: str = _setting("127.0.0.1", _text)
    """The address of that port. Whoever reaches it may read states and rates, no names and no DDL."""

    @property
    def pace(self) -> PollPace:
        """How often operations are polled."""
        return PollPace(self.poll_eager_seconds, self.poll_steady_seconds, self.poll_slow_seconds)

    def require_database_url(self) -> str:
        """Raises Misconfigured where nobody said where PostgreSQL is."""
        if not self.database_url:
            what = "nobody said where Tern's PostgreSQL is"
            why, step = self._unsaid("TERN_DATABASE_URL", self.broker_url and "TERN_BROKER_URL")
            raise Misconfigured(what, why=why, next_step=step)
        return self.database_url

    def require_broker_url(self) -> str:
        """Raises Misconfigured where nobody said where the broker is."""
        if not self.broker_url:
            what = "nobody said where the broker is"
            why, step = self._unsaid("TERN_BROKER_URL", self.database_url and "TERN_DATABASE_URL")
            raise Misconfigured(what, why=why, next_step=step)
        return self.broker_url

    def _unsaid(self, variable: str, other: str) -> tuple[tuple[str, ...], str]:
        """Why an address is not known, and the next step. Where one of the two is said, both are."""
        if other:
            why = f"{variable} is not set; and as {other} is, embedded servers are not looked for"
            return (why,), f"Set {variable} too, or unset {other}."
        why = f"{variable} is not set, and no embedded servers run in {self.home}"
        return (why,), f"Set {variable}, or start embedded servers with `tern up`."


def misspelt(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Variables that nothing reads, each with the one that may have been meant."""
    known = [PREFIX + each.name.upper() for each in fields(Settings)]
    found = {
        name: get_close_matches(name, known, n=1, cutoff=_ALIKE)
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known
    }
    return {name: near[0] for name, near in found.items() if near}


def load() -> Settings:
    """Reads the environment; where neither URL is set, finds the embedded servers. Raises Misconfigured."""
    given: dict[str, Any] = {}
    why: list[str] = []
    for each in fields(Settings):
        variable = PREFIX + each.name.upper()
        if said := os.environ.get(variable, ""):
            try:
                given[each.name] = each.metadata[_READ](said)
            except ValueError as error:
                why.append(f"{variable}: {error}")
    settings = Settings(**given)
    if settings.rpc_deadline_seconds >= settings.lease_seconds:
        # An answer that comes after the lease is lost would be written by nobody.
        why.append(
            f"{PREFIX}RPC_DEADLINE_SECONDS: must be shorter than {PREFIX}LEASE_SECONDS, which is"
            f" {settings.lease_seconds:g}"
        )
    if settings.rpc_deadline_seconds >= UNANSWERED_S:
        # For so long the database lets a call without an answer act late; it must be over by then.
        why.append(f"{PREFIX}RPC_DEADLINE_SECONDS: must be shorter than {UNANSWERED_S:g}")
    if why:
        message = "the settings can't be used"
        raise Misconfigured(message, why=tuple(why))
    if settings.database_url or settings.broker_url:
        return settings
    servers = discover(settings.home)
    if servers is None:
        return settings
    return replace(settings, database_url=servers.database_url, broker_url=servers.broker_url)


def caller(settings: Settings) -> str:
    """Who asks, as it stands in events and requests."""
    if settings.caller:
        return settings.caller
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a container's account without a name
        account = f"uid {os.getuid()}"
    return f"{account}@{socket.gethostname()}"

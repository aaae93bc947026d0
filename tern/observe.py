"""Logs: one place that decides how lines look and what never appears in them.

Lines go to stderr, for a person or as one JSON object each, and carry apply, deployment and remote id where they are
known: from whoever logs, or else from what the line says. DDL bodies and secrets are taken out, whoever logs them.
"""

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import structlog

from tern.domain.identity import APPLY_ID, DEPLOYMENT_NAME
from tern.domain.redaction import REMOVED, without_secrets

SECRET_KEYS = frozenset(
    {"ddl", "dsn", "password", "token", "secret", "authorization", "credentials", "tls_key"}
)
_SCOPE = re.compile(rf"\b({APPLY_ID.pattern})\b(?:/({DEPLOYMENT_NAME.pattern}))?")
_REMOTE_ID = re.compile(r"\(remote id ([^\s)]+)\)")
_BEGINNING = (
    r"\b(?:(?:CREATE|ALTER|DROP|TRUNCATE|REINDEX|COMMENT\s+ON|REFRESH)\s+(?:OR\s+REPLACE\s+|UNIQUE\s+|TEMP\w*\s+"
    r"|UNLOGGED\s+|FOREIGN\s+|MATERIALIZED\s+|CONCURRENTLY\s+)*(?:TABLE|INDEX|VIEW|SEQUENCE|TYPE|DOMAIN|FUNCTION"
    r"|SCHEMA|COLUMN|TRIGGER|POLICY|STATISTICS|EXTENSION|CONSTRAINT)"
    r"|INSERT\s+INTO|DELETE\s+FROM|GRANT\s.+\sON|REVOKE\s.+\sON|UPDATE\s+\S+\s+SET)\b.*"
)
_STATEMENT = re.compile(_BEGINNING, re.IGNORECASE | re.DOTALL)
"""The beginning of a statement, and all that follows: engines repeat what they could not do."""
_STATEMENT_IN_A_LINE = re.compile(_BEGINNING, re.IGNORECASE)
"""The same inside a traceback, whose other lines are what somebody needs."""
_SHORTEST = len("DROP TYPE a")
_VERBS = (
    *("CREATE", "ALTER", "DROP", "TRUNCATE", "REINDEX", "COMMENT", "REFRESH"),
    *("INSERT", "DELETE", "GRANT", "REVOKE", "UPDATE"),
)
_log = logging.getLogger("tern")
_LIBRARIES_THAT_TALK = ("amqp", "kombu", "alembic", "sqlalchemy", "grpc", "urllib3")


def configure(log_format: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Makes structlog and the standard library's logging write the same lines to stderr; idempotent."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    stream = stream or sys.stderr
    handler = _Handler(stream)
    handler.setFormatter(_Lines(shared, _last_steps(log_format, stream)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _LIBRARIES_THAT_TALK:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def take_over(log_format: str, level: str = "INFO") -> None:
    """The same for a process that stays, whose stderr somebody else collects: what Python itself would print there
    comes as lines too. Warnings, and what nobody has caught, in whichever thread.
    """
    configure(log_format, level)
    logging.captureWarnings(capture=True)
    # For a logger that is cut off from the root, as billiard's is.
    logging.lastResort = logging.getLogger().handlers[0]
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _log.critical("nobody caught it: %s", kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is None or issubclass(given.exc_type, SystemExit):
        return
    name = "a thread" if given.thread is None else given.thread.name
    trace = (given.exc_type, given.exc_value, given.exc_traceback)
    _log.critical("nobody caught it: %s, which ends %s", given.exc_type.__name__, name, exc_info=trace)


def _log_unraisable(given: "sys.UnraisableHookArgs") -> None:
    error = given.exc_value or given.exc_type()
    trace = (given.exc_type, error, given.exc_traceback)
    _log.error("%s: %r", given.err_msg or "ignored where it can't be raised", given.object, exc_info=trace)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines. One that can't be shaped, as with too few arguments, is told as a line as well."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Not the library's own traceback, which is no line."""
        what, error, trace = sys.exc_info()
        if what is None or error is None or self.stream.closed:
            return
        told = {"name": record.name, "levelname": "ERROR", "levelno": logging.ERROR}
        why = f"a line can't be written as it was given: {record.msg!s}"
        line = logging.makeLogRecord({**told, "msg": why, "exc_info": (what, error, trace)})
        with contextlib.suppress(Exception):
            self.stream.write(self.format(line) + self.terminator)
            self.flush()


class _Lines(structlog.stdlib.ProcessorFormatter):
    """structlog's formatter, with a short way for what the standard library logs without a traceback: nearly all of a
    worker's lines, several for each operation, of which each cost as much as a statement.

    Fields of such a line come as `extra={"fields": …}`.
    """

    def __init__(
        self, shared: Sequence[structlog.types.Processor], last: Sequence[structlog.types.Processor]
    ) -> None:
        without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        super().__init__(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=["fields"]), _spread_fields],
            processors=[name_what_it_is_about, without_meta, *last],
        )
        self._last = last

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if isinstance(record.msg, dict) or record.exc_info or record.stack_info:
            return super().format(record)
        line: Any = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "at": f"{datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None).isoformat()}Z",
            **getattr(record, "fields", {}),
        }
        line = structlog.contextvars.merge_contextvars(None, "", line)
        if "apply" not in line:
            line = name_what_it_is_about(None, "", {**line, "_record": record})
            del line["_record"]
        for step in self._last:
            line = step(None, "", line)
        return str(line)


def _spread_fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.update(event.pop("fields", {}))
    return event


def logger(name: str, **bound: Any) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry what is bound."""
    found: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name, **bound)
    return found


def name_what_it_is_about(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Gives a line its apply, deployment and remote id where only its words, or its message's arguments, have them."""
    if "apply" in event:
        return event
    record = event.get("_record")
    given = getattr(record, "data", None)
    words = str(event.get("event", ""))
    found = _SCOPE.search(words) or _SCOPE.search(str(given.get("kwargs")) if isinstance(given, dict) else "")
    if found is not None:
        event["apply"] = found[1]
        if found[2] and "deployment" not in event:
            event["deployment"] = found[2]
        if "remote_id" not in event and (remote := _REMOTE_ID.search(words)) is not None:
            event["remote_id"] = remote[1]
    return event


def remove_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Takes DDL bodies, secrets and passwords in addresses out of a line."""
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if key.lower() in SECRET_KEYS:
        return REMOVED
    if isinstance(value, str):
        return _clean_text(key, value)
    if isinstance(value, Mapping):
        return {str(inner): _clean(str(inner), each) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(key, each) for each in value]
    # An exception, an address: a renderer would make its words of it when nobody looks any more.
    return value if value is None or isinstance(value, int | float) else _clean_text(key, str(value))


def _clean_text(key: str, value: str) -> str:
    value = without_secrets(value)
    # Looked at cheaply first: nearly no line has one, and every event is a line.
    if len(value) >= _SHORTEST and _has_verb(value.upper()):
        value = (_STATEMENT_IN_A_LINE if key in {"exception", "stack"} else _STATEMENT).sub(REMOVED, value)
    return value


def _has_verb(upper: str) -> bool:
    # A loop: one expression of alternatives takes ten times as long.
    for verb in _VERBS:  # noqa: SIM110 - and so does a generator
        if verb in upper:
            return True
    return False


def _last_steps(log_format: str, stream: TextIO) -> list[structlog.types.Processor]:
    if log_format == "json":
        return [
            structlog.processors.format_exc_info,
            remove_secrets,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str),
        ]
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    return [
        structlog.processors.format_exc_info,
        remove_secrets,
        structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="at"),
    ]

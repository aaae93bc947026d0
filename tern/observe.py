"""Logs: one place that decides how lines look and what never appears in them.

Lines go to stderr, for a person or as one JSON object each, and carry apply, deployment and remote id where the
caller bound them. DDL bodies and secrets are taken out here, whoever logs them.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

SECRET_KEYS = frozenset(
    {"ddl", "dsn", "password", "token", "secret", "authorization", "credentials", "tls_key"}
)
REMOVED = "[removed]"
_PASSWORD_IN_ADDRESS = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)")
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
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_last_steps(log_format, stream),
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _LIBRARIES_THAT_TALK:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def logger(name: str, **bound: Any) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry what is bound."""
    found: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name, **bound)
    return found


def remove_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Takes DDL bodies, secrets and passwords in addresses out of a line."""
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if key.lower() in SECRET_KEYS:
        return REMOVED
    if isinstance(value, str):
        return _PASSWORD_IN_ADDRESS.sub(rf"\g<before>{REMOVED}", value)
    if isinstance(value, Mapping):
        return {str(inner): _clean(str(inner), each) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(key, each) for each in value]
    return value


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

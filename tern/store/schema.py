"""Bringing Tern's own database to the schema that this code needs, and saying whether it is there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

import tern
from tern.domain.errors import Misconfigured
from tern.store.session import transaction

MIGRATIONS = Path(tern.__file__).parent.parent / "migrations"
_MIGRATION_LOCK = 0x7E12


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The revision that this code needs."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None, "there is always a first migration"  # noqa: S101
    return newest


def current(engine: Engine) -> str | None:
    """The revision that the database is at, None for an empty one; raises StorageUnavailable."""
    with transaction(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrades (or, to an older revision, downgrades); two at once wait for each other. Raises StorageUnavailable."""
    config = _config()
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        going_down = revision == "base" or revision.startswith("-")
        (command.downgrade if going_down else command.upgrade)(config, revision)


def require_migrated(engine: Engine) -> None:
    """Raises Misconfigured unless the database is exactly at this code's revision."""
    found, needed = current(engine), head()
    if found == needed:
        return
    message = "the database is not migrated" if found is None else f"the database is at revision {found}"
    raise Misconfigured(
        message, why=(f"this version of Tern needs revision {needed}",), next_step="Run `tern db upgrade`."
    )

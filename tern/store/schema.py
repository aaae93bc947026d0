"""Bringing Tern's own database to the schema that this code needs."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from tern.store.revision import MIGRATIONS
from tern.store.session import transaction

_MIGRATION_LOCK = 0x7E12


def alembic_config() -> Config:
    """Alembic's, with its scripts found beside this package."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrades, or downgrades to an older revision; two at once wait for each other. Raises StorageUnavailable."""
    config = alembic_config()
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        going_down = revision == "base" or revision.startswith("-")
        (command.downgrade if going_down else command.upgrade)(config, revision)

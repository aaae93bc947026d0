"""Bringing Tern's own database to the schema that this code needs."""

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.pool import NullPool

from tern.domain.text import within
from tern.ports import StorageUnavailable
from tern.store.database import Database
from tern.store.evidence_comments import write_comments
from tern.store.evidence_tables import METADATA
from tern.store.revision import MIGRATIONS

_MIGRATION_LOCK = 0x7E12


def alembic_config() -> Config:
    """Alembic's, with its scripts found beside this package."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def migrate(database: Database, revision: str = "head") -> None:
    """Upgrades, or downgrades to an older revision; two at once wait for each other. Raises StorageUnavailable."""
    config = alembic_config()
    engine = create_engine("postgresql+psycopg://", creator=database.open, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            # Between two statements a slow machine is still loading the migrations.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            going_down = revision == "base" or revision.startswith("-")
            (command.downgrade if going_down else command.upgrade)(config, revision)
            if revision == "head":
                # Not by each migration: a text that is put right later would be one more, and stand twice.
                write_comments(connection, METADATA)
    except (OperationalError, InternalError) as error:
        raise StorageUnavailable(within(" ".join(str(error.orig).split()), 300)) from error
    # Statements that were planned for the old schema are forgotten with their connections.
    database.dispose()

"""Which schema the database has and which this code needs, without loading the migration machinery: every command
asks, and most do nothing else that is slow.
"""

from pathlib import Path

import tern
from tern.domain.errors import Misconfigured
from tern.store.database import Database
from tern.store.session import transaction
from tern.store.sql import text

AHEAD = (
    "Run the version of Tern that upgraded it: on each machine `tern db check` says whether it is the one."
)
MIGRATIONS = Path(tern.__file__).parent.parent / "migrations"


def head() -> str:
    """The revision that this code needs: a migration's file is named after its revision, and they are in line."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def current(engine: Database) -> str | None:
    """The revision that the database is at, None for an empty one; raises StorageUnavailable."""
    with transaction(engine) as connection:
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        return None if found is None else str(found)


def require_migrated(engine: Database) -> None:
    """Raises Misconfigured unless the database is exactly at this code's revision."""
    found, needed = current(engine), head()
    if found == needed:
        return
    refuse_ahead(found, needed)
    message = "the database is not migrated" if found is None else f"the database is at revision {found}"
    raise Misconfigured(
        message, why=(f"this version of Tern needs revision {needed}",), next_step="Run `tern db upgrade`."
    )


def refuse_ahead(found: str | None, needed: str) -> None:
    """Raises Misconfigured where a newer version has upgraded the database: no command of this one helps there."""
    if found is None or found <= needed:
        return
    message = f"the database is at revision {found}"
    why = f"this version of Tern knows revisions up to {needed}: a newer one has upgraded it"
    raise Misconfigured(message, why=(why,), unchanged="Nothing was changed.", next_step=AHEAD)

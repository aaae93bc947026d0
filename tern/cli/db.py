"""`tern db`: Tern's own database. Upgrading is explicit; no other command changes the schema."""

from typing import Any

import click

from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.domain.errors import UsageError


@click.group()
def db() -> None:
    """Tern's own database: upgrade, current, check, downgrade."""


@db.command()
def upgrade() -> None:
    """Bring the database to the schema that this version needs. Two at once wait for each other."""
    from tern.store import revision, schema  # noqa: PLC0415

    engine = _open()
    before, needed = revision.current(engine), revision.head()
    if before == needed:
        click.echo(f"✔ the database is at revision {needed} already")
        return
    revision.refuse_ahead(before, needed)
    schema.migrate(engine)
    click.echo(f"✔ the database is at revision {needed}" + (f", it was at {before}" if before else ""))


@db.command()
@json_option
def current(*, as_json: bool) -> None:
    """Which revision the database is at, and which one this version needs."""
    from tern.store import revision  # noqa: PLC0415

    found, needed = revision.current(_open()), revision.head()
    if as_json:
        write_document("db", {"current": found, "needed": needed, "is_migrated": found == needed})
        return
    click.echo(f"{found or 'empty'} (this version needs {needed})")


@db.command()
@json_option
def check(*, as_json: bool) -> None:
    """Succeed if the database is at the revision that this version needs, else say what to do (exit 78)."""
    from tern.store import revision  # noqa: PLC0415

    revision.require_migrated(_open())
    if as_json:
        write_document("db", {"current": revision.head(), "needed": revision.head(), "is_migrated": True})
        return
    click.echo(f"✔ the database is at revision {revision.head()}, as needed")


# What begins with a dash is a number of steps here.
@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Tables and what they hold are dropped; say that you know.")
def downgrade(revision: str, *, yes: bool) -> None:
    """Take the database back to REVISION (`base` for an empty one, `-1` for one step). Drops what it undoes."""
    from tern.store import schema  # noqa: PLC0415
    from tern.store.revision import current as current_revision  # noqa: PLC0415

    if revision != "base" and not revision.startswith("-"):
        what = f"{revision!r} is not a way down"
        raise UsageError(what, why=("a revision to go down to is `base`, or a number of steps like `-1`",))
    if not yes:
        what = "a downgrade drops tables and everything in them"
        raise UsageError(what, next_step=f"tern db downgrade {revision} --yes")
    engine = _open()
    schema.migrate(engine, revision)
    click.echo(f"✔ the database is at revision {current_revision(engine) or 'base (empty)'}")


def _open() -> Any:
    """The database, migrated or not: a SQLAlchemy engine, which only the store knows by name."""
    from tern import wiring  # noqa: PLC0415

    engine = wiring.open_database(reach.settings())
    click.get_current_context().call_on_close(engine.dispose)
    return engine

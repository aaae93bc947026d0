"""Migrations: one head, up and down and up, and a database that looks as the mapped tables say."""

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from tern.domain.errors import Misconfigured
from tern.store.database import Database
from tern.store.evidence_comments import COMMENTS
from tern.store.evidence_tables import METADATA
from tern.store.revision import current, head, require_migrated
from tern.store.schema import alembic_config, migrate
from tern.store.session import connect
from tern.store.sql import text
from tests.house.tables import PAGE, page


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    engine = connect(database_url, pool_size=2)
    yield engine
    engine.dispose()


def leftovers(engine: Database) -> dict[str, list[str]]:
    """What stands in the public schema besides Alembic's own note."""
    with engine.begin() as tx:
        return {
            what: sorted(tx.execute(text(statement)).scalars())
            for what, statement in {
                "tables": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                " AND tablename <> 'alembic_version'",
                "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
                "types": "SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'",
            }.items()
        }


def shape(engine: Database) -> list[str]:
    """Everything about the schema that a migration makes, as text."""
    with engine.begin() as tx:
        return sorted(
            str(row)
            for statement in (
                (
                    "SELECT table_name, column_name, data_type, is_nullable, column_default"
                    " FROM information_schema.columns WHERE table_schema = 'public'"
                ),
                "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
                (
                    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
                    " WHERE connamespace = 'public'::regnamespace"
                ),
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
                "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
            )
            for row in tx.execute(text(statement))
        )


def test_there_is_one_head_and_one_way_to_it() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert scripts.get_heads() == [head()]
    assert all(
        not script.is_branch_point and not script.is_merge_point for script in scripts.walk_revisions()
    )


def test_up_down_up(empty: Database) -> None:
    """Down leaves nothing, and the second way up leads to the same place."""
    migrate(empty)
    first = shape(empty)
    migrate(empty, "base")
    assert leftovers(empty) == {"tables": [], "functions": [], "types": []}
    assert current(empty) is None
    migrate(empty)
    assert shape(empty) == first
    migrate(empty)
    assert current(empty) == head()


def test_a_database_that_is_not_migrated_is_refused(empty: Database) -> None:
    with pytest.raises(Misconfigured, match="not migrated"):
        require_migrated(empty)
    migrate(empty)
    require_migrated(empty)
    with empty.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = 'from-the-future'"))
    with pytest.raises(Misconfigured, match="from-the-future"):
        require_migrated(empty)


def test_the_mapped_tables_are_the_real_ones(empty: Database) -> None:
    """Every table, column, type and NULL of tables.py is the database's, and the other way round."""
    migrate(empty)
    engine = create_engine("postgresql+psycopg://", creator=empty.open, poolclass=NullPool)
    with engine.begin() as tx:
        context = MigrationContext.configure(
            tx, opts={"compare_type": True, "include_object": _tables_and_columns}
        )
        differences = compare_metadata(context, METADATA)
    assert not [difference for difference in differences if _is_about_columns(difference)]
    inspector = inspect(engine)
    for name, table in METADATA.tables.items():
        real = {column["name"]: column["nullable"] for column in inspector.get_columns(name)}
        assert {column.name: column.nullable for column in table.columns} == real
        assert {column.name for column in table.primary_key} == set(
            inspector.get_pk_constraint(name)["constrained_columns"]
        )


def test_every_table_and_column_says_what_it_means() -> None:
    """A new one comes with a text in tern/store/comments.py or evidence_comments.py, and a text with a column."""
    texts = {name: {"", *table.columns.keys()} for name, table in METADATA.tables.items()}
    assert {name: set(said) for name, said in COMMENTS.items()} == texts
    everything = [text for said in COMMENTS.values() for text in said.values()]
    assert [text for text in everything if not text.endswith(".") or len(text) > 120] == []


def said(engine: Database) -> dict[str, dict[str, str]]:
    """What the database answers whoever asks psql."""
    found: dict[str, dict[str, str]] = {}
    with engine.begin() as tx:
        for row in tx.execute(
            text(
                "SELECT c.relname AS relation, coalesce(a.attname, '') AS attribute, d.description AS said"
                " FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND c.relkind = 'r'"
                " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0"
                " WHERE d.classoid = 'pg_class'::regclass AND c.relnamespace = 'public'::regnamespace"
            )
        ).all():
            found.setdefault(row.relation, {})[row.attribute] = row.said
    return found


def test_the_database_says_it_too_and_after_each_upgrade_anew(empty: Database) -> None:
    """From whichever revision; a text that is put right needs no migration."""
    migrate(empty)
    assert said(empty) == COMMENTS
    migrate(empty, "base")
    migrate(empty)
    with empty.begin() as tx:
        tx.execute(text("COMMENT ON COLUMN applies.state IS 'as it was said before'"))
        tx.execute(text("COMMENT ON TABLE engines IS NULL"))
    migrate(empty)
    assert said(empty) == COMMENTS


def test_every_function_that_people_may_call_says_what_it_is_for(empty: Database) -> None:
    """Those of triggers stand beside what they guard, in their migrations."""
    migrate(empty)
    with empty.begin() as tx:
        silent = tx.execute(
            text(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
                " AND prorettype <> 'trigger'::regtype AND obj_description(oid, 'pg_proc') IS NULL"
            )
        ).scalars()
        assert list(silent) == []


def test_the_page_is_made_of_the_same_texts() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text() == page()


def _tables_and_columns(_object: Any, name: str | None, kind: str, *_: Any) -> bool:
    return kind in {"table", "column"} and name != "alembic_version"


def _is_about_columns(difference: Any) -> bool:
    """Indexes, constraints and defaults live in the migration, each with its reason."""
    kind = difference[0] if isinstance(difference, tuple) else difference[0][0]
    return kind in {
        "add_table",
        "remove_table",
        "add_column",
        "remove_column",
        "modify_type",
        "modify_nullable",
        "modify_comment",
        "add_table_comment",
        "remove_table_comment",
    }

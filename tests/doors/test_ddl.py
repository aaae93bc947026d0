"""Splitting DDL: what becomes a change, what is unsafe about it, and what is refused where."""

import pytest

from tern.domain.errors import Refused
from tern.domain.model import Action
from tern.doors.ddl import LONGEST_STATEMENT, MOST_CHANGES, MOST_WORDS, excerpt, split_ddl


def test_each_statement_is_one_change_in_order() -> None:
    first, second, third = split_ddl(
        "/* tiers */ ALTER TABLE shop.orders ADD COLUMN tier int, ADD COLUMN note text; -- two at once\n"
        "CREATE INDEX CONCURRENTLY by_tier ON orders (tier);\n"
        "CREATE TABLE tiers (id int);"
    )
    assert (first.namespace, first.table_name, first.action) == ("shop", "orders", Action.ALTER)
    assert first.ddl == "ALTER TABLE shop.orders ADD COLUMN tier int, ADD COLUMN note text"
    assert (second.namespace, second.table_name, second.action) == ("public", "orders", Action.ALTER)
    assert (third.table_name, third.action, third.ddl) == (
        "tiers",
        Action.CREATE,
        "CREATE TABLE tiers (id int)",
    )
    assert not any(change.is_unsafe for change in (first, second, third))


def test_text_outside_ascii_is_cut_at_characters_and_not_at_bytes() -> None:
    first, second = split_ddl('ALTER TABLE "Größe".übung ADD COLUMN "ß" int; ALTER TABLE t ADD b int')
    assert (first.namespace, first.table_name) == ("Größe", "übung")
    assert first.ddl.endswith('"ß" int')
    assert second.ddl == "ALTER TABLE t ADD b int"


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("DROP TABLE a.b CASCADE", "the table b and its rows are lost, with everything that depends on it"),
        ("DROP INDEX CONCURRENTLY by_tier", "queries that use the index by_tier become slow"),
        ("DROP TRIGGER t ON orders", "what the trigger t does is lost"),
        ("DROP VIEW v", "the view v is lost"),
        ("ALTER TABLE t DROP COLUMN c", "the column c and its values are lost"),
        ("ALTER TABLE t DROP CONSTRAINT c CASCADE", "guarantees is lost, with everything"),
        ("ALTER TABLE t ALTER c TYPE int", "can't hold exactly"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "still use the old name"),
        ("ALTER TABLE t RENAME TO u", "still use the old name"),
        ("ALTER TABLE t SET SCHEMA u", "still use the old schema"),
        ("ALTER TABLE t SET UNLOGGED", "lost in a crash"),
        ("ALTER TABLE t DETACH PARTITION p", "leave the table"),
        ("ALTER TABLE t DISABLE ROW LEVEL SECURITY", "become visible"),
        ("ALTER TABLE t DISABLE TRIGGER ALL", "not guarded any more"),
        ("ALTER TABLE t DROP COLUMN a, DROP COLUMN b", "a and its values are lost; the column b"),
    ],
)
def test_what_loses_something_is_unsafe_and_says_what(ddl: str, words: str) -> None:
    (change,) = split_ddl(ddl)
    assert words in change.unsafe_reason


@pytest.mark.parametrize(
    ("ddl", "table"),
    [
        ("ALTER TABLE t ALTER c TYPE text", "t"),
        ("ALTER TABLE t RENAME CONSTRAINT a TO b", "t"),
        ("ALTER TABLE t VALIDATE CONSTRAINT c", "t"),
        ("COMMENT ON COLUMN s.t.c IS 'x'", "t"),
        ("COMMENT ON TABLE t IS 'x'", "t"),
        ("COMMENT ON CONSTRAINT c ON t IS 'x'", "t"),
        ("CREATE POLICY p ON t USING (true)", "t"),
        ("CREATE VIEW v AS SELECT 1", "v"),
        ("CREATE STATISTICS st ON a, b FROM t", "t"),
        ("CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION f()", "t"),
        ("REINDEX TABLE CONCURRENTLY t", "t"),
        ("ALTER INDEX i SET (fillfactor = 70)", "i"),
    ],
)
def test_what_loses_nothing_is_safe_and_knows_its_table(ddl: str, table: str) -> None:
    (change,) = split_ddl(ddl)
    assert (change.table_name, change.unsafe_reason) == (table, "")


@pytest.mark.parametrize("ddl", ["", "   \n", "-- nothing", "/* nothing */ ;;"])
def test_ddl_without_a_statement_is_refused_as_empty(ddl: str) -> None:
    with pytest.raises(Refused) as refused:
        split_ddl(ddl)
    assert refused.value.reason == "DDL_EMPTY"


def test_a_syntax_error_names_line_and_column_and_marks_the_place() -> None:
    with pytest.raises(Refused) as refused:
        split_ddl("ALTER TABLE é ADD COLUMN x int,\n  ADD COLUM é int foo;")
    assert refused.value.reason == "DDL_INVALID"
    assert "line 2, column 15" in refused.value.what
    message, line, mark = refused.value.why
    assert message == 'syntax error at or near "int"'
    assert line[mark.index("^") :].startswith("int foo")


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("SELECT 1", "it reads rows"),
        ("INSERT INTO t VALUES (1)", "it writes rows"),
        ("DELETE FROM t", "it deletes rows"),
        ("TRUNCATE t", "it deletes rows"),
        ("COPY t FROM STDIN", "it moves rows"),
        ("DO $$ BEGIN END $$", "can't be reviewed"),
        ("SET lock_timeout = 0", "settings"),
        ("BEGIN", "leave BEGIN and COMMIT out"),
        ("VACUUM t", "changes no schema"),
        ("CREATE TABLE x AS SELECT 1", "two steps"),
        ("CREATE TYPE a AS ENUM ('x')", "names no table (create enum)"),
        ("CREATE EXTENSION x", "names no table (create extension)"),
        ("CREATE SCHEMA x", "names no table"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "names no table"),
        ("GRANT SELECT ON t TO x", "names no table"),
        ("REINDEX DATABASE x", "names no table"),
        ("DROP TABLE a, b", "one statement for each"),
        ("DROP FUNCTION f()", "drops a function"),
        ("DROP SCHEMA s", "drops a schema"),
        ("COMMENT ON EXTENSION x IS 'y'", "no part of a table"),
        ("CREATE TEMP TABLE t (a int)", "one session only"),
    ],
)
def test_what_is_no_change_of_one_table_is_refused_with_its_reason(ddl: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        split_ddl(f"ALTER TABLE öffentlich ADD x int;\n{ddl}")
    assert refused.value.reason == "STATEMENT_REFUSED"
    assert "line 2, column 1" in refused.value.what
    assert words in refused.value.why[0]


def test_a_nul_character_is_refused_before_the_parser_stops_at_it() -> None:
    with pytest.raises(Refused) as refused:
        split_ddl("ALTER TABLE t ADD x int;\0 DROP TABLE t")
    assert "NUL" in refused.value.why[0]
    assert "column 25" in refused.value.what


def test_texts_statements_and_plans_have_a_longest() -> None:
    long_statement = f"COMMENT ON TABLE t IS '{'x' * LONGEST_STATEMENT}'"
    for ddl in (long_statement, "x" * 2_000_000, "ALTER TABLE t ADD x int;" * (MOST_CHANGES + 1)):
        with pytest.raises(Refused):
            split_ddl(ddl)


@pytest.mark.parametrize("words", [200, MOST_WORDS // 4, 2 * MOST_WORDS])
@pytest.mark.parametrize("more", ["+1", "::int", " UNION SELECT 1"])
def test_an_expression_that_goes_too_deep_is_refused_and_ends_no_process(words: int, more: str) -> None:
    with pytest.raises(Refused):
        split_ddl(f"CREATE VIEW v AS SELECT 1{more * words}")


def test_many_words_in_many_statements_are_not_too_many() -> None:
    assert len(split_ddl(f"CREATE TABLE t ({'a int, ' * 1_500} b int);" * 10)) == 10


def test_an_excerpt_of_a_long_line_keeps_the_place_in_sight() -> None:
    line, mark = excerpt("a" * 500 + "!" + "b" * 500, 500)
    assert line[mark.index("^")] == "!"
    assert len(line) <= 80

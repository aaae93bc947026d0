"""What a statement amounts to: spellings that are one, statements that are not, and what an engine may send at will."""

import time

import pytest

from tern.doors import fingerprint
from tern.doors.fingerprint import LONGEST, MOST_AT_ONCE, Statements, read_statement


def parts(ddl: str, namespace: str = "public") -> frozenset[str]:
    found = read_statement(ddl, namespace)
    assert found is not None, ddl
    return found.parts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ALTER TABLE t ADD a int", "alter  table public.t add column a INTEGER ;"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON public.t (a)"),
        ("CREATE INDEX ON t (a)", "CREATE INDEX t_a_idx ON t (a)"),
        ("DROP INDEX i", "DROP INDEX CONCURRENTLY IF EXISTS public.i"),
        ("DROP TRIGGER g ON t", "DROP TRIGGER IF EXISTS g ON public.t"),
        ("ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u",
         "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.u NOT VALID"),
        ("COMMENT ON TABLE t IS 'x'", "COMMENT ON TABLE public.t IS 'x'"),
        ("ALTER TABLE t ADD a int, DROP b", "ALTER TABLE t DROP b, ADD a int"),
    ],
)  # fmt: skip
def test_one_statement_in_two_spellings(one: str, other: str) -> None:
    assert parts(one) == parts(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ALTER TABLE t ADD a int", "ALTER TABLE t ADD b int"),
        ("ALTER TABLE t ADD a int", "ALTER TABLE u ADD a int"),
        ("ALTER TABLE t ADD a int", "ALTER TABLE s.t ADD a int"),
        ("DROP INDEX i", "DROP INDEX s.i"),
        ("DROP INDEX i", "DROP TABLE i"),
        ("DROP TRIGGER g ON t", "DROP TRIGGER g ON u"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX i ON t (b)"),
    ],
)
def test_two_statements_are_two(one: str, other: str) -> None:
    assert parts(one) != parts(other)


def test_a_name_without_a_namespace_is_in_the_one_that_is_given() -> None:
    assert parts("ALTER TABLE t ADD a int", "shop") == parts("ALTER TABLE shop.t ADD a int")


@pytest.mark.parametrize(
    ("ddl", "names"),
    [
        ("ALTER TABLE s.t RENAME TO u", {("s", "t"), ("s", "u")}),
        ("ALTER TABLE t RENAME COLUMN a TO b", {("public", "t")}),
        ("ALTER TABLE t SET SCHEMA z", {("public", "t"), ("z", "t")}),
        ("CREATE INDEX i ON t (a)", {("public", "t"), ("public", "i")}),
        ("DROP TABLE s.t", {("s", "t")}),
        ("DROP POLICY p ON t", {("public", "t")}),
        ("COMMENT ON COLUMN t.a IS 'x'", {("public", "t")}),
        ("CREATE VIEW v AS SELECT 1", {("public", "v")}),
        ("CREATE POLICY p ON t", {("public", "t")}),
        ("CREATE STATISTICS s ON a, b FROM t", {("public", "t")}),
        ("SELECT 1", set()),
    ],
)
def test_all_that_it_may_be_called_after(ddl: str, names: set[tuple[str, str]]) -> None:
    found = read_statement(ddl, "public")
    assert found is not None
    assert found.names == names
    assert found.names_its_table


@pytest.mark.parametrize(
    "ddl", ["DROP INDEX i", "ALTER INDEX i RENAME TO j", "ALTER INDEX i SET (fillfactor = 70)", "REINDEX INDEX i",
            "COMMENT ON INDEX i IS 'x'"]
)  # fmt: skip
def test_whose_index_it_is_is_not_said(ddl: str) -> None:
    found = read_statement(ddl, "public")
    assert found is not None
    assert not found.names_its_table


@pytest.mark.parametrize(
    "ddl",
    ["", ";", "-- nothing", "no statement", "ALTER TABLE `t` ADD a int", "ALTER TABLE t ADD a int\0", "(" * 9_000,
     f"ALTER TABLE t ADD CHECK ({'NOT ' * 2_400}a)", "ALTER TABLE t ADD a int" + " " * LONGEST,
     "ALTER TABLE t " + ", ".join(["DROP a"] * 201)],
)  # fmt: skip
def test_what_cant_be_read_says_nothing(ddl: str) -> None:
    assert read_statement(ddl, "public") is None


def test_what_does_not_change_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    right = read_statement

    def counted(ddl: str, namespace: str) -> object:
        read.append(ddl)
        return right(ddl, namespace)

    monkeypatch.setattr(fingerprint, "read_statement", counted)
    statements = Statements()
    for _ in range(3):
        statements.read_all([("public", "ALTER TABLE t ADD a int"), ("public", "no statement")])
    assert read == ["ALTER TABLE t ADD a int", "no statement"]
    for number in range(fingerprint.KEPT):
        statements.read(f"DROP TABLE t{number}", "public")
    statements.read("no statement", "public")
    assert read.count("no statement") == 2


def test_an_engine_that_sends_other_statements_each_time_costs_a_bounded_time() -> None:
    """Of an answer only so many characters are read that were never read before."""
    statements = Statements()
    row = "ALTER TABLE t " + ", ".join(
        f"ADD CHECK (a = ANY (ARRAY[{','.join('1' * 30)}]))" for _ in range(100)
    )
    answers = [("public", f"{row} -- {number}") for number in range(200)]
    begun = time.process_time()
    found = statements.read_all(answers)
    spent = time.process_time() - begun
    assert sum(len(ddl) for _, ddl in found) <= MOST_AT_ONCE
    begun = time.process_time()
    read_statement(row, "public")
    one = time.process_time() - begun
    assert spent < 40 * one

"""Which statement each entry of a look is about, in whatever order and words its engine tells them (PO5)."""

import pytest

from tern.domain.entries import entries_by_statement
from tern.domain.own_work import Work
from tern.domain.samples import TableSample
from tern.doors.fingerprint import STATEMENTS

A1, A2 = "ALTER TABLE a ADD COLUMN x int", "ALTER TABLE a ADD COLUMN y int"
B = "ALTER TABLE b ADD COLUMN z int"


def work(*changes: tuple[str, str]) -> Work:
    sent = [("public", table, ddl) for table, ddl in changes or (("a", A1), ("a", A2), ("b", B))]
    return Work.of(sent, STATEMENTS.read, "public")


def entry(
    table: str, ddl: str = "", status: str = "running", percent: int = 0, namespace: str = ""
) -> TableSample:
    return TableSample(namespace, table, ddl, status, percent)


def told(entries: list[TableSample], ours: Work | None = None) -> list[tuple[str, int] | None]:
    """Status and percent of each statement."""
    found = entries_by_statement(ours or work(), entries, STATEMENTS.read)
    return [None if each is None else (each.status, each.percent or 0) for each in found]


def test_an_entry_with_a_statements_text_is_about_that_one_wherever_it_stands() -> None:
    seen = [entry("b", f"{B};", percent=3), entry("a", A2, percent=2), entry("a", A1, percent=1)]
    assert told(seen) == [("running", 1), ("running", 2), ("running", 3)]


def test_what_says_nothing_of_a_statement_leaves_it() -> None:
    assert told([entry("a", A2, "completed", 100)]) == [None, ("completed", 100), None]
    assert told([]) == [None, None, None]


def test_one_entry_for_a_table_stands_for_all_its_statements() -> None:
    """As far as it tells of any one of them: that it is through may be about one alone."""
    merged = "ALTER TABLE a ADD COLUMN x int, ADD COLUMN y int"
    assert told([entry("a", merged, percent=40), entry("b", "", "completed", 100)]) == [
        ("running", 40),
        ("running", 40),
        ("completed", 100),
    ]
    assert told([entry("a", "", "checksumming", 70)])[:2] == [("checksumming", 70)] * 2
    assert told([entry("a", "", "completed", 100)])[:2] == [("", 0)] * 2
    assert told([entry("b", "", "completed", 100)])[2] == ("completed", 100)


def test_a_statement_spelled_anew_stands_for_none_beside_it() -> None:
    """The first is in, the second was never begun, and the engine speaks of what it has begun alone."""
    assert told([entry("a", "ALTER TABLE public.a ADD COLUMN x integer", "completed", 100)])[:2] == [
        ("completed", 100),
        None,
    ]
    assert told([entry("a", "ALTER TABLE public.a ADD COLUMN y integer", "completed", 100)])[:2] == [
        None,
        ("completed", 100),
    ]


def test_statements_spelled_anew_are_told_apart_by_what_they_do() -> None:
    again = [
        entry("a", "ALTER TABLE public.a ADD COLUMN y integer", "failed"),
        entry("a", "ALTER TABLE public.a ADD COLUMN x integer", "completed", 100),
    ]
    assert told(again)[:2] == [("completed", 100), ("failed", 0)]


@pytest.mark.parametrize("word", ["failed", "cancelled", "reverted"])
def test_the_ending_of_several_is_that_of_none(word: str) -> None:
    """One of them may be in all the same, and nobody would look at it again."""
    assert told([entry("a", "", word, 40)])[:2] == [("", 40)] * 2
    assert told([entry("b", "", word, 40)])[2] == (word, 40)


def test_as_many_entries_as_statements_are_taken_one_by_one() -> None:
    seen = [
        entry("a", "alter table a add x int", percent=90),
        entry("a", "alter table a add y int", percent=10),
    ]
    assert told(seen)[:2] == [("running", 90), ("running", 10)]


def test_the_least_advanced_part_of_a_statement_tells_of_it() -> None:
    seen = [entry("b", "first half", "completed", 100), entry("b", "second half", "running", 5)]
    assert told(seen)[2] == ("running", 5)
    assert told(list(reversed(seen)))[2] == ("running", 5)


def test_a_part_of_a_statement_that_is_through_is_not_the_whole() -> None:
    ours = work(("a", "ALTER TABLE a ADD COLUMN x int, ADD COLUMN y int"))
    half = [entry("a", "ALTER TABLE public.a ADD COLUMN x integer", "completed", 100)]
    assert told(half, ours) == [("", 100)]
    other = entry("a", "ALTER TABLE public.a ADD COLUMN y integer", "completed", 100)
    assert told([*half, other], ours) == [("completed", 100)]


def test_another_namespace_is_another_table_and_none_is_the_default_one() -> None:
    assert told([entry("b", B, namespace="archive")]) == [None, None, None]
    assert told([entry("b", B, namespace="public")]) == told([entry("b", B)]) == [None, None, ("running", 0)]


def test_a_new_name_and_an_index_lead_to_the_statement() -> None:
    ours = work(("a", "ALTER TABLE a RENAME TO c"), ("b", "CREATE INDEX i ON b (z)"))
    assert told([entry("i", percent=7), entry("c", percent=8)], ours) == [("running", 8), ("running", 7)]


def test_the_same_statement_twice_is_told_of_twice() -> None:
    ours = work(("a", A1), ("a", A1))
    assert told([entry("a", A1, percent=2)], ours) == [("running", 2), None]
    assert told([entry("a", A1, percent=2), entry("a", A1, percent=3)], ours) == [
        ("running", 2),
        ("running", 3),
    ]

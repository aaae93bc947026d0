"""What a person has to agree to before it is done: every kind of statement that takes something away, by its reason."""

import pytest

from tern.engine import unsafe
from tern.engine.parse import read

UNSAFE = {
    "ALTER TABLE t DROP COLUMN b": "dropping column b loses its data",
    "ALTER TABLE t DROP CONSTRAINT positive": "dropping constraint positive ends a guarantee",
    "ALTER TABLE t DISABLE ROW LEVEL SECURITY": "every role that may read the table sees every row",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY": "other roles than the owner see no row",
    "ALTER TABLE t DISABLE TRIGGER audit": "trigger audit no longer fires",
    "ALTER TABLE t DISABLE TRIGGER ALL": "no trigger fires any more, foreign keys included",
    "ALTER TABLE t DISABLE TRIGGER USER": "no trigger fires any more",
    "ALTER TABLE t OWNER TO bob": "the former owner loses its rights",
    "ALTER TABLE t ALTER a DROP IDENTITY": "column a no longer gets its values by itself",
    "ALTER TABLE t ALTER a DROP EXPRESSION": "column a is no longer computed",
    "DROP TABLE t": "dropping a table loses its data",
    "DROP INDEX i": "queries that use the index become slow",
    "DROP SEQUENCE s": "dropping a sequence loses its position",
    "DROP POLICY p ON t": "dropping a policy changes who sees which rows",
    "DROP VIEW v": "the application may still use the view",
    "DROP FUNCTION f()": "the application may still use the function",
    "DROP TYPE mood": "the application may still use the type",
    "ALTER TABLE t RENAME TO u": "the running application still uses the old name",
    "ALTER TABLE t RENAME COLUMN a TO b": "the running application still uses the old name",
    "ALTER INDEX i RENAME TO j": "hints and scripts that name the index no longer find it",
    "ALTER TABLE t RENAME CONSTRAINT a TO b": "that name the constraint no longer find it",
    "REVOKE SELECT ON t FROM bob": "a role loses rights that it may be using",
    "ALTER TYPE mood RENAME VALUE 'a' TO 'b'": "the running application still uses the old value",
    "ALTER POLICY p ON t USING (true)": "altering a policy changes who sees which rows",
    "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": "callers get the new function at once",
}
SAFE = (
    "ALTER TABLE t ADD COLUMN k int",
    "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0)",
    "ALTER TABLE t ALTER a SET DEFAULT 1",
    "CREATE TABLE u (a int)",
    "CREATE INDEX ON t (a)",
    "GRANT SELECT ON t TO bob",
    "ALTER TYPE mood ADD VALUE 'c'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "COMMENT ON TABLE t IS 'x'",
)


@pytest.mark.parametrize("ddl", UNSAFE)
def test_what_takes_something_away_says_what(ddl: str) -> None:
    (reason,) = unsafe.reasons(read(ddl))
    assert UNSAFE[ddl] in reason


@pytest.mark.parametrize("ddl", SAFE)
def test_what_takes_nothing_away_needs_no_consent(ddl: str) -> None:
    """A warning at everything is read by nobody."""
    assert unsafe.reasons(read(ddl)) == ()


def test_every_part_of_a_statement_is_looked_at() -> None:
    found = unsafe.reasons(read("ALTER TABLE t ADD COLUMN k int, DROP COLUMN b, DROP CONSTRAINT c"))
    assert [words.split(" ")[1] for words in found] == ["column", "constraint"]


def test_every_reason_that_can_be_given_is_given_above() -> None:
    """A reason that is new is tried here too."""
    given = [reason for ddl in UNSAFE for reason in unsafe.reasons(read(ddl))]
    for words in (*unsafe._PARTS.values(), *unsafe._DROPS.values(), *unsafe._RENAMES.values()):
        fixed = max(words.split("{name}"), key=len)
        assert any(fixed in reason for reason in given), words

"""Tern's own database: upgraded on purpose, and every other command says when it is not."""

import psycopg
import pytest

from tests.cli.conftest import Tern


@pytest.fixture
def empty(bare: Tern, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Tern:
    """The command line on a database that nobody has migrated."""
    monkeypatch.setenv("TERN_DATABASE_URL", database_url)
    return bare


@pytest.mark.parametrize(
    "words", [("ls",), ("get", "apl-1"), ("deployments", "ls"), ("stop", "apl-1", "--reason", "x")]
)
def test_a_database_that_is_not_migrated_is_told_with_the_command(
    words: tuple[str, ...], empty: Tern
) -> None:
    done = empty(*words)
    assert (done.code, "tern db upgrade" in done.err) == (78, True)


def test_up_again_and_down(empty: Tern) -> None:
    assert empty("db", "check").code == 78
    assert empty("db", "current", "--json").data["current"] is None
    assert "revision" in empty("db", "upgrade").out
    assert "already" in empty("db", "upgrade").out
    assert empty("db", "check", "--json").data["is_migrated"] is True
    assert empty("ls").code == 0
    assert empty("db", "downgrade", "base").code == 2
    assert empty("db", "downgrade", "0001", "--yes").code == 2
    assert empty("db", "downgrade", "base", "--yes").code == 0
    assert empty("db", "check").code == 78


def test_a_way_down_that_is_printed_can_be_copied(empty: Tern) -> None:
    """It said `tern db downgrade -1 --yes`, which was no such option."""
    empty("db", "upgrade")
    refused = empty("db", "downgrade", "-1")
    assert (refused.code, "tern db downgrade -1 --yes" in refused.err) == (2, True)
    before = empty("db", "current", "--json").data["current"]
    assert empty("db", "downgrade", "-1", "--yes").code == 0
    assert empty("db", "current", "--json").data["current"] < before
    assert empty("db", "downgrade", "--yess", "base").code == 2


@pytest.mark.parametrize("words", [("db", "check"), ("db", "upgrade"), ("ls",), ("doctor",)])
def test_a_database_that_a_newer_version_has_upgraded_is_not_to_be_upgraded(
    words: tuple[str, ...], empty: Tern, database_url: str
) -> None:
    """It was told to run the one command that this version can't carry out there."""
    empty("db", "upgrade")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    done = empty(*words)
    said = done.err + done.out
    assert done.code == 78
    assert "9999" in said
    assert "the version of Tern that upgraded it" in said
    assert "db upgrade" not in said


def test_a_database_that_does_not_answer_is_unreachable(bare: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", "postgresql://ann:hunter2@127.0.0.1:1/none")
    for words in (("ls",), ("db", "upgrade"), ("db", "check"), ("doctor",)):
        done = bare(*words)
        assert done.code == 69
        assert "hunter2" not in done.err + done.out


@pytest.mark.parametrize(
    "url", ["mysql://h/x", "nonsense", "postgresql://h:port/x", "postgresql://u:p@hunter2@h/x"]
)
def test_a_wrong_url_is_told_without_its_secrets(
    url: str, bare: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", url)
    done = bare("ls")
    assert (done.code, "TERN_DATABASE_URL" in done.err) == (78, True)
    assert "hunter2" not in done.err

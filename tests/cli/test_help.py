"""What people type before they have read anything: a word, half a word, another tool's word."""

import re
from pathlib import Path

import click
import pytest

import tern
from tern.cli import main
from tern.cli.exit_codes import EXIT_CODES
from tern.domain.ending import NONE_DONE, PARTLY_DONE, UNKNOWN
from tern.domain.errors import TernError
from tern.view import _OUTCOMES, NEEDS_PERSON, READY_FOR_CUTOVER
from tests.cli.conftest import Tern

OPERATIONS = Path(tern.__file__).parent.parent / "docs" / "operations.md"


def groups() -> list[str]:
    root = click.Context(main.tern, info_name="tern")
    found = []
    for name in main.COMMANDS:
        command = main.tern.get_command(root, name)
        if isinstance(command, click.Group) and not command.invoke_without_command:
            found.append(name)
    return found


def test_help_is_a_command_as_well(bare: Tern) -> None:
    assert bare("help") == bare("--help")
    assert bare("help", "get") == bare("get", "--help")
    assert bare("help", "deployments", "add") == bare("deployments", "add", "--help")
    assert bare("get", "-h") == bare("get", "--help")
    assert bare("version") == bare("--version")
    odd = bare("help", "get", "x")
    assert (odd.code, "tern get has no commands of its own" in odd.err) == (2, True)
    assert bare("help", "wach").code == 2


@pytest.mark.parametrize("words", [(), *((name,) for name in groups())])
def test_a_command_that_is_missing_is_asked_for_below_the_list(words: tuple[str, ...], bare: Tern) -> None:
    """Whoever runs `tern $COMMAND` with nothing in it must not be told that it went well."""
    done = bare(*words)
    path = " ".join(["tern", *words])
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Usage: {path} ")
    assert f"\ncan't read that: {path} needs a command\n" in done.err
    step = done.err.rsplit("next:", 1)[1].strip()
    assert step == (f"{path} --help" if words else "tern doctor")
    assert bare(*step.split()[1:]).code == (0 if words else 78), "it can be copied; nothing is set up here"


def test_all_groups_are_asked() -> None:
    assert {"deployments", "db", "engine"} <= set(groups())


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("wach", "apl-1"), "tern watch"),
        (("explian", "apl-1"), "tern explain"),
        (("status",), "tern get"),
        (("resume",), "tern start"),
        (("apl-12",), "tern get apl-12"),
        (("pln-12",), "tern plan show pln-12"),
        (("deployments", "lst"), "tern deployments ls"),
        (("plan", "shwo"), "tern plan show"),
        (("help", "wach"), "tern watch"),
        (("get", "apl-1", "--jsno"), "--json"),
        (("wait", "apl-1", "--for", "setled"), "settled"),
        (("ls", "--state", "runing"), "running"),
    ],
)
def test_what_is_misspelt_is_guessed_and_not_done(words: tuple[str, ...], meant: str, bare: Tern) -> None:
    done = bare(*words)
    assert (done.code, done.out) == (2, "")
    assert re.search(rf"why: +did you mean {meant}( or .*)?\?$", done.err, re.MULTILINE), done.err


def test_each_word_of_another_tool_leads_to_a_command_of_ours() -> None:
    assert set(main._ELSEWHERE.values()) <= main.COMMANDS.keys()
    assert not main._ELSEWHERE.keys() & main.COMMANDS.keys()


def test_an_option_without_its_value_leads_to_its_own_help(bare: Tern) -> None:
    assert "next:      tern stop --help" in bare("stop", "apl-1", "--reason").err


@pytest.mark.parametrize("verb", ["get", "watch", "wait", "explain", "logs"])
@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("apl-12/", "no deployment stands after the slash"),
        ("/us-east", "no apply stands before the slash"),
        ("apl-12/a/b", "a deployment has no slash in its name"),
        ("APL-12", "Did you mean apl-12?"),
        ("APL-12/Us", "Did you mean apl-12/Us?"),
        (" apl-12", "white space stands around it"),
        ("apl-12/a ", "Did you mean apl-12/a?"),
        ("apl-12\n", "white space stands around it"),
        ("", "it is written apl-… or apl-…/DEPLOYMENT"),
        ("us-east", "it is written apl-… or apl-…/DEPLOYMENT"),
    ],
)
def test_a_subject_that_is_none_is_a_usage_error_with_what_is_odd(
    verb: str, subject: str, words: str, tern: Tern
) -> None:
    done = tern(verb, subject)
    assert (done.code, words in done.err) == (2, True), done.err


def test_exit_codes_stand_in_one_table(bare: Tern) -> None:
    told = bare("help", "exit-codes").out
    assert [int(code) for code in re.findall(r"^ {2,4}(\d+)  ", told, re.MULTILINE)] == list(EXIT_CODES)


def test_the_docs_have_the_same_table() -> None:
    section = OPERATIONS.read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE)
    assert {int(code): means for code, means in rows} == EXIT_CODES


def test_every_code_that_a_command_ends_with_is_in_the_table() -> None:
    def kinds(kind: type[TernError]) -> set[int]:
        return {kind.exit_code, *(code for each in kind.__subclasses__() for code in kinds(each))}

    ends = {NONE_DONE, PARTLY_DONE, UNKNOWN, NEEDS_PERSON, READY_FOR_CUTOVER, *_OUTCOMES.values()}
    processes = {main.INTERRUPTED, main.TERMINATED, main.PIPE_CLOSED, main.UNWRITABLE, 124}
    assert kinds(TernError) | ends | processes == EXIT_CODES.keys()

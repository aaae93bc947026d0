"""Which errors of the server fail a job: only what never works; the rest is tried again (G10, G16)."""

from collections import defaultdict

import psycopg
import pytest
from psycopg import errors

from tern.engine.failure import Meaning, meaning

# Our statement or the data: unsupported, data that doesn't fit, a constraint, dependants, no such schema, wrong or
# forbidden by itself, beyond a limit of the server, or the wrong kind of object.
NEVER_WORKS = {"0A", "22", "23", "2B", "3F", "42", "54"}
NEVER_WORKS_EITHER = {"55000", "55P04", "44000"}


def known() -> dict[str, psycopg.Error]:
    """An error of every SQLSTATE that the driver knows."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    return {each.sqlstate: each() for each in kinds if issubclass(each, psycopg.Error) and each.sqlstate}


def test_only_what_never_works_is_a_verdict() -> None:
    """A verdict can't be taken back: a class of errors that becomes one is listed by somebody who thought."""
    found = known()
    assert len(found) > 200
    fatal = {state for state, error in found.items() if meaning(error) is Meaning.DEFINITIVE}
    by_class: dict[str, set[str]] = defaultdict(set)
    for state in fatal - NEVER_WORKS_EITHER:
        by_class[state[:2]].add(state)
    assert set(by_class) == NEVER_WORKS
    assert by_class == {each: {state for state in found if state.startswith(each)} for each in NEVER_WORKS}, (
        "half a class is a verdict"
    )
    assert fatal >= NEVER_WORKS_EITHER


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("53100", id="the disk is full"),
        pytest.param("53200", id="no memory"),
        pytest.param("53300", id="too many connections"),
        pytest.param("57014", id="cancelled by somebody"),
        pytest.param("57P03", id="the server starts"),
        pytest.param("40P01", id="a deadlock"),
        pytest.param("25006", id="a standby answers"),
        pytest.param("28P01", id="the password is changed just now"),
        pytest.param("08006", id="the connection broke"),
        pytest.param("55006", id="somebody uses it right now"),
    ],
)
def test_what_may_work_in_a_moment_is_tried_again(state: str) -> None:
    assert meaning(errors.lookup(state)()) is Meaning.TRANSIENT


def test_nobody_knows_what_an_unheard_of_error_means() -> None:
    """So it is tried again and shown."""
    assert meaning(errors.lookup("XX000")()) is Meaning.UNKNOWN
    assert meaning(psycopg.ProgrammingError("no word of the server")) is Meaning.UNKNOWN
    assert meaning(psycopg.OperationalError("the connection is lost")) is Meaning.TRANSIENT
    assert meaning(errors.lookup("55P03")()) is Meaning.LOCKED

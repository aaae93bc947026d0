"""Each event has its sentence, and none is in the words of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tern.domain.control import Delivery, Verb
from tern.domain.states import Event, State
from tern.domain.telling import FATES, STATES, TELLINGS, is_by_person, sentence, told_of

ROOT = Path(__file__).parents[2]
INNER = re.compile(
    r"\b(moot|project(ed|ion)|adopt(ed)?|observ\w+|claim(ed)?|requeue\w*|lose_track|withdraw\b|acknowledged|verdict|fence"
    r"|fate|wish\w*|bell|delivery|projected|generation|token|settled|sample)\b|_"
)


def written() -> Iterator[str]:
    """Every event that the code writes by a name of its own, wherever that stands."""
    places = {"Happening": 1, "tell": 2, "record_register": 1}
    for path in sorted((ROOT / "tern").rglob("*.py")):
        if "engine" in path.relative_to(ROOT).parts:
            # What an engine writes for itself is shown as its own.
            continue
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name == "tell_once" and len(node.args) > 3 and isinstance(node.args[3], ast.Constant):
                yield from (f"{verb}_{node.args[3].value}" for verb in Verb)
            if name in places and len(node.args) > places[name]:
                told = node.args[places[name]]
                if isinstance(told, ast.Constant):
                    yield str(told.value)
        yield from re.findall(r"INTO_EVENTS\} SELECT apply_id, id, '([a-z_]+)'", source)
        yield from re.findall(r'"(?:drained|open|removed)": "(deployment_[a-z]+)"', source)


def test_every_event_that_is_written_has_its_sentence() -> None:
    found = {*written(), *(event.value for event in Event)}
    found |= {f"{verb}_{end}" for verb in Verb for end in Delivery if not end.is_open}
    assert {"accepted", "outstanding_seen", "deployment_drained", "stop_looked", "remote_id_stored"} <= found
    assert found - set(TELLINGS) == set()


@pytest.mark.parametrize("event", TELLINGS)
def test_no_sentence_has_an_inner_word(event: str) -> None:
    said = sentence(event, State.FAILED_RETRYABLE.value)
    assert said
    assert INNER.findall(said) == [], said
    assert "{" not in said


def test_no_state_and_no_outcome_has_an_inner_word() -> None:
    for said in (*STATES.values(), *FATES.values()):
        assert INNER.findall(said) == [], said
    assert set(FATES) == {each.value for each in Delivery}


def test_an_event_of_another_version_is_told_by_its_name() -> None:
    assert told_of("made_up_later").words == "made up later"


def test_a_person_s_word_is_theirs_by_whatever_arrow_it_leads_on() -> None:
    assert is_by_person("requeue", "resolved as not-started: I looked")
    assert not is_by_person("requeue", "its key is dead")

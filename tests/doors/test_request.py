"""Requests as other services spell them: everything that is wrong at once, and nothing guessed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.enqueue import NewChange
from tern.domain.errors import Refused, UsageError
from tern.domain.model import Action
from tern.domain.states import State
from tern.doors.change import from_document, from_entries
from tern.doors.request import EnqueueRequest, read_asked

CHANGES = Path(__file__).parents[2] / "docs/changes.md"
DDL = "ALTER TABLE orders ADD COLUMN note text"
ENQUEUE: dict[str, Any] = {
    "ddl": DDL,
    "environment": "test",
    "database": "shop",
    "deployments": ["B", "A"],
    "caller": "billing",
    "reason": "because",
    "key": "k1",
}
ASK: dict[str, Any] = {"verb": "stop", "subject": "apl-1", "caller": "bob", "reason": "the night is long"}


def test_a_request_is_understood_with_the_defaults_of_every_door() -> None:
    asked = EnqueueRequest.read(ENQUEUE).understood()
    assert isinstance(asked.change, NewChange)
    assert [change.action for change in asked.change.changes] == [Action.ALTER]
    assert asked.choice.names == ("B", "A")
    assert (asked.policy, asked.allow_unsafe, asked.previews) == (None, False, True)


def test_none_says_nothing() -> None:
    message = {**ENQUEUE, "plan": None, "labels": None, "policy": None, "previews": None}
    assert EnqueueRequest.read(message) == EnqueueRequest.read(ENQUEUE)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError) as refusal:
        EnqueueRequest.read({**ENQUEUE, "reason": 3, "allow_unsafe": "false", "deployments": "AB", "more": 1})
    assert len(refusal.value.why) == 4
    assert "'more' is not known" in refusal.value.why


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plan", "pln-1"),
        ("ddl", ""),
        ("ddl", b"ALTER"),
        ("ddl", "x" * 1_000_001),
        ("reason", "x" * 10_001),
        ("environment", "a\x00b"),
        ("caller", "\ud800"),
        ("deployments", {"A": 1}),
        ("deployments", ["A", ""]),
        ("deployments", ["A", "\x00"]),
        ("labels", ["region=eu"]),
        ("labels", {"region": 5}),
        ("labels", {"re gion": "eu"}),
        ("labels", {"region": "\x00"}),
        ("everywhere", 1),
        ("excepted", "A"),
        ("policy", []),
        ("policy", {"copy": "sideways"}),
        ("policy", {"copies": "rolling"}),
        ("policy", {"strict": "yes"}),
        ("policy", {"max_parallel": 1.5}),
        ("policy", {"max_failures": float("nan")}),
        ("policy", {"waves": {}}),
        ("policy", {"waves": [5]}),
        ("policy", {"waves": [{"labels": {"a": "\x00"}}]}),
        ("policy", {"waves": [{"labels": {"a": "b"}, "deployments": ["A"]}]}),
        ("policy", {"waves": [{"bake_s": -1}]}),
        ("changes", "ALTER"),
        ("previews", "no"),
        ("key", ["k"]),
    ],
)
def test_a_value_of_another_type_is_refused_and_never_guessed_at(field: str, value: Any) -> None:
    with pytest.raises(UsageError):
        EnqueueRequest.read({**ENQUEUE, field: value}).understood()


def test_a_wish_is_read_with_all_its_selectors() -> None:
    asked = read_asked(
        {
            **ASK,
            "states": ["running"],
            "labels": {"region": "eu"},
            "wave": 2,
            "excepted": ["A"],
            "expected": 3,
        }
    )
    assert (asked.verb, asked.apply_id, asked.expected) == (Verb.STOP, "apl-1", 3)
    assert asked.selection.states == {State.RUNNING}
    assert (asked.selection.wave, asked.selection.excepted) == (2, {"A"})
    assert read_asked({**ASK, "subject": "apl-1/A"}).selection.deployments == ("A",)
    assert read_asked({**ASK, "verb": "volume", "volume": 11}).volume == 11
    assert read_asked({**ASK, "although_foreign": " R "}).although_foreign == "R"
    assert read_asked({**ASK, "verb": "cancel", "outstanding": True}).outstanding


@pytest.mark.parametrize(
    "changed",
    [
        {"verb": "destroy"},
        {"verb": None},
        {"verb": 3},
        {"subject": "nonsense"},
        {"subject": ""},
        {"reason": " "},
        {"states": ["asleep"]},
        {"states": "running"},
        {"everywhere": True, "deployments": ["A"]},
        {"subject": "apl-1/A", "everywhere": True},
        {"subject": "apl-1/A", "wave": 1},
        {"expected": -1},
        {"expected": True},
        {"wave": "1"},
        {"although_foreign": 3},
        {"verb": "start", "although_foreign": "R"},
        {"outstanding": "yes"},
        {"verb": "stop", "outstanding": True},
        {"verb": "cancel", "outstanding": True, "although_foreign": "R"},
        {"volume": 3},
        {"verb": "volume"},
        {"verb": "volume", "volume": 12},
        {"dry_run": 1},
        {"surprise": 1},
    ],
)
def test_a_wish_that_can_t_be_read_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_asked({**ASK, **changed})


@pytest.mark.parametrize("subject", ["apl-1/", "/A", "apl-1/A/B", "APL-1/A", "apl-1/a b"])
def test_a_malformed_scope_is_refused(subject: str) -> None:
    """G7: the empty deployment among them. It can't be read, and is no refusal of what could be."""
    with pytest.raises(UsageError) as refusal:
        read_asked({**ASK, "subject": subject})
    assert refusal.value.reason == "SCOPE_MALFORMED"


def test_postgresql_s_own_statements_are_judged_whoever_spells_them_out() -> None:
    """What a statement loses is not left to its sender."""
    (change,) = from_entries("postgres", [{"table": "orders", "ddl": "ALTER TABLE orders DROP COLUMN x;"}])
    assert (change.namespace, change.action) == ("public", Action.ALTER)
    assert "are lost" in change.unsafe_reason
    assert change.ddl == "ALTER TABLE orders DROP COLUMN x"
    (told,) = from_entries("postgres", [{"table": "orders", "ddl": DDL, "unsafe_reason": "I know better"}])
    assert told.unsafe_reason == "I know better"
    with pytest.raises(Refused, match="2 statements"):
        from_entries("postgres", [{"table": "orders", "ddl": f"{DDL}; DROP TABLE orders"}])
    (foreign,) = from_entries(
        "mysql", [{"table": "orders", "ddl": "ALTER TABLE orders DROP x; DROP TABLE y"}]
    )
    assert (foreign.action, foreign.unsafe_reason) == (Action.OTHER, "")


GOOD = {"table": "t", "ddl": "x"}
TABLE_AND_DDL = "must be an object with table and ddl"
KNOWN = "known are namespace, table, ddl, action, unsafe_reason"
MISREAD: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "no object": ([GOOD], ("it is a list, and must be an object with database_type and changes",)),
    "nothing": ({}, ("database_type is missing", "changes is missing")),
    "null": ({"database_type": None, "changes": None}, ("database_type is missing", "changes is missing")),
    "an empty type": ({"database_type": " ", "changes": [GOOD]}, ("database_type is empty",)),
    "a type that is none": (
        {"database_type": 5, "changes": [GOOD]},
        ("database_type is a number, and must be a text",),
    ),
    "a type with a NUL": (
        {"database_type": "a\x00", "changes": [GOOD]},
        ("database_type holds a NUL or half a surrogate pair, which no database can keep",),
    ),
    "no changes": (
        {"database_type": "mysql", "changes": []},
        ("changes is empty: there is nothing to roll out",),
    ),
    "changes that are none": (
        {"database_type": "mysql", "changes": "abc"},
        ("changes is a text, and must be a list",),
    ),
    "a misspelt key": (
        {"database_type": "mysql", "changes": [GOOD], "targets": [], "data base": 1},
        (
            "targets is not known; known are database_type, changes",
            "'data base' is not known; known are database_type, changes",
        ),
    ),
    "everything at once": (
        {
            "database_type": "mysql",
            "changes": [
                GOOD,
                5,
                {"ddl": "x", "table_name": "t"},
                {"table": True, "ddl": " ", "namespace": {}, "unsafe_reason": [1]},
                {"table": "t", "ddl": "x\x00", "action": "explode"},
            ],
        },
        (
            f"changes[1] is a number, and {TABLE_AND_DDL}",
            f"changes[2].table_name is not known; {KNOWN}",
            "changes[2].table is missing",
            "changes[3].namespace is an object, and must be a text",
            "changes[3].table is true or false, and must be a text",
            "changes[3].ddl is empty",
            "changes[3].unsafe_reason is a list, and must be a text",
            "changes[4].ddl holds a NUL or half a surrogate pair, which no database can keep",
            "changes[4].action is 'explode', and must be one of create, alter, drop, other",
        ),
    ),
}


@pytest.mark.parametrize(("document", "why"), MISREAD.values(), ids=MISREAD)
def test_what_is_wrong_with_changes_is_told_with_its_place(document: Any, why: tuple[str, ...]) -> None:
    """All of it at once, by the path that jq takes."""
    with pytest.raises(UsageError) as refused:
        from_document(document)
    assert refused.value.why == why
    assert '"database_type": "mysql"' in refused.value.next_step


def test_postgres_statements_that_are_none_are_told_with_their_place() -> None:
    drop = {"table": "orders", "ddl": f"{DDL}; DROP TABLE orders"}
    misspelt = {"table": "orders", "ddl": "ALTR TABLE orders"}
    with pytest.raises(Refused) as one:
        from_entries("postgres", [{"table": "orders", "ddl": DDL}, misspelt])
    assert one.value.why[0] == 'changes[1].ddl: syntax error at or near "ALTR"'
    assert "changes[1]" in str(one.value)
    with pytest.raises(Refused, match="2 of 3 changes can't be rolled out") as both:
        from_entries("postgres", [misspelt, {"table": "orders", "ddl": DDL}, drop])
    assert "changes[0].ddl: syntax error" in both.value.why[0]
    assert both.value.why[-1] == "changes[2].ddl: a change is one statement on one table"


@pytest.mark.parametrize("example", re.findall(r"```json\n(.*?)```", CHANGES.read_text(), re.DOTALL))
def test_the_examples_in_the_docs_are_read(example: str) -> None:
    database_type, changes = from_document(json.loads(example))
    assert (database_type, len(changes)) in {("mysql", 2), ("postgres", 1)}


def test_the_docs_name_every_key() -> None:
    told = set(re.findall(r"^\| `(?:changes\[\]\.)?(\w+)` \|", CHANGES.read_text(), re.MULTILINE))
    assert told == {"database_type", "changes", "namespace", "table", "ddl", "action", "unsafe_reason"}

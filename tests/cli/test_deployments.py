"""The register of deployments: an engine is asked first, and nothing secret is written down."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tern.cli.importing import IMPORTED_FIELDS
from tern.domain.policy import Copy, Policy
from tern.domain.silence import CallKind
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.faults.fake_engine import FakeEngine
from tests.world import World

PLACE = ("--environment", "test", "--database", "shop")


def add(tern: Tern, name: str, address: str, *more: str, target: str = "t") -> object:
    return tern("deployments", "add", name, *PLACE, "--address", address, "--target", target, *more)


def test_add_asks_the_engine_and_remembers_what_it_offers(tern: Tern) -> None:
    with FakeEngine("eu", target="t") as engine:
        answer = tern(
            *("deployments", "add", "eu", *PLACE, "--address", engine.address, "--target", "t"),
            *("--label", "region=eu", "--position", "3", "--json"),
        )
        assert (answer.code, answer.data["outcome"]) == (0, "added")
        offers = {"resolve": True, "batch_progress": True, "preview": True}
        assert answer.data["capabilities"] == {**offers, "identity": ""}
        again = add(tern, "eu", engine.address, "--label", "region=eu", "--position", "3")
        assert "known already" in again.out  # type: ignore[attr-defined]
    (listed,) = tern("deployments", "ls", "--json").data["deployments"]
    assert (listed["name"], listed["labels"], listed["position"]) == ("eu", {"region": "eu"}, 3)
    # What its engine was found to offer is no word of a person's.
    assert (listed["deduplicates"], listed["probe_is_old"], listed["held_by"]) == (False, False, None)


def test_another_deployment_of_the_same_name_is_refused_unless_it_is_to_be_replaced(tern: Tern) -> None:
    with FakeEngine("one") as one, FakeEngine("two") as two:
        add(tern, "eu", one.address)
        answer = tern("deployments", "add", "eu", *PLACE, "--address", two.address, "--target", "t")
        assert answer.code == 5
        assert one.address in answer.err
        assert two.address in answer.err
        answer = tern(
            "deployments", "add", "eu", *PLACE, "--address", two.address, "--target", "t", "--replace"
        )
        assert (answer.code, "replaced" in answer.out) == (0, True)


def test_an_engine_that_does_not_answer_is_refused_unless_it_is_described(tern: Tern) -> None:
    words = ("deployments", "add", "eu", *PLACE, "--address", "grpc://127.0.0.1:1", "--target", "t")
    assert tern(*words).code == 5
    assert tern(*words, "--no-probe").code == 2
    assert tern("deployments", "ls", "--json").data["deployments"] == []
    assert tern(*words, "--no-probe", "--deduplicates", "no").code == 0


def test_an_engine_that_serves_another_target_is_refused(tern: Tern) -> None:
    with FakeEngine("eu", target="other") as engine:
        answer = tern("deployments", "add", "eu", *PLACE, "--address", engine.address, "--target", "t")
    assert answer.code == 5
    assert "'t' is not 'other'" in answer.err
    assert "Compare" in answer.err


@pytest.mark.parametrize(
    ("code", "reason", "words", "helps"),
    [
        ("UNAVAILABLE", "DATABASE_UNAVAILABLE", "Connection refused", "does not get at its database"),
        ("UNAVAILABLE", "", "Socket closed", "Start the engine"),
        ("UNAUTHENTICATED", "", "who are you", "--token-ref"),
        ("RESOURCE_EXHAUSTED", "", "later", "too much to do"),
        ("FAILED_PRECONDITION", "", "not this target", "Compare --environment"),
    ],
)
def test_what_helps_who_could_not_add_one_depends_on_why(
    code: str, reason: str, words: str, helps: str, tern: Tern
) -> None:
    """An engine whose database is away is not started once more, and a missing token makes no wrong target."""
    with FakeEngine("eu", target="t") as engine:
        engine.always("Resolve", fail(code, reason=reason, message=words))
        engine.always("BatchProgress", fail(code, reason=reason, message=words))
        done = tern("deployments", "add", "eu", *PLACE, "--address", engine.address, "--target", "t")
    assert done.code == 5
    assert helps in done.err.rsplit("next:", 1)[1], done.err


def test_an_engine_without_resolve_wants_to_be_described(tern: Tern) -> None:
    with FakeEngine("eu", offers_engine_service=False) as engine:
        words = ("deployments", "add", "eu", *PLACE, "--address", engine.address, "--target", "t")
        answer = tern(*words)
        assert (answer.code, "--deduplicates yes" in answer.err) == (5, True)
        assert tern(*words, "--deduplicates", "yes", "--json").data["deduplicates"] is True


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--address", "grpc://ann:hunter2@h:1"), 5),
        (("--address", "local:postgresql://ann:hunter2@h/t"), 5),
        (("--address", "local:postgresql://ann@h/t?password=hunter2"), 5),
        (("--address", "local:postgresql://ann@h/t#?password=hunter2"), 5),
        (("--address", "local:postgresql://ann@h/t#hunter2"), 5),
        (("--address", "local:postgresql://ann@[::1/t"), 5),
        (("--address", "local:postgresql://ann@h:port/t"), 5),
        (("--address", "grpc://[::1"), 5),
        (("--address", "grpc://h:1", "--position", "9" * 14), 2),
        (("--address", "grpc://h:1", "--environment", "t\udcff"), 2),
        (("--address", "grpc://h:1", "--environment", "t\x1b[31m"), 2),
        (("--address", "grpc://h:1", "--target", "t\u202e"), 2),
        (("--address", "http://h:1"), 5),
        (("--address", "grpc://h"), 5),
        (("--address", "grpc://h:99999"), 5),
        (("--address", "local:postgresql://ann@h/t\x1b[31m"), 5),
        (("--address", "grpc://h:1", "--token", "hunter2"), 5),
        (("--address", "grpc://h:1", "--token", "file:/a\x07"), 5),
        (("--address", "grpc://h:1", "--label", "hunter2"), 2),
        (("--address", "grpc://h:1", "--label", "a=1", "--label", "a=2"), 2),
    ],
)
def test_bad_input_is_refused_and_no_secret_is_echoed(words: tuple[str, ...], code: int, tern: Tern) -> None:
    answer = tern(
        *("deployments", "add", "eu", *PLACE, "--target", "t", "--no-probe", "--deduplicates", "no"),
        *("--insecure-plaintext", *words),
    )
    assert answer.code == code
    assert "hunter2" not in answer.err or "label" in answer.err
    assert tern("deployments", "ls", "--json").data["deployments"] == []


def test_import_refuses_a_reference_that_no_file_can_have(tern: Tern) -> None:
    entry = {"name": "a", "environment": "e", "database": "d", "address": "grpc://h:1", "target": "t"}
    content = json.dumps([{**entry, "deduplicates": True, "credentials": {"token": "file:/a\0"}}])
    answer = tern("deployments", "import", "-", "--no-probe", stdin=content)
    assert (answer.code, "the token is no reference" in answer.err) == (5, True)


def test_a_name_that_could_be_anything_else_is_refused(tern: Tern) -> None:
    for name in ("a/b", "-x", "", "a" * 64, "ü"):
        assert (
            tern("deployments", "add", *PLACE, "--address", "grpc://h:1", "--target", "t", "--", name).code
            == 5
        )


GOOD = {
    "name": "a",
    "environment": "test",
    "database": "shop",
    "address": "grpc://h:1",
    "target": "t",
    "deduplicates": True,
    "credentials": {"insecure_plaintext": True},
}
IMPORT = ("deployments", "import", "-")


def known(tern: Tern) -> list[str]:
    return [each["name"] for each in tern("deployments", "ls", "--json").data["deployments"]]


def test_import_reads_all_before_it_writes_one(tern: Tern) -> None:
    bad = {**GOOD, "name": "b", "address": "nowhere"}
    assert tern(*IMPORT, stdin=json.dumps([GOOD, bad])).code == 5
    assert known(tern) == []
    answer = tern(*IMPORT, "--json", stdin=json.dumps([GOOD, {**GOOD, "name": "b", "target": "u"}]))
    assert [line["outcome"] for line in answer.data["deployments"]] == ["added", "added"]
    assert "2 deployments: 2 added, in " in answer.err


def test_import_writes_all_or_none(tern: Tern) -> None:
    """What the register says against one entry keeps all the others out, too: half a list is nobody's wish."""
    assert tern(*IMPORT, stdin=json.dumps([GOOD])).code == 0
    clash = {**GOOD, "name": "c"}
    answer = tern(*IMPORT, stdin=json.dumps([clash, {**GOOD, "name": "d", "target": "v"}]))
    assert (answer.code, "entry 1, c: a has the same address and target" in answer.err) == (5, True)
    assert known(tern) == ["a"]


def test_import_tells_every_reason_of_every_entry_at_once(tern: Tern) -> None:
    assert tern(*IMPORT, stdin=json.dumps([GOOD])).code == 0
    listed = [
        {**GOOD, "name": "x/y", "address": "nowhere", "target": "1"},
        {**GOOD, "name": "twice", "target": "2"},
        {**GOOD, "name": "fine", "target": "3"},
        {**GOOD, "name": "twice", "target": "4"},
        {**GOOD, "position": 7},
        {**GOOD, "name": "bare", "target": "", "surprise": 1},
    ]
    answer = tern(*IMPORT, stdin=json.dumps(listed))
    assert answer.code == 2
    for said in (
        "5 of 6 entries",
        "entry 1, x/y: 'x/y' is not a deployment's name",
        "entry 1, x/y: the address is none of an engine",
        "entry 2, twice: entry 4 has the same name",
        "entry 4, twice: entry 2 has the same name",
        "entry 5, a: another deployment has its name (position: 0 there, 7 here)",
        "entry 6, bare: surprise is not known; known are address,",
        "entry 6, bare: target is empty or unprintable",
    ):
        assert said in answer.err, said
    assert "fine" not in answer.err
    assert known(tern) == ["a"]


def test_import_names_what_is_wrong_by_its_place_and_repeats_no_secret(tern: Tern) -> None:
    """Of what has the wrong type: what it is, and what it must be."""
    wrong = {
        "name": "a",
        "environment": 5,
        "database": None,
        "address": "grpc://h:1",
        "target": "t",
        "labels": {"region": 1},
        "position": "1",
        "deduplicates": "yes",
        "credentials": {"tokn": "hunter2", "token": ["hunter2"], "insecure_plaintext": "yes"},
    }
    answer = tern(*IMPORT, stdin=json.dumps([wrong, {**GOOD, "labels": [], "position": 10**12}]))
    assert answer.code == 2
    for said in (
        "entry 1, a: environment is a number, and must be a text",
        "entry 1, a: database is missing",
        "entry 1, a: labels.region is a number, and must be a text",
        "entry 1, a: credentials.tokn is not known; known are ",
        "entry 1, a: credentials.token is a list, and must be a text",
        "entry 1, a: credentials.insecure_plaintext is a text, and must be true or false",
        "entry 1, a: position is a text, and must be a whole number",
        "entry 1, a: deduplicates is a text, and must be true or false",
        "entry 2, a: labels is a list, and must be an object of texts",
        "entry 2, a: position is 1000000000000, and must be from ",
    ):
        assert said in answer.err, said
    assert "hunter2" not in answer.err
    answer = tern(*IMPORT, stdin=json.dumps([GOOD, 5, None]))
    assert "entry 2 is a number, and must be an object" in answer.err
    assert "entry 3 is null, and must be an object" in answer.err
    assert "the file holds an object" in tern(*IMPORT, stdin=json.dumps({"deployments": []})).err
    assert known(tern) == []


def test_the_list_in_the_docs_is_imported(tern: Tern) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    (example,) = re.findall(r"```json\n(\[.*?\])\n```", page, re.DOTALL)
    (entry,) = json.loads(example)
    assert set(entry) == IMPORTED_FIELDS
    assert tern(*IMPORT, stdin=example).code == 0
    assert known(tern) == [entry["name"]]


TLS = ("--tls-ca", "file:/ca.pem")
PLAINTEXT = "its address is plaintext to another machine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), [PLAINTEXT, "add --insecure-plaintext"]),
        (("--token", "env:TOKEN"), [PLAINTEXT, "a token is sent over TLS"]),
        (("--token", "env:TOKEN", "--insecure-plaintext"), ["a token is sent over TLS"]),
        ((*TLS, "--token", "env:TOKEN"), ["it has TLS credentials", PLAINTEXT, "a token is sent over TLS"]),
    ],
)
def test_a_line_that_no_call_would_use_is_not_registered(
    words: tuple[str, ...], said: list[str], world: World, tern: Tern
) -> None:
    """Every door says it, and all of it, rather than the first call of a rollout."""
    described = ("--target", "t", "--no-probe", "--deduplicates", "no")
    added = tern("deployments", "add", "eu", *PLACE, *described, "--address", "grpc://10.0.0.1:1", *words)
    before = world.store.load_deployments(["A"])
    changed = tern(
        "deployments", "set", "A", "--address", "grpc://10.0.0.1:1", "--same-engine", "--reason", "x", *words
    )
    for answer in (added, changed):
        assert answer.code == 5
        for each in said:
            assert each in " ".join(answer.err.split()), each
    assert known(tern) == ["A", "B", "C"]
    assert world.store.load_deployments(["A"]) == before


def test_what_an_older_version_registered_may_still_change_its_place(world: World, tern: Tern) -> None:
    world.write("UPDATE deployments SET address = 'grpc\\://10.0.0.1\\:1' WHERE name = 'A'")
    assert tern("deployments", "set", "A", "--position", "7", "--reason", "x").code == 0


def test_import_tells_of_a_line_that_no_call_would_use_with_all_else(tern: Tern) -> None:
    listed = [
        {**GOOD, "credentials": {}},
        {**GOOD, "name": "x/y", "target": "u", "credentials": {"token": "env:TOKEN"}},
        {**GOOD, "name": "here", "address": "grpc://[::1]:1", "credentials": {}},
    ]
    answer = tern(*IMPORT, stdin=json.dumps(listed))
    assert answer.code == 5
    for said in (
        "2 of 3 entries",
        f"entry 1, a: {PLAINTEXT}",
        "entry 2, x/y: 'x/y' is not a deployment's name",
        f"entry 2, x/y: {PLAINTEXT}",
        "entry 2, x/y: a token is sent over TLS",
    ):
        assert said in answer.err, said
    assert known(tern) == []


def test_import_asks_no_engine_and_leaves_what_was_found_out(tern: Tern) -> None:
    """An engine that is away keeps nobody from making it known; what a probe found stays with the same engine."""
    with FakeEngine("eu", target="t") as engine:
        add(tern, "eu", engine.address, "-l", "region=eu", "--deduplicates", "yes", "--insecure-plaintext")
        asked = len(engine.calls())
        entry = {**GOOD, "name": "eu", "address": engine.address}
        del entry["deduplicates"]
        again = [
            {**entry, "labels": {"region": "eu"}},
            {**GOOD, "name": "gone", "address": "grpc://127.0.0.1:1"},
        ]
        answer = tern(*IMPORT, "--json", stdin=json.dumps(again))
        assert [line["outcome"] for line in answer.data["deployments"]] == ["known already", "added"]
        moved = [{**entry, "labels": {"region": "us"}}]
        assert tern(*IMPORT, stdin=json.dumps(moved)).code == 5
        assert tern(*IMPORT, "--replace", stdin=json.dumps(moved)).code == 0
        assert len(engine.calls()) == asked
    listed = {each["name"]: each for each in tern("deployments", "ls", "--json").data["deployments"]}
    assert listed["eu"]["capabilities"]["resolve"] is True
    assert (listed["eu"]["deduplicates"], listed["eu"]["labels"]) == (True, {"region": "us"})
    assert (listed["gone"]["capabilities"]["resolve"], listed["gone"]["deduplicates"]) == (None, True)
    other = [{**entry, "address": "grpc://127.0.0.1:2"}]
    assert tern(*IMPORT, "--replace", stdin=json.dumps(other)).code == 0
    (found,) = [
        each for each in tern("deployments", "ls", "--json").data["deployments"] if each["name"] == "eu"
    ]
    assert (found["capabilities"]["resolve"], found["deduplicates"]) == (None, False)


@pytest.mark.parametrize(
    "said",
    [
        {"environment": "staging"},
        {"database": "store"},
        {"address": "grpcs://h:2"},
        {"target": "u"},
        {"labels": {"region": "eu"}},
        {"position": 7},
        {"credentials": {"token": "env:ANOTHER"}},
        {"credentials": {"tls_ca": "file:/ca.pem"}},
    ],
    ids=lambda said: next(iter(said)),
)
def test_import_overwrites_nothing_that_differs(said: dict[str, Any], world: World, tern: Tern) -> None:
    """Whatever a person says of a deployment: what the register holds stays, unless --replace is said as well."""
    first = {**GOOD, "address": "grpcs://h:1", "credentials": {"token": "env:ONE"}}
    other = json.dumps([{**first, **said}])

    def held() -> object:
        return world.one("SELECT * FROM deployments WHERE name = 'a'")._mapping

    assert tern(*IMPORT, stdin=json.dumps([first])).code == 0
    before = held()
    refused = tern(*IMPORT, stdin=other)
    assert (refused.code, "--replace takes its place" in refused.err) == (5, True)
    assert f"({next(iter(said))}: " in refused.err
    assert held() == before
    assert tern(*IMPORT, "--replace", stdin=other).code == 0
    assert held() != before


def test_import_replaces_nothing_that_an_apply_needs(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    entry = {**GOOD, "name": "A", "target": "elsewhere"}
    answer = tern(*IMPORT, "--replace", stdin=json.dumps([entry, {**GOOD, "name": "new"}]))
    assert (answer.code, apply_id in answer.err) == (5, True)
    assert known(tern) == ["A", "B", "C"]


def test_a_long_import_is_watched_at_a_terminal_only(tern: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.dumps([{**GOOD, "name": f"d{n}", "target": str(n)} for n in range(2_500)])
    quiet = tern(*IMPORT, stdin=listed)
    assert (quiet.code, quiet.err.count("\r")) == (0, 0)
    assert "2,500 deployments: 2,500 added, in " in quiet.err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    watched = tern(*IMPORT, "--replace", stdin=listed.replace("grpc://h:1", "grpc://h:2"))
    assert "read: 2,000 of 2,500" in watched.err
    assert "written: 2,500 of 2,500" in watched.err
    assert "2,500 deployments: 2,500 replaced, in " in watched.err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deduplicates", [True]),
        ("deduplicates", 1),
        ("position", 2**31),
        ("position", True),
        ("credentials", {"token": 5}),
        ("credentials", {"insecure_plaintext": "no"}),
        ("labels", {"a": 1}),
        ("name", 5),
        ("target", "t\ud800"),
        ("target", "t\0"),
        ("environment", "t\x1b[31m"),
    ],
)
def test_import_refuses_a_field_of_another_type(field: str, value: object, tern: Tern) -> None:
    entry = {"name": "a", "environment": "e", "database": "d", "address": "grpc://h:1", "target": "t"}
    content = json.dumps([{**entry, "deduplicates": True, field: value}])
    answer = tern("deployments", "import", "-", "--no-probe", stdin=content)
    assert (answer.code, "Error" in answer.err) == (2, False)


@pytest.mark.parametrize(
    "content",
    ["nonsense", "{}", "[1]", '[{"name": "a"}]', '[{"name": "a", "surprise": 1}]', "[" * 100_000],
)
def test_import_refuses_what_it_can_t_read(content: str, tern: Tern) -> None:
    assert tern("deployments", "import", "-", "--no-probe", stdin=content).code == 2


def test_drained_deployments_take_nothing_new_and_are_shown(world: World, tern: Tern) -> None:
    assert tern("deployments", "drain", "A", "B").code == 0
    listed = {
        each["name"]: each["drained"] for each in tern("deployments", "ls", "--json").data["deployments"]
    }
    assert listed == {"A": True, "B": True, "C": False}
    assert "drained" in tern("deployments", "ls").out
    assert tern("deployments", "undrain", "A").code == 0
    assert tern("deployments", "drain", "A", "nowhere").code == 3
    assert not world.store.load_deployments(["A"])[0].drained


def test_one_that_an_apply_needs_is_not_removed(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    answer = tern("deployments", "rm", "A", "B")
    assert answer.code == 6
    assert apply_id in answer.out
    assert [each.name for each in world.store.load_deployments()] == ["A", "C"]
    held = tern("deployments", "ls", "--json").data["deployments"][0]["held_by"]
    assert held == apply_id


def test_check_asks_again_and_tells_silence_from_health(world: World, tern: Tern) -> None:
    world.engines["B"].always("Resolve", fail("UNAVAILABLE", message="asleep"))
    answer = tern("deployments", "check", "--json")
    assert answer.code == 6
    outcomes = {line["deployment"]: line["outcome"] for line in answer.data["deployments"]}
    assert outcomes == {"A": "answers", "B": "failed", "C": "answers"}
    assert tern("deployments", "check", "B").code == 69


def test_an_empty_list_says_what_to_do(tern: Tern) -> None:
    assert "tern deployments add" in tern("deployments", "ls").out


def test_an_engine_that_answers_nothing_is_listed_as_such(world: World, tern: Tern) -> None:
    for _ in range(3):
        world.store.record_silence("A", CallKind.DISPATCH)
    assert (
        "no answer to the last 3 dispatches, for under 1 s; it goes slowly" in tern("deployments", "ls").out
    )
    listed = {
        each["name"]: each["unanswered"] for each in tern("deployments", "ls", "--json").data["deployments"]
    }
    assert listed == {"A": {"dispatch": 3}, "B": {}, "C": {}}
    apply_id = world.apply("A", "B")
    assert "its engine does not answer, next try in" in tern("explain", apply_id).out
    assert "3 dispatches in a row without an answer" in tern("explain", f"{apply_id}/A").out


def test_what_a_person_declares_and_what_a_probe_finds_are_two_facts(tern: Tern) -> None:
    """G4: a check changes the finding alone; one without an answer leaves it, and says that it is old."""
    with FakeEngine("eu", target="t") as engine:
        place = ("deployments", "add", "eu", *PLACE, "--address", engine.address, "--target", "t")
        assert tern(*place).code == 0
        assert tern(*place, "--deduplicates", "yes").code == 0
        engine.offer(engine_service=False, deduplicates=False)
        assert tern("deployments", "check", "eu").code == 0
        (listed,) = tern("deployments", "ls", "--json").data["deployments"]
        assert (listed["deduplicates"], listed["capabilities"]["resolve"]) == (True, False)
    assert tern("deployments", "check", "eu").code == 69
    (listed,) = tern("deployments", "ls", "--json").data["deployments"]
    assert (listed["deduplicates"], listed["probe_is_old"]) == (True, True)
    assert "did not answer when it was asked again" in tern("deployments", "ls").out


SERVER = "7654321/16384"


def test_add_and_check_say_which_other_names_the_target_has(tern: Tern) -> None:
    """Found out by a key, and shown: a copy with the same identifiers is another target."""
    with (
        FakeEngine("a", identity=SERVER) as a,
        FakeEngine("b", identity=SERVER) as b,
        FakeEngine("c", identity=SERVER) as c,
    ):
        b.jobs = a.jobs
        assert "!" not in add(tern, "a", a.address).out  # type: ignore[attr-defined]
        told = add(tern, "b", b.address, "--json", target="u").document["warnings"]  # type: ignore[attr-defined]
        assert told == ["b and a are one target under two names"]
        add(tern, "c", c.address, target="v")
        listed = tern("deployments", "ls", "--json").data["deployments"]
        assert {each["name"]: each["same_targets"] for each in listed} == {
            "a": [{"deployment": "b", "finding": "same"}, {"deployment": "c", "finding": "two"}],
            "b": [{"deployment": "a", "finding": "same"}, {"deployment": "c", "finding": "two"}],
            "c": [{"deployment": "a", "finding": "two"}, {"deployment": "b", "finding": "two"}],
        }
        assert [each["identity"] for each in listed] == [SERVER] * 3
        assert "same target as b" in tern("deployments", "ls").out
        checked = tern("deployments", "check", "b", "--json").document["warnings"]
        assert checked[0] == "b and a are one target under two names"
        a.identity = "9/9"
        moved = tern("deployments", "check", "a")
        assert "names another database than before (9/9, not 7654321/16384)" in moved.out
        assert "tern deployments set a --new-identity --reason" in moved.out


def test_foreign_engines_at_one_place_are_warned_about_and_not_on_import(tern: Tern) -> None:
    with FakeEngine("a", offers_engine_service=False) as a:
        port = a.address.rpartition(":")[2]
        add(tern, "a", f"grpc://127.0.0.1:{port}", "--deduplicates", "no")
        told = add(tern, "b", f"grpc://localhost:{port}", "--deduplicates", "no", target="u")
        assert "lead to the same host and port" in told.out  # type: ignore[attr-defined]
        entry = {
            "name": "c",
            "environment": "e",
            "database": "d",
            "address": f"grpc://localhost:{port}",
            "target": "w",
        }
        answer = tern(
            "deployments", "import", "-", "--no-probe", stdin=json.dumps([{**entry, "deduplicates": True}])
        )
        assert (answer.code, "same host" in answer.out) == (0, False)


def test_set_changes_what_is_said_and_shows_what_is_concerned(world: World, tern: Tern) -> None:
    world.apply("A", "B")
    answer = tern(
        *("deployments", "set", "A", "--position", "4", "--label", "region=eu", "--token-ref", "env:T"),
        *("--reason", "new token", "--json"),
    )
    assert answer.code == 0
    assert answer.data["operations"] == [f"{world.last}/A"]
    assert (answer.data["position"], answer.data["labels"]) == (4, {"region": "eu"})
    told = tern("audit", f"{world.last}/A").out
    assert "its deployment was changed" in told
    assert "token: none → env:T" in told
    assert "new token" in told
    answer = tern("deployments", "set", "A", "--no-label", "region", "--token", "", "--reason", "again")
    assert (answer.code, f"{world.last}/A" in answer.out) == (0, True)
    (stored,) = world.store.load_deployments(["A"])
    assert (dict(stored.labels), stored.credentials.token) == ({}, "")


def test_set_proves_the_new_address(world: World, tern: Tern) -> None:
    with FakeEngine("moved") as moved, FakeEngine("other") as other:
        moved.jobs = world.engines["A"].jobs
        words = ("deployments", "set", "A", "--reason", "it moves", "--address")
        refused = tern(*words, other.address)
        assert (refused.code, "another engine is at" in refused.err) == (5, True)
        assert tern(*words, moved.address).code == 0
        assert tern("deployments", "ls", "--json").data["deployments"][0]["address"] == moved.address


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--address", "grpc://ann:hunter2@h:1"), 5),
        (("--address", "local:postgresql://ann@h/t?password=hunter2"), 5),
        (("--address", "grpc://h:1\x1b[31m"), 5),
        (("--address", ""), 5),
        (("--address", "http://h:1"), 5),
        (("--token", "hunter2"), 5),
        (("--token", "file:/a\x07"), 5),
        (("--tls-ca", "hunter2"), 5),
        (("--label", "hunter2"), 2),
        (("--label", "a=1", "--label", "a=2"), 2),
        (("--label", "a=1", "--no-label", "a"), 2),
        (("--position", "9" * 14), 2),
        (("--environment", "production"), 2),
        (("--database", "shop"), 2),
        (("--target", "t"), 2),
        (("--same-engine",), 2),
        (("--position", "1", "--reason", "  "), 2),
        ((), 2),
    ],
)
def test_set_refuses_bad_input_and_echoes_no_secret(
    words: tuple[str, ...], code: int, world: World, tern: Tern
) -> None:
    before = world.store.load_deployments(["A"])
    answer = tern("deployments", "set", "A", "--reason", "why", *words)
    assert answer.code == code
    assert "hunter2" not in answer.err or "label" in answer.err
    assert world.store.load_deployments(["A"]) == before


def test_set_of_one_that_is_not_there_is_refused(world: World, tern: Tern) -> None:
    assert tern("deployments", "set", "nowhere", "--position", "1", "--reason", "x").code == 3
    assert world.one("SELECT count(*) AS n FROM deployments").n == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "its list is empty"),
        ("name,environment,database\n", "is not JSON"),
        ("{}", "a list of objects"),
    ],
)
def test_a_file_without_deployments_says_so_and_how_one_looks(content: str, words: str, tern: Tern) -> None:
    done = tern("deployments", "import", "-", stdin=content)
    assert (done.code, words in done.err) == (2, True)
    assert 'It is a JSON list of objects: [{"name": ' in done.err


def test_who_drained_a_deployment_when_and_why_stands_with_it(world: World, tern: Tern) -> None:
    """Also of one where nothing ever worked; until it is opened, and of the first who did it."""
    assert tern("deployments", "drain", "A", "--reason", "the disk is swapped").code == 0
    told = "drained      now by ann@desk: the disk is swapped"
    assert told in tern("deployments", "ls").out
    assert told in tern("deployments", "show", "A").out
    (listed,) = [
        each for each in tern("deployments", "ls", "--json").data["deployments"] if each["name"] == "A"
    ]
    assert (listed["drained_by"], listed["drained_reason"]) == ("ann@desk", "the disk is swapped")
    world.store.set_drained("A", drained=True, caller="bob", reason="me too")
    assert tern("deployments", "show", "A", "--json").data["drained_by"] == "ann@desk"
    world.apply("B", policy=Policy(copy=Copy.PARALLEL))
    world.store.set_drained("B", drained=True, caller="bob", reason="mine")
    assert "its deployment is drained by bob: mine" in " ".join(
        tern("explain", f"{world.last}/B").out.split()
    )
    world.store.set_drained("B", drained=False, caller="bob", reason="done")
    assert tern("deployments", "undrain", "A").code == 0
    assert tern("deployments", "show", "A", "--json").data["drained_by"] is None
    # A worker of an older version says nothing of who it was for.
    world.write("UPDATE deployments SET drained = true WHERE name = 'A'")
    shown = tern("deployments", "show", "A", "--json").data
    assert (shown["drained_by"], shown["drained_age_s"] >= 0) == (None, True)


def test_labels_and_what_an_engine_offers_keep_apart_within_eighty_columns(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write('UPDATE deployments SET labels = \'{"region": "eu", "tier": "1"}\' WHERE name = \'A\'')
    out = tern("deployments", "ls").out.splitlines()
    assert out[0] == "○ A  open         shop in test  region=eu, tier=1"
    facts = {line[4:16].strip(): line[17:] for line in out[1:5]}
    assert facts["labels"] == "region=eu, tier=1"
    assert facts["engine"].startswith("offers ")
    assert "region" not in facts["engine"]
    assert facts["address"] == world.engines["A"].address


def test_many_deployments_have_a_line_each_and_what_is_odd_comes_first(world: World, tern: Tern) -> None:
    for number in range(30):
        world.add(f"n{number:02}", f"grpc://127.0.0.1:{number + 1}", number + 10, offers=True)
    world.store.set_drained("n20", drained=True)
    for _ in range(3):
        world.store.record_silence("n10", CallKind.POLL)
    first, *lines, last = tern("deployments", "ls").out.splitlines()
    assert first == "33 deployments   ? 1 no answer   ⊘ 1 drained   ○ 31 open"
    assert lines[0].startswith("? n10  no answer for under 1 s  shop in test")
    assert lines[1].startswith("⊘ n20  drained")
    assert (len(lines), last) == (33, "tern deployments show NAME says all of one")
    assert max(map(len, [first, *lines, last])) <= 80


def test_one_is_shown_alone_and_one_that_is_not_there_is_said(world: World, tern: Tern) -> None:
    shown = tern("deployments", "show", "B")
    assert shown.code == 0
    assert shown.out.splitlines()[0].startswith("○ B  open")
    assert "○ A" not in shown.out
    assert tern("deployments", "show", "zz").code == 3
    assert "No deployment is like that" in tern("deployments", "ls", "-e", "nowhere").out


def test_a_silent_engine_is_no_healthy_one(world: World, tern: Tern) -> None:
    for _ in range(3):
        world.store.record_silence("A", CallKind.DISPATCH)
    out = tern("deployments", "ls").out.splitlines()
    assert out[0].startswith("? A  no answer for under 1 s  ")
    assert [line for line in out if line.startswith("○")] != []

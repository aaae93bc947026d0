"""The register of deployments: an engine is asked first, and nothing secret is written down."""

import json

import pytest

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
        assert answer.data["capabilities"] == {"resolve": True, "batch_progress": True, "preview": True}
        again = add(tern, "eu", engine.address, "--label", "region=eu", "--position", "3")
        assert "known already" in again.out  # type: ignore[attr-defined]
    (listed,) = tern("deployments", "ls", "--json").data["deployments"]
    assert (listed["name"], listed["labels"], listed["position"]) == ("eu", {"region": "eu"}, 3)
    assert (listed["deduplicates"], listed["held_by"]) == (True, None)


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
        "deployments", "add", "eu", *PLACE, "--target", "t", "--no-probe", "--deduplicates", "no", *words
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


def test_import_reads_all_before_it_writes_one(tern: Tern) -> None:
    good = {
        "name": "a",
        "environment": "test",
        "database": "shop",
        "address": "grpc://h:1",
        "target": "t",
        "deduplicates": True,
    }
    bad = {**good, "name": "b", "address": "nowhere"}
    words = ("deployments", "import", "-", "--no-probe")
    assert tern(*words, stdin=json.dumps([good, bad])).code == 5
    assert tern("deployments", "ls", "--json").data["deployments"] == []
    answer = tern(*words, "--json", stdin=json.dumps([good, {**good, "name": "b", "target": "u"}]))
    assert [line["outcome"] for line in answer.data["deployments"]] == ["added", "added"]
    clash = {**good, "name": "c"}
    answer = tern(*words, stdin=json.dumps([clash, {**good, "name": "d", "target": "v"}]))
    assert answer.code == 6


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

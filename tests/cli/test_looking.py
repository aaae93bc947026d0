"""Choosing what to look at, and the printed command of a cause: it is taken now, for its group and for no other."""

import shlex
from typing import Any

import pytest

from tern import covering
from tern.domain.control import Verb
from tern.domain.policy import Copy, Policy, Wave
from tests.cli.conftest import Tern
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)


@pytest.fixture
def stopped(make_world: Any, tern: Tern) -> World:
    """A to D are stopped, of which D is drained as well; E runs."""
    world: World = make_world("A", "B", "C", "D", "E")
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    for name in "ABCD":
        world.ask(Verb.STOP, name)
    world.run(until=lambda: {world.state(name) for name in "ABCD"} == {"stopped"})
    assert tern("deployments", "drain", "D").code == 0
    assert apply_id == world.last
    return world


def causes(tern: Tern, apply_id: str) -> dict[str, dict[str, Any]]:
    return {each["what"]: each for each in tern("get", apply_id, "--json").data["needs_you"]}


def meant(tern: Tern, command: str, stdin: str = "") -> list[str]:
    receipt = tern(*shlex.split(command)[1:], "--dry-run", "--json", stdin=stdin).data
    return [line["deployment"] for line in receipt["targets"] if line["outcome"] == "accepted"]


def test_the_printed_command_covers_its_group_and_no_other(stopped: World, tern: Tern) -> None:
    found = causes(tern, stopped.last)
    assert found["stopped"]["count"] == 3
    command = found["stopped"]["command"]
    assert command.split(" --reason")[0] == f"tern start {stopped.last} --deployment A,B,C"
    receipt = tern(*shlex.split(command)[1:], "--dry-run", "--json").data
    assert [line["deployment"] for line in receipt["targets"]] == ["A", "B", "C"]
    assert receipt["accepted"] == 3


def test_a_group_without_a_short_selector_is_piped_from_its_list(
    stopped: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covering, "MOST_NAMES_LENGTH", 0)
    found = causes(tern, stopped.last)["stopped"]
    lists, command = found["command"].split(" | ")
    listed = tern(*shlex.split(lists)[1:])
    assert listed.out == "A\nB\nC\n"
    assert meant(tern, command, listed.out) == ["A", "B", "C"]


def test_no_name_through_a_pipe_never_means_all(stopped: World, tern: Tern) -> None:
    """Whatever stands before the pipe may fail, and a stop of nothing must not be a stop of everything."""
    before = stopped.picture()
    for verb in ("stop", "start", "cancel"):
        done = tern(verb, stopped.last, "--deployment", "-", "--reason", "why", stdin="\n")
        assert (done.code, "no name of a deployment came through the pipe" in done.err) == (2, True)
        done = tern(verb, stopped.last, "--deployment", "", "--reason", "why")
        assert (done.code, "no name of a deployment was given" in done.err) == (2, True)
    assert stopped.picture() == before


def test_a_look_takes_the_selectors_of_every_verb(stopped: World, tern: Tern) -> None:
    def shown(*selectors: str) -> list[str]:
        names = tern("get", stopped.last, *selectors, "--names")
        document = tern("get", stopped.last, *selectors, "--json").data
        assert [each["deployment"] for each in document["operations"]] == names.out.split()
        assert document["operation_count"] == 5
        lines = tern("get", stopped.last, *selectors).out.splitlines()
        assert len(lines) == 2 + max(1, len(names.out.split()))
        return names.out.split()

    assert shown("--state", "stopped") == list("ABCD")
    assert shown("--state", "stopped", "--except", "A,B") == list("CD")
    assert shown("--deployment", "E") == ["E"]
    assert shown("--all") == list("ABCDE")
    assert shown("--state", "failed") == []
    for cause in causes(tern, stopped.last).values():
        assert len(shown("--cause", cause["cause"])) == cause["count"]
    explained = tern("explain", stopped.last, "--state", "stopped").out
    assert [name for name in "ABCDE" if f"  ॥ {name}  stopped" in explained] == list("ABCD")
    assert f"tern start {stopped.last}/A --reason" in explained


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("get", "AP", "--cause", "nope"), 3),
        (("get", "AP", "--deployment", "nowhere"), 3),
        (("get", "AP/A", "--names"), 2),
        (("get", "AP/A", "--state", "failed"), 2),
        (("get", "AP", "--names", "--json"), 2),
        (("get", "AP", "--by", "wave", "--all"), 2),
        (("get", "AP", "--at", "1s ago", "--all"), 2),
        (("explain", "AP", "--cause", "nope"), 3),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], code: int, world: World, tern: Tern) -> None:
    apply_id = world.apply()
    assert tern(*(word.replace("AP", apply_id) for word in words)).code == code


def test_groups_by_label_and_by_wave(world: World, tern: Tern) -> None:
    waves = (Wave(deployments=("A",)), Wave())
    apply_id = world.apply(policy=Policy(waves=waves))
    for name, region in (("A", "eu"), ("B", "eu"), ("C", "us")):
        assert tern("deployments", "set", name, "--label", f"region={region}", "--reason", "why").code == 0
    by_region = tern("get", apply_id, "--by", "region", "--json").data
    assert by_region["by"] == "region"
    assert [(each["group"], each["operation_count"]) for each in by_region["groups"]] == [
        ("eu", 2),
        ("us", 1),
    ]
    assert tern("get", apply_id, "-l", "region=eu", "--names").out.split() == ["A", "B"]
    assert tern("get", apply_id, "--wave", "2", "--names").out.split() == ["B", "C"]
    out = tern("get", apply_id, "--by", "wave").out
    assert "  wave 1  [----------]   0 %  0 of 1 completed, 1 waiting" in out

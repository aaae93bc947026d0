"""A hint that asks for the same again asks for it of the same operations, and works as it is printed."""

import shlex

import pytest

from tern.domain.states import State
from tests.cli.conftest import Answer, Tern
from tests.cli.test_rest import half_done
from tests.flows.gone import goes, pass_long
from tests.flows.steps import PARALLEL
from tests.world import World

__all__ = ["half_done"]
WHY = ("--reason", "the night is long")


def hints(refused: Answer) -> list[list[str]]:
    """Every command in the next step of a refusal, without the name of the program."""
    found = refused.data["next"].split("tern ")[1:]
    return [shlex.split(each.partition(";")[0].replace("'…'", "'the night is long'")) for each in found]


def answered(done: Answer) -> list[str]:
    return [each["deployment"] for each in done.data["targets"]]


@pytest.mark.parametrize(
    ("selectors", "chosen"),
    [
        (("--deployment", "A,B"), ["A", "B"]),
        (("--deployment", "B", "--deployment", "C"), ["B", "C"]),
        (("-l", "zone=a"), ["A"]),
        (("--except", "B"), ["A", "C"]),
        (("--all", "--except", "A"), ["B", "C"]),
        (("--state", "running", "--except", "C"), ["A", "B"]),
        ((), ["A", "B", "C"]),
    ],
)
def test_an_unexpected_number_is_looked_at_for_the_same_operations(
    selectors: tuple[str, ...], chosen: list[str], world: World, tern: Tern
) -> None:
    world.write("""UPDATE deployments SET labels = '{"zone": "a"}' WHERE name = 'A'""")
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    refused = tern("stop", apply_id, *selectors, *WHY, "--expect", "9", "--json")
    assert refused.code == 5
    (again,) = hints(refused)
    done = tern(*again, "--json")
    assert (done.code, done.data["dry_run"], answered(done)) == (0, True, chosen)


def test_what_was_asked_beside_the_selectors_is_asked_again(world: World, tern: Tern) -> None:
    """A level, an id that is named, and the waves that were chosen."""
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    (again,) = hints(tern("volume", apply_id, "3", "--deployment", "A", *WHY, "--expect", "9", "--json"))
    assert tern(*again, "--json").data["volume"] == 3
    refused = tern("stop", f"{apply_id}/A", "--although-foreign", "j 1", *WHY, "--expect", "9", "--json")
    assert "--although-foreign=j 1" in hints(refused)[0]
    refused = tern("cancel", f"{apply_id}/A", "--outstanding", *WHY, "--expect", "9", "--json")
    assert "--outstanding" in hints(refused)[0]
    refused = tern("start", apply_id, "--all", "--although-cancel-refused", *WHY, "--expect", "9", "--json")
    assert "--although-cancel-refused" in hints(refused)[0]
    refused = tern("stop", apply_id, "--wave", "2", *WHY, "--expect", "9", "--json")
    assert refused.data["reason"] == "SELECTION_EMPTY"


def test_a_choice_that_is_missing_keeps_what_was_left_out(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    one, every = hints(tern("volume", apply_id, "3", "--except", "B", *WHY, "--json"))
    assert answered(tern(*every, "--dry-run", "--json")) == ["A", "C"]
    assert answered(tern(*one, "--dry-run", "--json")) == ["A"]
    every = hints(tern("volume", apply_id, "3", *WHY, "--json"))[-1]
    assert answered(tern(*every, "--dry-run", "--json")) == ["A", "B", "C"]


def test_engines_that_are_gone_are_counted_where_they_were_chosen(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    goes(world, "A")
    pass_long(world)
    said = (apply_id, "--deployment", "A,B", "--as", "ended", "--engine-is-gone", *WHY)
    refused = tern("resolve", *said, "--json")
    assert refused.code == 2
    (again,) = hints(refused)
    done = tern(*again, "--json")
    assert (answered(done), done.data["accepted"], done.data["engine_is_gone"]) == (["A", "B"], 1, True)
    (once_more,) = hints(tern("resolve", *said, "--expect", "2", "--json"))
    assert once_more == again
    assert world.state("A") == State.RUNNING


def test_a_rest_is_looked_at_again_as_it_was_asked_for(half_done: str, tern: Tern) -> None:
    """Deployments, policy, and how its engines are asked: in the look again, and in the command that sends a group."""
    chosen = (
        "--deployments",
        "A",
        "--on-failure",
        "pause",
        "--no-preview",
        "--accept-drift",
        "--key",
        "mine",
    )
    (group,) = tern("apply", "--rest-of", half_done, *chosen, "--json").data["groups"]
    assert [each["deployment"] for each in group["deployments"]] == ["A"]
    for words in ("--deployments A", "--on-failure pause", "--no-preview --accept-drift --key mine"):
        assert words in group["command"]
    refused = tern("apply", "--rest-of", half_done, *chosen, "--digest", "another", *WHY, "--json")
    assert refused.data["reason"] == "REST_DIFFERS"
    (again,) = hints(refused)
    assert again == ["apply", "--rest-of", half_done, *chosen]

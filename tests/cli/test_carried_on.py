"""What an apply says once its rest is carried on: by whom, how that stands, and no command without use."""

import re
import shlex

import pytest

from tern.cli.words import one_line
from tern.domain.errors import Refused
from tern.domain.identity import ApplyId
from tern.domain.states import State
from tests.cli.conftest import Tern
from tests.cli.test_rest import ALL_FAIL, WHY, half_done, printed
from tests.faults.behaviour import not_accepted
from tests.flows.steps import engine_says
from tests.flows.test_effect import STATEMENTS, told
from tests.flows.test_rest import told_of
from tests.flows.test_tried_again import called_gone
from tests.world import World

__all__ = ["half_done"]


def commands(tern: Tern, *asked: str) -> list[list[str]]:
    """Every command that is printed on a line of its own, without the name of the program."""
    out = tern(*asked).out
    lines = [re.split(r"\s{3,}", line.strip())[0] for line in out.splitlines()]
    return [
        shlex.split(line.replace("'…'", "'the data is mended'"))[1:]
        for line in lines
        if line.startswith("tern ")
    ]


def every_look(source: str, *names: str) -> list[tuple[str, str]]:
    subjects = [source, *(f"{source}/{name}" for name in names)]
    return [(verb, subject) for verb in ("get", "explain") for subject in subjects]


def all_of_use(tern: Tern, source: str, *names: str) -> set[str]:
    """Each printed command that only looks is run and finds something; what was printed, by verb."""
    found = [words for look in every_look(source, *names) for words in commands(tern, *look)]
    for words in found:
        if words[0] in {"get", "explain", "apply"}:
            assert tern(*words).code == 0, words
    return {" ".join(words[:2]) for words in found}


def carried(world: World, tern: Tern, source: str, *names: str) -> ApplyId:
    words = printed(tern("apply", "--rest-of", source).out, "tern apply --rest-of")
    follow_up = ApplyId(tern(*words, "--json").data["apply_id"])
    world.run(until=lambda: all(world.remote_id(name, follow_up) is not None for name in names))
    return follow_up


def of_carried(tern: Tern, source: str, name: str) -> tuple[str, str, str]:
    """What its document says: by whom, where that is, and the command."""
    found = tern("get", f"{source}/{name}", "--json").data["carried_on"]
    return found["by"], found["state"], found["command"]


def test_the_first_apply_says_who_carries_it_on_and_how_that_stands(
    half_done: str, world: World, tern: Tern
) -> None:
    """Running, then one completed and one failed half way: each with the command that leads on, and no other one."""
    follow_up = carried(world, tern, half_done, "A", "B")
    for look in every_look(half_done, "A"):
        assert f"carried on by {follow_up}/A, which is running" in one_line(tern(*look).out), look
    assert of_carried(tern, half_done, "A") == (
        f"{follow_up}/A",
        "running",
        f"tern get {follow_up}/A",
    )
    assert not any("apply" in each or "retry" in each for each in all_of_use(tern, half_done, "A", "B"))
    told_of(world, follow_up, State.COMPLETED, "completed", "completed")
    told_of(world, follow_up, State.FAILED, "completed", "failed", name="B")
    assert f"carried on by {follow_up}/A, which has completed" in one_line(tern("explain", half_done).out)
    assert f"carried on by {follow_up}/B, which is failed, with 1 of 2 statements done" in one_line(
        tern("get", half_done).out
    )
    assert of_carried(tern, half_done, "A")[1:] == ("completed", f"tern get {follow_up}/A")
    assert of_carried(tern, half_done, "B")[1:] == ("failed", f"tern apply --rest-of {half_done}/B")
    assert "apply --rest-of" in all_of_use(tern, half_done, "A", "B")
    assert all_of_use(tern, half_done, "A") >= {f"get {follow_up}", f"get {follow_up}/A"}


def test_what_is_carried_on_to_its_end_asks_for_nothing_more(
    half_done: str, world: World, tern: Tern
) -> None:
    follow_up = carried(world, tern, half_done, "A", "B")
    for name in ("A", "B"):
        told_of(world, follow_up, State.COMPLETED, "completed", "completed", name=name)
    assert all_of_use(tern, half_done, "A", "B") == {
        f"explain {half_done}",
        f"get {follow_up}",
        f"get {follow_up}/A",
        f"get {follow_up}/B",
    }
    assert "Needs you" not in tern("explain", half_done).out
    assert tern("get", half_done, "--json").data["blockers"] == []


def test_a_rest_of_which_nobody_can_tell_is_asked_about_where_that_is(
    half_done: str, world: World, tern: Tern
) -> None:
    """A rest-of of the first has no group then; what settles it is said of the follow-up's statements."""
    follow_up = carried(world, tern, half_done, "A", "B")
    told_of(world, follow_up, State.FAILED, "running", "pending")
    told_of(world, follow_up, State.COMPLETED, "completed", "completed", name="B")
    assert of_carried(tern, half_done, "A")[2] == f"tern explain {follow_up}/A"
    assert "apply --rest-of" not in all_of_use(tern, half_done, "A", "B")
    settle = next(words for words in commands(tern, "explain", f"{follow_up}/A") if words[0] == "resolve")
    settle[settle.index("1=…")] = "1=not-done"
    assert f"tern apply --rest-of {follow_up}/A" in tern(*settle).out
    explained = tern("explain", half_done).out
    assert f"carried on in vain by {follow_up}/A" in one_line(explained)
    assert printed(explained, "tern apply --rest-of") == ["apply", "--rest-of", f"{half_done}/A"]
    assert "apply --rest-of" in all_of_use(tern, half_done, "A")


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "at its engine"])
def test_a_retry_is_printed_where_it_is_taken(is_refused: bool, world: World, tern: Tern) -> None:  # noqa: FBT001
    """Not of what an engine gave an id, not twice, and not of what is carried on."""
    if is_refused:
        world.engines["A"].script("Apply", not_accepted())
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source = str(world.last)
    if not is_refused:
        told(world, State.FAILED, "failed", "pending", "pending", name="A")
    told(world, State.COMPLETED, "completed", "completed", "completed", name="B")
    retry = [words for words in commands(tern, "get", source) if words[0] == "retry"]
    assert bool(retry) == is_refused
    if is_refused:
        words = printed(tern("apply", "--rest-of", source).out, "tern apply --rest-of")
        follow_up = tern(*words, "--json").data["apply_id"]
        assert tern(*retry[0]).code == 5
        assert not [words for words in commands(tern, "get", source) if words[0] == "retry"]
        assert f"get {follow_up}" in all_of_use(tern, source, "A")


def test_what_a_person_said_is_done_leaves_nothing_to_carry_on(world: World, tern: Tern) -> None:
    """After the last word the printed command has something to show, or none is printed."""
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source = str(world.last)
    told(world, State.FAILED, "completed", "running", "running", name="A")
    told(world, State.COMPLETED, "completed", "completed", "completed", name="B")
    said = tern("resolve", f"{source}/A", "--statement", "2=done", *WHY).out
    assert f"tern resolve {source}/A --statement 3=… --reason" in said
    assert "rest-of" not in said
    said = tern("resolve", f"{source}/A", "--statement", "3=done", *WHY).out
    assert "nothing is left to be carried on" in said
    assert not any("apply" in each for each in all_of_use(tern, source, "A"))
    refused = tern("retry", f"{source}/A", *WHY)
    said = one_line(refused.out + refused.err)
    assert (refused.code, "all of its statements are done" in said, "rest-of" in said) == (5, True, False)


def test_another_change_is_told_of_the_word_that_is_missing(world: World, tern: Tern) -> None:
    """A rest-of would show no group before a person has said what became of the statement."""
    world.apply("A", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source = str(world.last)
    told(world, State.FAILED, "completed", "running", "pending", name="A")
    with pytest.raises(Refused) as refused:
        world.apply("A", accept_drift=False)
    assert f"tern explain {source}/A" in refused.value.next_step
    assert tern("resolve", f"{source}/A", "--statement", "2=not-done", *WHY).code == 0
    with pytest.raises(Refused) as refused:
        world.apply("A", accept_drift=False)
    assert f"tern apply --rest-of {source}/A" in refused.value.next_step


def test_statements_have_the_number_by_which_they_are_named(half_done: str, tern: Tern) -> None:
    tables = tern("get", f"{half_done}/A", "--json").data["tables"]
    assert [(each["number"], each["ddl"]) for each in tables] == [
        (number, change.ddl) for number, change in enumerate(STATEMENTS, 1)
    ]


def test_a_digest_that_was_sent_names_its_follow_up_and_who_sent_it(
    half_done: str, world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another name of the same chain, under another key, with other consent: no key would lead anywhere."""
    words = printed(tern("apply", "--rest-of", half_done).out, "tern apply --rest-of")
    follow_up = tern(*words, "--json").data["apply_id"]
    monkeypatch.setenv("TERN_CALLER", "eve")
    again = tern(*words, "--json")
    assert (again.code, again.data["is_new"], again.data["caller"]) == (0, False, "ann@desk")
    assert again.document["warnings"] == ["ann@desk sent it before, and said why: the data is mended"]
    said = tern(*words).out
    assert "accepted before, under the same digest" in said
    assert f"tern watch {follow_up}" in said
    through = [follow_up if word == half_done else word for word in words]
    for other in (
        through,
        [*words, "--key", "mine"],
        [*words, "--allow-unsafe"],
        [*through, "--key", "mine"],
    ):
        refused = tern(*other)
        said = one_line(refused.out + refused.err)
        assert refused.code == 5
        assert f"this digest was sent already, by ann@desk, as {follow_up}" in said, other
        assert f"tern get {follow_up}" in said
        assert "--key" not in said
    assert world.one("SELECT count(*) AS n FROM applies").n == 2


def test_what_no_engine_took_is_told_its_ways_out_wherever_one_looks(world: World, tern: Tern) -> None:
    """Nothing of it is in and no id is there: it is tried again, or carried on; and somebody is needed for either."""
    for name in ("A", "B"):
        world.engines[name].script("Apply", not_accepted())
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source = str(world.last)
    assert "nothing waits for anything" not in tern("explain", source).out
    found = [" ".join(words) for words in commands(tern, "explain", f"{source}/A")]
    assert f"retry {source}/A --reason the data is mended" in found
    assert f"apply --rest-of {source}/A" in found
    for look in (("explain", source), ("get", source)):
        found = [" ".join(words) for words in commands(tern, *look)]
        assert f"retry {source} --state failed --reason the data is mended" in found, look
        assert f"apply --rest-of {source}" in found, look
        assert f"apply --rest-of {source} --deployments A,B" in found, look
    all_of_use(tern, source, "A", "B")
    assert tern("retry", f"{source}/A", *WHY).code == 0
    # Asked for, neither is printed of it once more; of the other both are.
    for look in (("explain", f"{source}/A"), ("explain", source)):
        assert not [words for words in commands(tern, *look) if words[1:3] == [f"{source}/A", "--reason"]], (
            look
        )
    assert "a retry of it is on its way" in tern("explain", f"{source}/A").out
    assert "asked for and on its way: A" in tern("explain", source).out


def test_what_was_cancelled_half_done_is_carried_on_by_its_name(world: World, tern: Tern) -> None:
    """Another change is refused over it, so somebody is needed; unnamed it would be left out."""
    world.apply("A", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    source = str(world.last)
    told(world, State.CANCELLED, "completed", "completed", "pending", name="A")
    with pytest.raises(Refused):
        world.apply("A", accept_drift=False)
    rest = ["apply", "--rest-of", f"{source}/A"]
    for look in (("get", source), ("explain", source), ("explain", f"{source}/A")):
        assert rest in commands(tern, *look), look
        assert [*rest[:2], source] not in commands(tern, *look), look
    assert "cancelled, with 2 of 3 statements done" in one_line(tern("explain", source).out)
    all_of_use(tern, source, "A")
    words = printed(tern(*rest).out, "tern apply --rest-of")
    follow_up = ApplyId(tern(*words, "--json").data["apply_id"])
    assert rest not in commands(tern, "explain", source)
    assert re.search(rf"tern get {follow_up} +carries on what was left", tern("get", source).out)
    assert f"\n  carries on {source}\n" in tern("get", str(follow_up)).out
    world.run(until=lambda: world.remote_id("A", follow_up) is not None)
    told_of(world, follow_up, State.COMPLETED, "completed")
    assert re.search(rf"tern get {follow_up} +has carried on what was left", tern("get", source).out)


def test_a_follow_up_that_was_cancelled_half_done_is_not_said_to_carry_on(
    half_done: str, world: World, tern: Tern
) -> None:
    follow_up = carried(world, tern, half_done, "A", "B")
    for name in ("A", "B"):
        told_of(world, follow_up, State.CANCELLED, "completed", "pending", name=name)
    out = tern("get", half_done).out
    assert re.search(rf"tern get {follow_up} +was to carry on what was left, and has ended", out)
    found = [words for words in commands(tern, "get", half_done) if words[:2] == ["apply", "--rest-of"]]
    assert found == [["apply", "--rest-of", half_done, "--deployments", "A,B"]] * 2
    all_of_use(tern, half_done, "A", "B")


def test_no_retry_is_printed_while_a_cancel_of_what_was_sent_is_open(world: World, tern: Tern) -> None:
    """It would be refused; before that cancel it is taken, and told of."""
    called_gone(world)
    engine_says(world, "B", "completed")
    source = str(world.last)
    retry = ["retry", source, "--state", "failed", *WHY]
    assert retry in commands(tern, "get", source)
    assert tern("cancel", f"{source}/A", "--outstanding", *WHY).code == 0
    for look in every_look(source, "A"):
        assert not [words for words in commands(tern, *look) if words[0] == "retry"], look
    assert tern(*retry).code == 5
    assert "nothing waits for anything" not in tern("explain", source).out


def test_a_digest_that_was_sent_says_how_its_follow_up_has_ended(
    half_done: str, world: World, tern: Tern
) -> None:
    """Nothing is followed that is over; and a key is spoken of only where one was said."""
    words = [*printed(tern("apply", "--rest-of", half_done).out, "tern apply --rest-of"), "--key", "mine"]
    follow_up = ApplyId(tern(*words, "--json").data["apply_id"])
    world.run(until=lambda: all(world.remote_id(name, follow_up) is not None for name in ("A", "B")))
    told_of(world, follow_up, State.COMPLETED, "completed", "completed")
    said = tern(*words).out
    assert "accepted before, under the same key" in said
    assert "it is over" not in said
    told_of(world, follow_up, State.FAILED, "completed", "failed", name="B")
    said = tern(*words).out
    assert f"it is over by now, and it is failed: tern get {follow_up}" in one_line(said)
    assert f"tern get {follow_up}   shows how it ended" in said
    assert "tern watch" not in said

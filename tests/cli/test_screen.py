"""One screen of 24 lines and 80 columns, with 3 deployments and with 10,000, whatever has become of them."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.text import Text

from tern.cli.screen import LINES, between, height_of, picture, whole_words
from tern.domain.policy import Copy, OnFailure, Policy, Wave
from tern.domain.states import ApplyState, State
from tern.domain.whole import Share, whole
from tern.facts import OperationRecord
from tern.grouping import grouped
from tern.view import ApplyView, apply_view
from tests.test_view import facts, record, table

WORDS = [f"{one}{other} is in the way" for one in "abcdef" for other in "ghijk"]
MIXED = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)


def on_a_terminal(lines: list[Text]) -> list[str]:
    """As a terminal of 80 columns shows it: what is not cut off is wrapped."""
    stream = io.StringIO()
    out = Console(file=stream, width=80, no_color=True, force_terminal=True, highlight=False)
    for line in lines:
        if line.overflow == "fold":
            out.print(line, soft_wrap=True)
        else:
            out.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    shown = stream.getvalue().replace("\x1b[0m", "").splitlines()
    return [row for line in shown for row in _rows(_plain(line))]


def _plain(line: str) -> str:
    return Text.from_ansi(line).plain


def _rows(line: str) -> list[str]:
    return [line[at : at + 80] for at in range(0, max(1, len(line)), 80)]


def mixed(n: int) -> OperationRecord:
    """A bad night: everything happens at once."""
    match n % 8:
        case 0:
            return record(f"d{n:05}", State.FAILED, error_message=WORDS[n // 8 % 30])
        case 1:
            return record(f"d{n:05}", State.STOPPED)
        case 2:
            return record(f"d{n:05}", State.UNCERTAIN, error_message=WORDS[n // 8 % 30])
        case 3:
            return record(
                f"d{n:05}", State.RUNNING, poll_failures=30, poll_error=f"no route to 10.0.0.{n}:443"
            )
        case 4:
            waiting = table("waiting_for_lock", detail=f"in the way: pid {n} (psql, open for {n} s)")
            return record(f"d{n:05}", State.RUNNING, tables=(waiting, waiting, waiting))
        case 5:
            return record(f"d{n:05}", State.STOPPED, drained=True)
        case 6:
            return record(f"d{n:05}", State.RUNNING, tables=tuple(table("running", 30) for _ in range(9)))
        case _:
            return record(f"d{n:05}", State.COMPLETED)


def long_named(n: int) -> OperationRecord:
    return record(
        f"{'europe-west-' * 9}{n}", (State.STOPPED, State.UNCERTAIN)[n % 2], error_message="because " * 40
    )


def all_failed(n: int) -> OperationRecord:
    return record(f"d{n}", State.FAILED, error_message=f"{WORDS[n % 30]} at {n}")


def waved(n: int) -> OperationRecord:
    return record(f"d{n}", State.RUNNING, wave=n % 90 + 1, poll_failures=n % 2 * 30, poll_error=WORDS[n % 30])


@pytest.mark.parametrize("make", [mixed, long_named, all_failed, waved])
@pytest.mark.parametrize("number", [1, 3, 12, 20, 21, 40, 10_000])
@pytest.mark.parametrize("state", [ApplyState.RUNNING_DEGRADED, ApplyState.FAILED, ApplyState.STOPPED])
def test_a_rollout_never_takes_more_than_a_screen(
    make: Callable[[int], OperationRecord], number: int, state: ApplyState
) -> None:
    policy = Policy(copy=Copy.PARALLEL, waves=tuple(Wave({"w": str(n)}) for n in range(90)))
    found = facts(*(make(n) for n in range(number)), state=state, policy=policy if make is waved else MIXED)
    view = apply_view(found)
    lines = picture(view)
    rows = on_a_terminal(lines)
    assert len(rows) <= LINES, "\n".join(rows)
    assert len(rows) == height_of(lines)
    if number > 20:
        assert any("--all" in row for row in rows)


@pytest.mark.parametrize("height", [14, 17, 20, 23])
def test_a_lower_terminal_is_kept_to(height: int) -> None:
    view = apply_view(facts(*(mixed(n) for n in range(200)), policy=MIXED))
    assert len(on_a_terminal(picture(view, steps=False, height=height))) <= height


def test_thirty_causes_are_counted_where_they_have_no_room() -> None:
    """The most numerous first, and the command that lists the others; the explanation has twenty."""
    many = [record(f"m{n}", State.UNCERTAIN, error_message="the usual") for n in range(50)]
    rare = [record(f"r{n}", State.UNCERTAIN, error_message=WORDS[n]) for n in range(30)]
    view = apply_view(facts(*rare, *many, policy=MIXED))
    rows = on_a_terminal(picture(view))
    assert "! 50 deployments  uncertain: the usual" in rows[5]
    assert sum(row.startswith("  ! ") for row in rows) >= 5
    (more,) = (row for row in rows if "more causes" in row)
    assert "tern explain apl-1" in more
    assert "and 11 more causes" in "\n".join(on_a_terminal(picture(view, explains=True)))


def test_exceptions_stand_before_what_goes_well() -> None:
    slow = [record(f"s{n}", State.RUNNING, tables=(table("running", n),)) for n in range(90)]
    locked = record(
        "l", State.RUNNING, tables=(table("waiting_for_lock", 99, detail="in the way: pid 47 (psql)"),)
    )
    failed = [record(f"f{n}", State.FAILED, error_message=f"Key (id)=({n}) exists") for n in range(20)]
    rows = on_a_terminal(picture(apply_view(facts(*slow, locked, *failed, policy=MIXED))))
    told = [place for place, row in enumerate(rows) if "20 failed" in row or "pid 47" in row or " s0 " in row]
    assert len(told) == 3
    assert "20 failed  Key (id)=(…) exists" in rows[told[0]]
    assert "waiting for a lock" in rows[told[1]]


def test_groups_have_a_line_each_and_fold() -> None:
    def shown(view: ApplyView, by: str, values: int) -> list[str]:
        labels = {f"d{n}": {"region": f"r{n % values}"} for n in range(90)}
        return on_a_terminal(picture(view, grouped=grouped(view, by, labels)))

    view = apply_view(
        facts(*(record(f"d{n}", State.COMPLETED if n % 3 else State.RUNNING) for n in range(100)))
    )
    few = shown(view, "region", 3)
    assert [row.split()[0] for row in few if "completed," in row and "[" in row and "running" in row] == [
        "r0",
        "without",
    ]
    assert any("r1  " in row and "100 %  30 of 30 completed" in row for row in few)
    many = shown(view, "region", 90)
    assert len(many) <= LINES
    assert any("more: --json has all of them" in row for row in many)
    assert any(row.startswith("  without a wave") for row in shown(view, "wave", 1))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (30.0, 30.0, "30 s"),
        (600.0, 610.0, "10 to 11 min"),
        (721.0, 900.0, "13 to 15 min"),
        (7_000.0, 9_000.0, "1.9 to 2.5 h"),
        (9_000.0, 9_010.0, "2.5 h"),
    ],
)
def test_an_end_is_about_known_in_one_unit(low: float, high: float, words: str) -> None:
    assert between(low, high) == words


def test_what_is_not_known_of_the_whole_is_said_not_to_be() -> None:
    assert whole_words(whole([Share(50), Share(0)])) == "25 % by operations, end not known"

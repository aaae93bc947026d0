"""A rollout told to a log: a few lines for ten thousand deployments, and every step of a few."""

from dataclasses import replace
from datetime import timedelta

from tern.cli.telling import NAMED_UP_TO, Teller
from tern.domain.holds import Holding
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.states import ApplyState, State
from tern.facts import OperationRecord
from tern.view import ApplyView, apply_view
from tests.test_view import facts, record, table

POLICY = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)
MANY = 10_000


def look(
    *operations: OperationRecord, at_s: float = 0.0, state: ApplyState = ApplyState.RUNNING
) -> ApplyView:
    found = facts(*operations, policy=POLICY, state=state)
    return apply_view(replace(found, observed_at=found.observed_at + timedelta(seconds=at_s)))


def going(number: int) -> list[OperationRecord]:
    return [record(f"d{n:05}", State.RUNNING) for n in range(number)]


def test_ten_thousand_that_run_to_their_end_are_a_few_dozen_lines() -> None:
    """Each completes, one in fifty fails for one of three causes with words of its own, one in a hundred is lost for a
    while. Ten looks, five seconds apart, and the end.
    """
    teller = Teller()
    lines: list[str] = []
    causes = ("Key (id)=({}) exists", "no space left: {} kB", "permission denied for table orders")

    def one(n: int, step: int) -> OperationRecord:
        if n * 10 // MANY >= step:
            lost = n % 100 == 7 and n % 3 != step % 3
            return record(f"d{n:05}", State.RUNNING, poll_failures=30 if lost else 0, poll_error="no route")
        if n % 50 == 0:
            return record(f"d{n:05}", State.FAILED, error_message=causes[n // 50 % 3].format(n))
        return record(f"d{n:05}", State.COMPLETED)

    for step in range(11):
        state = ApplyState.FAILED if step == 10 else ApplyState.RUNNING
        lines += teller.lines(look(*(one(n, step) for n in range(MANY)), at_s=5.0 * step, state=state))
    assert len(lines) < 120, "\n".join(lines)
    assert max(map(len, lines)) < 400
    assert sum("  apl-1  " in line for line in lines) <= 22
    # The last that is said of each cause has all of its operations.
    for words, count in (("Key (id)=(…) exists", 67), ("no space left: … kB", 67), ("permission denied", 66)):
        assert f"✖ {count} failed" in [line for line in lines if words in line][-1]
    assert any("so far no longer lost contact" in line for line in lines)


def test_thousands_that_fail_at_once_are_one_line() -> None:
    teller = Teller()
    before = going(MANY)
    teller.lines(look(*before))
    after = [
        replace(each, state=State.UNCERTAIN, error_message=f"no answer from {each.deployment}")
        for each in before
    ]
    lines = teller.lines(look(*after[:9_000], *before[9_000:], at_s=5.0))
    assert len(lines) == 2
    assert "? 9,000 uncertain  no answer from …  (d00000, d00001, d00002 and 8,997 more)" in lines[0]
    assert "9,000 deployments  need you" in lines[1]
    assert "tern resolve apl-1 --state uncertain --as" in lines[1]
    assert teller.lines(look(*after[:9_001], *before[9_001:], at_s=10.0)) == []


def test_a_few_are_named_one_by_one_and_then_when_their_number_has_doubled() -> None:
    teller = Teller()
    all_of_them = going(100)
    told: list[list[str]] = [teller.lines(look(*all_of_them))]
    for n in range(40):
        all_of_them[n] = replace(all_of_them[n], state=State.FAILED, error_message="disk full")
        told.append([line for line in teller.lines(look(*all_of_them)) if "disk full" in line])
    assert all(f"  d{n:05}  ✖ failed  disk full" in told[n + 1][0] for n in range(NAMED_UP_TO))
    assert [n for n in range(NAMED_UP_TO + 1, 41) if told[n]] == [10, 20, 40]
    assert "✖ 10 failed  disk full" in told[10][0]


def test_words_that_never_repeat_are_no_lines_without_end() -> None:
    teller = Teller()
    words = [f"{a}{b}{c} is lost" for a in "abcdefghij" for b in "abcdefghij" for c in "abcdefghij"]
    lines: list[str] = []
    for n in range(0, 1_000, 40):
        failed = [record(f"d{k}", State.FAILED, error_message=words[k]) for k in range(n)]
        lines += teller.lines(look(*failed, record("x", State.RUNNING)))
    assert len([line for line in lines if "is lost" in line]) < 80
    assert any("for still other reasons, the newest" in line for line in lines)


def test_the_whole_is_told_in_steps_and_after_a_minute_if_anything_has_changed() -> None:
    teller = Teller()

    def whole(done: int, at_s: float) -> list[str]:
        operations = [
            record(f"d{n}", State.COMPLETED if n < done else State.RUNNING, worked_s=None)
            for n in range(1_000)
        ]
        return teller.lines(look(*operations, at_s=at_s))

    assert "0 of 1,000 completed, 1,000 running; 0 % by operations, end not known" in whole(0, 0.0)[0]
    assert whole(40, 5.0) == []
    assert "50 of 1,000" in whole(50, 10.0)[0]
    assert whole(50, 100.0) == []
    assert "51 of 1,000" in whole(51, 101.0)[0]


def test_what_waits_for_a_lock_says_who_is_in_the_way_once() -> None:
    """Few or many: a piped watch is all that somebody may have."""

    def waiting(pid: int) -> OperationRecord:
        detail = f"attempt {pid} in 3.2 s; in the way: pid {pid} (psql, open for {pid} s)"
        return record("d", State.RUNNING, tables=(table("waiting_for_lock", detail=detail),))

    for others in (2, 50):
        teller = Teller()
        rest = going(others)
        teller.lines(look(record("d", State.RUNNING), *rest))
        (line,) = teller.lines(look(waiting(47), *rest))
        assert (
            "  d  ◷ waiting for a lock  attempt 47 in 3.2 s; in the way: pid 47 (psql, open for 47 s)" in line
        )
        assert teller.lines(look(waiting(48), *rest)) == []
        (line,) = teller.lines(look(record("d", State.RUNNING), *rest))
        assert "  d  ◐ running" in line


def test_what_somebody_else_holds_is_said_at_once() -> None:
    held = record("d", blocked_by=Holding("d", "apl-2/d", "running"))
    for others in (2, 50):
        (line,) = (each for each in Teller().lines(look(held, *going(others))) if "  d  " in each)
        assert "◷ waiting" in line
        assert "apl-2/d (running)" in line


def test_the_end_has_all_that_needs_a_person_once_for_each_cause() -> None:
    over = [record(f"d{n}", State.STOPPED) for n in range(300)]
    lines = Teller().lines(look(*over, state=ApplyState.STOPPED))
    (need,) = (line for line in lines if "need you" in line)
    assert (
        "300 deployments  need you: stopped  (d0, d1, d2 and 297 more): tern start apl-1 --state stopped"
        in need
    )
    assert len(lines) == 3

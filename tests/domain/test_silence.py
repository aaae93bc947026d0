"""What the end of a call says about its engine, and how slowly one goes that answers nothing."""

import pytest

from tern.domain.silence import KINDS, LONGEST_PAUSE_S, SLOW_AFTER, CallKind, Ended, Silence, ended, pause_s
from tern.wire import transport
from tern.wire.transport import Method


@pytest.mark.parametrize(
    ("code", "seconds", "says"),
    [
        ("OK", 0.1, Ended.ANSWERED),
        ("OK", 9.9, Ended.ANSWERED),
        ("INTERNAL", 0.1, Ended.ANSWERED),
        ("FAILED_PRECONDITION", 0.1, Ended.ANSWERED),
        ("RESOURCE_EXHAUSTED", 0.1, Ended.ANSWERED),
        ("DEADLINE_EXCEEDED", 10.0, Ended.SILENT),
        ("DEADLINE_EXCEEDED", 0.5, Ended.SILENT),
        ("UNAVAILABLE", 2.0, Ended.SILENT),
        ("UNAVAILABLE", 1.0, Ended.SILENT),
        ("UNAVAILABLE", 0.99, Ended.NEITHER),
        ("CANCELLED", 5.0, Ended.NEITHER),
        ("NOT_SENT", 0.0, Ended.NEITHER),
    ],
)
def test_a_refusing_port_is_no_silence_and_a_swallowing_one_is(
    code: str, seconds: float, says: Ended
) -> None:
    assert ended(code, seconds) is says


def test_every_call_has_a_kind_but_those_that_count_nowhere() -> None:
    """Stop and cancel are tried whatever became of others; previews and logs are a person's, who sees it."""
    known = {value.name for value in vars(transport).values() if isinstance(value, Method)}
    assert known - set(KINDS) == {"Stop", "Cancel", "Preview", "Logs"}
    assert set(KINDS) <= known


def test_pauses_begin_with_the_third_and_grow() -> None:
    assert [pause_s(count) for count in range(1, SLOW_AFTER)] == [0.0, 0.0]
    grown = [pause_s(count) for count in range(SLOW_AFTER, 9)]
    assert grown == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pause_s(10_000) == LONGEST_PAUSE_S


def test_three_in_a_row_are_slow() -> None:
    slow = [Silence("A", CallKind.POLL, count).is_slow for count in range(1, 5)]
    assert slow == [False, False, True, True]

"""A moment as a person writes it."""

from datetime import UTC, datetime, timedelta

import pytest

from tern.domain.errors import UsageError
from tern.domain.moment import read_moment

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("10m ago", NOW - timedelta(minutes=10)),
        ("10m", NOW - timedelta(minutes=10)),
        (" 90 s ago ", NOW - timedelta(seconds=90)),
        ("2H ago", NOW - timedelta(hours=2)),
        ("3d ago", NOW - timedelta(days=3)),
        ("2026-11-23T02:30:00Z", NOW - timedelta(minutes=30)),
        ("2026-11-23T04:00:00+01:00", NOW),
        ("2026-11-23 02:59:59.5+00:00", NOW - timedelta(seconds=0.5)),
    ],
)
def test_a_moment_is_read(text: str, moment: datetime) -> None:
    found = read_moment(text, NOW)
    assert found == moment
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5m ago",
        "2026-11-23T03:00:00",
        "2026-13-01T00:00:00Z",
        "999999999w",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
    ],
)
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_moment(text, NOW)
    assert "10m ago" in refused.value.next_step

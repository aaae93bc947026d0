"""A length of time on the command line."""

import click
import pytest

from tern.cli.seconds import Seconds


def test_seconds_are_a_number_from_zero_on() -> None:
    assert [Seconds().convert(said, None, None) for said in ("0", "0.5", "90", "inf")] == [
        *(0.0, 0.5, 90.0),
        float("inf"),
    ]


@pytest.mark.parametrize("said", ["nan", "-NaN", "-1", "soon", ""])
def test_what_no_wait_could_end_after_is_refused(said: str) -> None:
    with pytest.raises(click.BadParameter):
        Seconds().convert(said, None, None)

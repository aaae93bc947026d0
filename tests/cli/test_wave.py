"""`--wave`: what can be typed, and where it can't be read."""

import pytest

from tern.cli.wave import read_waves
from tern.domain.errors import UsageError
from tern.domain.policy import Wave


@pytest.mark.parametrize(
    ("typed", "wave"),
    [
        ("*", Wave()),
        ("region=canary", Wave({"region": "canary"})),
        ("region=eu,tier=1", Wave({"region": "eu", "tier": "1"})),
        ("a, b", Wave(deployments=("a", "b"))),
        (
            "region=canary;max_parallel=1;max_failures=0;bake=10m",
            Wave({"region": "canary"}, (), 1, 0, 600.0),
        ),
        (" * ; bake = 90 ; max_parallel = 3 ", Wave(max_parallel=3, bake_s=90.0)),
        ("*;bake=1.5h", Wave(bake_s=5400.0)),
        ("*;bake=2d", Wave(bake_s=172_800.0)),
        ("*;bake=0s", Wave()),
    ],
)
def test_what_can_be_typed(typed: str, wave: Wave) -> None:
    assert read_waves([typed]) == (wave,)


def test_waves_keep_their_order() -> None:
    assert read_waves(["b", "a", "*"]) == (Wave(deployments=("b",)), Wave(deployments=("a",)), Wave())


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "wave 1, character 1: a label, a name or * is missing"),
        ("a,,b", "wave 1, character 3: a label, a name or * is missing"),
        ("region=", "wave 1, character 1, 'region=': a label is written key=value"),
        ("=eu", "wave 1, character 1, '=eu': a label is written key=value"),
        ("a=1,a=2", "wave 1, character 5, 'a=2': a is asked for twice"),
        ("a,b=1", "wave 1, character 1, 'a,b=1': a wave selects by labels or by names, not by both"),
        ("*;bke=10m", "wave 1, character 3, 'bke=10m': a wave has max_parallel, max_failures, bake"),
        ("*;bake=10m;bake=1", "wave 1, character 12, 'bake=1': bake is given twice"),
        (
            "*; bake=soon",
            "wave 1, character 4, 'bake=soon': a time is a number and s, m, h or d, such as 10m",
        ),
        ("*;bake=-1", "wave 1, character 3, 'bake=-1': a time is a number and s, m, h or d, such as 10m"),
        ("*;max_parallel=0", "wave 1, character 3, 'max_parallel=0': max_parallel is a whole number from 1"),
        ("*;max_failures=²", "wave 1, character 3, 'max_failures=²': max_failures is a whole number from 0"),
        ("*;max_failures", "wave 1, character 3, 'max_failures': max_failures is a whole number from 0"),
        ("*;", "wave 1, character 3, '': a wave has max_parallel, max_failures, bake"),
    ],
)
def test_what_cant_be_read_is_pointed_at(typed: str, why: str) -> None:
    with pytest.raises(UsageError) as wrong:
        read_waves([typed])
    assert wrong.value.why == (why,)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as wrong:
        read_waves(["a=;bake=x", "*", "b;c"])
    assert [words.split(":")[0] for words in wrong.value.why] == [
        "wave 1, character 1, 'a='",
        "wave 1, character 4, 'bake=x'",
        "wave 3, character 3, 'c'",
    ]

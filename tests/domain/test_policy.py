"""The policy as it is agreed on: what survives its column, what makes no sense, what bounds each wave."""

import json
from typing import Any

import pytest
from hypothesis import given

from tern.domain.policy import LONGEST_BAKE_S, MOST, Copy, Cutover, OnFailure, Policy, Rules, Wave
from tests.domain.rollouts import policies

ROLLING_IS_ONE = "max_parallel is for parallel and barrier: rolling is one after the other"


@given(policies())
def test_a_policy_survives_its_column(policy: Policy) -> None:
    """PL1: what is frozen with an apply is read back as it was."""
    assert Policy.from_json(json.loads(json.dumps(policy.as_json()))) == policy


@pytest.mark.parametrize(
    "wrong",
    [{"max_parallel": 0}, {"max_parallel": -1}, {"max_failures": -1}, {"max_parallel": 10**30}],
    ids=str,
)
def test_a_policy_that_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Policy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must"):
        Wave(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("waves", "words"),
    [
        ({"labels": {}}, "^waves is no list$"),
        (["canary"], "wave 1: a wave is an object"),
        ([{}, {"label": {}}], "wave 2: a wave has no 'label'"),
        ([{"labels": {"region": 1}}], "wave 1: the labels of a wave are an object of texts"),
        ([{"labels": ["region"]}], "wave 1: the labels"),
        ([{"deployments": "a,b"}], "wave 1: the deployments of a wave are a list of names"),
        ([{"deployments": [1]}], "wave 1: the deployments"),
        ([{"bake_s": "10m"}], "wave 1: bake_s must be a number"),
        ([{"bake_s": True}], "wave 1: bake_s must be a number"),
        ([{"bake_s": -1}], "wave 1: bake_s must be a number"),
        ([{"bake_s": 1e300}], "wave 1: bake_s must be a number of seconds up to"),
        ([{"bake_s": float("nan")}], "wave 1: bake_s must be a number of seconds up to"),
        ([{"max_parallel": 0}], "wave 1: max_parallel must be at least 1"),
        (
            [{"labels": {"a": "b"}, "deployments": ["c"]}],
            "^wave 1: a wave selects by labels or by names, not by both$",
        ),
    ],
)
def test_waves_that_cant_be_read_say_which_and_why(waves: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy.from_json({**Policy().as_json(), "waves": waves})


@pytest.mark.parametrize("switch", ["strict", "enable_revert"])
def test_a_switch_is_true_or_false(switch: str) -> None:
    with pytest.raises(ValueError, match=f"^{switch} is neither true nor false$"):
        Policy.from_json({**Policy().as_json(), switch: "false"})
    assert Policy.from_json({**Policy().as_json(), switch: True}).as_json()[switch] is True


def test_a_wave_needs_no_more_than_its_selector() -> None:
    assert Wave.from_json({"labels": {"a": "b"}}) == Wave({"a": "b"})
    assert Wave.from_json({}) == Wave()


def test_the_largest_bounds_are_still_bounds() -> None:
    assert Policy(max_parallel=MOST, max_failures=MOST).rules(0) == Rules(MOST, MOST)
    assert Wave(bake_s=LONGEST_BAKE_S).bake_s == LONGEST_BAKE_S


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(max_parallel=2), ROLLING_IS_ONE),
        (Policy(waves=(Wave(max_parallel=2),)), ROLLING_IS_ONE),
        (
            Policy(on_failure=OnFailure.CONTINUE, strict=True),
            "strict never goes beyond max_failures, and continue always does",
        ),
        (
            Policy(waves=(Wave({"a": "b"}), Wave(bake_s=1.0))),
            "wave 2 bakes, but no wave comes after it that could wait",
        ),
    ],
)
def test_what_was_asked_for_and_taken_back_is_a_contradiction(policy: Policy, words: str) -> None:
    assert policy.contradictions() == (words,)


def test_what_makes_sense_is_no_contradiction() -> None:
    canary = Wave({"region": "canary"}, max_parallel=1, bake_s=600.0)
    barrier = Policy(Copy.BARRIER, OnFailure.PAUSE, max_parallel=3, strict=True, waves=(canary, Wave()))
    assert Policy().contradictions() == barrier.contradictions() == ()


def test_a_wave_has_the_rollouts_bounds_where_it_has_none_of_its_own() -> None:
    waves = (Wave({"a": "b"}, (), 1, 0, 60.0), Wave(), Wave({"c": "d"}, (), 3))
    policy = Policy(Copy.PARALLEL, max_parallel=9, max_failures=2, waves=waves)
    assert policy.rules(1) == Rules(1, 0, 60.0)
    assert policy.rules(2) == Rules(9, 2, 0.0)
    assert policy.rules(3) == Rules(3, 2, 0.0)
    assert Policy(Copy.PARALLEL, max_parallel=3).rules(0) == Rules(3, 0, 0.0)


def test_who_tells_the_engine_to_wait_for_a_cutover() -> None:
    assert Policy(cutover=Cutover.MANUAL).defers_cutover
    assert Policy(Copy.BARRIER).defers_cutover
    assert not Policy().defers_cutover
    assert not Policy(Copy.PARALLEL).defers_cutover

"""Which deployment goes with which wave."""

from tern.domain.policy import Wave
from tern.domain.waves import divide

REGIONS = {
    "west": {"region": "us", "tier": "1"},
    "lab": {"region": "canary"},
    "east": {"region": "us", "tier": "2"},
    "north": {"region": "eu", "tier": "1"},
}
CANARY, US, REST = Wave({"region": "canary"}), Wave({"region": "us"}), Wave()


def order(*waves: Wave) -> list[tuple[str, int]]:
    division = divide(waves, REGIONS)
    assert division.why == ()
    assert [place.position for place in division.places] == list(range(len(REGIONS)))
    return [(place.deployment, place.wave) for place in division.places]


def test_without_waves_the_order_is_the_one_that_was_asked_for() -> None:
    assert order() == [("west", 0), ("lab", 0), ("east", 0), ("north", 0)]


def test_waves_renumber_the_order_and_keep_it_within_each() -> None:
    assert order(CANARY, US, REST) == [("lab", 1), ("west", 2), ("east", 2), ("north", 3)]


def test_of_two_waves_that_select_a_deployment_the_first_takes_it() -> None:
    assert order(Wave({"tier": "1"}), US, REST) == [("west", 1), ("north", 1), ("east", 2), ("lab", 3)]


def test_all_labels_of_a_wave_must_match() -> None:
    assert order(Wave({"region": "us", "tier": "2"}), REST)[0] == ("east", 1)


def test_a_wave_that_names_its_deployments_orders_them() -> None:
    assert order(Wave(deployments=("north", "west")), REST)[:2] == [("north", 1), ("west", 1)]


def test_a_deployment_that_no_wave_selects_is_named() -> None:
    division = divide((CANARY, US), REGIONS)
    assert division.why == ("no wave selects deployment north",)


def test_a_wave_that_nobody_is_left_for_is_no_wave() -> None:
    """A canary that nobody is would let everybody else go unprotected."""
    division = divide((REST, CANARY), REGIONS)
    assert division.why == ("wave 2 (region=canary) has no deployment that an earlier wave does not take",)


def test_a_wave_names_only_what_was_chosen() -> None:
    division = divide((Wave(deployments=("lab", "south")), REST), REGIONS)
    assert division.why == ("wave 1 names south, which is not among them",)

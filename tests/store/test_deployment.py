"""The register of deployments: replaced in one step or not at all, and never under a rollout."""

from dataclasses import replace

import pytest

from tern.domain.errors import NotFound, Refused
from tern.domain.model import Deployment
from tests.store.conftest import QueueBehind
from tests.world import World


def known(world: World, name: str) -> Deployment:
    (found,) = world.store.load_deployments([name])
    return found


def test_a_replaced_deployment_is_the_new_one_and_stays_drained(world: World) -> None:
    world.store.set_drained("A", drained=True)
    wanted = replace(
        known(world, "A"), target="elsewhere", labels={"region": "eu"}, position=7, drained=False
    )
    world.store.replace_deployment(wanted)
    assert known(world, "A") == replace(wanted, drained=True)


def test_one_that_can_not_be_replaced_is_still_there(world: World) -> None:
    """In two steps the old one would be gone by now."""
    before, other = known(world, "A"), known(world, "B")
    with pytest.raises(Refused, match="another deployment has the same address and target"):
        world.store.replace_deployment(replace(before, address=other.address, target=other.target))
    with pytest.raises(Refused, match="a password stands in the address"):
        world.store.replace_deployment(replace(before, address="grpc://ann:secret@host:1"))
    assert known(world, "A") == before


def test_one_that_a_rollout_uses_is_not_replaced(world: World) -> None:
    """G2: work that goes on there is reached by what stands in the register."""
    before = known(world, "A")
    apply_id = world.apply("A")
    with pytest.raises(Refused, match=f"it is used by {apply_id}"):
        world.store.replace_deployment(replace(before, target="elsewhere"))
    assert known(world, "A") == before


def test_what_is_not_there_is_not_replaced(world: World) -> None:
    with pytest.raises(NotFound):
        world.store.replace_deployment(replace(known(world, "A"), name="nowhere", target="t"))


@pytest.mark.parametrize("replaced_first", [True, False])
def test_a_rollout_and_a_replacement_at_the_same_instant(
    world: World, queue_behind: QueueBehind, *, replaced_first: bool
) -> None:
    """G2, G7: the rollout goes where its deployment is, or the replacement is refused; never to the old place."""
    wanted = replace(known(world, "A"), target="elsewhere")

    def take_its_place() -> bool:
        try:
            world.store.replace_deployment(wanted)
        except Refused:
            return False
        return True

    def roll_out() -> None:
        world.apply("A")

    pair = [take_its_place, roll_out] if replaced_first else [roll_out, take_its_place]
    answers = queue_behind("SELECT 1 FROM deployments WHERE name = 'A' FOR UPDATE", *pair)
    replaced = answers[0 if replaced_first else 1]
    assert replaced is (known(world, "A").target == "elsewhere")
    assert world.operation("A").target == known(world, "A").target

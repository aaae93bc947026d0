"""The same rollout by label and by wave."""

from tern.domain.states import State
from tern.grouping import grouped
from tern.view import apply_view
from tests.test_view import facts, record


def test_values_stand_in_their_order_and_last_those_without() -> None:
    view = apply_view(
        facts(
            record("a", State.COMPLETED), record("b"), record("c", State.FAILED), record("d", State.COMPLETED)
        )
    )
    found = grouped(view, "region", {"a": {"region": "us"}, "b": {"region": "eu"}, "d": {"region": "eu"}})
    assert [(group.name, group.operations, group.percent) for group in found.groups] == [
        ("eu", 2, 50),
        ("us", 1, 100),
        ("without region", 1, 0),
    ]
    assert found.groups[0].as_json()["counts"] == {"pending": 1, "completed": 1}


def test_waves_stand_in_the_order_of_their_numbers() -> None:
    view = apply_view(facts(*(record(f"d{n}", wave=n) for n in (10, 9, 2))))
    assert [group.name for group in grouped(view, "wave", {}).groups] == ["wave 2", "wave 9", "wave 10"]

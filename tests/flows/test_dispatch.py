from collections.abc import Callable

from tests.world import World


def test_rolling_apply_completes_one_after_the_other(make_world: Callable[..., World]) -> None:
    world = make_world("A", "B", "C", complete_after_polls=2)
    world.apply("A", "B", "C")
    world.run(until=lambda: world.apply_row().state == "completed")
    for name, engine in world.engines.items():
        assert len(engine.effects("apply")) == 1
        assert world.remote_id(name) is not None
        assert world.apply_row().external_id is None

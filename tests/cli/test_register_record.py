"""Who drained, opened or removed a deployment, and why, stands in the record of whoever works there, or did so last."""

import pytest

from tern.ports import StorageUnavailable
from tern.store.store import PostgresStore
from tests.cli.conftest import Tern
from tests.flows.steps import PARALLEL, engine_says
from tests.world import World

WHY = ("--reason", "the machine is old")


def told(tern: Tern, scope: str) -> list[tuple[str, str, str]]:
    events = tern("logs", scope, "--json").data["events"]
    return [
        (each["event"], each["who"], each["why"] or "")
        for each in events
        if each["event"].startswith("deployment")
    ]


def test_a_drain_is_written_down_where_something_works(world: World, tern: Tern) -> None:
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    done = tern("deployments", "drain", "A", "C", *WHY, "--json")
    assert [(each["deployment"], each["outcome"], each["reason"]) for each in done.data["deployments"]] == [
        ("A", "drained", f"in the record of {apply_id}/A"),
        ("C", "drained", ""),
    ]
    assert tern("deployments", "undrain", "A").code == 0
    assert told(tern, f"{apply_id}/A") == [
        ("deployment_drained", "ann@desk", "the machine is old"),
        ("deployment_opened", "ann@desk", ""),
    ]
    assert told(tern, f"{apply_id}/B") == []
    assert tern("audit", apply_id, "--verify").code == 0


def test_what_is_removed_is_written_down_with_the_last_that_worked_there(world: World, tern: Tern) -> None:
    """While something works there it is refused, and nothing is written."""
    first = world.apply("A")
    world.answer_bells()
    engine_says(world, "A", "completed")
    last = world.apply("A")
    world.answer_bells()
    assert tern("deployments", "rm", "A", *WHY).code == 5
    assert told(tern, f"{last}/A") == []
    engine_says(world, "A", "completed")
    assert tern("deployments", "rm", "A", *WHY).code == 0
    assert told(tern, f"{last}/A") == [("deployment_removed", "ann@desk", "the machine is old")]
    assert told(tern, f"{first}/A") == []


def test_it_is_drained_though_its_record_can_not_be_written_now(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever keeps new work away waits for no driver."""
    world.apply("A")

    def busy(*_: object) -> tuple[str, ...]:
        raise StorageUnavailable("a lock was not given")

    monkeypatch.setattr(PostgresStore, "record_register", busy)
    done = tern("deployments", "drain", "A", *WHY)
    assert (done.code, "say it again" in done.out) == (0, True)
    assert world.one("SELECT drained FROM deployments WHERE name = 'A'").drained

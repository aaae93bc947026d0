"""What is set up, what answers, what helps."""

import pytest

from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.world import World


def findings(done: object) -> dict[str, bool]:
    listed = done.data["findings"]  # type: ignore[attr-defined]
    return {finding["about"]: finding["ok"] for finding in listed}


def test_nothing_set_up_says_what_to_set(bare: Tern) -> None:
    done = bare("doctor")
    assert (done.code, "tern up" in done.out) == (78, True)


def test_everything_well(world: World, tern: Tern, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_BROKER_URL", broker_url)
    world.sweep()
    done = tern("doctor", "--json")
    assert done.code == 0
    assert findings(done) == dict.fromkeys(
        ("python", "settings", "postgresql", "broker", "workers", "rollouts", "engines"), True
    )
    assert "Everything is well." in tern("doctor").out


def test_each_trouble_is_told_with_what_helps(world: World, tern: Tern) -> None:
    world.engines["B"].always("Health", fail("UNAVAILABLE"))
    world.apply()
    done = tern("doctor", "--json")
    assert done.code == 69
    assert findings(done) == {
        "python": True,
        "settings": True,
        "postgresql": True,
        "broker": False,
        "workers": False,
        "rollouts": True,
        "engines": False,
    }
    text = tern("doctor").out
    for words in (
        "workers sweep for themselves",
        "tern worker",
        "2 of 3 engines answer",
        "tern deployments check",
    ):
        assert words in text


def test_a_sweep_of_long_ago_means_that_nobody_works(world: World, tern: Tern) -> None:
    world.sweep()
    world.pass_time(600)
    assert findings(tern("doctor", "--json"))["workers"] is False


def test_a_database_that_is_not_migrated(
    bare: Tern, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", database_url)
    assert "tern db upgrade" in bare("doctor").out

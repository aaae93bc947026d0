"""Which engines that name no database lead to one place, as far as names of hosts tell."""

import pytest

from tern import proving
from tern.domain.model import Deployment
from tern.domain.targets import Finding, finding
from tern.proving import MOST_LOOKED_UP, same_places


def at(name: str, address: str, identity: str = "", target: str = "t") -> Deployment:
    return Deployment(name, "test", "shop", address, target, engine_identity=identity)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that knows three."""
    known = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "db": "10.0.0.7", "db.example": "10.0.0.7"}
    monkeypatch.setattr(proving, "_look_up", lambda host: frozenset({known[host]} if host in known else ()))


@pytest.mark.parametrize(
    ("one", "other", "is_told"),
    [
        ("grpc://localhost:1", "grpc://127.0.0.1:1", True),
        ("grpc://db:1", "grpcs://DB.example:1", True),
        ("local:postgresql://ann@localhost/x", "local:postgresql://ann@127.0.0.1:5432/x", True),
        ("grpc://localhost:1", "grpc://127.0.0.1:2", False),
        ("grpc://localhost:1", "grpc://db:1", False),
        # One that is spelled alike serves several targets on purpose: its target is what differs.
        ("grpc://db:1", "grpc://db:1", False),
        ("grpc://nobody:1", "grpc://knows:1", False),
        ("grpc://[::1", "grpc://localhost:1", False),
    ],
)
def test_two_spellings_of_one_place_are_told(one: str, other: str, *, is_told: bool) -> None:
    a, b = at("a", one), at("b", other, target="u")
    told = same_places([a], [a, b])
    assert bool(told) is is_told
    assert same_places([a, b], [a, b])[:1] == told[:1]
    if is_told:
        assert one in told[0]
        assert other in told[0]


def test_an_engine_that_names_its_database_needs_no_guess() -> None:
    a, b = at("a", "grpc://localhost:1", "1/1"), at("b", "grpc://127.0.0.1:1")
    assert same_places([a, b], [a, b]) == ()


def test_nobody_waits_for_the_names_of_a_fleet() -> None:
    fleet = [at(f"d{n}", f"grpc://h{n}:1") for n in range(MOST_LOOKED_UP)]
    told = [at("a", "grpc://localhost:1"), at("b", "grpc://127.0.0.1:1")]
    assert same_places(told, [*told, *fleet]) == ()
    assert len(same_places(told, [*told, *fleet[:9]])) == 1


@pytest.mark.parametrize(
    ("there", "back", "found"),
    [
        (True, True, Finding.SAME),
        (False, False, Finding.TWO),
        (True, False, Finding.SUSPECTED),
        (False, True, Finding.SUSPECTED),
        (None, True, Finding.SUSPECTED),
        (True, None, Finding.SUSPECTED),
        (None, False, Finding.SUSPECTED),
        (False, None, Finding.SUSPECTED),
        (None, None, Finding.SUSPECTED),
    ],
)
def test_only_two_answers_that_agree_prove_anything(
    *, there: bool | None, back: bool | None, found: Finding
) -> None:
    assert finding(there, back) is found

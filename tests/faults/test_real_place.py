"""Who checks the checker of the storm's real targets: a database in which all is well, and others."""

import time
from pathlib import Path

import psycopg
import pytest

from tern.local.discovery import Servers
from tests.faults.real_place import RealPlace


@pytest.fixture
def place(postgres_server: Servers, tmp_path: Path) -> RealPlace:
    """A target whose engine was never started; its application writes."""
    number = f"{time.monotonic_ns()}"
    place = RealPlace(number, tmp_path, postgres_server.database)
    while not place.application.acknowledged:
        time.sleep(0.01)
    place.application.close()
    return place


def change(place: RealPlace, *statements: str) -> None:
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_what_was_asked_for_and_is_there_is_accepted(place: RealPlace) -> None:
    change(
        place,
        "ALTER TABLE orders ADD COLUMN note_1 text",
        "CREATE INDEX CONCURRENTLY note_2 ON orders (amount)",
    )
    states = {"note_1": "completed", "note_2": "completed", "note_3": "cancelled", "note_4": "failed"}
    assert list(place.complaints(states)) == []


@pytest.mark.parametrize(
    ("statements", "states", "words"),
    [
        ((), {"note_1": "completed"}, "shows it 0 times"),
        (("ALTER TABLE orders ADD COLUMN note_1 text",), {"note_1": "cancelled"}, "shows it 1 times"),
        (("ALTER TABLE orders ADD COLUMN note_1 text",), {}, "nobody asked for it"),
        (
            (
                "ALTER TABLE orders ADD COLUMN note_1 text",
                "ALTER TABLE orders DROP COLUMN note_1",
                "ALTER TABLE orders ADD COLUMN note_1 text",
            ),
            {"note_1": "completed"},
            "took effect 3 times",
        ),
        (("DELETE FROM orders WHERE amount = 7",), {}, "are gone"),
    ],
)
def test_what_is_wrong_is_rejected(
    place: RealPlace, statements: tuple[str, ...], states: dict[str, str], words: str
) -> None:
    change(place, *statements)
    found = list(place.complaints(states))
    assert any(words in line for line in found), found

"""Every crash point of every story: a real process dies there, another takes over, everything is checked.

`make crash` (CRASH=all) adds every lost answer and every lost request, more double crashes, and deaths in the middle of
transactions, which vanish whole. CRASH_SEED draws other samples.
"""

import os
import random
from collections.abc import Iterator

import pytest

from tern.local.discovery import Servers
from tern.local.postgres import drop_database, ensure_database
from tests.faults.stories import STORIES
from tests.faults.theatre import Death, Theatre

ALL = os.environ.get("CRASH") == "all"
SLICES = 2
SEED = int(os.environ.get("CRASH_SEED", "2026"))
PAIRS = 12 if ALL else 2
LOST = 1000 if ALL else 5
ROUND_TRIPS = 24

pytestmark = pytest.mark.timeout(1800 if ALL else 300)
each_story = pytest.mark.parametrize("story", STORIES)


@pytest.fixture(scope="module")
def theatre(postgres_server: Servers) -> Iterator[Theatre]:
    url = postgres_server.database("theatre")
    ensure_database(url)
    with Theatre(url) as stage:
        yield stage
    drop_database(url)


def play_all(theatre: Theatre, story: str, performances: list[tuple[Death, ...]]) -> None:
    """Every other performance is recovered without a single bell (S20)."""
    for number, deaths in enumerate(performances):
        try:
            theatre.play(story, *deaths, deaf=number % 2 == 1)
        except AssertionError as error:
            names = ", then ".join(str(death) for death in deaths)
            raise AssertionError(f"{story}: {names}\n{error}") from error


@each_story
def test_story_ends_well_without_any_fault(theatre: Theatre, story: str) -> None:
    """Oracle sanity: nobody dies, nothing is found, with bells and without."""
    crossed = theatre.boundaries(story)
    assert {name.partition(" ")[0] for name in crossed} >= {"commit", "bell"}
    theatre.play(story, deaf=True)


@each_story
@pytest.mark.parametrize("part", range(SLICES))
def test_worker_dies_at_each_boundary(theatre: Theatre, story: str, part: int) -> None:
    """S1-S22 after a death behind each commit, call and bell; in front of the first one too."""
    count = len(theatre.boundaries(story))
    # Dead in front of boundary k + 1 is dead behind boundary k: nothing in between is seen outside of the worker.
    deaths = [Death(0, after=False), *(Death(at) for at in range(count))]
    play_all(theatre, story, [(death,) for death in deaths[part::SLICES]])


@each_story
def test_answer_is_lost_and_the_worker_lives_on(theatre: Theatre, story: str) -> None:
    """K9: it can't tell whether the commit, or the call, happened."""
    crossed = theatre.boundaries(story)
    points = [
        Death(at, after=after, mode="lose")
        for at, name in enumerate(crossed)
        for after in (True, False)
        if not name.startswith("bell")
    ]
    sample = random.Random(f"{SEED} {story}").sample(points, min(LOST, len(points)))  # noqa: S311 - a fixed draw
    play_all(theatre, story, [(death,) for death in sample])


@each_story
def test_rescuer_dies_too(theatre: Theatre, story: str) -> None:
    """A sample of double crashes: the second worker dies while it cleans up after the first."""
    draw = random.Random(f"{SEED} {story}")  # noqa: S311 - a fixed draw
    count = len(theatre.boundaries(story))
    pairs = [(Death(draw.randrange(count)), Death(draw.randrange(count))) for _ in range(PAIRS)]
    play_all(theatre, story, pairs)


@pytest.mark.skipif(
    not ALL, reason="an uncommitted transaction vanishes whole; `make crash` tries it all the same"
)
@each_story
def test_worker_dies_in_the_middle_of_transactions(theatre: Theatre, story: str) -> None:
    """A sample of all round trips to the database."""
    count = len(theatre.boundaries(story, every_round_trip=True))
    draw = random.Random(f"{SEED} {story}")  # noqa: S311 - a fixed draw
    sample = draw.sample(range(count), min(ROUND_TRIPS, count))
    play_all(theatre, story, [(Death(at, every_round_trip=True),) for at in sample])

"""Words of many, compared by what they have in common."""

import pytest

from tern.domain.likeness import alike, common, without_name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Key (email)=(ann@x.org) is duplicated", "Key (email)=(bob, jr.) is duplicated"),
        ("no space left: 17 kB of 20,480", "no space left: 9 kB of 1.5"),
        ("could not connect to 10.0.0.7:50051: refused", "could not connect to 10.1.2.3:443: refused"),
        ("could not connect to db-1.eu:50051: refused", "could not connect to db-2.us:50051: refused"),
        ("in the way: pid 47 (psql, open for 3 s)", "in the way: pid 9 (app, open for 99 s)"),
        ("held by apl-0123456789abcdef/eu-1 (running)", "held by apl-fedcba9876543210/us (running)"),
        ("job 0a1b2c3d4e5f is gone", "job ffeeddccbb01 is gone"),
        ('invalid input syntax for type integer: "x"', 'invalid input syntax for type integer: "y"'),
    ],
)
def test_what_differs_from_one_to_the_next_makes_no_difference(one: str, other: str) -> None:
    assert one != other
    assert alike(one) == alike(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("permission denied for table orders", "permission denied for table items"),
        ("permission denied for table orders_1", "permission denied for table orders_2"),
        ("Key (email)=(a) is duplicated", "Key (name)=(a) is duplicated"),
        ("disk full", "read only"),
    ],
)
def test_what_is_another_matter_stays_another(one: str, other: str) -> None:
    assert alike(one) != alike(other)


def test_its_own_names_are_taken_out_where_they_stand_alone() -> None:
    assert alike("eu-1 has no room at eu-1", ("eu-1",)) == alike("us has no room at us", ("us",))
    assert without_name("eu-1 and eu-10, eu-1x", "eu-1", "HERE") == "HERE and eu-10, eu-1x"
    assert without_name("a failed", "a", "a") == "a failed"


def test_words_that_are_the_same_are_shown_as_they_are() -> None:
    assert common(["pid 7 waits", "pid 7 waits"], "… waits") == "pid 7 waits"
    assert common(["pid 7 waits", "pid 8 waits"], "… waits") == "… waits"

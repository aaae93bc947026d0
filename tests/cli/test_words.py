"""Numbers and ages as people say them; every symbol with its word."""

from dataclasses import replace

import pytest

from tern.cli.words import (
    APPLY_SIGNS,
    SIGNS,
    ago,
    contact_words,
    count,
    duration,
    key_first,
    one_line,
    plural,
    printable,
    silence_words,
    until_words,
)
from tern.domain.contact import Contact
from tern.domain.holds import HoldKind
from tern.domain.silence import CallKind, Silence
from tern.domain.states import ApplyState, State


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "the clock was set back"),
        (0, "under 1 s"),
        (0.4, "under 1 s"),
        (59.9, "59 s"),
        (61, "1 min 01 s"),
        (3_661, "1 h 01 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_one_call_without_an_answer_is_one() -> None:
    one = Silence("A", CallKind.DISPATCH, 1, since_s=3.0)
    assert silence_words(one) == "no answer to the last dispatch, for 3 s"
    assert silence_words(replace(one, in_a_row=2)).startswith("no answer to the last 2 dispatches, for 3 s")
    assert contact_words(Contact("A", unanswered=1)) == "no usable answer to the last call"


def test_ages_and_numbers() -> None:
    assert (ago(0.2), ago(5)) == ("now", "5 s ago")
    numbers = (0, 99_999, 100_000, 1_234_567, 2_000_000_000)
    assert [count(number) for number in numbers] == ["0", "99,999", "100 k", "1.23 M", "2 G"]
    assert (plural(1, "target"), plural(3, "target")) == ("1 target", "3 targets")


def test_nothing_moves_the_cursor() -> None:
    assert one_line("a\x1b[2J\n\tb\r") == "a [2J b"
    assert printable("  ü ✔\x1b[2J\x9b\u202e^") == "  ü ✔ [2J  ^"


def test_every_state_has_a_symbol_one_column_wide_and_a_word() -> None:
    from rich.cells import cell_len  # noqa: PLC0415

    for sign in [SIGNS[state] for state in State] + [APPLY_SIGNS[state] for state in ApplyState]:
        assert cell_len(sign.symbol) == 1
        assert sign.word


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'could not create unique index "orders_email_key". Key (email)=(x@y.z) is duplicated [23505]',
            'Key (email)=(x@y.z) is duplicated: could not create unique index "orders_email_key" [23505]',
        ),
        (
            "duplicate key value violates unique constraint. Key (a, b)=(1, 2) already exists. Ask the owner [23505]",
            "Key (a, b)=(1, 2) already exists: duplicate key value violates unique constraint Ask the owner [23505]",
        ),
        (
            'insert on table "o" violates foreign key constraint "f". Key (o)=(7) is not present in table "p" [23503]',
            'Key (o)=(7) is not present in table "p": insert on table "o" violates foreign key constraint "f" [23503]',
        ),
        ("no space left on device", "no space left on device"),
        ("Key", "Key"),
    ],
)
def test_a_line_that_may_be_cut_begins_with_the_row_that_it_is_about(said: str, told: str) -> None:
    assert key_first(said) == told


def test_what_is_only_tried_again_is_not_said_to_clear() -> None:
    assert until_words(HoldKind.BACKOFF, 12) == "next try in 12 s"
    assert until_words(HoldKind.BAKE, 12) == "clears in 12 s"

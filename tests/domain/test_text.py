"""Texts of a bounded size keep their beginning, and their end."""

from hypothesis import given
from hypothesis import strategies as st

from tern.domain.text import within


@given(st.text(), st.integers(5, 40))
def test_what_is_too_long_keeps_both_ends(words: str, limit: int) -> None:
    cut = within(words, limit)
    assert len(cut) <= limit
    if len(words) <= limit:
        assert cut == words
    else:
        head, _, tail = (words, "", "") if "…" in words else cut.partition("…")
        assert words.startswith(head)
        assert words.endswith(tail)
        assert len(cut) == limit


def test_the_key_of_a_duplicate_is_kept() -> None:
    """PostgreSQL says it last, behind whatever names and statements are quoted before it."""
    said = f'could not create unique index "{"very_" * 200}long". Key (email)=(x@y) is duplicated [23505]'
    assert within(said, 500).endswith("Key (email)=(x@y) is duplicated [23505]")
    assert within(said, 500).startswith("could not create unique index")

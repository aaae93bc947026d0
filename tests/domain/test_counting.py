"""Numbers in a sentence."""

import pytest

from tern.domain.counting import named, plural, verb


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 tries are"), (1, "1 try is"), (2, "2 tries are"), (1_000, "1,000 tries are")]
)
def test_a_word_and_its_verb_agree_with_their_number(number: int, said: str) -> None:
    assert f"{plural(number, 'try', 'tries')} {verb(number, 'is', 'are')}" == said


def test_numbered_things_are_named_together() -> None:
    assert (named("statement", [2]), named("statement", [2, 3])) == ("statement 2", "statements 2, 3")

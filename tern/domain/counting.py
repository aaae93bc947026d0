"""Numbers of things in a sentence: the one place that knows when a word takes an s. Pure."""

from collections.abc import Sequence


def plural(number: int, thing: str, things: str = "") -> str:
    """`1 deployment`, `3 deployments`; things: where the plural takes more than an s, as `2 tries`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {things or f'{thing}s'}"


def verb(number: int, one: str, several: str) -> str:
    """The form of a verb behind a number: `1 is`, `3 are`."""
    return one if number == 1 else several


def named(thing: str, numbers: Sequence[int]) -> str:
    """`statement 2`, `statements 2, 3`."""
    return f"{thing} {numbers[0]}" if len(numbers) == 1 else f"{thing}s {', '.join(map(str, numbers))}"

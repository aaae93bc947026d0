"""What is not the same in two requests under one key, told so that a person finds it (ID1)."""

from collections.abc import Iterator, Mapping, Sequence

LONGEST = 80
MOST_NAMED = 5


def differences(before: object, now: object, name: str = "") -> Iterator[str]:
    """One line for each value that differs, named by its path; nothing for equal ones. Both are as JSON has them."""
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*now, *before]):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif _are_names(before) and _are_names(now):
        yield f"{name}: {_of_names(before, now)}"
    else:
        yield f"{name}: {_short(before)} before, {_short(now)} now"


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _of_names(before: object, now: object) -> str:
    assert isinstance(before, list)  # noqa: S101 - as looked at by the caller
    assert isinstance(now, list)  # noqa: S101
    gone, come = set(before) - set(now), set(now) - set(before)
    words = [
        f"{what} {_listed([each for each in names if each in changed])}"
        for what, names, changed in (("no more", before, gone), ("new are", now, come))
        if changed
    ]
    return ", ".join(words) or "in another order"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _short(value: object) -> str:
    words = repr(value)
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"

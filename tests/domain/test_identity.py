"""Ids: how they are written, where a remote id lives, and which key a dispatch carries (G1, G2, G4, G5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern.domain.errors import ScopeRefused
from tern.domain.identity import (
    DEPLOYMENT_NAME,
    ApplyId,
    RemoteIdentity,
    RemoteIdHome,
    ScopeName,
    dispatch_key,
    home_of_remote_id,
)

APPLY = ApplyId("apl-0123456789abcdef")
NAMES = st.from_regex(DEPLOYMENT_NAME, fullmatch=True)


@given(st.integers(min_value=2, max_value=10_000))
def test_the_count_decides_where_an_id_lives(count: int) -> None:
    """G1: one operation keeps it at the parent, more than one each its own; a name plays no part."""
    assert home_of_remote_id(1) is RemoteIdHome.APPLY
    assert home_of_remote_id(count) is RemoteIdHome.OPERATION


@pytest.mark.parametrize(
    ("count", "external", "context", "found"),
    [
        (1, None, None, None),
        (1, "R1", None, "R1"),
        (2, None, None, None),
        (2, None, "R1", "R1"),
        (1, "", None, None),
        (2, None, "", None),
    ],
)
def test_the_id_is_read_from_its_home(
    count: int, external: str | None, context: str | None, found: str | None
) -> None:
    """G1, G2: and an empty one is none."""
    assert RemoteIdentity(count, external, context).remote_id == found


@pytest.mark.parametrize(
    ("count", "external", "context"),
    [
        (1, None, "R1"),
        (1, "R1", "R1"),
        (2, "R1", None),
        (2, "R1", "R2"),
        (2, "", "R1"),
        (0, None, None),
        (-1, None, None),
    ],
)
def test_an_id_in_the_wrong_place_is_refused(count: int, external: str | None, context: str | None) -> None:
    """G1, G2: using it could address a sibling."""
    with pytest.raises(ScopeRefused) as refusal:
        RemoteIdentity(count, external, context)
    assert refusal.value.reason == "REMOTE_ID_MISPLACED"


@given(NAMES)
def test_a_scope_is_read_as_it_is_written(deployment: str) -> None:
    name = ScopeName(APPLY, deployment)
    assert ScopeName.parse(str(name)) == name


@given(st.text(max_size=40))
def test_anything_else_is_no_scope(text: str) -> None:
    """G7: what parses is written exactly like that; all else is refused."""
    try:
        name = ScopeName.parse(text)
    except ScopeRefused:
        return
    assert str(name) == text
    assert name.deployment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "apl-1",
        "apl-1/",
        "/A",
        "apl-/A",
        "APL-1/A",
        "apl-1/A/B",
        "apl-1/A ",
        "apl-1/A\n",
        "apl-1/-A",
        "x1/A",
    ],
)
def test_words_that_are_no_scope(text: str) -> None:
    with pytest.raises(ScopeRefused) as refusal:
        ScopeName.parse(text)
    assert refusal.value.reason == "SCOPE_MALFORMED"


def test_a_key_never_changes() -> None:
    """G4: an upgrade of Tern must compute the same key for a dispatch that is under way."""
    name = ScopeName(APPLY, "us-east")
    assert dispatch_key(name, 1) == "tern-21816804263f28339df8d75535cec3b601f35c33"
    assert dispatch_key(name, 2) == "tern-243b6ce983d02d5a76ca332c16c7c97cd3140b09"


@given(st.lists(st.tuples(NAMES, st.integers(1, 50)), unique=True, max_size=20))
def test_no_two_dispatches_share_a_key(dispatches: list[tuple[str, int]]) -> None:
    """G4, S1: the key is a function of apply, deployment and generation, and of all three."""
    keys = [dispatch_key(ScopeName(APPLY, deployment), generation) for deployment, generation in dispatches]
    assert len(set(keys)) == len(keys)
    others = {dispatch_key(ScopeName(ApplyId("apl-f"), name), generation) for name, generation in dispatches}
    assert not others & set(keys)

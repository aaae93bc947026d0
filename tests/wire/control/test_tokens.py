"""Bearer tokens: who calls, what they may do, and that nothing is let in where nobody can tell."""

import hashlib
import os
from pathlib import Path

import pytest

from tern.domain.errors import Misconfigured, NotAllowed
from tern.wire.control.tokens import Capability, TokenGate

TOKEN = "correct-horse-battery"


def gate(path: Path, *lines: str) -> TokenGate:
    path.write_text("\n".join(lines) + "\n")
    return TokenGate(f"file:{path}")


def test_a_token_is_known_plain_or_by_its_hash(tmp_path: Path) -> None:
    hashed = hashlib.sha256(b"another-secret-of-some-length").hexdigest()
    known = gate(tmp_path / "t", "# who", "", f"ci@shop act {TOKEN}", f"grafana  read  sha256:{hashed}")
    caller = known.caller(f"Bearer {TOKEN}")
    assert (caller.name, caller.capability) == ("ci@shop", Capability.ACT)
    assert known.caller("bearer another-secret-of-some-length").name == "grafana"
    with pytest.raises(NotAllowed, match="may read and not act"):
        known.caller("Bearer another-secret-of-some-length").check(Capability.ACT)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        "Bearer \ud800",
        "Bearer \x00",
        f"Bearer sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
        "Bearer " + "x" * 1_000_000,
    ],
)
def test_anything_else_is_a_stranger(header: str, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed) as refusal:
        gate(tmp_path / "t", f"ci act {TOKEN}").caller(header)
    assert refusal.value.reason == "UNAUTHENTICATED"
    assert TOKEN not in str(refusal.value)


def test_a_token_that_is_withdrawn_opens_nothing_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "t"
    known = gate(path, f"ci act {TOKEN}", "ops act the-token-of-somebody-else")
    assert known.caller(f"Bearer {TOKEN}").name == "ci"
    path.write_text("ops act the-token-of-somebody-else\n")
    os.utime(path, ns=(1, 1))
    with pytest.raises(NotAllowed):
        known.caller(f"Bearer {TOKEN}")
    assert known.caller("Bearer the-token-of-somebody-else").name == "ops"


@pytest.mark.parametrize("differs", ["when it was written", "how long it is", "which file it is"])
def test_a_withdrawal_is_seen_by_whatever_differs(differs: str, tmp_path: Path) -> None:
    """A token replaced by another of its length, a clock that stood still, a file put in the other's place."""
    path = tmp_path / "t"
    known = gate(path, f"ci act {TOKEN}")
    os.utime(path, ns=(1, 1))
    assert known.caller(f"Bearer {TOKEN}").name == "ci"
    fresh = TOKEN[::-1] + ("-longer" if differs == "how long it is" else "")
    place = tmp_path / "new" if differs == "which file it is" else path
    place.write_text(f"ci act {fresh}\n")
    seconds = 2 if differs == "when it was written" else 1
    os.utime(place, ns=(seconds, seconds))
    place.replace(path)
    with pytest.raises(NotAllowed):
        known.caller(f"Bearer {TOKEN}")
    assert known.caller(f"Bearer {fresh}").name == "ci"


def test_nobody_is_let_in_while_the_tokens_can_t_be_read(tmp_path: Path) -> None:
    """Also whoever was known before: a token may have been withdrawn in what can't be read."""
    path = tmp_path / "t"
    known = gate(path, f"ci act {TOKEN}")
    path.unlink()
    with pytest.raises(Misconfigured) as trouble:
        known.caller(f"Bearer {TOKEN}")
    assert trouble.value.reason == "TOKENS_UNREADABLE"
    gate(path, f"ci act {TOKEN}")
    assert known.caller(f"Bearer {TOKEN}").name == "ci"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ci act",
        f"ci write {TOKEN}",
        f"ci act {TOKEN} more",
        f"c\x07i act {TOKEN}",
        "ci act short",
        "ci act sha256:abc",
        f"ci act {TOKEN}ä",
        f"ci act {TOKEN}\nother read {TOKEN}",
    ],
)
def test_tokens_that_can_t_be_used_open_no_door_and_are_not_quoted(line: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as trouble:
        gate(tmp_path / "t", line)
    assert trouble.value.reason == "TOKENS_UNREADABLE"
    assert TOKEN not in str(trouble.value)


@pytest.mark.parametrize(
    "reference", ["", "hunter2", "env:", "file:relative", "file:/not/there", "env:NOT_SET"]
)
def test_a_reference_that_names_nothing_opens_no_door(reference: str) -> None:
    with pytest.raises(Misconfigured):
        TokenGate(reference)

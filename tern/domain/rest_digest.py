"""Which group of a rest a digest names, and by name what has changed since it was shown. Pure."""

from collections.abc import Sequence
from typing import Final

from tern.domain.errors import Refused
from tern.domain.rest import PARTS, Group, Rest

MOST_NAMED: Final = 20


def group_of(rest: Rest, digest: str, again: str) -> Group:
    """The one that a person was shown; raises Refused with the name of what is another one now. again: the command that
    shows it anew.
    """
    for group in rest.groups:
        if group.digest == digest:
            return group
    what = "this is not what was shown under that digest"
    said = digest.split("-")
    near = max(rest.groups, key=lambda group: _alike(group.digest, said), default=None)
    why: list[str] = []
    if len(said) != len(PARTS) or near is None or not _alike(near.digest, said):
        why.append("it is the digest of no group of these deployments; it may be mistyped")
    else:
        parts = zip(PARTS, near.digest.split("-"), said, strict=True)
        changed = [name for name, now, before in parts if now != before]
        why += [_changed(name, near) for name in changed]
        why += _perhaps_mistyped(changed, rest.groups, said)
    why += [f"{each.deployment}: {each.why}" for each in rest.left_out[:MOST_NAMED]]
    raise Refused(
        what,
        why=tuple(why),
        unchanged="Nothing was sent and nothing was written.",
        next_step=f"Look again: {again}",
        reason="REST_DIFFERS",
    )


def sent_before(apply_id: str, caller: str, reason: str) -> Refused:
    """A digest stands for one follow-up, and that is there."""
    return Refused(
        f"this digest was sent already, by {caller}, as {apply_id}",
        why=(f"{caller} said why: {reason}",),
        unchanged="Nothing was sent and nothing was written.",
        next_step=f"See how far it is: tern get {apply_id}",
        reason="REST_SENT",
    )


def _perhaps_mistyped(changed: Sequence[str], groups: Sequence[Group], said: Sequence[str]) -> list[str]:
    """What a group was before it changed nobody keeps; so a part that no group has may be a wrong letter as well."""
    own = {name: {group.digest.split("-")[place] for group in groups} for place, name in enumerate(PARTS)}
    strange = [
        before
        for name, before in zip(PARTS, said, strict=True)
        if name in changed and before not in own[name]
    ]
    return [f"or it is mistyped: no group has {' or '.join(strange)} in its digest"] if strange else []


def _changed(part: str, group: Group) -> str:
    named = ", ".join(f"{c.deployment} ({c.tip.name} {c.tip.state})" for c in group.chains[:MOST_NAMED])
    match part:
        case "source":
            return f"{group.source.apply_id}, or a follow-up of it, has moved on since"
        case "operations":
            return f"its operations have changed; now: {named}"
        case "statements":
            return (
                f"what is known of its statements has changed; left now: {', '.join(map(str, group.numbers))}"
            )
        case "targets":
            now = ", ".join(f"{each.deployment} at {each.address}" for each in group.targets[:MOST_NAMED])
            return f"its targets have changed; now: {now}"
        case "plan":
            return f"other statements are left; now: {', '.join(map(str, group.numbers))}"
        case "policy":
            return "its policy is another one"
        case _:
            return f"the consent is another one; needed now: {'; '.join(group.consent) or 'none'}"


def _alike(digest: str, said: Sequence[str]) -> int:
    """How much is the same: of the operations, the targets and the plan, by which a group is recognised."""
    if len(said) != len(PARTS):
        return 0
    mine = digest.split("-")
    return sum(
        2 if name == "targets" else 1
        for name, now, before in zip(PARTS, mine, said, strict=True)
        if now == before
    )

"""What was reviewed as one digest, what may be sent as another, and every way in which a request differs. Pure.

A plan's digest covers its changes, and where the reviewer said so, its targets and its policy. An operation's digest
covers what its engine will be sent; it is computed again over the very message, at the last moment before the call.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from tern.domain.errors import Refused
from tern.domain.model import Deployment, Plan, PlannedChange, ReviewedTarget
from tern.domain.policy import Policy

SHORTEST_DIGEST = 12
"""Characters that a digest may be shortened to where a person types it."""


def plan_digest(
    database_type: str,
    changes: Sequence[PlannedChange],
    targets: Sequence[ReviewedTarget] = (),
    policy: Mapping[str, object] | None = None,
) -> str:
    """What was reviewed: type, every change in order, every target in order, and the policy as it was written."""
    body = {
        "type": database_type,
        "changes": [[each.namespace, each.table_name, each.ddl, each.action.value] for each in changes],
        "targets": [[each.deployment, each.address, each.target] for each in targets],
        "policy": policy,
    }
    return _digest(body)


def changes_digest(changes: Iterable[tuple[str, str, str, str]]) -> str:
    """The changes that go to every target alike: namespace, table, DDL and action of each."""
    return _digest([list(change) for change in changes])


def operation_digest(
    *,
    environment: str,
    database: str,
    database_type: str,
    target: str,
    options: Mapping[str, str],
    changes: str,
) -> str:
    """What one engine may be sent. changes: their digest, computed once for a rollout to ten thousand targets."""
    return _digest([environment, database, database_type, target, sorted(options.items()), changes])


def sent_options(policy: Policy, *, allow_unsafe: bool) -> Mapping[str, str]:
    """The options of an Apply, in the words of the public contract."""
    options = {"defer_cutover": _flag(policy.defers_cutover), "allow_unsafe": _flag(allow_unsafe)}
    # Only where it is asked for: an engine without revert windows may refuse the very word.
    return {**options, "enable_revert": _flag(value=True)} if policy.enable_revert else options


def check_reviewed(plan: Plan, targets: Sequence[Deployment], policy: Policy, digest: str = "") -> None:
    """Raises Refused with every difference between what was reviewed and what is asked for now.

    digest: what the asker was told that the plan is; empty where they don't say.
    """
    why = list(strays(plan, targets, policy))
    if digest and not (len(digest) >= SHORTEST_DIGEST and plan.digest.startswith(digest.lower())):
        why.insert(0, f"the digest of {plan.plan_id} is {plan.digest}, not {digest}")
    if why:
        what = f"this is not what was reviewed as {plan.plan_id}"
        step = "Roll out what was reviewed, or have the other reviewed: `tern plan` keeps it under an id of its own."
        raise Refused(what, why=tuple(why), next_step=step, reason="PLAN_DIFFERS")


def strays(plan: Plan, targets: Sequence[Deployment], policy: Policy) -> tuple[str, ...]:
    """In words; a plan for which nobody chose targets or policy bears any."""
    why: list[str] = []
    if plan_digest(plan.database_type, plan.changes, plan.targets, plan.policy) != plan.digest:
        why.append("the plan's own content is not what its digest says")
    if plan.targets:
        why += _other_targets(plan.targets, targets)
    if plan.policy is not None:
        asked = policy.as_json()
        reviewed = Policy.from_json(plan.policy).as_json()
        why += [
            f"policy {name}: {asked[name]!r} asked for, {reviewed[name]!r} reviewed"
            for name in reviewed
            if asked[name] != reviewed[name]
        ]
    return tuple(why)


def _other_targets(reviewed: Sequence[ReviewedTarget], asked: Sequence[Deployment]) -> list[str]:
    before = {each.deployment: each for each in reviewed}
    now = {each.name: each for each in asked}
    why = [f"{name} was not reviewed" for name in now if name not in before]
    why += [f"{name} was reviewed and is left out" for name in before if name not in now]
    if not why and list(before) != list(now):
        why.append(f"the order is {', '.join(now)}; reviewed was {', '.join(before)}")
    for name in before.keys() & now.keys():
        for field, was, found in (
            ("engine", before[name].address, now[name].address),
            ("target", before[name].target, now[name].target),
        ):
            if was != found:
                why.append(f"the {field} of {name} is {found}; reviewed was {was}")
    return why


def _flag(value: bool) -> str:  # noqa: FBT001 - it translates a bool
    return "true" if value else "false"


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

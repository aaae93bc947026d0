"""`tern plan`: what a change would do, asked from every target. It keeps the reviewed change, and changes nothing."""

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.choosing import change_options, read_change, read_choice, target_options
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.policy import policy_options, said_policy
from tern.cli.words import count, duration, one_line, plural
from tern.domain.drift import Foretold, Look, compared, warnings
from tern.domain.enqueue import NewChange
from tern.domain.model import Deployment, Plan, ReviewedTarget
from tern.domain.outstanding import told_before
from tern.probing import TargetPreview, preview

REFUSED = 5
DIGEST_SHOWN = 16
MOST_TARGETS = 20


@click.command()
@change_options
@target_options
@policy_options
@json_option
def plan(
    ddl_file: Any,
    changes_file: Any,
    *,
    environment: str,
    database: str,
    names: str,
    labels: Sequence[str],
    everywhere: bool,
    excepted: Sequence[str],
    as_json: bool,
    **options: Any,
) -> int:
    """Keep a reviewed change under an id, and ask each chosen target what it would do there.

    The plan holds the change, and the targets and the policy where they are chosen: `tern apply --plan` then rolls
    out exactly this. Nothing is changed at any target. Ends with 5 if a target refuses the change.
    """
    policy = said_policy(options)
    change = NewChange(environment, database, *read_change(ddl_file, changes_file))
    choice = read_choice(names, labels, excepted, everywhere=everywhere)
    ports = reach.ports()
    targets: tuple[Deployment, ...] = ()
    if choice.is_made:
        targets = choice.choose(ports.store.load_deployments(), environment, database)
    kept = ports.store.save_plan(
        environment=environment,
        database=database,
        database_type=change.database_type,
        changes=change.changes,
        caller=reach.caller(),
        targets=[ReviewedTarget(each.name, each.address, each.target) for each in targets],
        policy=policy,
    )
    previews = preview(ports.engines, targets, kept.changes)
    before = ports.store.reviewed_previews(kept.plan_id, [each.name for each in targets])
    foretold = compared([found.foretold() for found in previews], before)
    ports.store.record_previews(kept.plan_id, foretold, reach.caller())
    waits = told_before(ports.store.outstanding_before([each.name for each in targets]))
    if as_json:
        told = [*_warnings(kept, foretold), *waits]
        write_document("plan", _json(kept, previews, foretold), warnings=told)
    else:
        lines = _picture(kept, previews, foretold)
        show([*lines, *(Text(f"  ! {words}", "yellow") for words in waits)], wraps=True)
    return REFUSED if any(found.look is Look.REFUSED for found in foretold) else 0


def _warnings(kept: Plan, foretold: Sequence[Foretold]) -> list[str]:
    unsafe = [f"{change.table_name}: {change.unsafe_reason}" for change in kept.changes if change.is_unsafe]
    return [*unsafe, *warnings(foretold)]


def _json(kept: Plan, previews: Sequence[TargetPreview], foretold: Sequence[Foretold]) -> dict[str, object]:
    return {
        "plan_id": kept.plan_id,
        "environment": kept.environment,
        "database": kept.database,
        "database_type": kept.database_type,
        "digest": kept.digest,
        "changes": [
            {
                "namespace": change.namespace,
                "table": change.table_name,
                "ddl": change.ddl,
                "action": change.action.value,
                "unsafe_reason": change.unsafe_reason or None,
            }
            for change in kept.changes
        ],
        "policy": None if kept.policy is None else dict(kept.policy),
        "targets": [
            {
                **found.as_json(),
                "address": target.address,
                "target": target.target,
                "outcome": told.look.value,
                "drift": list(told.drift),
            }
            for found, told, target in zip(previews, foretold, kept.targets, strict=True)
        ],
    }


def _picture(kept: Plan, previews: Sequence[TargetPreview], foretold: Sequence[Foretold]) -> list[Text]:
    lines = [
        Text.assemble(
            (kept.plan_id, "bold"), f"  {kept.database} in {kept.environment}, ", kept.database_type
        ),
        Text(f"  digest {kept.digest}", "dim"),
    ]
    for number, change in enumerate(kept.changes, 1):
        lines.append(Text(f"  {number}. {one_line(change.ddl)}"))
        if change.unsafe_reason:
            lines.append(Text(f"     ! unsafe: {change.unsafe_reason}", "yellow"))
    if previews:
        lines.append(Text())
    for found, told in list(zip(previews, foretold, strict=True))[:MOST_TARGETS]:
        lines += _target(found)
        lines += [Text(f"      ! drift: {one_line(words)}", "yellow") for words in told.drift]
    if len(previews) > MOST_TARGETS:
        refused = sum(bool(found.refusals) for found in previews[MOST_TARGETS:])
        lines.append(
            Text(f"  … {len(previews) - MOST_TARGETS} more targets, {refused} of them refuse", "dim")
        )
    lines.append(Text())
    refusing = [found.deployment for found in previews if found.refusals]
    if refusing:
        lines.append(
            Text(
                f"  {plural(len(refusing), 'target')} would refuse this change; it can't be applied there.",
                "red",
            )
        )
        return lines
    consent = " --allow-unsafe" if any(change.is_unsafe for change in kept.changes) else ""
    where = "" if kept.targets else " --deployments …"
    digest = f" --digest {kept.digest[:DIGEST_SHOWN]}"
    lines.append(Text(f"  tern apply --plan {kept.plan_id}{digest}{where}{consent} --reason '…'", "bold"))
    held = [
        word for word, is_held in (("targets", kept.targets), ("policy", kept.policy is not None)) if is_held
    ]
    exactly = f", with exactly these {' and this '.join(held)}" if held else ""
    lines.append(Text(f"  rolls out exactly this change{exactly}", "dim"))
    return lines


def _target(found: TargetPreview) -> list[Text]:
    if found.refusals:
        first = Text(f"  ✖ {found.deployment}  refused", "red")
        return [first, *(Text(f"      {one_line(why)}") for why in found.refusals)]
    if found.trouble:
        return [
            Text(f"  ? {found.deployment}  no answer", "yellow"),
            Text(f"      {one_line(found.trouble)}"),
        ]
    if not found.is_offered:
        return [Text(f"  ◷ {found.deployment}  not previewed: its engine offers no preview", "dim")]
    lines = [Text(f"  ✔ {found.deployment}", "green")]
    for number, change in enumerate(found.changes, 1):
        words = [change.change_class.replace("_", " ").lower(), change.recipe]
        if change.estimated_rows:
            words.append(f"about {count(change.estimated_rows)} rows")
        if change.estimated_s >= 1:
            words.append(f"about {duration(change.estimated_s)}")
        lines.append(Text(f"      {number}. {', '.join(word for word in words if word)}", "dim"))
        lines += [Text(f"         {lock}", "dim") for lock in change.locks]
        if change.unsafe_reason:
            lines.append(Text(f"         ! unsafe: {one_line(change.unsafe_reason)}", "yellow"))
    return lines

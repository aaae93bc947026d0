"""`tern plan`: what a change would do, asked from every target. It keeps the reviewed change, and changes nothing."""

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.choosing import change_options, read_change, read_choice, target_options
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import count, duration, one_line, plural
from tern.domain.enqueue import NewChange
from tern.domain.model import Deployment, Plan
from tern.probing import TargetPreview, preview

REFUSED = 5
MOST_TARGETS = 20


@click.command()
@change_options
@target_options
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
) -> int:
    """Keep a reviewed change under an id, and ask each chosen target what it would do there.

    Nothing is changed at any target. Ends with 5 if a target refuses the change.
    """
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
    )
    previews = preview(ports.engines, targets, kept.changes)
    if as_json:
        write_document("plan", _json(kept, previews), warnings=_warnings(kept, previews))
    else:
        show(_picture(kept, previews), wraps=True)
    return REFUSED if any(found.refusals for found in previews) else 0


def _warnings(kept: Plan, previews: Sequence[TargetPreview]) -> list[str]:
    unsafe = [f"{change.table_name}: {change.unsafe_reason}" for change in kept.changes if change.is_unsafe]
    return unsafe + [f"{found.deployment} was not previewed" for found in previews if not found.changes]


def _json(kept: Plan, previews: Sequence[TargetPreview]) -> dict[str, object]:
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
        "targets": [found.as_json() for found in previews],
    }


def _picture(kept: Plan, previews: Sequence[TargetPreview]) -> list[Text]:
    lines = [
        Text.assemble(
            (kept.plan_id, "bold"), f"  {kept.database} in {kept.environment}, ", kept.database_type
        )
    ]
    for number, change in enumerate(kept.changes, 1):
        lines.append(Text(f"  {number}. {one_line(change.ddl)}"))
        if change.unsafe_reason:
            lines.append(Text(f"     ! unsafe: {change.unsafe_reason}", "yellow"))
    if previews:
        lines.append(Text())
    for found in previews[:MOST_TARGETS]:
        lines += _target(found)
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
    where = ",".join(found.deployment for found in previews[:3]) if 0 < len(previews) <= 3 else "…"  # noqa: PLR2004
    command = f"tern apply --plan {kept.plan_id} --deployments {where}{consent} --reason '…'"
    lines.append(Text(f"  {command}", "bold"))
    lines.append(Text("  rolls it out, one deployment after the other", "dim"))
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

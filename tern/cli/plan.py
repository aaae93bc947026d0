"""`tern plan`: what a change would do, asked from every target. It keeps the reviewed change, and changes nothing.

`tern plan show` and `tern plan ls`, which look at what was kept, are in plan_show.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.core import ParameterSource
from rich.text import Text

from tern.cli import reach
from tern.cli.choosing import change_options, read_change, read_choice, target_options
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.plan_picture import change_lines, command_lines, refusal_lines, target_lines
from tern.cli.plan_show import changes_json, list_plans, show_plan
from tern.cli.policy import policy_options, said_policy
from tern.cli.words import plural
from tern.domain.drift import Foretold, Look, compared, refuse_drift, warnings
from tern.domain.enqueue import NewChange
from tern.domain.errors import Refused, UsageError
from tern.domain.model import Deployment, Plan, ReviewedTarget
from tern.domain.outstanding import told_before
from tern.domain.policy import Policy
from tern.ports import Store
from tern.probing import TargetPreview, look

REFUSED = 5


@click.group(invoke_without_command=True)
@change_options
@target_options
@policy_options
@json_option
@click.pass_context
def plan(
    context: click.Context,
    /,
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
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return 0
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
    # Asked as an apply asks, what is offered by now included: else what it would be told could not be foretold.
    previews, offers = look(ports.engines, targets, kept.changes)
    ports.store.record_probes(offers)
    before = ports.store.reviewed_previews(kept.plan_id, [each.name for each in targets])
    foretold = compared([found.foretold() for found in previews], before)
    ports.store.record_previews(kept.plan_id, foretold, reach.caller())
    waits = told_before(ports.store.outstanding_before([each.name for each in targets]))
    refusals = tuple(_refusals(ports.store, kept, foretold))
    if as_json:
        told = [
            *_warnings(kept, foretold),
            *waits,
            *(f"an apply would be refused now: {each}" for each in refusals),
        ]
        write_document("plan", _json(kept, previews, foretold, refusals), warnings=told)
    else:
        lines = [*_picture(kept, foretold, refusals), *(Text(f"  ! {words}", "yellow") for words in waits)]
        show(lines, wraps=True)
    return REFUSED if any(found.look is Look.REFUSED for found in foretold) else 0


plan.add_command(show_plan)
plan.add_command(list_plans)


def _refuse_options(context: click.Context) -> None:
    """Raises UsageError for an option before the word that looks at a plan: it would have no effect."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        what = f"{given[0]} is of `tern plan` itself, and stands before {context.invoked_subcommand}"
        raise UsageError(what, next_step=f"tern plan {context.invoked_subcommand} --help")


def _refusals(store: Store, kept: Plan, foretold: Sequence[Foretold]) -> Iterator[Refused]:
    """Each refusal that the very apply would meet as things stand, in the words that it would be given."""
    for kind in (Look.REFUSED, Look.UNREACHABLE):
        try:
            refuse_drift([each for each in foretold if each.look is kind], accepted=False)
        except Refused as refusal:
            yield refusal
    if kept.targets:
        policy = Policy() if kept.policy is None else Policy.from_json(kept.policy)
        yield from store.foresee(kept.plan_id, [each.deployment for each in kept.targets], policy)


def _warnings(kept: Plan, foretold: Sequence[Foretold]) -> list[str]:
    unsafe = [f"{change.table_name}: {change.unsafe_reason}" for change in kept.changes if change.is_unsafe]
    return [*unsafe, *warnings(foretold)]


def _json(
    kept: Plan,
    previews: Sequence[TargetPreview],
    foretold: Sequence[Foretold],
    refusals: Sequence[Refused],
) -> dict[str, object]:
    return {
        "plan_id": kept.plan_id,
        "environment": kept.environment,
        "database": kept.database,
        "database_type": kept.database_type,
        "digest": kept.digest,
        "changes": changes_json(kept),
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
        "apply_refusals": [
            {"reason": each.reason, "what": each.what, "why": list(each.why), "next": each.next_step}
            for each in refusals
        ],
    }


def _picture(kept: Plan, foretold: Sequence[Foretold], refusals: Sequence[Refused]) -> list[Text]:
    lines = list(change_lines(kept))
    if foretold:
        lines += [Text(), *target_lines(foretold)]
    lines.append(Text())
    refusing = [found.deployment for found in foretold if found.refusals]
    if refusing:
        words = f"  {plural(len(refusing), 'target')} would refuse this change; it can't be applied there."
        lines.append(Text(words, "red"))
    # What the engines refuse is told at each target above.
    told = [each for each in refusals if not refusing or each.reason != "PREVIEW_REFUSED"]
    lines += refusal_lines(told)
    if not refusing:
        lines += command_lines(kept, foretold)
    return lines

"""`tern plan show` and `tern plan ls`: what was kept, by whom, what engines said, and which applies rolled it out."""

import re
from collections.abc import Iterator

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.plan_picture import change_lines, command_lines, target_lines
from tern.cli.policy import policy_words
from tern.cli.words import APPLY_SIGNS, ago, one_line, plural
from tern.domain.drift import Foretold
from tern.domain.errors import UsageError
from tern.domain.identity import PlanId
from tern.domain.model import Plan
from tern.domain.policy import Policy
from tern.plan_facts import PlanFacts, PlanLine

_PLAN_ID = re.compile(r"pln-[0-9a-z]+")
MOST_USES = 5


@click.command(name="show")
@click.argument("plan_id", metavar="PLAN")
@json_option
def show_plan(plan_id: str, *, as_json: bool) -> None:
    """Show a kept plan again: statements, targets, what their engines said last, and the applies of it."""
    facts = reach.plans().show(read_plan_id(plan_id))
    if as_json:
        write_document("plan_kept", _json(facts), observed_at=facts.observed_at)
        return
    show(_picture(facts), wraps=True)


@click.command(name="ls")
@click.option("--environment", "-e", default="", help="Only those of this environment.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@json_option
def list_plans(*, environment: str, limit: int, as_json: bool) -> None:
    """List the newest plans, newest first."""
    found = reach.plans().newest(environment=environment, limit=limit)
    if as_json:
        write_document("plans", {"plans": [_line_json(line) for line in found]})
        return
    if not found:
        click.echo("There is no plan here. Next: tern plan --help")
        return
    show(_line(line) for line in found)


def read_plan_id(text: str) -> PlanId:
    """Raises UsageError for what is no plan's id."""
    if _PLAN_ID.fullmatch(text) is None:
        what = f"{text!r} is not a plan"
        raise UsageError(what, why=("it is written pln-…",), next_step="tern plan ls")
    return PlanId(text)


def changes_json(plan: Plan) -> list[dict[str, object]]:
    """The statements, as each document about a plan has them."""
    return [
        {
            "namespace": change.namespace,
            "table": change.table_name,
            "ddl": change.ddl,
            "action": change.action.value,
            "unsafe_reason": change.unsafe_reason or None,
        }
        for change in plan.changes
    ]


def _json(facts: PlanFacts) -> dict[str, object]:
    plan = facts.plan
    previews = {each.deployment: each for each in facts.previews}
    return {
        "plan_id": plan.plan_id,
        "environment": plan.environment,
        "database": plan.database,
        "database_type": plan.database_type,
        "digest": plan.digest,
        "caller": facts.caller,
        "created_at": facts.created_at.isoformat(),
        "age_s": round(facts.age_s, 1),
        "changes": changes_json(plan),
        "policy": None if plan.policy is None else dict(plan.policy),
        "previewed_s_ago": None if facts.previewed_s_ago is None else round(facts.previewed_s_ago, 1),
        "targets": [
            {
                "deployment": each.deployment,
                "address": each.address,
                "target": each.target,
                **_preview_json(previews.get(each.deployment)),
            }
            for each in plan.targets
        ],
        "apply_count": facts.use_count,
        "applies": [
            {
                "apply_id": each.apply_id,
                "state": each.state.value,
                "operation_count": each.operation_count,
                "caller": each.caller,
                "age_s": round(each.age_s, 1),
            }
            for each in facts.uses
        ],
    }


def _preview_json(found: Foretold | None) -> dict[str, object]:
    return {
        "outcome": None if found is None else found.look.value,
        "words": None if found is None else found.words or None,
        "drift": [] if found is None else list(found.drift),
        "changes": [] if found is None else [change.as_json() for change in found.changes],
    }


def _picture(facts: PlanFacts) -> Iterator[Text]:
    plan = facts.plan
    first, *others = change_lines(plan)
    yield first
    yield Text(f"  kept by {one_line(facts.caller)}, {ago(facts.age_s)}; a plan does not expire", "dim")
    yield from others
    if plan.policy is not None:
        yield Text(f"  policy: {', '.join(policy_words(Policy.from_json(plan.policy)))}", "dim")
    yield Text()
    if not plan.targets:
        yield Text("  for no targets in particular: an apply chooses them", "dim")
    else:
        age = facts.previewed_s_ago
        asked = (
            "no engine was asked yet" if age is None else f"as their engines said, {ago(age)} at the earliest"
        )
        yield Text(f"  for {plural(len(plan.targets), 'target')}, {asked}", "dim")
        yield from target_lines(facts.previews)
        told = {each.deployment for each in facts.previews}
        if age is not None and (
            unasked := [each.deployment for each in plan.targets if each.deployment not in told]
        ):
            yield Text(f"  ◷ not asked: {', '.join(unasked[:MOST_USES])}", "dim")
    yield Text()
    for use in facts.uses[:MOST_USES]:
        sign = APPLY_SIGNS[use.state]
        line = Text(f"  {sign.symbol} ", sign.style)
        line.append(use.apply_id, "bold")
        line.append(f"  {sign.word}", sign.style)
        line.append(
            f"  {plural(use.operation_count, 'deployment')}, by {one_line(use.caller)}, {ago(use.age_s)}",
            "dim",
        )
        yield line
    if facts.use_count > MOST_USES:
        yield Text(f"  … and {facts.use_count - MOST_USES:,} older applies of it; --json has more", "dim")
    if not facts.uses:
        yield Text("  No apply has rolled it out yet.", "dim")
        yield from command_lines(plan, facts.previews)


def _line_json(line: PlanLine) -> dict[str, object]:
    return {
        "plan_id": line.plan_id,
        "environment": line.environment,
        "database": line.database,
        "caller": line.caller,
        "created_at": line.created_at.isoformat(),
        "age_s": round(line.age_s, 1),
        "first_ddl": line.first_ddl,
        "change_count": line.change_count,
        "target_count": line.target_count,
        "apply_count": line.use_count,
    }


def _line(line: PlanLine) -> Text:
    text = Text.assemble((line.plan_id, "bold"), f"  {line.database} in {line.environment}")
    used = plural(line.use_count, "apply").replace("applys", "applies") if line.use_count else "not applied"
    text.append(f"  {used}, {ago(line.age_s)}  ", "dim")
    more = f" (and {line.change_count - 1} more)" if line.change_count > 1 else ""
    text.append(one_line(line.first_ddl) + more)
    return text

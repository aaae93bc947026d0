"""`tern apply`: takes a rollout in. Accepted means written down; the driving is the workers' part."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.choosing import (
    Choice,
    change_options,
    choose,
    read_change,
    refuse_unsafe,
    require_place,
    shortened,
    target_options,
)
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import one_line, plural
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import PlanId
from tern.domain.model import Deployment, Plan, PlannedChange
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.ports import AcceptedApply, NewApply, Ports
from tern.probing import TargetPreview, preview
from tern.store.store import PostgresStore

MOST_NAMED = 8


@click.command()
@click.option("--plan", "plan_id", default="", metavar="ID", help="A change that `tern plan` kept.")
@change_options
@target_options
@click.option(
    "--copy",
    "copy",
    type=click.Choice(["rolling", "barrier", "parallel"]),
    default="rolling",
    show_default=True,
    help="The order: one after the other, or at the same time; `barrier` is not built yet.",
)
@click.option(
    "--cutover",
    type=click.Choice([each.value for each in Cutover]),
    default="auto",
    show_default=True,
    help="Whether a person says when the application gets to see the change.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["halt", "continue", "pause"]),
    default="halt",
    show_default=True,
    help="What a failure too many does to deployments that have not started; `pause` is not built yet.",
)
@click.option("--max-parallel", type=click.IntRange(min=1), help="At most so many at once.")
@click.option(
    "--max-failures", type=click.IntRange(min=0), default=0, show_default=True, help="So many are borne."
)
@click.option("--allow-unsafe", is_flag=True, help="Agree to what the change loses.")
@click.option(
    "--no-preview", is_flag=True, help="Don't ask the engines first; each decides when its turn comes."
)
@click.option(
    "--key", default="", help="Idempotency key: the same key and request is the same apply, for ever."
)
@click.option("--reason", required=True, help="Why; it stands in the record.")
@click.option("--watch", "watches", is_flag=True, help="Follow it until it settles or needs you.")
@json_option
def apply(
    plan_id: str,
    *,
    ddl_file: Any,
    changes_file: Any,
    environment: str,
    database: str,
    names: str,
    labels: Sequence[str],
    everywhere: bool,
    excepted: Sequence[str],
    copy: str,
    cutover: str,
    on_failure: str,
    max_parallel: int | None,
    max_failures: int,
    allow_unsafe: bool,
    no_preview: bool,
    key: str,
    reason: str,
    watches: bool,
    as_json: bool,
) -> int:
    """Roll a change out to the chosen deployments.

    Prints the apply's id as soon as it is written down; `tern watch` follows it. With --watch the exit code is the
    outcome's.
    """
    policy = _policy(copy, cutover, on_failure, max_parallel, max_failures)
    choice = Choice.read(names, labels, excepted, everywhere=everywhere)
    if not reason.strip():
        what = "a rollout needs a reason"
        raise UsageError(what, next_step="Say why with --reason.")
    if watches and as_json:
        what = "--watch draws and --json writes one document"
        raise UsageError(what, next_step="Take the apply_id from --json and run `tern wait`.")
    if plan_id and (ddl_file or changes_file):
        what = "one change is given: --plan ID or --ddl FILE or --changes FILE"
        raise UsageError(what)
    draft = None if plan_id else _draft(ddl_file, changes_file, environment, database)
    if draft and not allow_unsafe:
        refuse_unsafe(draft.changes)
    ports = reach.ports(ringing=True)
    assert isinstance(ports.store, PostgresStore)  # noqa: S101 - wiring has no other
    draft = draft or _kept(ports.store.load_plan(PlanId(plan_id)), environment, database)
    # A repeated request is answered with its apply, even where the change is in place by now.
    is_repeated = bool(key) and reach.reading().knows_key(key)
    targets = choose(ports.store, choice, draft.environment, draft.database, is_repeated=is_repeated)
    if not is_repeated:
        _review(ports, targets, draft.changes, asked=not no_preview, allow_unsafe=allow_unsafe)
    plan = ports.store.save_plan(**draft.as_arguments(), caller=reach.caller())
    from tern.flows.accept import accept_apply  # noqa: PLC0415

    new = NewApply(
        plan_id=plan.plan_id,
        environment=plan.environment,
        deployments=tuple(each.name for each in targets),
        policy=policy,
        caller=reach.caller(),
        reason=reason,
        idempotency_key=key or secrets.token_hex(16),
        allow_unsafe=allow_unsafe,
    )
    accepted = accept_apply(new, ports)
    if as_json:
        write_document("apply_accepted", _json(accepted, new, plan))
        return 0
    show(_picture(accepted, new))
    if not watches:
        return 0
    from tern.cli.watch import follow  # noqa: PLC0415

    return follow(accepted.apply_id)


def _policy(copy: str, cutover: str, on_failure: str, max_parallel: int | None, max_failures: int) -> Policy:
    for option, value in (
        ("--copy barrier", copy == "barrier"),
        ("--on-failure pause", on_failure == "pause"),
    ):
        if value:
            what = f"{option} is not built yet"
            raise Refused(
                what,
                next_step=f"Choose another: tern apply --help shows {option.split()[0]}.",
                reason="NOT_BUILT",
            )
    if max_parallel is not None and copy == "rolling":
        what = "--max-parallel is for --copy parallel; rolling is one after the other"
        raise UsageError(what)
    return Policy(Copy(copy), OnFailure(on_failure), Cutover(cutover), max_parallel, max_failures)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A change that is not kept yet, or that is kept and will be found again by its content."""

    environment: str
    database: str
    database_type: str
    changes: tuple[PlannedChange, ...]

    def as_arguments(self) -> dict[str, Any]:
        """For ApplyStore.save_plan."""
        return {
            "environment": self.environment,
            "database": self.database,
            "database_type": self.database_type,
            "changes": self.changes,
        }


def _draft(ddl_file: Any, changes_file: Any, environment: str, database: str) -> _Draft:
    require_place(environment, database)
    database_type, changes = read_change(ddl_file, changes_file)
    return _Draft(environment, database, database_type, changes)


def _kept(plan: Plan, environment: str, database: str) -> _Draft:
    """A plan's content; raises Refused where the command says that it is for another place."""
    why = [
        f"the plan is for {name} {its}, not {asked}"
        for name, its, asked in (
            ("environment", plan.environment, environment),
            ("database", plan.database, database),
        )
        if asked and asked != its
    ]
    if why:
        what = f"{plan.plan_id} is for another place"
        raise Refused(what, why=tuple(why), reason="PLAN_MISMATCH")
    return _Draft(plan.environment, plan.database, plan.database_type, plan.changes)


def _review(
    ports: Ports,
    targets: Sequence[Deployment],
    changes: Sequence[PlannedChange],
    *,
    asked: bool,
    allow_unsafe: bool,
) -> None:
    """The last look before anything is written; raises Refused with every target's reasons."""
    previews: tuple[TargetPreview, ...] = preview(ports.engines, targets, changes) if asked else ()
    why = [f"{found.deployment}: {one_line(reason)}" for found in previews for reason in found.refusals]
    if why:
        what = "targets refuse the change"
        raise Refused(what, why=shortened(why), reason="PREVIEW_REFUSED")
    silent = [f"{found.deployment}: {one_line(found.trouble)}" for found in previews if found.trouble]
    if silent:
        what = f"{plural(len(silent), 'engine')} could not be asked about the change"
        step = "Choose without them, or add --no-preview: each engine then decides when its turn comes."
        raise Refused(what, why=shortened(silent), next_step=step, reason="ENGINE_UNREACHABLE")
    if not allow_unsafe:
        refuse_unsafe(changes, previews)


def _json(accepted: AcceptedApply, new: NewApply, plan: Plan) -> dict[str, object]:
    return {
        "apply_id": accepted.apply_id,
        "is_new": accepted.is_new,
        "plan_id": plan.plan_id,
        "environment": plan.environment,
        "database": plan.database,
        "deployments": list(new.deployments),
        "operation_count": len(new.deployments),
        "policy": new.policy.as_json(),
        "idempotency_key": new.idempotency_key,
        "caller": new.caller,
        "reason": new.reason,
    }


def _picture(accepted: AcceptedApply, new: NewApply) -> list[Text]:
    word = "accepted" if accepted.is_new else "accepted before, under the same key"
    named = list(new.deployments[:MOST_NAMED])
    if len(new.deployments) > MOST_NAMED:
        named.append(f"{len(new.deployments) - MOST_NAMED} more")
    arrow = " → " if new.policy.copy is Copy.ROLLING else ", "
    lines = [
        Text.assemble(
            ("✔ ", "green"),
            (accepted.apply_id, "bold"),
            f"  {word}: {plural(len(new.deployments), 'deployment')}, {new.policy.copy}",
        )
    ]
    lines.append(Text("  " + arrow.join(named), "dim"))
    lines += [
        Text(),
        Text.assemble(
            ("  tern watch " + accepted.apply_id, "bold"),
            ("   follows it; Ctrl-C leaves the rollout alone", "dim"),
        ),
    ]
    return lines

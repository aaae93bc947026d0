"""`tern apply`: takes a rollout in. Accepted means written down; the driving is the workers' part."""

import secrets
from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.choosing import change_options, read_change, read_choice, target_options
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import plural
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import PlanId
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.ports import Enqueued

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
    choice = read_choice(names, labels, excepted, everywhere=everywhere)
    if watches and as_json:
        what = "--watch draws and --json writes one document"
        raise UsageError(what, next_step="Take the apply_id from --json and run `tern wait`.")
    if plan_id and (ddl_file or changes_file):
        what = "one change is given: --plan ID or --ddl FILE or --changes FILE"
        raise UsageError(what)
    kept = PlanId(plan_id)
    asked = Enqueue(
        change=kept or NewChange(environment, database, *read_change(ddl_file, changes_file)),
        choice=choice,
        caller=reach.caller(),
        reason=reason,
        key=key or secrets.token_hex(16),
        policy=policy,
        environment=environment,
        database=database,
        allow_unsafe=allow_unsafe,
        previews=not no_preview,
    )
    from tern.flows.accept import enqueue  # noqa: PLC0415

    enqueued = enqueue(asked, reach.ports(ringing=True))
    if as_json:
        write_document("apply_accepted", enqueued.as_json())
        return 0
    show(_picture(enqueued))
    if not watches:
        return 0
    from tern.cli.watch import follow  # noqa: PLC0415

    return follow(enqueued.apply_id)


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


def _picture(enqueued: Enqueued) -> list[Text]:
    word = "accepted" if enqueued.is_new else "accepted before, under the same key"
    named = list(enqueued.deployments[:MOST_NAMED])
    if len(enqueued.deployments) > MOST_NAMED:
        named.append(f"{len(enqueued.deployments) - MOST_NAMED} more")
    arrow = " → " if enqueued.policy.copy is Copy.ROLLING else ", "
    lines = [
        Text.assemble(
            ("✔ ", "green"),
            (enqueued.apply_id, "bold"),
            f"  {word}: {plural(len(enqueued.deployments), 'deployment')}, {enqueued.policy.copy}",
        )
    ]
    lines.append(Text("  " + arrow.join(named), "dim"))
    lines += [
        Text(),
        Text.assemble(
            ("  tern watch " + enqueued.apply_id, "bold"),
            ("   follows it; Ctrl-C leaves the rollout alone", "dim"),
        ),
    ]
    return lines

"""`tern apply`: takes a rollout in. Accepted means written down; the driving is the workers' part."""

import secrets
from collections.abc import Sequence
from shlex import quote
from typing import Any

import click

from tern.cli import reach
from tern.cli.accepted import accepted_picture
from tern.cli.choosing import change_options, read_change, read_choice, target_options
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.policy import policy_options, said_policy, typed_again
from tern.cli.rest import RestChoice, carry_on, read_rest
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import UsageError
from tern.domain.identity import PlanId


@click.command()
@click.option(
    "--rest-of",
    default="",
    metavar="AP[/DEPLOYMENT]",
    help="Show what is left of an apply; with --digest, carry one of the groups on.",
)
@click.option("--plan", "plan_id", default="", metavar="ID", help="A change that `tern plan` kept.")
@click.option(
    "--digest",
    default="",
    help="Of that plan, or group of a rest, as it was shown; another one is refused.",
)
@change_options
@target_options
@click.option(
    "--first",
    default="",
    metavar="A,B,…",
    help="Of -l or --all, these first; the others by position and name.",
)
@policy_options
@click.option("--allow-unsafe", is_flag=True, help="Agree to what the change loses.")
@click.option(
    "--no-preview", is_flag=True, help="Don't ask the engines first; each decides when its turn comes."
)
@click.option(
    "--accept-drift",
    is_flag=True,
    help="Begin although an engine refuses, can't be asked, would do more than was reviewed, or the last change there"
    " was left half done.",
)
@click.option(
    "--key", default=None, help="Idempotency key: the same key and request is the same apply, for ever."
)
@click.option("--reason", default="", help="Why; it stands in the record.")
@click.option("--watch", "watches", is_flag=True, help="Follow it until it settles or needs you.")
@json_option
def apply(
    rest_of: str,
    plan_id: str,
    *,
    digest: str,
    ddl_file: Any,
    changes_file: Any,
    environment: str,
    database: str,
    names: str,
    labels: Sequence[str],
    everywhere: bool,
    excepted: Sequence[str],
    first: str,
    allow_unsafe: bool,
    no_preview: bool,
    accept_drift: bool,
    key: str | None,
    reason: str,
    watches: bool,
    as_json: bool,
    **policy: Any,
) -> int:
    """Roll a change out to the chosen deployments.

    A plan that was reviewed for its targets and its policy needs neither here, and bears no others.
    Prints the apply's id as soon as it is written down; `tern watch` follows it. With --watch the exit code is the
    outcome's.

    --rest-of AP prints what is left of an apply, in groups with a digest each, and sends nothing without --digest.
    """
    if rest_of:
        if plan_id or ddl_file or changes_file or environment or database or first:
            what = "what is left of an apply is its own plan, at its own place"
            raise UsageError(what, next_step="Say --rest-of with selectors, policy and --digest alone.")
        more = [*(["--no-preview"] if no_preview else []), *(["--accept-drift"] if accept_drift else [])]
        more += [] if key is None else [f"--key {quote(key)}"]
        rest = RestChoice(rest_of, names, labels, excepted, everywhere, typed_again(policy), " ".join(more))
        asked_rest = read_rest(
            rest,
            digest=digest,
            policy=said_policy(policy),
            allow_unsafe=allow_unsafe,
            previews=not no_preview,
            accept_drift=accept_drift,
            key=key,
            reason=reason,
        )
        return carry_on(asked_rest, rest, watches=watches, as_json=as_json)
    choice = read_choice(names, labels, excepted, first, everywhere=everywhere)
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
        # An empty one is a variable that nobody set: it is refused, so that a repetition makes no second rollout.
        key=secrets.token_hex(16) if key is None else key,
        policy=said_policy(policy),
        environment=environment,
        database=database,
        allow_unsafe=allow_unsafe,
        previews=not no_preview,
        accept_drift=accept_drift,
        digest=digest,
    )
    from tern.flows.accept import enqueue  # noqa: PLC0415

    enqueued = enqueue(asked, reach.ports(ringing=True))
    if as_json:
        write_document("apply_accepted", enqueued.as_json(), warnings=enqueued.warnings)
        return 0
    show(accepted_picture(enqueued), wraps=True)
    if not watches:
        return 0
    from tern.cli.watch import follow  # noqa: PLC0415

    return follow(enqueued.apply_id)

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
from tern.cli.policy import policy_options, policy_words, said_policy, wave_words
from tern.cli.words import one_line, plural
from tern.domain.choice import shortened
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import UsageError
from tern.domain.identity import PlanId
from tern.domain.policy import Copy
from tern.ports import Enqueued

MOST_NAMED = 8


@click.command()
@click.option("--plan", "plan_id", default="", metavar="ID", help="A change that `tern plan` kept.")
@click.option(
    "--digest", default="", help="Of that plan, as its reviewer was shown it; another one is refused."
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
    help="Begin although an engine refuses, can't be asked, or would do more than was reviewed.",
)
@click.option(
    "--key", default=None, help="Idempotency key: the same key and request is the same apply, for ever."
)
@click.option("--reason", required=True, help="Why; it stands in the record.")
@click.option("--watch", "watches", is_flag=True, help="Follow it until it settles or needs you.")
@json_option
def apply(
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
    """
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
    show(_picture(enqueued), wraps=True)
    if not watches:
        return 0
    from tern.cli.watch import follow  # noqa: PLC0415

    return follow(enqueued.apply_id)


def _picture(enqueued: Enqueued) -> list[Text]:
    word = "accepted" if enqueued.is_new else "accepted before, under the same key"
    named = list(enqueued.deployments[:MOST_NAMED])
    if len(enqueued.deployments) > MOST_NAMED:
        named.append(f"{len(enqueued.deployments) - MOST_NAMED} more")
    policy = enqueued.policy
    arrow = ", " if policy.copy is Copy.PARALLEL and not policy.waves else " → "
    lines = [
        Text.assemble(
            ("✔ ", "green"),
            (enqueued.apply_id, "bold"),
            f"  {word}: {plural(len(enqueued.deployments), 'deployment')}, {', '.join(policy_words(policy))}",
        )
    ]
    lines.append(Text("  " + arrow.join(named), "dim"))
    lines += [
        Text(f"  wave {number}: {wave_words(wave)}", "dim")
        for number, wave in enumerate(policy.waves, start=1)
    ]
    lines += [Text(f"  ! {one_line(words)}", "yellow") for words in shortened(enqueued.warnings)]
    lines += [
        Text(),
        Text.assemble(
            ("  tern watch " + enqueued.apply_id, "bold"),
            ("   follows it; Ctrl-C leaves the rollout alone", "dim"),
        ),
    ]
    return lines

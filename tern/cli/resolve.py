"""`tern resolve`: a person who looked says what became of an uncertain operation."""

import click

from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.domain.errors import UsageError
from tern.domain.identity import RemoteId
from tern.domain.subject import Subject
from tern.ports import Resolved

CONSEQUENCES = {
    Resolved.NOT_STARTED: "it waits for its turn again; the old key is never used again",
    Resolved.ENDED: "it counts as failed",
    Resolved.REMOTE_ID: "it is followed by that remote id from now on",
    Resolved.REPEAT_APPLY: "the same dispatch is repeated, with the same key",
}


@click.command()
@click.argument("operation", metavar="AP/DEPLOYMENT")
@click.option(
    "--as",
    "found",
    required=True,
    metavar="not-started|ended|remote-id=R|repeat-apply",
    help="What you found at the engine.",
)
@click.option("--reason", required=True, help="How you know; it stands in the record.")
@json_option
def resolve(operation: str, *, found: str, reason: str, as_json: bool) -> None:
    """Say what became of an operation that nobody here can judge.

    Look at the engine first: `not-started` after a dispatch that did start would run the change twice.
    """
    name = Subject.read_operation(operation)
    word, _, value = found.partition("=")
    try:
        resolved = Resolved(word)
    except ValueError:
        what = f"{found!r} is no answer"
        raise UsageError(
            what, why=(f"it is one of {', '.join(Resolved)}; remote-id=R names the id",)
        ) from None
    remote_id = RemoteId(value.strip()) if value.strip() else None
    from tern.flows import accept  # noqa: PLC0415

    accept.resolve(name, resolved, remote_id, reach.caller(), reason, reach.ports(ringing=True))
    if as_json:
        write_document(
            "resolved", {"scope": str(name), "as": resolved.value, "remote_id": remote_id, "reason": reason}
        )
        return
    click.echo(f"✔ {name}: {CONSEQUENCES[resolved]}")
    click.echo(f"Next: tern watch {name.apply_id}")

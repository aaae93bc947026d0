"""`tern deployments settle`: a person's second word about what is outstanding at a target."""

from collections.abc import Sequence

import click

from tern.cli import reach
from tern.cli.envelope import json_option
from tern.cli.register import REFUSED, Line, distinct, tell
from tern.domain.errors import NotFound, Refused, UsageError
from tern.settling import SaidOfJobs, settle_outstanding


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--reason", required=True, help="How you know; it stands in the record of both applies.")
@click.option(
    "--same-job",
    default="",
    metavar="R",
    help="The job R that the engine there knows by now is that of what is outstanding: it is ended there first.",
)
@click.option(
    "--other-job", default="", metavar="R", help="The job R that the engine there knows is other work."
)
@json_option
def settle(names: Sequence[str], *, reason: str, same_job: str, other_job: str, as_json: bool) -> int:
    """Say that nothing outstanding at NAMES can act any more, so that what waits there goes.

    It is looked at once more first. Taken only once an engine answers at the target, and never against an answer that
    something is at work there.
    """
    if (same_job or other_job) and len(names) > 1:
        what = "a job is one engine's, and several deployments are named"
        raise UsageError(what, next_step="Settle one at a time.")
    if same_job and same_job == other_job:
        what = f"the job {same_job} is either that one or other work"
        raise UsageError(what)
    said = SaidOfJobs(same_job, other_job)
    ports = reach.ports()
    # A name that is not there refuses all: half of a typing mistake is not carried out.
    ports.store.load_deployments(distinct(names))
    lines = []
    for name in distinct(names):
        try:
            settled = settle_outstanding(name, reach.caller(), reason, ports, said)
            lines.append(Line(name, "settled", settled.words))
        except (Refused, NotFound) as error:
            why = "; ".join([str(error), error.next_step] if error.next_step else [str(error)])
            lines.append(Line(name, "refused", why))
    return tell("deployments_settled", lines, as_json=as_json, failure=REFUSED)

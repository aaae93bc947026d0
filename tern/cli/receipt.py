"""What a bulk command was answered, as text and as JSON: one outcome for each operation, exceptions first."""

from collections.abc import Mapping, Sequence

import click

from tern.cli.words import one_line
from tern.domain.control import Receipt, ReceiptLine
from tern.domain.ending import Ending

EXIT_CODES = (
    "Exit codes: 0 done everywhere (without --wait: accepted, or so already); 5 nowhere; 6 in some places; 15 unknown"
    " somewhere: uncertain, or its engine does not answer; 124 time over."
)
MOST_LISTED = 20

_MARKS: Mapping[Receipt, str] = {
    Receipt.ACCEPTED: "✔",
    Receipt.ALREADY: "✔",
    Receipt.REFUSED: "✖",
    Receipt.TOO_LATE: "⊘",
}


def count(lines: Sequence[ReceiptLine], outcome: Receipt) -> int:
    """How many were answered so."""
    return sum(line.outcome is outcome for line in lines)


def as_json(
    lines: Sequence[ReceiptLine], fates: Mapping[str, str], endings: Mapping[str, Ending] | None = None
) -> dict[str, object]:
    """The counts and the targets of a receipt. deployment is null where the answer is the whole apply's; ending is
    there once somebody waited for it.
    """
    return {
        **{outcome.value: count(lines, outcome) for outcome in Receipt},
        "targets": [
            {
                "deployment": line.deployment or None,
                "outcome": line.outcome.value,
                "reason": line.reason or None,
                "fate": fates.get(line.deployment),
                "ending": (endings or {}).get(line.deployment),
            }
            for line in lines
        ],
    }


def show(
    title: str,
    lines: Sequence[ReceiptLine],
    fates: Mapping[str, str],
    *,
    whole: str,
    dry_run: bool,
    expects: bool = True,
) -> None:
    """Prints the answers and, after the title, their counts. `whole` names the apply as a whole. expects: the command
    can be told how many it is to be accepted for.
    """
    conditional = "would be " if dry_run else ""
    width = max((len(line.deployment or whole) for line in lines), default=0)
    # What was not taken is what has to be read.
    ordered = sorted(lines, key=lambda line: line.outcome is Receipt.ACCEPTED)
    for line in ordered[:MOST_LISTED]:
        name, word = line.deployment or whole, line.outcome.value.replace("_", " ")
        said = conditional if line.outcome is Receipt.ACCEPTED else ""
        reason = f": {one_line(line.reason)}" if line.reason else ""
        fate = fates.get(line.deployment, "")
        click.echo(
            f"{_MARKS[line.outcome]} {name:<{width}}  {said}{word}{reason}{', ' + fate if fate else ''}"
        )
    if len(ordered) > MOST_LISTED:
        click.echo(f"… {len(ordered) - MOST_LISTED:,} more")
    counts = ", ".join(
        f"{number:,} {conditional if outcome is Receipt.ACCEPTED else ''}{outcome.value.replace('_', ' ')}"
        for outcome in Receipt
        if (number := count(lines, outcome))
    )
    click.echo(f"{title}: {counts}")
    if dry_run:
        number = count(lines, Receipt.ACCEPTED)
        exactly = f" To have it accepted for as many and for no other number: --expect {number}"
        click.echo("Nothing was written." + (exactly if expects else ""))

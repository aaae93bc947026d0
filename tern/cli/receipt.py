"""What a bulk command was answered, as text and as JSON: one outcome for each operation, exceptions first."""

from collections.abc import Mapping, Sequence

import click

from tern.cli.words import one_line
from tern.domain.control import Delivery, Receipt, ReceiptLine

REFUSED = 5
PARTLY = 6
MOST_LISTED = 20

_MARKS: Mapping[Receipt, str] = {
    Receipt.ACCEPTED: "✔",
    Receipt.ALREADY: "✔",
    Receipt.REFUSED: "✖",
    Receipt.TOO_LATE: "⊘",
}


def exit_code(lines: Sequence[ReceiptLine], *, was_selected: bool, fates: Mapping[str, str]) -> int:
    """Whether all, some or none was taken. Of a whole apply, what has finished is left alone without being asked."""
    taken = count(lines, Receipt.ACCEPTED) + count(lines, Receipt.ALREADY)
    missed = count(lines, Receipt.REFUSED) + (count(lines, Receipt.TOO_LATE) if was_selected else 0)
    if not taken:
        return REFUSED
    return PARTLY if missed or any(fate == Delivery.FAILED for fate in fates.values()) else 0


def count(lines: Sequence[ReceiptLine], outcome: Receipt) -> int:
    """How many were answered so."""
    return sum(line.outcome is outcome for line in lines)


def as_json(lines: Sequence[ReceiptLine], fates: Mapping[str, str]) -> dict[str, object]:
    """The counts and the targets of a receipt. deployment is null where the answer is the whole apply's."""
    return {
        **{outcome.value: count(lines, outcome) for outcome in Receipt},
        "targets": [
            {
                "deployment": line.deployment or None,
                "outcome": line.outcome.value,
                "reason": line.reason or None,
                "fate": fates.get(line.deployment),
            }
            for line in lines
        ],
    }


def show(
    title: str, lines: Sequence[ReceiptLine], fates: Mapping[str, str], *, whole: str, dry_run: bool
) -> None:
    """Prints the answers and, after the title, their counts. `whole` names the apply as a whole."""
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
        click.echo("Nothing was written.")

"""What a command about several deployments answers: one outcome for each, and what its exit code says."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from tern.cli.envelope import write_document
from tern.cli.words import one_line, plural

PARTLY = 6
REFUSED = 5


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one deployment in a command about several."""

    deployment: str
    outcome: str
    reason: str = ""

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return {"deployment": self.deployment, "outcome": self.outcome, "reason": self.reason}


def tell(
    kind: str, lines: Sequence[Line], *, as_json: bool, failure: int, warnings: Sequence[str] = ()
) -> int:
    """Writes the outcomes; 0 where all were done, PARTLY where some were."""
    bad = [line for line in lines if line.outcome in {"refused", "failed"}]
    if as_json:
        write_document(kind, {"deployments": [line.as_json() for line in lines]}, warnings=warnings)
    else:
        width = max((len(line.deployment) for line in lines), default=0)
        for line in lines:
            mark = "✖" if line in bad else "✔"
            click.echo(
                f"{mark} {line.deployment:<{width}}  {line.outcome}"
                + (f": {one_line(line.reason)}" if line.reason else "")
            )
        for warning in warnings:
            click.echo(f"! {one_line(warning)}")
        if bad:
            click.echo(f"{plural(len(bad), 'deployment')} of {len(lines)} not done", err=True)
    if not bad:
        return 0
    return failure if len(bad) == len(lines) else PARTLY


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Each once, in the order in which they were named."""
    return tuple(dict.fromkeys(names))

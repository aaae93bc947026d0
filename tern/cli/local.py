"""`tern demo | up`: everything on this machine, from the embedded servers on."""

from pathlib import Path

import click

from tern.cli import reach

MILLION_ROWS = 10


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.option(
    "--scale",
    type=click.IntRange(1, 1000),
    default=MILLION_ROWS,
    show_default=True,
    help="100,000 rows each.",
)
def demo(*, keep: bool, scale: int) -> int:
    """Roll a real change out to three real databases, on this machine and without asking for anything."""
    from tern.local.demo import run_demo  # noqa: PLC0415 - starts servers; only here

    return run_demo(_home(), keep=keep, scale=scale)


@click.command()
def up() -> int:
    """Run PostgreSQL, Valkey, a worker, beat and Flower until Ctrl-C."""
    from tern.local.up import run_up  # noqa: PLC0415

    return run_up(_home())


def _home() -> Path:
    return reach.settings().home

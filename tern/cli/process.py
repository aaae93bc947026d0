"""`tern worker | beat | flower`: prints the right Celery command line and becomes that process."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from tern import hangup
from tern.cli import reach
from tern.cli.envelope import announce
from tern.domain.errors import UsageError

if TYPE_CHECKING:
    from tern.settings import Settings

ALL_QUEUES = "control,sweep,dispatch,poll"
FLOWER_DEFAULTS: Mapping[str, str] = {
    # Whoever may see the page may not stop a worker with it.
    "FLOWER_READ_ONLY": "true",
    # A task costs 5 KiB, and the default of 100,000 half a gigabyte.
    "FLOWER_MAX_TASKS": "20000",
    "FLOWER_ADDRESS": "127.0.0.1",
    "FLOWER_PORT": "5555",
    # Workers come and go; those that are gone leave the page after five minutes.
    "FLOWER_PURGE_OFFLINE_WORKERS": "300",
    # Which operation a task was about matters more than its id.
    "FLOWER_TASKS_COLUMNS": "name,kwargs,state,received,runtime,worker",
    "FLOWER_TASK_RUNTIME_METRIC_BUCKETS": "0.01,0.05,0.1,0.5,1,5,15,30",
}
_LIKE_CELERY = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.command(context_settings=_LIKE_CELERY)
@click.option("--queues", "-Q", default=ALL_QUEUES, show_default=True, help="Kinds of work that it takes.")
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 256), help="Threads; TERN_WORKER_CONCURRENCY by default."
)
@click.option("--name", "-n", default="tern@%h", show_default=True, help="Its name in Flower.")
@click.option("--print", "only_prints", is_flag=True, help="Print the command line and end.")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def worker(
    queues: str, concurrency: int | None, name: str, *, only_prints: bool, rest: Sequence[str]
) -> None:
    """Drive rollouts. Two processes are the normal set: `-Q control,sweep` and `-Q dispatch,poll`.

    What follows `--` goes to Celery as it is.
    """
    settings = reach.settings()
    settings.require_database_url()
    if any(word.startswith(("--pool", "-P")) for word in rest):
        what = "Tern's workers are threads, and no other pool"
        raise UsageError(what, next_step="Say with --concurrency how many, and start more of them for more.")
    threads = concurrency or settings.worker_concurrency
    _become(
        *(
            "worker",
            "--pool",
            "threads",
            "--concurrency",
            str(threads),
            "--queues",
            queues,
            "--hostname",
            name,
        ),
        # Mingling serves revocations and clocks, which Tern keeps in rows; it costs a second at every start.
        *("--without-mingle", "--without-gossip", "--task-events", "--loglevel", settings.log_level),
        *rest,
        settings=settings,
        only_prints=only_prints,
    )


@click.command(context_settings=_LIKE_CELERY)
@click.option("--print", "only_prints", is_flag=True, help="Print the command line and end.")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def beat(*, only_prints: bool, rest: Sequence[str]) -> None:
    """Ring the regular bells. None, one or several at once are all right."""
    settings = reach.settings()
    settings.require_broker_url()
    # In memory: a schedule on disk can be corrupt, and ours is two intervals.
    scheduler = ("--scheduler", "celery.beat:Scheduler")
    level = ("--loglevel", settings.log_level)
    _become("beat", *scheduler, *level, *rest, settings=settings, only_prints=only_prints)


@click.command(context_settings=_LIKE_CELERY)
@click.option("--print", "only_prints", is_flag=True, help="Print the command line and end.")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def flower(*, only_prints: bool, rest: Sequence[str]) -> None:
    """Show the workers on a page: read-only, on this machine. Its own FLOWER_… variables say otherwise."""
    settings = reach.settings()
    settings.require_broker_url()
    for name, value in FLOWER_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Tornado, below it, leaves the log to tasks.logs then.
    _become("flower", "--logging=none", *rest, settings=settings, only_prints=only_prints)


def _become(*arguments: str, settings: "Settings", only_prints: bool) -> None:
    """Replaces this process, so that signals reach Celery itself."""
    # Banners are for people.
    quietly = ("--quiet",) if settings.log_format == "json" else ()
    command = [sys.executable, "-m", "celery", *quietly, "-A", "tasks.app", *arguments]
    if only_prints:
        click.echo(shlex.join(command))
        return
    if quietly:
        from tern.observe import configure  # noqa: PLC0415

        configure(settings.log_format, settings.log_level)
    announce(shlex.join(command), settings.log_format)
    _execute(command)


def _execute(command: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Celery's worker would begin anew as another command line, which fails; beat and Flower would end.
    hangup.ignore()
    os.execv(command[0], list(command))  # noqa: S606 - our own interpreter, no shell

"""`tern doctor`: what is set up, what answers, and the one command that helps next.

Changes nothing but the note of who last answered from a queue.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.text import Text

from tern.cli import brokering, checkup, reach
from tern.cli.checkup import Finding, look, look_at_all, trouble
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import one_line
from tern.domain.errors import TernError
from tern.ports import Ports
from tern.settings import misspelt

if TYPE_CHECKING:
    from tern.settings import Settings


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Look at settings, PostgreSQL, the broker, workers, beat, claims, wishes, engines and what is outstanding there;
    say what to do next.

    Ends with 0 if all is well, else with the code of the first thing that is not.
    """
    findings = list(_findings())
    bad = [finding for finding in findings if not finding.is_well]
    if as_json:
        write_document("doctor", {"ok": not bad, "findings": [finding.as_json() for finding in findings]})
    else:
        show(_lines(findings), wraps=True)
    return bad[0].code if bad else 0


def _lines(findings: list[Finding]) -> Iterator[Text]:
    width = max(len(finding.about) for finding in findings)
    for finding in findings:
        line = Text("✔ " if finding.is_well else "✖ ", "green" if finding.is_well else "red")
        line.append(f"{finding.about:<{width}}  ", "bold")
        line.append(one_line(finding.said))
        yield line
        if finding.help:
            yield Text(f"  {'':<{width}}  {finding.help}", "bold" if not finding.is_well else "dim")
    if all(finding.is_well for finding in findings):
        yield Text("  Everything is well.", "dim")


def _findings() -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", is_well=True, said=version)
    for variable, meant in misspelt(os.environ).items():
        said = f"{variable} is set, and nothing reads it"
        step = f"Did you mean {meant}? Set that, and unset the other."
        yield Finding("environment", is_well=False, said=said, help=step, code=checkup.MISCONFIGURED)
    try:
        settings = reach.settings()
        where = settings.require_database_url()
    except TernError as error:
        yield trouble("settings", error)
        return
    from tern.local.discovery import discover  # noqa: PLC0415

    servers = discover(settings.home)
    embedded = servers is not None and servers.database_url == where
    said = f"embedded servers in {settings.home}" if embedded else "from the environment"
    yield Finding("settings", is_well=True, said=said)
    broker = brokering.broker(reach.broker_trouble(settings.broker_url))
    yield from _stored(settings, broker)


def _stored(settings: "Settings", broker: Finding) -> Iterator[Finding]:
    from tern import wiring  # noqa: PLC0415
    from tern.store.gauge import read_gauges  # noqa: PLC0415

    try:
        engine = wiring.open_database(settings)
    except TernError as error:
        yield trouble("postgresql", error)
        yield broker
        return
    click.get_current_context().call_on_close(engine.dispose)
    database = look("postgresql", lambda: checkup.database(engine))
    yield database
    if not database.is_well:
        yield broker
        return
    yield look("server", lambda: checkup.server(engine))
    yield look("clock", lambda: checkup.clock(engine))
    yield broker
    if broker.is_well:
        yield from look_at_all("broker state", lambda: brokering.state(settings.broker_url))
        yield from look_at_all("queues", lambda: brokering.queues(_ports()))
    yield look("beat", lambda: checkup.beat(reach.reading().sweeps()))
    yield look("claims", lambda: checkup.claims(read_gauges(engine)))
    yield look("wishes", lambda: checkup.wishes(engine, read_gauges(engine)))
    yield look("uncertain", lambda: checkup.uncertain(engine, read_gauges(engine)))
    yield look("rollouts", lambda: checkup.rollouts(read_gauges(engine).applies))
    yield look("outstanding", lambda: checkup.outstanding(engine, read_gauges(engine)))
    yield look("silent engines", lambda: checkup.silences(engine, _ports()))
    yield look("engines", lambda: checkup.engines(_ports()))


def _ports() -> Ports:
    """Someone who waits for an answer has less patience than a worker."""
    return reach.ports(deadline_s=checkup.ENGINE_PATIENCE_S)

"""`tern doctor`: what is set up, what answers, and the one command that helps next. Reads only."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import ago, one_line, plural
from tern.domain.errors import TernError
from tern.domain.model import Deployment
from tern.domain.outcome import Ok
from tern.domain.states import SETTLED_APPLY, ApplyState
from tern.ports import StorageUnavailable
from tern.probing import at_once

if TYPE_CHECKING:
    from tern.settings import Settings

FRESH_SWEEP_S = 15.0
MOST_ASKED = 50
MISCONFIGURED = 78
UNREACHABLE = 69


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `help` is what to do where it is not well; code is the exit code then."""

    about: str
    is_well: bool
    said: str
    help: str = ""
    code: int = UNREACHABLE

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {"about": self.about, "ok": self.is_well, "said": self.said, "next": self.help or None}


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Look at settings, PostgreSQL, the broker, workers and engines, and say what to do next."""
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
    try:
        settings = reach.settings()
        where = settings.require_database_url()
    except TernError as error:
        yield _trouble("settings", error)
        return
    from tern.local.discovery import discover  # noqa: PLC0415

    servers = discover(settings.home)
    embedded = servers is not None and servers.database_url == where
    said = f"embedded servers in {settings.home}" if embedded else "from the environment"
    yield Finding("settings", is_well=True, said=said)
    database = _look("postgresql", lambda: _database(settings))
    yield database
    yield _broker(settings)
    if not database.is_well:
        return
    yield _look("workers", _workers)
    yield _look("rollouts", _rollouts)
    yield _look("engines", _engines)


def _look(about: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except TernError as error:
        return _trouble(about, error)
    except StorageUnavailable as error:
        return Finding(
            about, is_well=False, said=f"does not answer: {error}", help="Check TERN_DATABASE_URL."
        )


def _trouble(about: str, error: TernError) -> Finding:
    said = ": ".join([error.what, "; ".join(error.why)] if error.why else [error.what])
    return Finding(about, is_well=False, said=said, help=error.next_step, code=error.exit_code)


def _database(settings: "Settings") -> Finding:
    from tern import wiring  # noqa: PLC0415
    from tern.store import revision  # noqa: PLC0415

    engine = wiring.open_database(settings)
    click.get_current_context().call_on_close(engine.dispose)
    found, needed = revision.current(engine), revision.head()
    if found != needed:
        said = f"answers, but is {'empty' if found is None else f'at revision {found}'}; {needed} is needed"
        return Finding("postgresql", is_well=False, said=said, help="tern db upgrade", code=MISCONFIGURED)
    return Finding("postgresql", is_well=True, said=f"answers, at revision {found}")


def _broker(settings: "Settings") -> Finding:
    trouble = reach.broker_trouble(settings.broker_url)
    if trouble:
        meaning = "Rollouts go on without it, a few seconds slower: workers sweep for themselves."
        return Finding("broker", is_well=False, said=trouble, help=meaning)
    return Finding("broker", is_well=True, said="accepts connections")


def _workers() -> Finding:
    sweeps = reach.reading().sweeps()
    if not sweeps:
        return Finding("workers", is_well=False, said="no worker has ever swept here", help="tern worker")
    name, who, age_s = sweeps[0]
    said = f"the last sweep ({name}) ended {ago(age_s)}, by {who}"
    if age_s > FRESH_SWEEP_S:
        return Finding("workers", is_well=False, said=f"nobody works: {said}", help="tern worker")
    return Finding("workers", is_well=True, said=said)


def _rollouts() -> Finding:
    live = [state for state in ApplyState if state not in SETTLED_APPLY]
    found = reach.reading().applies(states=live, limit=1000)
    if not found:
        return Finding("rollouts", is_well=True, said="none under way")
    paused = [line.apply_id for line in found if line.state is ApplyState.PAUSED]
    said = f"{plural(len(found), 'apply').replace('applys', 'applies')} under way"
    step = f"tern explain {paused[0]}" if paused else f"tern get {found[0].apply_id}"
    return Finding(
        "rollouts", is_well=True, said=said + (f", {len(paused)} paused" if paused else ""), help=step
    )


def _engines() -> Finding:
    ports = reach.ports()
    known = ports.store.load_deployments()
    if not known:
        return Finding("engines", is_well=True, said="no deployments yet", help="tern deployments add --help")
    # An engine inside a worker is that worker's; asking for it here would start another one.
    remote = [each for each in known if not each.address.startswith("local:")][:MOST_ASKED]

    def health(deployment: Deployment) -> str:
        answer = ports.engines.of(deployment).health()
        return "" if isinstance(answer, Ok) else f"{deployment.name}: {answer.message}"

    silent = [trouble for trouble in at_once(health, remote) if trouble]
    said = f"{len(remote) - len(silent)} of {plural(len(remote), 'engine')} answer"
    if len(remote) < len(known):
        said += f" ({len(known) - len(remote)} not asked)"
    if silent:
        return Finding("engines", is_well=False, said=f"{said}; {silent[0]}", help="tern deployments check")
    return Finding("engines", is_well=True, said=said)

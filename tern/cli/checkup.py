"""What `tern doctor` looks at, one function a thing: what was found, and the next step where it is not well.

Every look has a limit of time, and none raises: what can't be seen is told as that.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tern.cli.words import ago, contact_words, duration, one_line, plural, silence_words
from tern.domain.errors import TernError
from tern.domain.model import Deployment, Unsupported
from tern.domain.outcome import Ok, Refused
from tern.domain.states import SETTLED_APPLY, ApplyState
from tern.ports import Engine, Ports, StorageUnavailable
from tern.probing import at_once

if TYPE_CHECKING:
    from tern.store.database import Database
    from tern.store.gauge import Gauges

FRESH_SWEEP_S = 15.0
ENGINE_PATIENCE_S = 3.0
OVERDUE_S = 30.0
OLD_HALT_S = 60.0
CLOCK_SKEW_S = 5.0
MOST_ASKED = 50
MOST_NAMED = 5
OLDEST_SERVER = 150_000
DEGRADED = "degraded:"
"""How our own engine begins when it answers and could not do its work; other engines have words of their own."""

NEEDS_PERSON = 13
UNREACHABLE = 69
MISCONFIGURED = 78


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


def look(about: str, see: Callable[[], Finding]) -> Finding:
    """The finding, or what kept us from it."""
    return look_at_all(about, lambda: iter((see(),)))[0]


def look_at_all(about: str, see: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings, or what kept us from them."""
    try:
        return list(see())
    except TernError as error:
        return [trouble(about, error)]
    except StorageUnavailable as error:
        said = f"does not answer: {error}"
        return [Finding(about, is_well=False, said=said, help="Check TERN_DATABASE_URL.")]


def trouble(about: str, error: TernError) -> Finding:
    """A refusal as a finding."""
    said = ": ".join([error.what, "; ".join(error.why)] if error.why else [error.what])
    return Finding(about, is_well=False, said=said, help=error.next_step, code=error.exit_code)


def database(engine: "Database") -> Finding:
    """Reachable, and migrated: what is not well here keeps everything else from being seen."""
    from tern.store import revision  # noqa: PLC0415 - a command that only prints help pays for none of it

    found, needed = revision.current(engine), revision.head()
    if found != needed:
        said = f"answers, but is {'empty' if found is None else f'at revision {found}'}; {needed} is needed"
        way_out = revision.AHEAD if found is not None and found > needed else "tern db upgrade"
        return Finding("postgresql", is_well=False, said=said, help=way_out, code=MISCONFIGURED)
    return Finding("postgresql", is_well=True, said=f"answers, at revision {found}")


def server(engine: "Database") -> Finding:
    """One that can be written, and that keeps what it commits."""
    from tern.store import trouble  # noqa: PLC0415

    seen = trouble.server(engine)
    wrong = [
        words
        for is_so, words in (
            (seen.version < OLDEST_SERVER, f"older than {OLDEST_SERVER // 10_000}"),
            (seen.is_replica, "it is a replica, on which nothing can be written"),
            (seen.is_read_only and not seen.is_replica, "it is read-only"),
            (seen.forgets, "fsync or full_page_writes is off: a power cut loses what was committed"),
            (
                seen.is_unbounded,
                "a pooler drops our connections' settings: a frozen worker holds its locks for ever",
            ),
        )
        if is_so
    ]
    said = f"PostgreSQL {seen.version // 10_000}, {seen.connections} of {seen.most_connections} connections"
    if wrong:
        said += f"; {'; '.join(wrong)}"
        step = "Point TERN_DATABASE_URL at a server that can be written and keeps what it commits, without a pooler."
        return Finding("server", is_well=False, said=said, help=step, code=MISCONFIGURED)
    return Finding("server", is_well=True, said=said)


def clock(engine: "Database") -> Finding:
    """Only the database's clock decides anything; another one here makes logs hard to read. One that was set back
    decides rightly all the same, and has to be told.
    """
    from tern.store import trouble  # noqa: PLC0415

    ahead_s = trouble.lies_ahead_s(engine)
    if ahead_s > 0:
        said = f"PostgreSQL's clock was set back: what was written lies up to {duration(ahead_s)} ahead of it"
        step = "Nothing is lost and everything goes on; check the time service of the database's machine."
        return Finding("clock", is_well=False, said=said, help=step, code=NEEDS_PERSON)
    skew_s = time.time() - trouble.server(engine).clock_s
    if abs(skew_s) < CLOCK_SKEW_S:
        return Finding("clock", is_well=True, said="this machine and PostgreSQL agree")
    said = f"this machine is {duration(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} PostgreSQL"
    step = "Nothing is decided by it, but log lines of different machines won't fit together: check NTP."
    return Finding("clock", is_well=True, said=said, help=step)


def beat(sweeps: tuple[tuple[str, str, float], ...]) -> Finding:
    """Whether anybody looks for what is due, and whether it is beat that rings for it."""
    if not sweeps:
        return Finding(
            "beat", is_well=False, said="nobody has ever swept here", help="tern beat and tern worker"
        )
    name, who, age_s = sweeps[0]
    said = f"the last sweep ({name}) ended {ago(age_s)}, by {who.removeprefix('beat@')}"
    if age_s > FRESH_SWEEP_S:
        return Finding(
            "beat", is_well=False, said=f"nobody looks for what is due: {said}", help="tern worker"
        )
    if who.startswith("beat@"):
        return Finding("beat", is_well=True, said=f"rings: {said}")
    step = "tern beat makes it quicker; without it a worker sweeps for itself."
    return Finding("beat", is_well=True, said=f"does not ring; {said}, on its own account", help=step)


def claims(gauges: "Gauges") -> Finding:
    """Claims that nobody took over, and work that nobody takes."""
    held, expired = gauges.claims["held"], gauges.claims["expired"]
    said = f"{held} held, {expired} expired"
    overdue = {work: age_s for work, age_s in gauges.oldest_due_s.items() if age_s > OVERDUE_S}
    if expired and gauges.oldest_expired_claim_s > OVERDUE_S:
        said += f" and not taken over, the oldest {ago(gauges.oldest_expired_claim_s)}"
        return Finding("claims", is_well=False, said=said, help="tern worker")
    if overdue:
        work, age_s = max(overdue.items(), key=lambda each: each[1])
        said += f"; the oldest {work} has been due for {duration(age_s)}, and nobody takes it"
        return Finding("claims", is_well=False, said=said, help="tern worker")
    return Finding("claims", is_well=True, said=said)


def wishes(engine: "Database", gauges: "Gauges") -> Finding:
    """Open wishes, and stops that nobody has heard of yet."""
    from tern.store import trouble  # noqa: PLC0415

    counts = ", ".join(f"{count} {verb}" for verb, count in sorted(gauges.open_requests.items()))
    old = trouble.old_halts(engine, OLD_HALT_S)
    if old:
        halt = old[0]
        said = f"open: {counts}; the {halt.verb} of {halt.scope} was asked for {ago(halt.age_s)} and is {halt.state}"
        if halt.engine_words:
            said += f" ({one_line(halt.engine_words)})"
        return Finding(
            "wishes", is_well=False, said=said, help=f"tern explain {halt.scope}", code=NEEDS_PERSON
        )
    return Finding("wishes", is_well=True, said=f"open: {counts}" if counts else "none open")


def uncertain(engine: "Database", gauges: "Gauges") -> Finding:
    """What only a person who looks can decide."""
    from tern.store import trouble  # noqa: PLC0415

    number = gauges.operations.get("uncertain", 0)
    if not number:
        return Finding("uncertain", is_well=True, said="none")
    names = trouble.uncertain_operations(engine)
    more = f" and {number - len(names)} more" if number > len(names) else ""
    said = f"{plural(number, 'operation')}: {', '.join(names)}{more}"
    return Finding(
        "uncertain",
        is_well=False,
        said=said,
        help=f"tern explain {names[0] if names else 'AP/DEP'}",
        code=NEEDS_PERSON,
    )


def outstanding(engine: "Database", gauges: "Gauges") -> Finding:
    """What was given up or let go, and may still act: nothing begins at its target before that is settled."""
    from tern.store import trouble  # noqa: PLC0415

    number = sum(gauges.outstanding.values())
    if not number:
        return Finding("outstanding", is_well=True, said="nothing")
    oldest = trouble.outstanding_calls(engine)
    words = f"{oldest[0].words}; nothing begins at that target" if oldest else ""
    ways = [command for command, _ in oldest[0].ways] if oldest else []
    return Finding(
        "outstanding",
        is_well=False,
        said=f"{plural(number, 'call')}: {one_line(words)}",
        help=ways[0] if ways else "tern explain AP/DEP",
        code=NEEDS_PERSON,
    )


def rollouts(counts: Mapping[str, int]) -> Finding:
    """How many are under way."""
    live = {state: count for state, count in counts.items() if ApplyState(state) not in SETTLED_APPLY}
    number = sum(live.values())
    if not number:
        return Finding("rollouts", is_well=True, said="none under way")
    words = ", ".join(f"{count} {state}" for state, count in sorted(live.items()))
    return Finding(
        "rollouts", is_well=True, said=f"{number} under way: {words}", help="tern ls shows the newest."
    )


def silences(engine: "Database", ports: Ports) -> Finding:
    """Engines that the workers ask in vain: they cost nobody else anything, and nothing moves there."""
    from tern.store.contact import contacts  # noqa: PLC0415

    # Who has been silent for longest is told first.
    lost = sorted(
        (each for each in contacts(engine).values() if each.is_lost),
        key=lambda each: (-(each.for_s or 0.0), each.deployment),
    )
    told = {each.deployment: contact_words(each) for each in lost}
    told |= {each.deployment: silence_words(each) for each in ports.store.silences() if each.is_slow}
    if not told:
        return Finding("silent engines", is_well=True, said="none")
    names = list(told)
    words = "; ".join(f"{name}: {told[name]}" for name in names[:MOST_NAMED])
    more = f"; and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return Finding(
        "silent engines",
        is_well=False,
        said=f"{plural(len(names), 'deployment')}: {words}{more}",
        help=f"tern deployments check {' '.join(names[:MOST_NAMED])}",
    )


def engines(ports: Ports) -> Finding:
    """Who answers, who each of them says that it is, and whether it offers what is noted of it."""
    known = ports.store.load_deployments()
    if not known:
        return Finding("engines", is_well=True, said="no deployments yet", help="tern deployments add --help")
    # An engine inside a worker is that worker's; asking for it here would start another one.
    remote = [each for each in known if not each.address.startswith("local:")][:MOST_ASKED]
    troubles = at_once(lambda deployment: _engine(ports.engines.of(deployment), deployment), remote)
    told = [words for words in troubles if words]
    said = f"{len(remote) - len(told)} of {plural(len(remote), 'engine')} answer as they should"
    if len(remote) < len(known):
        said += f" ({len(known) - len(remote)} not asked)"
    if told:
        return Finding(
            "engines", is_well=False, said=f"{said}; {one_line(told[0])}", help="tern deployments check"
        )
    return Finding("engines", is_well=True, said=said)


def _engine(engine: Engine, deployment: Deployment) -> str:
    """What is wrong with one; empty for nothing."""
    health = engine.health()
    if not isinstance(health, Ok):
        return f"{deployment.name}: {health.message}"
    if health.value.startswith(DEGRADED):
        return f"{deployment.name}: {health.value}"
    match engine.preview(deployment, ()):
        case Ok(Unsupported()):
            if deployment.capabilities.preview:
                return f"{deployment.name}: it offers less than is noted of it"
            return ""
        case Ok():
            return ""
        case Refused(message, reason):
            return (
                f"{deployment.name}: {'it is another one: ' if reason == 'TARGET_MISMATCH' else ''}{message}"
            )
        case other:
            return f"{deployment.name}: {other.message}"

"""Plays stories with workers that die, lets others recover, and looks at everything that is left.

theatre = Theatre(url)
theatre.play("plain", Death(at=7))
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tern.domain.identity import ApplyId
from tern.domain.model import Capabilities, Deployment
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.sql import text
from tests.faults.boundaries import DEAD
from tests.faults.fake_engine import FakeEngine
from tests.faults.history import History, Job, from_ledger, install_audit, read_history
from tests.faults.invariants import violations
from tests.faults.ledger import Ledger
from tests.faults.stage import LEASE_S, Stage
from tests.faults.stories import STORIES, Story, play

_ROOT = Path(__file__).parents[2]
_TABLES = (
    "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r'"
    " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
)
_SEQUENCES = (
    "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"
    " AND relnamespace = 'public'::regnamespace"
)
_PERFORMANCES_BETWEEN_CLEANINGS = 50


@dataclass(frozen=True)
class Death:
    """Where a worker ends: at which boundary, and on which side of its effect."""

    at: int | None
    after: bool = True
    mode: str = "die"
    every_round_trip: bool = False

    def __str__(self) -> str:
        return f"{self.mode} {'after' if self.after else 'before'} {self.at}"


class Witness(Ledger):
    """A ledger that looks into Tern's rows at the instant of each Apply: the intent must be committed (S4)."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self.complaints: list[str] = []

    def look(self, statement: str, **values: Any) -> Any:
        """One row of Tern's, at this instant."""
        return self._stage.one(statement, **values)

    def add_call(self, method: str, metadata: dict[str, str], request: Any) -> None:
        """Notes a request."""
        super().add_call(method, metadata, request)
        if method == "Apply":
            found = self.look(
                "SELECT count(*) AS n FROM apply_operations WHERE dispatch_key = :key AND state = 'running'",
                key=request.idempotency_key,
            )
            if found.n != 1:
                self.complaints.append("S4: an Apply came before its intent was committed")


class Theatre:
    """One database, one zygote, and new engines for every performance."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._database = connect(url, pool_size=4)
        migrate(self._database)
        install_audit(self._database)
        self._performances = 0
        self._zygote = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.zygote"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.wait()
        self._zygote.stdout.close()
        self._database.dispose()

    def boundaries(self, name: str, *, every_round_trip: bool = False) -> list[str]:
        """What a worker that plays the story alone crosses. Raises AssertionError when even that goes wrong."""
        return self.play(name, Death(None, every_round_trip=every_round_trip))

    def play(self, name: str, *deaths: Death, deaf: bool = False) -> list[str]:
        """Workers that die one after the other, then one that lives; then everything is checked.

        Returns the boundaries that the last of the doomed crossed, if it lived.
        """
        story = STORIES[name]
        stage = Stage(self._database, "rescuer", deaf=deaf)
        witness = Witness(stage)
        engines = {place: FakeEngine(place, ledger=witness_for(witness)) for place in story.deployments}
        try:
            self._prepare(stage, story, engines)
            told: list[str] = []
            crossed: list[str] = []
            for number, death in enumerate(deaths):
                answer = self._fork(story, death, told, f"doomed-{number}", deaf=deaf)
                told += answer["told"]
                crossed = answer["crossed"]
                assert answer["status"] in {0, DEAD}, f"{name}, {death}: {answer['error']}"
                assert death.at is not None or not answer["error"], answer["error"]
            self._recover(story, stage, told)
            self._judge(story, stage, engines, told)
            complaints = [one for engine in engines.values() for one in _complaints(engine)]
            assert not complaints, complaints
        finally:
            for engine in engines.values():
                engine.stop()
            stage.directory.close()
        return crossed

    def _clear(self) -> None:
        """Nothing is left of the last performance. Deleting is a tenth of the work of truncating, but leaves dirt."""
        with self._database.begin() as tx:
            tables = tx.execute(text(_TABLES)).scalar_one()
            if self._performances % _PERFORMANCES_BETWEEN_CLEANINGS == 0:
                tx.execute(text(f"TRUNCATE {tables}"))
            else:
                # Rows that are append-only to everybody else, in any order.
                tx.execute(text("SET LOCAL session_replication_role = replica"))
                tx.execute(text("; ".join(f"DELETE FROM {table}" for table in tables.split(", "))))
            tx.execute(text(_SEQUENCES))
        self._performances += 1

    def _prepare(self, stage: Stage, story: Story, engines: dict[str, FakeEngine]) -> None:
        self._clear()
        for position, (place, engine) in enumerate(engines.items()):
            stage.store.save_deployment(
                Deployment(
                    name=place,
                    environment="test",
                    database="shop",
                    address=engine.address,
                    target=f"target-{place}",
                    position=position,
                    capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
                    idempotent_dispatch=story.declares,
                )
            )
        story.prepare(engines)

    def _fork(self, story: Story, death: Death, told: list[str], owner: str, *, deaf: bool) -> dict[str, Any]:
        order = {
            "database": self._url,
            "story": story.name,
            "told": len(told),
            "owner": owner,
            "deaf": deaf,
            "at": death.at,
            "after": death.after,
            "mode": death.mode,
            "every_round_trip": death.every_round_trip,
        }
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        answer: dict[str, Any] = json.loads(self._zygote.stdout.readline())
        return answer

    def _recover(self, story: Story, stage: Stage, told: list[str]) -> None:
        """Time passes until the dead worker's claims have run out, and somebody else goes on."""
        stage.pass_time(LEASE_S + 1)
        play(story, stage, len(told), told.append)

    def _judge(self, story: Story, stage: Stage, engines: dict[str, FakeEngine], told: list[str]) -> None:
        found = {name: stage.state(name) for name in story.deployments}
        ended = stage.apply_row().state
        history = self._history(engines, told)
        wrong = violations(history)
        for name, allowed in story.states.items():
            if found[name] not in allowed:
                wrong.append(f"{name} is {found[name]} and should be {' or '.join(allowed)}")
        if ended not in story.apply_states:
            wrong.append(f"the apply is {ended} and should be {' or '.join(story.apply_states)}")
        if len(history.applies) != story.applies:
            wrong.append(f"S13: there are {len(history.applies)} applies")
        assert not wrong, "\n".join([*wrong, stage.picture(), *_timeline(history)])

    def _history(self, engines: dict[str, FakeEngine], told: list[str]) -> History:
        jobs = [
            Job(name, job.remote_id, job.operation, job.state)
            for name, engine in engines.items()
            for job in engine.jobs.by_id.values()
        ]
        acknowledged = [(line.split()[0], ApplyId(line.split()[1])) for line in told if len(line.split()) > 1]
        ledgers = [from_ledger(name, engine.ledger) for name, engine in engines.items()]
        return read_history(self._database, ledgers, jobs, acknowledged=acknowledged)


def witness_for(witness: Witness) -> Witness:
    """A ledger of its own for each engine, with the same eyes."""
    return Witness(witness._stage)


def _complaints(engine: FakeEngine) -> list[str]:
    return engine.ledger.complaints if isinstance(engine.ledger, Witness) else []


def _timeline(history: History) -> list[str]:
    return [
        f"{event.id:3} {event.operation_id} {event.who}: {event.event} {event.before}->{event.after} {event.why}"
        for event in history.events
    ]

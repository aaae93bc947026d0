"""Taking a list of deployments into the register: one transaction, and nothing of it if anything speaks against it."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from psycopg import errors

from tern.domain.errors import TryAgain
from tern.domain.model import Deployment
from tern.domain.register import Entered, Entry, Judged, judge
from tern.store.deployment import deployment_in, outstanding_of, users_of
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps

AT_ONCE = 1_000
"""Written by one statement: few enough that a person sees that it goes on."""
_TRIES = 3

_KNOWN = text(
    # Held so that none is replaced, removed or chosen for a rollout between the judgement and the commit.
    "SELECT * FROM deployments WHERE name = ANY(:names) OR (address, target) IN"
    " (SELECT * FROM unnest(CAST(:addresses AS text[]), CAST(:targets AS text[])))"
    " ORDER BY name FOR UPDATE"
)
_LINES = (
    "jsonb_to_recordset(CAST(:lines AS jsonb)) AS n(name text, environment text, database text, address text,"
    " target text, labels jsonb, position integer, credentials jsonb, capabilities jsonb, deduplicates boolean)"
)
_ADD = text(
    "INSERT INTO deployments (name, environment, database, address, target, labels, position, credentials,"
    " capabilities, deduplicates, idempotent_dispatch)"
    " SELECT n.name, n.environment, n.database, n.address, n.target, n.labels,"
    f" n.position, n.credentials, n.capabilities, n.deduplicates, n.deduplicates FROM {_LINES}"
)
_CHANGE = text(
    "UPDATE deployments d SET environment = n.environment, database = n.database, address = n.address,"
    " target = n.target, labels = n.labels, position = n.position, credentials = n.credentials,"
    " capabilities = n.capabilities, deduplicates = n.deduplicates, idempotent_dispatch = n.deduplicates"
    f" FROM {_LINES} WHERE d.name = n.name"
)


class ImportingSteps(Steps):
    """The register's bulk half. It asks no engine: what they offer is found out when they are needed."""

    def import_deployments(
        self,
        entries: Sequence[Entry],
        *,
        replaces: bool,
        writes: bool = True,
        told: Callable[[int], None] = lambda _done: None,
    ) -> tuple[Judged, ...]:
        """Judges every entry, and writes them all unless something speaks against one, or `writes` is False.

        told: how many are written so far. Raises TryAgain.
        """
        for _ in range(_TRIES):
            try:
                with transaction(self.engine) as tx:
                    return _import(tx, entries, replaces=replaces, writes=writes, told=told)
            except errors.UniqueViolation:
                # Somebody else added one of them since it was looked for: judged anew, he is seen.
                continue
        what = "others change the same deployments all the time"
        raise TryAgain(what)


def _import(
    tx: Connection, entries: Sequence[Entry], *, replaces: bool, writes: bool, told: Callable[[int], None]
) -> tuple[Judged, ...]:
    wanted = [entry.deployment for entry in entries]
    given = {
        "names": [each.name for each in wanted],
        "addresses": [each.address for each in wanted],
        "targets": [each.target for each in wanted],
    }
    known = [deployment_in(row) for row in tx.execute(_KNOWN, given)]
    users = users_of(tx, [each.name for each in known]) if replaces else {}
    users = {**users, **outstanding_of(tx, [each.name for each in known])} if replaces else users
    judged = judge(entries, known, users, replaces=replaces)
    if not writes or any(each.why for each in judged):
        return judged
    before = {each.name: each for each in known}
    new = [each.deployment for each in judged if each.outcome is Entered.ADDED]
    # A person may say now what nobody had said about one that is known already.
    changed = [
        each.deployment
        for each in judged
        if before.get(each.deployment.name, each.deployment) != each.deployment
    ]
    done = len(judged) - len(new) - len(changed)
    for statement, chosen in ((_ADD, new), (_CHANGE, changed)):
        for first in range(0, len(chosen), AT_ONCE):
            some = chosen[first : first + AT_ONCE]
            tx.execute(statement, {"lines": _lines(some)})
            done += len(some)
            told(done)
    return judged


def _lines(deployments: Iterable[Deployment]) -> str:
    return json.dumps(
        [
            {
                "name": each.name,
                "environment": each.environment,
                "database": each.database,
                "address": each.address,
                "target": each.target,
                "labels": dict(each.labels),
                "position": each.position,
                "credentials": asdict(each.credentials),
                "capabilities": each.capabilities.as_json(),
                "deduplicates": each.idempotent_dispatch,
            }
            for each in deployments
        ]
    )

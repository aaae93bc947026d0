"""Reading the record: the audit, its verification, and an apply as it was (G15, S21). Changes nothing.

Each look is one snapshot, so that events, the ends of chains and the states of rows belong together.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from tern.domain.chain import (
    ChainEnd,
    Finding,
    Link,
    RequestSeal,
    chain_findings,
    request_findings,
    story_findings,
)
from tern.domain.errors import NotFound, UsageError
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.states import ApplyState, Event, State
from tern.doors.record import Entry, Fate, PastApply, PastOperation, PastWish, Verified
from tern.store.database import Database
from tern.store.reading import find_apply, snapshot
from tern.store.sql import Connection, RowMapping, text

_ARROWS = frozenset(event.value for event in Event)
_PROJECTED = frozenset({"projected", "verdict"})

_LINKS = text(
    "SELECT e.id, e.apply_id, e.operation_id, e.number, e.at, e.event, e.who, e.why, e.before, e.after,"
    " e.detail::text AS detail, e.previous_hash, e.hash FROM apply_events e WHERE e.apply_id = :id"
    " ORDER BY coalesce(e.operation_id, 0), e.number, e.id"
)
_ENDS = text("SELECT operation_id, length, head FROM event_chains WHERE apply_id = :id ORDER BY operation_id")
_STATES = text("SELECT id, deployment, state FROM apply_operations WHERE apply_id = :id ORDER BY id")
_SEALS = text("SELECT *, outcomes::text AS told FROM control_requests WHERE apply_id = :id ORDER BY id")
_EVENTS = (
    "SELECT * FROM (SELECT e.id, e.at, e.event, e.who, e.why, e.before, e.after, e.detail, e.hash,"
    "   a.apply_identifier, coalesce(o.deployment, '') AS deployment"
    "   FROM apply_events e JOIN applies a ON a.id = e.apply_id LEFT JOIN apply_operations o ON o.id = e.operation_id"
    "   WHERE {of}"
    "   AND (:deployment = '' OR e.operation_id IS NULL OR o.deployment = :deployment)"
    "   AND (:what = '' OR e.event = :what OR starts_with(e.event, :what || '_')) AND (:who = '' OR e.who = :who)"
    "   AND (CAST(:since AS timestamptz) IS NULL OR e.at >= :since)"
    "   ORDER BY e.id DESC LIMIT :limit) newest ORDER BY id"
)
_REQUESTS = (
    "SELECT * FROM (SELECT r.*, a.apply_identifier FROM control_requests r JOIN applies a ON a.id = r.apply_id"
    "   WHERE {of}"
    "   AND (:what = '' OR r.verb = :what) AND (:who = '' OR r.caller = :who)"
    "   AND (CAST(:since AS timestamptz) IS NULL OR r.created_at >= :since)"
    "   AND (:deployment = '' OR EXISTS (SELECT 1 FROM jsonb_array_elements(r.outcomes) line"
    "     WHERE line ->> 'deployment' = :deployment))"
    "   ORDER BY r.id DESC LIMIT :limit) newest ORDER BY id"
)
# Two statements each: one for both would be planned without knowing whether there is an apply to look under.
_EVENTS_OF_ONE, _EVENTS_OF_ALL = text(_EVENTS.format(of="e.apply_id = :id")), text(_EVENTS.format(of="true"))
_REQUESTS_OF_ONE, _REQUESTS_OF_ALL = (
    text(_REQUESTS.format(of="r.apply_id = :id")),
    text(_REQUESTS.format(of="true")),
)
_FATES = text(
    "SELECT d.request_id, o.deployment, d.state, d.attempts, d.engine_words,"
    " extract(epoch FROM d.closed_at - d.created_at)::float AS after_s"
    " FROM control_deliveries d JOIN apply_operations o ON o.id = d.operation_id"
    " WHERE d.request_id = ANY(:requests) AND d.apply_id = ANY(:applies)"
    " AND (:deployment = '' OR o.deployment = :deployment) ORDER BY d.id"
)
_APPLIES_SINCE = text(
    "SELECT apply_identifier FROM applies WHERE CAST(:since AS timestamptz) IS NULL OR created_at >= :since"
    " ORDER BY id"
)
_PAST = text(
    "SELECT o.deployment, o.position, s.after AS state, s.at AS since, s.who, s.why, r.remote_id,"
    " (SELECT count(*) FROM apply_events c WHERE c.operation_id = o.id AND c.event = 'claim' AND c.at <= :at)"
    "   AS attempt"
    " FROM apply_operations o"
    " LEFT JOIN LATERAL (SELECT e.after, e.at, e.who, e.why FROM apply_events e WHERE e.operation_id = o.id"
    "   AND e.at <= :at AND e.event = ANY(:arrows) ORDER BY e.number DESC LIMIT 1) s ON true"
    " LEFT JOIN LATERAL (SELECT e.detail ->> 'remote_id' AS remote_id FROM apply_events e"
    # A worker of an earlier version told of an id that was kept and then followed with its arrow alone.
    "   WHERE e.operation_id = o.id AND e.at <= :at AND e.event IN ('remote_id_stored', 'adopt')"
    "   AND e.detail ->> 'remote_id' IS NOT NULL"
    "   ORDER BY e.number DESC LIMIT 1) r ON true"
    " WHERE o.apply_id = :id ORDER BY o.position"
)
_PAST_STATE = text(
    "SELECT after FROM apply_events WHERE apply_id = :id AND operation_id IS NULL AND at <= :at"
    " AND event IN ('projected', 'verdict') ORDER BY number DESC LIMIT 1"
)
_PAST_WISHES = text(
    "SELECT r.id, r.verb, r.caller, r.reason, r.created_at, count(*) AS operations FROM control_requests r"
    " JOIN control_deliveries d ON d.request_id = r.id WHERE r.apply_id = :id AND d.created_at <= :at"
    " AND (d.closed_at IS NULL OR d.closed_at > :at) GROUP BY r.id ORDER BY r.id"
)
_AT_ONCE = 1_000


class Record:
    """The record of applies. Every method raises NotFound and StorageUnavailable."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    def entries(
        self,
        apply_id: ApplyId | None,
        *,
        deployment: str = "",
        what: str = "",
        who: str = "",
        since: datetime | None = None,
        limit: int = 1_000,
    ) -> tuple[Entry, ...]:
        """The newest requests and events, in the order in which they came; a deployment's own and the apply's. Without
        an apply, those of all.

        what: a verb or an event's name, with all that begins with it: `stop` has `stop_sent` with it.
        """
        with snapshot(self._engine) as tx:
            asked: dict[str, object] = {
                "deployment": deployment,
                "what": what,
                "who": who,
                "since": since,
                "limit": limit,
            }
            happened, wished = _EVENTS_OF_ALL, _REQUESTS_OF_ALL
            if apply_id is not None:
                happened, wished = _EVENTS_OF_ONE, _REQUESTS_OF_ONE
                asked["id"] = find_apply(tx, apply_id)["id"]
            events = [_event(row) for row in tx.execute(happened, asked).mappings()]
            rows = tx.execute(wished, asked).mappings().all()
            fates = defaultdict(list)
            bounds = {
                "requests": [row["id"] for row in rows],
                "applies": sorted({row["apply_id"] for row in rows}),
                "deployment": deployment,
            }
            for row in tx.execute(_FATES, bounds).mappings():
                fates[row["request_id"]].append(
                    Fate(
                        row["deployment"], row["state"], row["attempts"], row["engine_words"], row["after_s"]
                    )
                )
            requests = [_request(row, tuple(fates[row["id"]])) for row in rows]
        return tuple(sorted([*events, *requests], key=lambda entry: entry.at)[-limit:])

    def applies(self, since: datetime | None) -> tuple[ApplyId, ...]:
        """Those that were accepted since then, or all, the oldest first."""
        with snapshot(self._engine) as tx:
            return tuple(
                ApplyId(name) for name in tx.execute(_APPLIES_SINCE, {"since": since}).scalars().all()
            )

    def verify(self, apply_id: ApplyId) -> Verified:
        """Every chain computed again, every state compared with its story."""
        with snapshot(self._engine) as tx:
            found = find_apply(tx, apply_id)
            key = {"id": found["id"]}
            names = {0: ""}
            states = {0: found["state"]}
            for row in tx.execute(_STATES, key):
                names[row.id], states[row.id] = row.deployment, row.state
            ends = {row.operation_id: ChainEnd(row.length, bytes(row.head)) for row in tx.execute(_ENDS, key)}
            seals = [_seal(row) for row in tx.execute(_SEALS, key).mappings()]
            findings = [("", finding) for finding in request_findings(seals)]
            events, chains = 0, set()
            for operation, links in _chains(tx, key):
                chains.add(operation)
                events += len(links)
                findings += [
                    (names.get(operation, f"operation {operation}, which is not there"), finding)
                    for finding in _findings(operation, links, ends.get(operation), states.get(operation))
                ]
            for operation in sorted((ends.keys() | names.keys()) - chains):
                findings += [
                    (names.get(operation, f"operation {operation}, which is not there"), finding)
                    for finding in _findings(operation, (), ends.get(operation), states.get(operation))
                ]
        return Verified(apply_id, len(chains), events, len(seals), tuple(findings), _seal_of(ends))

    def as_of(self, apply_id: ApplyId, at: datetime) -> PastApply:
        """The apply as its events tell that it was; raises UsageError for a moment that is still to come."""
        with snapshot(self._engine) as tx:
            found = find_apply(tx, apply_id)
            if at > found["observed_at"]:
                what = f"{at:%Y-%m-%dT%H:%M:%SZ} is still to come"
                raise UsageError(what, next_step=f"tern get {apply_id}")
            if at < found["created_at"]:
                what = f"{apply_id} did not exist at {at:%Y-%m-%dT%H:%M:%SZ}"
                raise NotFound(what, why=(f"it was accepted at {found['created_at']:%Y-%m-%dT%H:%M:%SZ}",))
            asked = {"id": found["id"], "at": at}
            state = tx.execute(_PAST_STATE, asked).scalar_one_or_none()
            return PastApply(
                apply_id=apply_id,
                environment=found["environment"],
                database=found["database"],
                at=at,
                state=ApplyState(state or "pending"),
                created_at=found["created_at"],
                caller=found["caller"],
                reason=found["reason"],
                operations=tuple(
                    _past(row) for row in tx.execute(_PAST, {**asked, "arrows": sorted(_ARROWS)}).mappings()
                ),
                wishes=tuple(
                    PastWish(row.id, row.verb, row.caller, row.reason, row.created_at, row.operations)
                    for row in tx.execute(_PAST_WISHES, asked)
                ),
            )


def _chains(tx: Connection, key: Mapping[str, int]) -> Iterator[tuple[int, Sequence[Link]]]:
    """The apply's chains one after the other: an apply of ten thousand operations is not held in memory at once."""
    rows = tx.stream(_LINKS, key, at_once=_AT_ONCE)
    links = (
        Link(
            event_id=row["id"],
            apply_pk=row["apply_id"],
            operation_id=row["operation_id"],
            number=row["number"],
            at=row["at"],
            event=row["event"],
            who=row["who"],
            why=row["why"],
            before=row["before"],
            after=row["after"],
            detail=row["detail"],
            previous_hash=bytes(row["previous_hash"]),
            hash=bytes(row["hash"]),
        )
        for row in rows
    )
    for operation, chain in itertools.groupby(links, key=lambda link: link.operation_id or 0):
        yield operation, tuple(chain)


def _findings(
    operation: int, links: Sequence[Link], end: ChainEnd | None, state: str | None
) -> Iterator[Finding]:
    yield from chain_findings(links, end)
    if state is not None:
        yield from story_findings(links, state, arrows=_ARROWS if operation else _PROJECTED)


def _seal_of(ends: Mapping[int, ChainEnd]) -> str:
    told = "".join(f"{operation}:{ends[operation].head.hex()}\n" for operation in sorted(ends))
    return hashlib.sha256(told.encode()).hexdigest()


def _seal(row: RowMapping) -> RequestSeal:
    return RequestSeal(
        request_id=row["id"],
        apply_pk=row["apply_id"],
        at=row["created_at"],
        verb=row["verb"],
        caller=row["caller"],
        reason=row["reason"],
        outcomes=row["told"],
        hash=bytes(row["hash"]),
        volume=row["volume"],
        failures_released=row["failures_released"],
    )


def _event(row: RowMapping) -> Entry:
    return Entry(
        kind="event",
        entry_id=row["id"],
        at=row["at"],
        deployment=row["deployment"],
        what=row["event"],
        who=row["who"],
        why=row["why"],
        before=row["before"],
        after=row["after"],
        hash=bytes(row["hash"]).hex(),
        detail=row["detail"],
        apply_id=row["apply_identifier"],
    )


def _request(row: RowMapping, fates: tuple[Fate, ...]) -> Entry:
    return Entry(
        kind="request",
        entry_id=row["id"],
        at=row["created_at"],
        deployment="",
        what=row["verb"],
        who=row["caller"],
        why=row["reason"],
        before="",
        after="",
        hash=bytes(row["hash"]).hex(),
        detail={},
        outcomes=tuple(row["outcomes"]),
        fates=fates,
        apply_id=row["apply_identifier"],
    )


def _past(row: RowMapping) -> PastOperation:
    return PastOperation(
        deployment=row["deployment"],
        position=row["position"],
        state=State(row["state"] or "pending"),
        since=row["since"],
        remote_id=RemoteId(row["remote_id"]) if row["remote_id"] else None,
        attempt=row["attempt"],
        who=row["who"] or "",
        why=row["why"] or "",
    )

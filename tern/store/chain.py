"""An apply with all that carries on what is left of it, read in one look (domain/rest.py says what that means)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tern.domain.effect import Effect, effect_of
from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId, PlanId, ScopeName
from tern.domain.model import Action, Deployment, PlannedChange, ReviewedTarget
from tern.domain.policy import Policy
from tern.domain.rest import Chain, Link, Source, Statement
from tern.domain.selection import Member
from tern.domain.states import State
from tern.store.deployment import load_named
from tern.store.scope import REMOTE_ID
from tern.store.sql import Connection, Row, text
from tern.store.step import CLAIMED_FOR_S

_FAMILY = (
    # From the operations that were asked about up to the first of each chain, and down again to all that follow it.
    "WITH RECURSIVE up (id, above) AS ("
    "   SELECT o.id, o.carries_on FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    "   WHERE a.apply_identifier = :apply"
    "   UNION ALL SELECT p.id, p.carries_on FROM up JOIN apply_operations p ON p.id = up.above),"
    " down (root, id) AS (SELECT id, id FROM up WHERE above IS NULL"
    "   UNION ALL SELECT d.root, f.id FROM down d JOIN apply_operations f ON f.carries_on = d.id)"
)
_APPLIES = text(
    f"{_FAMILY} SELECT DISTINCT o.apply_id FROM down d JOIN apply_operations o ON o.id = d.id ORDER BY 1"
)
_LOCK_APPLIES = text("SELECT 1 FROM applies WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
_LOCK_OPERATIONS = text(
    "SELECT 1 FROM apply_operations WHERE id = ANY(ARRAY("
    f"{_FAMILY} SELECT id FROM down)) ORDER BY id FOR NO KEY UPDATE"
)
_LINKS = text(
    f"{_FAMILY} SELECT d.root, o.id, o.apply_id, o.deployment, o.state, o.target, o.dispatch_key,"
    f" o.dispatch_key_is_dead, o.engine_number, o.claim_token, {CLAIMED_FOR_S} AS claimed_for_s,"
    f" {REMOTE_ID} AS remote_id,"
    " a.apply_identifier, a.revision, a.plan_id, o.position,"
    " (SELECT v.verb FROM control_deliveries v WHERE v.operation_id = o.id AND v.verb IN ('start', 'retry')"
    "   AND v.state IN ('pending', 'sent') LIMIT 1) AS revival,"
    " EXISTS (SELECT FROM control_deliveries v WHERE v.operation_id = o.id AND v.verb = 'skip'"
    "   AND v.state = 'acknowledged') AS by_person"
    " FROM (SELECT DISTINCT root, id FROM down) d JOIN apply_operations o ON o.id = d.id"
    " JOIN applies a ON a.id = o.apply_id ORDER BY o.id"
)
_STATEMENTS = text(
    f"{_FAMILY} SELECT d.root, c.id, c.operation_id, c.ordinal, c.namespace, c.table_name, c.ddl, c.action,"
    " c.unsafe_reason, c.state, coalesce(c.origin_id, c.id) AS origin"
    " FROM (SELECT DISTINCT root, id FROM down) d JOIN table_changes c ON c.operation_id = d.id"
    " ORDER BY c.operation_id, c.ordinal"
)
_FIRST = text(
    "SELECT a.id, a.apply_identifier, a.environment, a.database, a.policy, p.plan_identifier, p.database_type,"
    " p.targets, p.policy IS NOT NULL AS is_reviewed FROM applies a JOIN plans p ON p.id = a.plan_id WHERE a.id = :id"
)
_MEMBERS = text(
    "SELECT o.deployment, o.state, o.wave, coalesce(n.labels, '{}') AS labels FROM applies a"
    " JOIN apply_operations o ON o.apply_id = a.id LEFT JOIN deployments n ON n.name = o.deployment"
    " WHERE a.apply_identifier = :apply ORDER BY o.position"
)


@dataclass(frozen=True, slots=True)
class Family:
    """What was read: the source, the members of the apply that was asked about, and the rows that carry its key."""

    source: Source
    members: tuple[Member, ...]
    applies: Mapping[int, int]
    """The apply of each operation in the chains."""
    first: int
    """The apply with which all of them begin."""


def lock_family(tx: Connection, apply_id: ApplyId) -> None:
    """Every apply of the chains and then every operation of them, each kind in order. Whoever makes one of them live,
    or carries one on, holds one of these locks.
    """
    tx.execute(_LOCK_APPLIES, {"ids": applies_of(tx, apply_id)})
    tx.execute(_LOCK_OPERATIONS, {"apply": apply_id})


def applies_of(tx: Connection, apply_id: ApplyId) -> list[int]:
    """Every apply of the chains that this one is in, by its key."""
    return [row.apply_id for row in tx.execute(_APPLIES, {"apply": apply_id})]


def load_family(tx: Connection, apply_id: ApplyId) -> Family:
    """As the rows are now; raises NotFound."""
    given = {"apply": apply_id}
    links = tx.execute(_LINKS, given).all()
    if not links:
        what = f"there is no apply {apply_id}"
        raise NotFound(what, next_step="`tern ls` lists them.")
    words: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    own: dict[int, list[Row]] = defaultdict(list)
    roots: dict[int, list[Row]] = defaultdict(list)
    for row in tx.execute(_STATEMENTS, given):
        own[row.operation_id].append(row)
        words[row.origin].append((row.state, row.operation_id, len(own[row.operation_id])))
    for row in links:
        roots[row.root].append(row)
    firsts = {root: next(row for row in rows if row.id == root) for root, rows in roots.items()}
    # All of an apply's chains begin in one apply: a follow-up carries on one apply's operations.
    first = tx.execute(_FIRST, {"id": next(iter(firsts.values())).apply_id}).one()
    members = tuple(
        Member(row.deployment, State(row.state), row.labels, row.wave) for row in tx.execute(_MEMBERS, given)
    )
    register = {each.name: each for each in load_named(tx, [row.deployment for row in firsts.values()])}
    reviewed = {each["deployment"]: ReviewedTarget(**each) for each in first.targets}
    chains = tuple(
        _chain(firsts[root], rows, own, words, register.get(firsts[root].deployment), reviewed)
        for root, rows in sorted(roots.items(), key=lambda each: firsts[each[0]].position)
    )
    source = Source(
        ApplyId(first.apply_identifier),
        PlanId(first.plan_identifier),
        first.environment,
        first.database,
        first.database_type,
        Policy.from_json(first.policy),
        first.is_reviewed,
        {row.apply_identifier: row.revision for row in links},
        chains,
    )
    return Family(source, members, {row.id: row.apply_id for row in links}, first.id)


def _chain(
    first: Row,
    rows: Sequence[Row],
    own: Mapping[int, Sequence[Row]],
    words: Mapping[int, Sequence[tuple[str, int, int]]],
    place: Deployment | None,
    reviewed: Mapping[str, ReviewedTarget],
) -> Chain:
    target = None if place is None else ReviewedTarget(place.name, place.address, place.target)
    before = reviewed.get(first.deployment)
    has_moved = place is not None and before is not None and before.address != place.address
    return Chain(
        first.deployment,
        tuple(_link(row, own[row.id]) for row in sorted(rows, key=lambda row: row.id)),
        tuple(
            Statement(
                row.id,
                number,
                PlannedChange(row.namespace, row.table_name, row.ddl, Action(row.action), row.unsafe_reason),
                tuple(word for word, _, _ in words[row.id]),
                tuple((operation_id, place) for _, operation_id, place in words[row.id]),
            )
            for number, row in enumerate(own[first.id], 1)
        ),
        target,
        {} if place is None else place.labels,
        tuple(_against(first, place, before)),
        before.address if has_moved and before is not None else "",
    )


def _link(row: Row, statements: Sequence[Row]) -> Link:
    has_key = row.dispatch_key is not None and not row.dispatch_key_is_dead
    return Link(
        row.id,
        ScopeName(ApplyId(row.apply_identifier), row.deployment),
        State(row.state),
        was_sent=row.remote_id is not None or has_key,
        is_driven=row.claim_token is not None and (row.claimed_for_s or 0.0) > 0,
        revival=row.revival or "",
        by_person=row.by_person,
        changed=any(effect_of(each.state) is not Effect.NOT_DONE for each in statements),
    )


def _is_its_engine(first: Row, place: Deployment) -> bool:
    """The engine that the first apply was sent to is the one that is there now. It keeps its number where it is moved,
    by a key's proof or a person's word; whatever else changes an address takes the number of whoever is there.
    """
    return first.engine_number is not None and first.engine_number == place.engine_number


def _against(first: Row, place: Deployment | None, reviewed: ReviewedTarget | None) -> list[str]:
    """Why the rest can't go where the first apply went."""
    if place is None:
        return [f"there is no deployment {first.deployment} any more"]
    why = []
    if place.drained:
        why.append(f"deployment {place.name} is drained: `tern deployments undrain {place.name}` opens it")
    if place.target != first.target:
        why.append(f"the target of {place.name} is {place.target}; the first apply went to {first.target}")
    if reviewed is not None and reviewed.address != place.address and not _is_its_engine(first, place):
        why.append(
            f"the engine of {place.name} is {place.address}; its plan was reviewed for {reviewed.address}:"
            " have the rest reviewed for it with `tern plan`, and begin that with `tern apply --plan … --accept-drift`"
        )
    return why

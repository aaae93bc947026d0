"""Durable steps about targets of several names: which pairs nobody has compared, and what was found (G13)."""

import json
from collections.abc import Mapping, Sequence

from tern.domain.targets import Finding, Found, Pair
from tern.store.deployment import deployment_in
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps

_UNPROVEN = text(
    # What is only suspected is asked again: who was silent may answer by now.
    "SELECT DISTINCT least(a.name, b.name) AS one, greatest(a.name, b.name) AS other FROM deployments a"
    " JOIN deployments b ON b.engine_identity = a.engine_identity AND b.name <> a.name"
    " WHERE a.name = ANY(:names) AND a.engine_identity <> '' AND b.engine_identity <> ''"
    " AND NOT EXISTS (SELECT FROM same_targets s WHERE s.one = least(a.name, b.name)"
    "   AND s.other = greatest(a.name, b.name) AND s.finding <> 'suspected') ORDER BY 1, 2"
)
_RECORD = text(
    # Both held as they were asked: a finding about an address that has changed meanwhile is none.
    "WITH found AS (SELECT * FROM jsonb_to_recordset(CAST(:found AS jsonb)) AS f(one text, one_address text,"
    "   other text, other_address text, finding text)),"
    " still AS MATERIALIZED (SELECT d.name, d.address, d.engine_identity FROM deployments d"
    "   WHERE d.name IN (SELECT one FROM found UNION SELECT other FROM found) ORDER BY d.name FOR SHARE)"
    " INSERT INTO same_targets AS s (one, other, finding, identity)"
    " SELECT f.one, f.other, f.finding, a.engine_identity FROM found f"
    " JOIN still a ON a.name = f.one AND a.address = f.one_address"
    " JOIN still b ON b.name = f.other AND b.address = f.other_address AND b.engine_identity = a.engine_identity"
    " WHERE a.engine_identity <> '' ORDER BY f.one, f.other"
    " ON CONFLICT ON CONSTRAINT same_targets_are_pairs DO UPDATE SET finding = excluded.finding,"
    " identity = excluded.identity, found_at = tern_clock()"
    # A suspicion never takes a proof back: that both are silent now changes nothing of what they said.
    " WHERE excluded.finding <> 'suspected' OR s.finding = 'suspected' RETURNING one, other, finding"
)
_ONE_TARGET = text(
    "WITH RECURSIVE named (root, name) AS (SELECT n, n FROM unnest(CAST(:names AS text[])) AS n"
    "  UNION SELECT n.root, CASE WHEN s.one = n.name THEN s.other ELSE s.one END FROM named n"
    "  JOIN same_targets s ON (s.one = n.name OR s.other = n.name) AND s.finding = 'same')"
    " SELECT root, name FROM named WHERE root < name AND name = ANY(:names) ORDER BY root, name"
)


class TwinSteps(Steps):
    """register_port.TargetStore on PostgreSQL."""

    def unproven_pairs(self, names: Sequence[str]) -> tuple[Pair, ...]:
        """See register_port.TargetStore."""
        with transaction(self.engine) as tx:
            pairs = [(row.one, row.other) for row in tx.execute(_UNPROVEN, {"names": list(names)})]
            if not pairs:
                return ()
            rows = tx.execute(
                text("SELECT * FROM deployments WHERE name = ANY(:names)"),
                {"names": sorted({name for pair in pairs for name in pair})},
            )
            known = {row.name: deployment_in(row) for row in rows}
        return tuple(Pair(known[one], known[other]) for one, other in pairs if {one, other} <= known.keys())

    def record_findings(self, found: Sequence[Found]) -> None:
        """See register_port.TargetStore."""
        if not found:
            return
        lines = [
            {
                "one": each.pair.one.name,
                "one_address": each.pair.one.address,
                "other": each.pair.other.name,
                "other_address": each.pair.other.address,
                "finding": each.finding.value,
            }
            for each in found
        ]
        with transaction(self.engine) as tx:
            tx.execute(_RECORD, {"found": json.dumps(lines)})

    def findings(self) -> Mapping[str, Mapping[str, Finding]]:
        """See register_port.TargetStore."""
        found: dict[str, dict[str, Finding]] = {}
        with transaction(self.engine) as tx:
            for row in tx.execute(text("SELECT one, other, finding FROM same_targets ORDER BY one, other")):
                found.setdefault(row.one, {})[row.other] = Finding(row.finding)
                found.setdefault(row.other, {})[row.one] = Finding(row.finding)
        return found


def one_target(tx: Connection, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Those of these deployments that are proven to be one target."""
    return tuple((row.root, row.name) for row in tx.execute(_ONE_TARGET, {"names": list(names)}))

"""An apply's operations as the selectors of a wish see them. One statement, however many there are."""

from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId
from tern.domain.selection import Member
from tern.domain.states import State
from tern.store.session import transaction
from tern.store.sql import text
from tern.store.step import Steps

_MEMBERS = text(
    "SELECT o.deployment, o.state, o.wave, coalesce(n.labels, '{}') AS labels FROM applies a"
    " JOIN apply_operations o ON o.apply_id = a.id LEFT JOIN deployments n ON n.name = o.deployment"
    " WHERE a.apply_identifier = :apply ORDER BY o.position"
)


class MemberSteps(Steps):
    """The selecting half of ports.ControlStore."""

    def members(self, apply_id: ApplyId) -> tuple[Member, ...]:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            rows = tx.execute(_MEMBERS, {"apply": apply_id}).all()
        if not rows:
            # An apply has one operation at least (a deferred constraint), so there is no such apply.
            message = f"there is no apply {apply_id}"
            raise NotFound(message, next_step="`tern ls` lists them.")
        return tuple(Member(row.deployment, State(row.state), row.labels, row.wave) for row in rows)

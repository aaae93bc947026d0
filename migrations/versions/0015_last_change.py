"""What was done last at a target is found by its engine and what that calls the target, too: whoever changed it last
may have known it under a name that is forgotten by now. And a sweep finds what was settled lately.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE INDEX apply_operations_finished_at_engine ON apply_operations (engine_number, target, completed_at, id)
            WHERE completed_at IS NOT NULL;
        CREATE INDEX outstanding_calls_settled_at ON outstanding_calls (settled_at) WHERE settled_at IS NOT NULL;
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP INDEX outstanding_calls_settled_at, apply_operations_finished_at_engine"
    )

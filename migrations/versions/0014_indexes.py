"""Two indexes that no statement needs are gone: each was paid for by every dispatch, or by every wait.

What waits for a time is few rows, which the index by that time finds whole; a call without an answer is only looked for
by itself where the clock was set back.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql("DROP INDEX applies_advance_began, apply_operations_unanswered")


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE INDEX applies_advance_began ON applies (advance_began_at) WHERE next_advance_at IS NOT NULL;
        CREATE INDEX apply_operations_unanswered ON apply_operations (unanswered_since)
            WHERE unanswered_since IS NOT NULL;
        """
    )

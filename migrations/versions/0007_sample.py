"""Whose work an id is: finished holders of the same id are found, and a stop may name a foreign job's id.

Workers of the version before neither read nor write the new column, and its default is what they mean.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        -- The id that a person named who wants that job halted although it is not this operation's work.
        ALTER TABLE control_deliveries ADD COLUMN although_foreign text NOT NULL DEFAULT '';
        -- The first look at an id asks which finished operation had the same one before.
        CREATE INDEX apply_operations_by_remote_id ON apply_operations (engine_resume_context)
            WHERE engine_resume_context IS NOT NULL;
        CREATE INDEX applies_by_remote_id ON applies (external_id) WHERE external_id IS NOT NULL;
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP INDEX applies_by_remote_id;
        DROP INDEX apply_operations_by_remote_id;
        ALTER TABLE control_deliveries DROP COLUMN although_foreign;
        """
    )

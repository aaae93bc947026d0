"""Tables and columns say what they mean.

The texts stand in tern/store/comments.py and are written after every upgrade (tern/store/schema.py); this revision is
there so that a database at the one before is upgraded once. On the way down they stay: they disturb nobody.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of the functions; what they say changes only with them."""
    op.execute("""
        COMMENT ON FUNCTION tern_clock IS
            'The time that Tern goes by everywhere: the database''s own, never a worker''s.';
        COMMENT ON FUNCTION tern_hashed IS
            'A field as it enters the hash of a row of the record: its length first, so that no two rows run together.';
        COMMENT ON FUNCTION tern_names_of_target IS
            'All names of one target: the deployment''s own first, and those that are, or may be, the same database.';
    """)


def downgrade() -> None:
    """Nothing."""

"""Who drained a deployment, when and why stands with the deployment.

Until now only the record of an apply that works there had it, and of a deployment where nothing ever worked nobody.

A worker of the version before writes `drained` alone: then who did it is not known, and what stood there about an
earlier drain must not be taken for it.

Revision ID: 0023
Revises: 0018
"""

from alembic import op

revision = "0023"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Three columns, and the trigger that keeps them true to `drained`."""
    op.execute("""
        ALTER TABLE deployments
            ADD drained_by text NOT NULL DEFAULT '',
            ADD drained_reason text NOT NULL DEFAULT '',
            ADD drained_at timestamptz;
        CREATE FUNCTION deployments_know_their_drain() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.drained THEN
                -- By whom is said by whoever writes it: of one that was open nothing stands there.
                NEW.drained_at := tern_clock();
            ELSE
                NEW.drained_at := NULL;
                NEW.drained_by := '';
                NEW.drained_reason := '';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER deployments_know_their_drain BEFORE UPDATE OF drained ON deployments
            FOR EACH ROW WHEN (NEW.drained IS DISTINCT FROM OLD.drained)
            EXECUTE FUNCTION deployments_know_their_drain();
    """)


def downgrade() -> None:
    """As before; who drained what is in the record alone."""
    op.execute("""
        DROP TRIGGER deployments_know_their_drain ON deployments;
        DROP FUNCTION deployments_know_their_drain();
        ALTER TABLE deployments DROP drained_by, DROP drained_reason, DROP drained_at;
    """)

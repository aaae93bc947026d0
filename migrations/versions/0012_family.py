"""Of all operations that share a first one, none is made live again for what another of them has done or does; and a
name of a target that moves stays one.

Until now only an operation's own follow-ups kept it from being run again: of two that carry on the same one, the first,
which its engine had refused, could be tried again after the second had done everything.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FAMILY = """
CREATE OR REPLACE FUNCTION tern_carried_on_by(operation bigint) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE above (id, up) AS (
        SELECT o.id, o.carries_on FROM apply_operations o WHERE o.id = $1
        UNION
        SELECT p.id, p.carries_on FROM above a JOIN apply_operations p ON p.id = a.up
    ), family (id) AS (
        SELECT a.id FROM above a WHERE a.up IS NULL
        UNION
        SELECT o.id FROM family f JOIN apply_operations o ON o.carries_on = f.id
    )
    SELECT o.id FROM family f JOIN apply_operations o ON o.id = f.id
    WHERE o.id <> $1 AND (o.completed_at IS NULL OR EXISTS (SELECT FROM table_changes own
        JOIN table_changes c ON c.operation_id = o.id AND coalesce(c.origin_id, c.id) = coalesce(own.origin_id, own.id)
        WHERE own.operation_id = $1
        AND c.state NOT IN ('pending', 'skipped', 'failed', 'cancelled', 'reverted')))
    ORDER BY o.id DESC LIMIT 1
$$;
COMMENT ON FUNCTION tern_carried_on_by IS
    'The newest other operation of the same first one that may act, or of which a statement that this one has too is in,
or may be: as long as there is one, this operation is not run again.';

CREATE OR REPLACE FUNCTION apply_operations_are_carried_on_once() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    IF (NEW.carries_on IS NOT NULL OR EXISTS (SELECT FROM apply_operations WHERE carries_on = NEW.id))
            AND tern_carried_on_by(NEW.id) IS NOT NULL THEN
        RAISE EXCEPTION 'operation % is carried on by operation %', NEW.id, tern_carried_on_by(NEW.id)
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_are_carried_on_once';
    END IF;
    RETURN NEW;
END $$;

-- Which change was the last at a target is told by when it ended: an older rollout may be tried again later.
DROP INDEX apply_operations_finished_of_deployment;
CREATE INDEX apply_operations_finished_of_deployment ON apply_operations (deployment, completed_at, id)
    WHERE completed_at IS NOT NULL;
"""

NAMES = """
-- What was found about it was found at another address, or of another database. At another address of the same database
-- it may be the same target still: that is asked anew, and counts as one until then.
CREATE OR REPLACE FUNCTION deployments_are_compared_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM same_targets WHERE (one = NEW.name OR other = NEW.name)
        AND (finding = 'two' OR NEW.engine_identity <> OLD.engine_identity);
    UPDATE same_targets SET finding = 'suspected' WHERE (one = NEW.name OR other = NEW.name) AND finding = 'same';
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (FAMILY, NAMES):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE OR REPLACE FUNCTION deployments_are_compared_anew() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM same_targets WHERE one = NEW.name OR other = NEW.name;
            RETURN NULL;
        END $$;
        DROP INDEX apply_operations_finished_of_deployment;
        CREATE INDEX apply_operations_finished_of_deployment ON apply_operations (deployment, id)
            WHERE completed_at IS NOT NULL;
        CREATE OR REPLACE FUNCTION apply_operations_are_carried_on_once() RETURNS trigger LANGUAGE plpgsql
            SET enable_seqscan = off AS $$
        BEGIN
            IF EXISTS (SELECT FROM apply_operations WHERE carries_on = NEW.id)
                    AND tern_carried_on_by(NEW.id) IS NOT NULL THEN
                RAISE EXCEPTION 'operation %% is carried on by operation %%', NEW.id, tern_carried_on_by(NEW.id)
                    USING ERRCODE = 'integrity_constraint_violation',
                    CONSTRAINT = 'apply_operations_are_carried_on_once';
            END IF;
            RETURN NEW;
        END $$;
        CREATE OR REPLACE FUNCTION tern_carried_on_by(operation bigint) RETURNS bigint
            LANGUAGE sql STABLE PARALLEL SAFE AS $$
            WITH RECURSIVE following (id) AS (
                SELECT o.id FROM apply_operations o WHERE o.carries_on = $1
                UNION
                SELECT o.id FROM following f JOIN apply_operations o ON o.carries_on = f.id
            )
            SELECT o.id FROM following f JOIN apply_operations o ON o.id = f.id
            WHERE o.completed_at IS NULL OR o.state = 'completed' OR EXISTS (SELECT FROM table_changes c
                WHERE c.operation_id = o.id
                AND c.state NOT IN ('pending', 'skipped', 'failed', 'cancelled', 'reverted'))
            ORDER BY o.id DESC LIMIT 1
        $$;
        COMMENT ON FUNCTION tern_carried_on_by IS
            'The newest follow-up of an operation, or of its follow-ups, that may act, has completed, or has changed
something: as long as there is one, the operation is not run again.';
        """
    )

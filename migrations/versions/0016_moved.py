"""An engine may be reached at several addresses, and what is outstanding there may stand at several of them.

Until now a deployment's engine was found by the one address that stood with its number: when one of two deployments
moved to another address of the same engine, it was given a new number, as if it were another engine. And a line that
was written for an address, and whose engine has moved from there by proof, kept a later line for that address from
being written.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ENGINES = """
-- A deployment's engine: the one that stands with the same address and environment, else that of another deployment
-- that is reached there, else a new one. Two that are added at the same instant must not make two numbers of one
-- engine, so whoever needs a new one waits for the other and looks again.
CREATE OR REPLACE FUNCTION deployments_have_an_engine() RETURNS trigger LANGUAGE plpgsql
    -- A plan that was made while the register was small would read all of it for each of thousands that are imported.
    SET enable_seqscan = off AS $$
BEGIN
    IF NEW.engine_number IS NOT NULL AND (TG_OP = 'INSERT' OR NEW.engine_number IS DISTINCT FROM OLD.engine_number
        OR (NEW.address, NEW.environment) = (OLD.address, OLD.environment)) THEN
        RETURN NEW;
    END IF;
    FOR look IN 1..2 LOOP
        SELECT min(number) INTO NEW.engine_number FROM engines
            WHERE environment = NEW.environment AND address = NEW.address;
        IF NEW.engine_number IS NULL THEN
            -- By LIMIT one is enough, however many are reached there: they have one number.
            SELECT engine_number INTO NEW.engine_number FROM deployments WHERE address = NEW.address
                AND environment = NEW.environment AND name <> NEW.name AND engine_number IS NOT NULL LIMIT 1;
        END IF;
        IF NEW.engine_number IS NOT NULL THEN
            RETURN NEW;
        END IF;
        LOCK TABLE engines IN SHARE ROW EXCLUSIVE MODE;
    END LOOP;
    INSERT INTO engines (address, environment) VALUES (NEW.address, NEW.environment)
        RETURNING number INTO NEW.engine_number;
    RETURN NEW;
END $$;
"""

LINES = """
-- Where a line is asked about may have moved away from the address that it was written for, and something else may be
-- left behind at that address since.
DROP INDEX outstanding_calls_once;
CREATE UNIQUE INDEX outstanding_calls_once ON outstanding_calls
    (operation_id, coalesce(dispatch_key, ''), coalesce(remote_id, ''), address, proven_address)
    WHERE settled_at IS NULL;
"""


def upgrade() -> None:
    for part in (ENGINES, LINES):
        op.get_bind().exec_driver_sql(part)


def downgrade() -> None:
    # The index stays: what is left behind at two addresses may stand there already, and the version before writes no
    # line twice under this one either.
    op.get_bind().exec_driver_sql(
        """
        CREATE OR REPLACE FUNCTION deployments_have_an_engine() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.engine_number IS NOT NULL AND (TG_OP = 'INSERT'
                OR NEW.engine_number IS DISTINCT FROM OLD.engine_number
                OR (NEW.address, NEW.environment) = (OLD.address, OLD.environment)) THEN
                RETURN NEW;
            END IF;
            SELECT min(number) INTO NEW.engine_number FROM engines
                WHERE environment = NEW.environment AND address = NEW.address;
            IF NEW.engine_number IS NULL THEN
                LOCK TABLE engines IN SHARE ROW EXCLUSIVE MODE;
                SELECT min(number) INTO NEW.engine_number FROM engines
                    WHERE environment = NEW.environment AND address = NEW.address;
            END IF;
            IF NEW.engine_number IS NULL THEN
                INSERT INTO engines (address, environment) VALUES (NEW.address, NEW.environment)
                    RETURNING number INTO NEW.engine_number;
            END IF;
            RETURN NEW;
        END $$;
        ALTER FUNCTION deployments_have_an_engine RESET ALL;
        """
    )

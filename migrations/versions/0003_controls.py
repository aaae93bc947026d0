"""What a control request's last call came to, and a second open request of a verb where its contrary came between.

A worker of the version before knows none of these columns: their defaults say the careful thing, and a trigger keeps
what such a worker writes readable.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE control_deliveries
    ADD COLUMN refused_attempt integer NOT NULL DEFAULT 0,
    ADD COLUMN looks integer NOT NULL DEFAULT 0,
    ADD COLUMN overrides_cancel boolean NOT NULL DEFAULT false,
    ADD COLUMN overrules bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN control_deliveries.refused_attempt IS
    'The newest attempt that was refused for certain. Equal to attempts (0 and 0 too): no call of it is on its way.';
COMMENT ON COLUMN control_deliveries.looks IS
    'Of a start: how often its engine answered a look without saying stopped.';
COMMENT ON COLUMN control_deliveries.overrides_cancel IS
    'Of a start: its asker knows of a cancel that the engine refused, and takes it back.';
COMMENT ON COLUMN control_deliveries.overrules IS
    'The open delivery that came between the first open one of this verb and this one; 0 where there is none.';
"""

INDEX = """
DROP INDEX control_deliveries_one_open_per_verb;
CREATE UNIQUE INDEX control_deliveries_one_open_per_verb ON control_deliveries (operation_id, verb, overrules)
    WHERE state IN ('pending', 'sent');
"""

TRIGGER = """
-- A worker of the version before counts a refusal and says no more; it is the answer to the newest attempt.
CREATE FUNCTION control_deliveries_refusals_are_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.refused_attempt := NEW.attempts;
    RETURN NEW;
END $$;
CREATE TRIGGER control_deliveries_refusals_are_dated BEFORE UPDATE OF refusals ON control_deliveries
    FOR EACH ROW WHEN (NEW.refusals > OLD.refusals)
    EXECUTE FUNCTION control_deliveries_refusals_are_dated();
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (COLUMNS, INDEX, TRIGGER):
        connection.exec_driver_sql(part)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER control_deliveries_refusals_are_dated ON control_deliveries;
        DROP FUNCTION control_deliveries_refusals_are_dated;
        -- Of several open ones of a verb the newest is the last word, and there is room for one.
        UPDATE control_deliveries d SET state = 'moot', closed_at = tern_clock(), next_attempt_at = NULL
            WHERE state IN ('pending', 'sent') AND EXISTS (SELECT 1 FROM control_deliveries n
                WHERE n.operation_id = d.operation_id AND n.verb = d.verb AND n.id > d.id
                AND n.state IN ('pending', 'sent'));
        DROP INDEX control_deliveries_one_open_per_verb;
        CREATE UNIQUE INDEX control_deliveries_one_open_per_verb ON control_deliveries (operation_id, verb)
            WHERE state IN ('pending', 'sent');
        ALTER TABLE control_deliveries DROP COLUMN refused_attempt, DROP COLUMN looks,
            DROP COLUMN overrides_cancel, DROP COLUMN overrules;
        """
    )

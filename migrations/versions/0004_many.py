"""Many at once: when a dispatch was first notified, whose turn it is among applies, and which engines are silent.

Workers of the version before write none of this. What they notify has no first time, which counts as notified just
then; what they find silent they do not count, so that those of this version find it out for themselves.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE apply_operations ADD COLUMN first_rung_at timestamptz;
COMMENT ON COLUMN apply_operations.first_rung_at IS
    'When the dispatch was first notified since it is due; rung_at says when it was last.';

-- Whoever notifies takes so many from the front of each apply, however many wait behind them.
CREATE INDEX apply_operations_due_of_apply ON apply_operations (apply_id, next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;
-- How many of an apply are ahead is counted at every claim.
CREATE INDEX apply_operations_ahead_of_apply ON apply_operations (apply_id, rung_at)
    WHERE next_attempt_at IS NOT NULL AND rung_at IS NOT NULL;

-- Calls of one kind that an engine left without any answer, one after the other; the first answer removes the row.
CREATE TABLE deployment_silences (
    deployment text NOT NULL REFERENCES deployments (name) ON UPDATE CASCADE ON DELETE CASCADE,
    kind text NOT NULL
        CONSTRAINT deployment_silences_kind_is_known CHECK (kind IN ('dispatch', 'control', 'poll', 'health')),
    in_a_row integer NOT NULL CONSTRAINT deployment_silences_are_counted CHECK (in_a_row >= 1),
    since timestamptz NOT NULL DEFAULT tern_clock(),
    last_at timestamptz NOT NULL DEFAULT tern_clock(),
    retry_at timestamptz NOT NULL DEFAULT tern_clock(),
    CONSTRAINT deployment_silences_one_per_kind PRIMARY KEY (deployment, kind)
);
COMMENT ON TABLE deployment_silences IS
    'Deployments whose engine let calls of a kind run out without an answer: how often in a row, and when next.';

-- What was said about the engine at one address says nothing about the one at another.
CREATE FUNCTION deployment_silences_end_with_the_address() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM deployment_silences WHERE deployment = NEW.name;
    RETURN NULL;
END $$;
CREATE TRIGGER deployment_silences_end_with_the_address AFTER UPDATE OF address ON deployments
    FOR EACH ROW WHEN (NEW.address <> OLD.address) EXECUTE FUNCTION deployment_silences_end_with_the_address();
"""

DOWN = """
DROP TRIGGER deployment_silences_end_with_the_address ON deployments;
DROP FUNCTION deployment_silences_end_with_the_address;
DROP TABLE deployment_silences;
DROP INDEX apply_operations_ahead_of_apply, apply_operations_due_of_apply;
ALTER TABLE apply_operations DROP COLUMN first_rung_at;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)

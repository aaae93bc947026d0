"""An operation whose key may act is never pending, whoever puts it back in line.

Of a pending one nothing was sent: it is skipped with a halted rollout, and it is withdrawn without a call. A worker of
the version before makes a retry of what a person called ended pending all the same; what it writes is put right here.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_REVIVED = """
CREATE OR REPLACE TRIGGER apply_operations_are_carried_on_once BEFORE UPDATE OF state ON apply_operations FOR EACH ROW
    WHEN (OLD.state IN ('failed', 'stopped') AND NEW.state IN ({states}))
    EXECUTE FUNCTION apply_operations_are_carried_on_once();
CREATE OR REPLACE TRIGGER apply_operations_wait_again AFTER UPDATE OF state ON apply_operations FOR EACH ROW
    WHEN (OLD.state IN ('failed', 'stopped') AND NEW.state IN ({states}))
    EXECUTE FUNCTION apply_operations_wait_again();
"""
_KEYS_FIRST = """
CREATE OR REPLACE FUNCTION apply_operations_settle_their_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.state := 'failed_retryable';
    NEW.error_reason := 'TRIED_AGAIN';
    NEW.next_attempt_at := tern_clock();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION apply_operations_settle_their_keys IS
    'What was sent under a key that is not dead may act: such an operation asks about it before it waits for its turn.';
CREATE OR REPLACE TRIGGER apply_operations_settle_their_keys
    BEFORE UPDATE OF state, dispatch_key, dispatch_key_is_dead ON apply_operations FOR EACH ROW
    WHEN (NEW.state = 'pending' AND NEW.dispatch_key IS NOT NULL AND NOT NEW.dispatch_key_is_dead)
    EXECUTE FUNCTION apply_operations_settle_their_keys();
"""
_TOLD = """
CREATE OR REPLACE FUNCTION apply_events_are_as_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM apply_operations o WHERE o.id = NEW.operation_id AND o.state = 'failed_retryable'
            AND o.error_reason = 'TRIED_AGAIN') THEN
        NEW.after := 'failed_retryable';
    END IF;
    RETURN NEW;
END $$;
-- Before the chain is computed: triggers fire in the order of their names.
CREATE OR REPLACE TRIGGER apply_events_are_as_written BEFORE INSERT ON apply_events FOR EACH ROW
    WHEN (NEW.event = 'retry' AND NEW.after = 'pending') EXECUTE FUNCTION apply_events_are_as_written();
"""
_FILL = """
-- The trigger does it. Their applies are computed by the next sweep, in the lock order.
WITH settled AS (UPDATE apply_operations SET state = 'pending'
    WHERE state = 'pending' AND dispatch_key IS NOT NULL AND NOT dispatch_key_is_dead RETURNING apply_id, id),
told AS (INSERT INTO apply_events (apply_id, operation_id, event, who, why, before, after)
    SELECT apply_id, id, 'repeat', 'migration 0017', 'what its earlier dispatch started is asked first', 'pending',
        'failed_retryable' FROM settled ORDER BY id)
UPDATE applies SET next_advance_at = tern_clock() WHERE id IN (SELECT apply_id FROM settled);
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (
        _REVIVED.format(states="'pending', 'resuming', 'failed_retryable'"),
        _KEYS_FIRST,
        _TOLD,
        _FILL,
    ):
        connection.exec_driver_sql(part)


def downgrade() -> None:
    # What asks about its key stays retryable, which the version before knows as well.
    connection = op.get_bind()
    connection.exec_driver_sql(
        "DROP TRIGGER apply_events_are_as_written ON apply_events; DROP FUNCTION apply_events_are_as_written();"
        " DROP TRIGGER apply_operations_settle_their_keys ON apply_operations;"
        " DROP FUNCTION apply_operations_settle_their_keys()"
    )
    connection.exec_driver_sql(_REVIVED.format(states="'pending', 'resuming'"))

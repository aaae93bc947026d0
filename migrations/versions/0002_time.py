"""A clock that may go back: claims, leases and waits know when they began; looks and requests are numbered.

Everything is added beside what was there, and filled by triggers where a worker of the version before writes only the
old columns, so that both can work side by side.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE apply_operations
    ADD COLUMN claim_began_at timestamptz,
    ADD COLUMN looks bigint NOT NULL DEFAULT 0,
    ADD COLUMN sampled_look bigint NOT NULL DEFAULT 0,
    ADD COLUMN ended_after_request bigint;
ALTER TABLE control_deliveries
    ADD COLUMN called_look bigint,
    ADD COLUMN called_fence bigint;
ALTER TABLE applies ADD COLUMN advance_began_at timestamptz;
ALTER TABLE worker_canaries ADD COLUMN clock_ahead_s double precision;
ALTER TABLE sweep_leases ADD COLUMN began_at timestamptz NOT NULL DEFAULT tern_clock();

COMMENT ON COLUMN apply_operations.claim_began_at IS
    'When the claim was taken. With claim_expires_at it says how long it lasts, which a clock that is set back leaves'
    ' as it is; means nothing while claim_token is NULL.';
COMMENT ON COLUMN apply_operations.looks IS
    'How many looks at its engine have been written down. A look is written only under the fence it was asked with, so'
    ' one that is counted after a call was claimed was begun after that, whatever any clock says.';
COMMENT ON COLUMN apply_operations.sampled_look IS
    'The number of the last look whose sample was taken over.';
COMMENT ON COLUMN apply_operations.ended_after_request IS
    'The newest control request of its apply that could be seen when it was finished, 0 for none: what was asked for'
    ' with a greater number was asked for later.';
COMMENT ON COLUMN control_deliveries.called_look IS
    'How many looks had been written down when its last call began, or ended without an answer.';
COMMENT ON COLUMN control_deliveries.called_fence IS 'The fence that its last call carried.';
COMMENT ON COLUMN applies.advance_began_at IS
    'When the wait until next_advance_at began. One that began later than now is counted anew.';
COMMENT ON COLUMN worker_canaries.clock_ahead_s IS
    'By how much the clock of the worker was ahead of the database''s; told, and nothing is decided by it.';
COMMENT ON COLUMN sweep_leases.began_at IS
    'When the lease was taken: expires_at less this is its length. The row "clock" is no lease: it keeps the newest'
    ' time at which a sweep found nothing ahead of now.';
"""

# What stands there already. Times were all there was to say what came first.
FILL = """
UPDATE apply_operations SET claim_began_at = least(tern_clock(), claim_expires_at) WHERE claim_token IS NOT NULL;
UPDATE apply_operations o SET ended_after_request = coalesce((SELECT max(r.id) FROM control_requests r
    WHERE r.apply_id = o.apply_id AND r.created_at < o.completed_at), 0) WHERE o.state = 'failed';
UPDATE control_deliveries d SET called_look = 0, called_fence = o.fence FROM apply_operations o
    WHERE o.id = d.operation_id AND d.state IN ('pending', 'sent') AND d.called_at IS NOT NULL;
UPDATE applies SET advance_began_at = tern_clock() WHERE next_advance_at IS NOT NULL;
UPDATE sweep_leases SET began_at = least(tern_clock(), expires_at);
"""

INDEXES = """
-- Each carries the question whether anything lies ahead of now, which a sweep asks every time.
CREATE INDEX apply_operations_finished_at ON apply_operations (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX applies_advance_began ON applies (advance_began_at) WHERE next_advance_at IS NOT NULL;
"""

TRIGGERS = """
-- A claim by a worker that knows no beginning. Our own claims name one, taken from the same reading of the clock.
CREATE FUNCTION claims_have_a_beginning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.claim_began_at := least(tern_clock(), NEW.claim_expires_at);
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_claims_have_a_beginning BEFORE UPDATE OF claim_token ON apply_operations FOR EACH ROW
    WHEN (NEW.claim_token IS NOT NULL AND NEW.claim_token IS DISTINCT FROM OLD.claim_token
        AND NEW.claim_began_at IS NOT DISTINCT FROM OLD.claim_began_at)
    EXECUTE FUNCTION claims_have_a_beginning();

CREATE FUNCTION leases_have_a_beginning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.began_at := least(tern_clock(), NEW.expires_at);
    RETURN NEW;
END $$;
CREATE TRIGGER sweep_leases_have_a_beginning BEFORE UPDATE ON sweep_leases FOR EACH ROW
    WHEN (NEW.began_at = OLD.began_at AND (NEW.token <> OLD.token OR NEW.expires_at > OLD.expires_at))
    EXECUTE FUNCTION leases_have_a_beginning();

CREATE FUNCTION waits_have_a_beginning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.advance_began_at := CASE WHEN NEW.next_advance_at IS NOT NULL THEN tern_clock() END;
    RETURN NEW;
END $$;
CREATE TRIGGER applies_waits_have_a_beginning BEFORE UPDATE OF next_advance_at ON applies FOR EACH ROW
    WHEN (NEW.next_advance_at IS DISTINCT FROM OLD.next_advance_at
        AND NEW.advance_began_at IS NOT DISTINCT FROM OLD.advance_began_at)
    EXECUTE FUNCTION waits_have_a_beginning();

-- A look by a worker that doesn't count them; every look writes when the next one is due.
CREATE FUNCTION looks_are_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.looks := OLD.looks + 1;
    NEW.sampled_look := NEW.looks;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_looks_are_counted BEFORE UPDATE OF sampled_at ON apply_operations FOR EACH ROW
    WHEN (NEW.looks = OLD.looks AND NEW.sampled_at IS DISTINCT FROM OLD.sampled_at
        AND NEW.next_poll_at IS DISTINCT FROM OLD.next_poll_at)
    EXECUTE FUNCTION looks_are_counted();

-- Whoever notes a call notes with it which looks came before: whoever calls holds the operation's row.
CREATE FUNCTION calls_are_numbered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT looks, fence INTO NEW.called_look, NEW.called_fence FROM apply_operations WHERE id = NEW.operation_id;
    RETURN NEW;
END $$;
CREATE TRIGGER control_deliveries_calls_are_numbered BEFORE UPDATE OF called_at ON control_deliveries FOR EACH ROW
    WHEN (NEW.called_at IS DISTINCT FROM OLD.called_at) EXECUTE FUNCTION calls_are_numbered();

-- What is finished is claimed by nobody, whoever finished it: a driver that died in the middle of a control never gives
-- its claim back, and nobody would take it over. And it remembers which requests came before its end.
CREATE FUNCTION operations_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.claim_token := NULL;
    NEW.claim_owner := NULL;
    NEW.claim_expires_at := NULL;
    IF NEW.ended_after_request IS NOT DISTINCT FROM OLD.ended_after_request THEN
        NEW.ended_after_request :=
            coalesce((SELECT max(id) FROM control_requests WHERE apply_id = NEW.apply_id), 0);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_end BEFORE UPDATE OF completed_at ON apply_operations FOR EACH ROW
    WHEN (NEW.completed_at IS NOT NULL AND OLD.completed_at IS NULL) EXECUTE FUNCTION operations_end();
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (COLUMNS, FILL, INDEXES, TRIGGERS):
        connection.exec_driver_sql(part)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER apply_operations_end ON apply_operations;
        DROP TRIGGER control_deliveries_calls_are_numbered ON control_deliveries;
        DROP TRIGGER apply_operations_looks_are_counted ON apply_operations;
        DROP TRIGGER applies_waits_have_a_beginning ON applies;
        DROP TRIGGER sweep_leases_have_a_beginning ON sweep_leases;
        DROP TRIGGER apply_operations_claims_have_a_beginning ON apply_operations;
        DROP FUNCTION operations_end, calls_are_numbered, looks_are_counted, waits_have_a_beginning,
            leases_have_a_beginning, claims_have_a_beginning;
        DELETE FROM sweep_leases WHERE name = 'clock';
        ALTER TABLE sweep_leases DROP COLUMN began_at;
        DROP INDEX applies_advance_began, apply_operations_finished_at;
        ALTER TABLE worker_canaries DROP COLUMN clock_ahead_s;
        ALTER TABLE applies DROP COLUMN advance_began_at;
        ALTER TABLE control_deliveries DROP COLUMN called_look, DROP COLUMN called_fence;
        ALTER TABLE apply_operations DROP COLUMN claim_began_at, DROP COLUMN looks, DROP COLUMN sampled_look,
            DROP COLUMN ended_after_request;
        """
    )

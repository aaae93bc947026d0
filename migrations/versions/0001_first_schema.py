"""The first schema: tables, the guards that hold whoever writes, and an index for every claimable query.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CLOCK = """
-- The only clock that decides anything. A function of its own, so that a test can move time for everybody.
CREATE FUNCTION tern_clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT clock_timestamp() $$;
"""

TABLES = """
CREATE TABLE deployments (
    name text CONSTRAINT deployments_are_named PRIMARY KEY
        CONSTRAINT deployments_name_is_safe CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    environment text NOT NULL,
    database text NOT NULL,
    address text NOT NULL
        CONSTRAINT deployments_address_has_no_password CHECK (address !~ '://[^/@]*:[^/@]*@'),
    target text NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    position integer NOT NULL DEFAULT 0,
    credentials jsonb NOT NULL DEFAULT '{}',
    capabilities jsonb NOT NULL DEFAULT '{}',
    idempotent_dispatch boolean NOT NULL DEFAULT false,
    drained boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT tern_clock(),
    CONSTRAINT deployments_one_per_target UNIQUE (address, target)
);

CREATE TABLE plans (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_identifier text NOT NULL CONSTRAINT plans_identifier_is_unique UNIQUE
        CONSTRAINT plans_identifier_has_its_prefix CHECK (plan_identifier LIKE 'pln-%'),
    environment text NOT NULL,
    database text NOT NULL,
    database_type text NOT NULL,
    -- Where it was reviewed for, in rollout order; empty where nobody chose.
    targets jsonb NOT NULL DEFAULT '[]',
    -- How it was reviewed to be rolled out; NULL where nobody said.
    policy jsonb,
    digest text NOT NULL,
    caller text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT tern_clock(),
    CONSTRAINT plans_same_content_is_one_plan UNIQUE (environment, database, digest)
);

CREATE TABLE plan_changes (
    plan_id bigint NOT NULL REFERENCES plans (id),
    ordinal integer NOT NULL,
    namespace text NOT NULL,
    table_name text NOT NULL,
    ddl text NOT NULL CONSTRAINT plan_changes_ddl_is_not_empty CHECK (btrim(ddl) <> ''),
    action text NOT NULL
        CONSTRAINT plan_changes_action_is_known CHECK (action IN ('create', 'alter', 'drop', 'other')),
    unsafe_reason text NOT NULL DEFAULT '',
    PRIMARY KEY (plan_id, ordinal)
);

CREATE TABLE applies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    apply_identifier text NOT NULL CONSTRAINT applies_identifier_is_unique UNIQUE
        CONSTRAINT applies_identifier_has_its_prefix CHECK (apply_identifier LIKE 'apl-%'),
    plan_id bigint NOT NULL REFERENCES plans (id),
    environment text NOT NULL,
    database text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CONSTRAINT applies_state_is_known CHECK (state IN (
        'pending', 'running', 'waiting_for_cutover', 'cutting_over', 'revert_window', 'running_degraded', 'paused',
        'completed', 'failed', 'cancelled', 'reverted', 'stopped')),
    external_id text CONSTRAINT applies_external_id_is_not_empty CHECK (external_id <> ''),
    operation_count integer NOT NULL CONSTRAINT applies_have_operations CHECK (operation_count >= 1),
    options jsonb NOT NULL DEFAULT '{}',
    policy jsonb NOT NULL,
    idempotency_key text NOT NULL CONSTRAINT applies_one_per_key UNIQUE,
    request_digest text NOT NULL,
    caller text NOT NULL,
    reason text NOT NULL,
    error_message text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 0,
    verdict_effects_done_at timestamptz,
    next_advance_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT tern_clock(),
    state_changed_at timestamptz NOT NULL DEFAULT tern_clock(),
    completed_at timestamptz,
    CONSTRAINT applies_only_single_ones_hold_a_remote_id CHECK (external_id IS NULL OR operation_count = 1),
    CONSTRAINT applies_finished_ones_are_completed CHECK (
        (completed_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled', 'reverted')))
);

CREATE TABLE apply_operations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    apply_id bigint NOT NULL REFERENCES applies (id),
    deployment text NOT NULL CONSTRAINT apply_operations_have_a_deployment CHECK (deployment <> ''),
    position integer NOT NULL,
    wave integer NOT NULL DEFAULT 0 CONSTRAINT apply_operations_waves_count_from_one CHECK (wave >= 0),
    target text NOT NULL,
    -- Of the target and the changes that may be sent to it; what differs at the last moment is not sent.
    change_digest text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'pending' CONSTRAINT apply_operations_state_is_known CHECK (state IN (
        'pending', 'running', 'waiting_for_cutover', 'cutting_over', 'revert_window', 'reverting', 'resuming',
        'failed_retryable', 'uncertain',
        'completed', 'failed', 'cancelled', 'reverted', 'skipped', 'stopped')),
    engine_resume_context text
        CONSTRAINT apply_operations_remote_id_is_not_empty CHECK (engine_resume_context <> ''),
    engine_resume_metadata jsonb NOT NULL DEFAULT '{}',
    attempt integer NOT NULL DEFAULT 0,
    answered_attempts integer NOT NULL DEFAULT 0,
    dispatch_generation integer NOT NULL DEFAULT 1,
    dispatch_key text,
    dispatch_intent_at timestamptz,
    dispatch_key_is_dead boolean NOT NULL DEFAULT false,
    repeat_is_safe boolean NOT NULL DEFAULT false,
    runs_though_stopped boolean NOT NULL DEFAULT false,
    fence bigint NOT NULL DEFAULT 0,
    claim_token text,
    claim_owner text,
    claim_expires_at timestamptz,
    next_attempt_at timestamptz,
    rung_at timestamptz,
    next_poll_at timestamptz,
    progress_revision numeric(20) NOT NULL DEFAULT 0,
    sampled_at timestamptz,
    sampled_attempt integer,
    poll_failures integer NOT NULL DEFAULT 0,
    poll_error text NOT NULL DEFAULT '',
    start_sent_at timestamptz,
    volume integer CONSTRAINT apply_operations_volume_is_one CHECK (volume BETWEEN 1 AND 11),
    summary text NOT NULL DEFAULT '',
    error_reason text NOT NULL DEFAULT '',
    error_message text NOT NULL DEFAULT '',
    started_at timestamptz,
    state_changed_at timestamptz NOT NULL DEFAULT tern_clock(),
    completed_at timestamptz,
    CONSTRAINT apply_operations_one_per_deployment UNIQUE (apply_id, deployment),
    CONSTRAINT apply_operations_one_per_position UNIQUE (apply_id, position),
    CONSTRAINT apply_operations_fence_only_rises CHECK (fence >= 0),
    CONSTRAINT apply_operations_claims_are_whole CHECK (
        (claim_token IS NULL) = (claim_expires_at IS NULL) AND (claim_token IS NULL) = (claim_owner IS NULL)),
    CONSTRAINT apply_operations_intents_are_whole CHECK ((dispatch_key IS NULL) = (dispatch_intent_at IS NULL)),
    CONSTRAINT apply_operations_finished_ones_are_completed CHECK (
        (completed_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled', 'reverted', 'skipped')))
);

-- How many operations each state has, in each wave, kept by a trigger: whoever decides about a rollout counts, at every
-- step of every operation, and must not read ten thousand rows for it.
CREATE TABLE operation_counts (
    apply_id bigint NOT NULL REFERENCES applies (id),
    wave integer NOT NULL,
    state text NOT NULL,
    n bigint NOT NULL,
    admitted bigint NOT NULL,
    CONSTRAINT operation_counts_one_per_state PRIMARY KEY (apply_id, wave, state)
) WITH (fillfactor = 50);

CREATE TABLE table_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation_id bigint NOT NULL REFERENCES apply_operations (id),
    apply_id bigint NOT NULL REFERENCES applies (id),
    ordinal integer NOT NULL,
    namespace text NOT NULL,
    table_name text NOT NULL,
    ddl text NOT NULL,
    action text NOT NULL,
    unsafe_reason text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'pending',
    rows_copied bigint,
    rows_total bigint,
    percent integer NOT NULL DEFAULT 0
        CONSTRAINT table_changes_percent_is_one CHECK (percent BETWEEN 0 AND 100),
    eta_seconds bigint,
    checksum_rows_checked bigint,
    checksum_rows_total bigint,
    detail text NOT NULL DEFAULT '',
    error text NOT NULL DEFAULT '',
    CONSTRAINT table_changes_one_per_ordinal UNIQUE (operation_id, ordinal)
);

CREATE TABLE control_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    apply_id bigint NOT NULL REFERENCES applies (id),
    verb text NOT NULL CONSTRAINT control_requests_verb_is_known
        CHECK (verb IN ('stop', 'start', 'cutover', 'cancel', 'retry', 'skip', 'release', 'revert', 'skip-revert',
                        'volume')),
    failures_released integer,
    volume integer,
    caller text NOT NULL,
    reason text NOT NULL CONSTRAINT control_requests_have_a_reason CHECK (btrim(reason) <> ''),
    outcomes jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT tern_clock(),
    hash bytea NOT NULL DEFAULT '\\x',
    CONSTRAINT control_requests_releases_say_how_much CHECK (
        (failures_released IS NOT NULL) = (verb = 'release') AND failures_released >= 0),
    CONSTRAINT control_requests_volumes_are_named CHECK (
        (volume IS NOT NULL) = (verb = 'volume') AND volume BETWEEN 1 AND 11)
);

CREATE TABLE control_deliveries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id bigint NOT NULL REFERENCES control_requests (id),
    apply_id bigint NOT NULL REFERENCES applies (id),
    operation_id bigint NOT NULL REFERENCES apply_operations (id),
    verb text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CONSTRAINT control_deliveries_state_is_known
        CHECK (state IN ('pending', 'sent', 'acknowledged', 'failed', 'moot', 'too_late')),
    attempts integer NOT NULL DEFAULT 0,
    refusals integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT tern_clock(),
    called_at timestamptz,
    sent_at timestamptz,
    engine_words text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT tern_clock(),
    closed_at timestamptz,
    CONSTRAINT control_deliveries_sent_ones_are_dated CHECK (state <> 'sent' OR sent_at IS NOT NULL),
    CONSTRAINT control_deliveries_closed_ones_are_dated CHECK (
        (closed_at IS NULL) = (state IN ('pending', 'sent'))),
    CONSTRAINT control_deliveries_closed_ones_are_not_due CHECK (
        state IN ('pending', 'sent') OR next_attempt_at IS NULL)
);

-- What each engine said that a change would do: for a reviewer (no apply), and again before a rollout begins.
CREATE TABLE previews (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id bigint NOT NULL REFERENCES plans (id),
    apply_id bigint REFERENCES applies (id),
    deployment text NOT NULL,
    outcome text NOT NULL CONSTRAINT previews_outcome_is_known
        CHECK (outcome IN ('previewed', 'refused', 'unreachable', 'not_offered', 'not_asked')),
    words text NOT NULL DEFAULT '',
    changes jsonb NOT NULL DEFAULT '[]',
    drift jsonb NOT NULL DEFAULT '[]',
    caller text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT tern_clock()
);

CREATE TABLE target_reservations (
    environment text NOT NULL,
    database text NOT NULL,
    deployment text NOT NULL,
    apply_id bigint NOT NULL REFERENCES applies (id),
    taken_at timestamptz NOT NULL DEFAULT tern_clock(),
    CONSTRAINT target_reservations_one_live_apply_per_target PRIMARY KEY (environment, database, deployment)
);

-- What became of a message that asked for a rollout and was refused: its sender has no other way to hear of it.
CREATE TABLE enqueue_refusals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    idempotency_key text NOT NULL,
    caller text NOT NULL,
    reason text NOT NULL,
    what text NOT NULL,
    why jsonb NOT NULL DEFAULT '[]',
    next_step text NOT NULL DEFAULT '',
    at timestamptz NOT NULL DEFAULT tern_clock()
);

CREATE TABLE apply_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    apply_id bigint NOT NULL,
    operation_id bigint,
    number bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT tern_clock(),
    event text NOT NULL,
    who text NOT NULL,
    why text NOT NULL DEFAULT '',
    before text NOT NULL DEFAULT '',
    after text NOT NULL DEFAULT '',
    -- json, not jsonb: it stays the text that was written, and the hash covers exactly that.
    detail json NOT NULL DEFAULT '{}',
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL
);

-- The end of every chain of events: one for each operation, and operation 0 for what the apply itself went through.
-- That an event is the last one can be seen only from here, so a chain that lost its tail is noticed.
CREATE TABLE event_chains (
    apply_id bigint NOT NULL REFERENCES applies (id),
    operation_id bigint NOT NULL,
    length bigint NOT NULL,
    previous bytea NOT NULL,
    head bytea NOT NULL,
    CONSTRAINT event_chains_one_per_operation PRIMARY KEY (apply_id, operation_id)
) WITH (fillfactor = 70);

-- The last worker that answered from each queue: proof that somebody reads it, without a result backend.
CREATE TABLE worker_canaries (
    queue text CONSTRAINT worker_canaries_one_per_queue PRIMARY KEY,
    token text NOT NULL,
    answered_by text NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT tern_clock()
);

CREATE TABLE sweep_leases (
    name text CONSTRAINT sweep_leases_one_per_name PRIMARY KEY,
    owner text NOT NULL,
    token text NOT NULL,
    expires_at timestamptz NOT NULL,
    finished_at timestamptz,
    finished_by text NOT NULL DEFAULT ''
);
"""

INDEXES = """
-- Each carries a query that looks for what is due; its cost follows what is due, not what exists.
CREATE INDEX apply_operations_due_for_dispatch ON apply_operations (next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX apply_operations_due_for_poll ON apply_operations (next_poll_at) INCLUDE (deployment)
    WHERE next_poll_at IS NOT NULL;
CREATE INDEX apply_operations_polled_at ON apply_operations (deployment, next_poll_at)
    WHERE next_poll_at IS NOT NULL;
CREATE INDEX apply_operations_retryable_at ON apply_operations (deployment)
    WHERE state = 'failed_retryable';
CREATE INDEX apply_operations_claimed ON apply_operations (claim_expires_at) WHERE claim_token IS NOT NULL;
CREATE INDEX apply_operations_by_state ON apply_operations (apply_id, state, wave, position);
CREATE INDEX apply_operations_ended_at ON apply_operations (apply_id, state, wave, completed_at)
    WHERE completed_at IS NOT NULL;
CREATE INDEX applies_live ON applies (id)
    WHERE state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped');
CREATE INDEX applies_verdict_effects_due ON applies (id)
    WHERE state IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped') AND verdict_effects_done_at IS NULL;
CREATE INDEX applies_due_for_advance ON applies (next_advance_at) WHERE next_advance_at IS NOT NULL;
CREATE INDEX table_changes_of_apply ON table_changes (apply_id);
CREATE UNIQUE INDEX control_deliveries_one_open_per_verb ON control_deliveries (operation_id, verb)
    WHERE state IN ('pending', 'sent');
CREATE INDEX control_deliveries_due ON control_deliveries (next_attempt_at)
    WHERE state IN ('pending', 'sent');
CREATE INDEX control_deliveries_by_operation ON control_deliveries (operation_id, id);
CREATE INDEX control_deliveries_open_of_apply ON control_deliveries (apply_id) WHERE state IN ('pending', 'sent');
CREATE INDEX control_requests_of_apply ON control_requests (apply_id, id);
CREATE INDEX control_requests_releases ON control_requests (apply_id, id) WHERE verb = 'release';
CREATE INDEX previews_of_plan ON previews (plan_id, deployment, id) WHERE apply_id IS NULL;
CREATE UNIQUE INDEX previews_of_apply ON previews (apply_id, deployment) WHERE apply_id IS NOT NULL;
CREATE INDEX enqueue_refusals_of_key ON enqueue_refusals (idempotency_key, id);
CREATE INDEX target_reservations_of_apply ON target_reservations (apply_id);
CREATE INDEX apply_events_of_apply ON apply_events (apply_id, id);
CREATE UNIQUE INDEX apply_events_of_operation ON apply_events (operation_id, number)
    WHERE operation_id IS NOT NULL;
CREATE UNIQUE INDEX apply_events_of_apply_alone ON apply_events (apply_id, number) WHERE operation_id IS NULL;
"""

GUARDS = """
-- A stored remote id is never replaced and never emptied; the count of operations never changes (G1, G5).
CREATE FUNCTION applies_are_guarded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.external_id IS NOT NULL AND NEW.external_id IS DISTINCT FROM OLD.external_id THEN
        RAISE EXCEPTION 'the remote id of % is final', OLD.apply_identifier
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'applies_remote_id_is_final';
    END IF;
    IF NEW.operation_count <> OLD.operation_count OR NEW.apply_identifier <> OLD.apply_identifier
        OR NEW.policy <> OLD.policy OR NEW.plan_id <> OLD.plan_id THEN
        RAISE EXCEPTION 'identity, plan, policy and operation count of % are frozen', OLD.apply_identifier
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'applies_are_frozen';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER applies_are_guarded BEFORE UPDATE ON applies
    FOR EACH ROW EXECUTE FUNCTION applies_are_guarded();

CREATE FUNCTION apply_operations_are_guarded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.engine_resume_context IS NOT NULL
        AND NEW.engine_resume_context IS DISTINCT FROM OLD.engine_resume_context THEN
        RAISE EXCEPTION 'the remote id of operation % is final', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_remote_id_is_final';
    END IF;
    IF NEW.apply_id <> OLD.apply_id OR NEW.deployment <> OLD.deployment
        OR NEW.target <> OLD.target OR NEW.change_digest <> OLD.change_digest THEN
        RAISE EXCEPTION 'operation % belongs to its apply and its deployment', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_stay_where_they_are';
    END IF;
    IF NEW.fence < OLD.fence OR NEW.dispatch_generation < OLD.dispatch_generation THEN
        RAISE EXCEPTION 'fence and generation of operation % only rise', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_fence_only_rises';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_are_guarded BEFORE UPDATE ON apply_operations
    FOR EACH ROW EXECUTE FUNCTION apply_operations_are_guarded();

-- In a single apply the id lives with the apply, so an operation may never hold one (G1).
CREATE FUNCTION apply_operations_of_single_hold_no_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT operation_count FROM applies WHERE id = NEW.apply_id) = 1 THEN
        RAISE EXCEPTION 'operation % is its apply''s only one: its remote id lives in applies.external_id', NEW.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'apply_operations_of_single_hold_no_id';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_of_single_hold_no_id
    BEFORE INSERT OR UPDATE OF engine_resume_context ON apply_operations
    FOR EACH ROW WHEN (NEW.engine_resume_context IS NOT NULL)
    EXECUTE FUNCTION apply_operations_of_single_hold_no_id();

-- The declared count is the real one at every commit. Checked once an apply, not once an operation: positions are
-- unique and below the count, so an insert can't exceed it, and only a new apply or a deletion can fall short.
CREATE FUNCTION apply_operations_fit_their_apply() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.position < 0
        OR NEW.position >= (SELECT operation_count FROM applies WHERE id = NEW.apply_id) THEN
        RAISE EXCEPTION 'position % is outside of the operation count of its apply', NEW.position
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'applies_operation_count_is_true';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_fit_their_apply BEFORE INSERT OR UPDATE OF position ON apply_operations
    FOR EACH ROW EXECUTE FUNCTION apply_operations_fit_their_apply();

CREATE FUNCTION applies_operation_count_is_true() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    declared integer;
    real integer;
    apply bigint := CASE TG_TABLE_NAME WHEN 'applies' THEN (to_jsonb(NEW) ->> 'id')::bigint
                                       ELSE (to_jsonb(OLD) ->> 'apply_id')::bigint END;
BEGIN
    SELECT operation_count INTO declared FROM applies WHERE id = apply;
    SELECT count(*) INTO real FROM apply_operations WHERE apply_id = apply;
    IF declared IS NOT NULL AND declared <> real THEN
        RAISE EXCEPTION 'apply % declares % operations and has %', apply, declared, real
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'applies_operation_count_is_true';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER applies_operation_count_is_true AFTER INSERT ON applies
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION applies_operation_count_is_true();
CREATE CONSTRAINT TRIGGER applies_operation_count_is_true AFTER DELETE ON apply_operations
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION applies_operation_count_is_true();

-- Once a statement, however many rows it moves: a count that is written again for each of ten thousand rows would be
-- found through all of its earlier versions. Who moves an operation holds its apply's lock, so nobody waits here.
CREATE FUNCTION operations_are_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO operation_counts AS c (apply_id, wave, state, n, admitted)
            SELECT apply_id, wave, state, count(*),
                count(*) FILTER (WHERE state = 'pending' AND next_attempt_at IS NOT NULL)
            FROM new_rows GROUP BY apply_id, wave, state
            ON CONFLICT ON CONSTRAINT operation_counts_one_per_state
            DO UPDATE SET n = c.n + excluded.n, admitted = c.admitted + excluded.admitted;
        RETURN NULL;
    END IF;
    INSERT INTO operation_counts AS c (apply_id, wave, state, n, admitted)
        SELECT apply_id, wave, state, sum(n), sum(admitted) FROM (
            SELECT apply_id, wave, state, 1 AS n, (state = 'pending' AND next_attempt_at IS NOT NULL)::int AS admitted
                FROM new_rows
            UNION ALL
            SELECT apply_id, wave, state, -1, -(state = 'pending' AND next_attempt_at IS NOT NULL)::int FROM old_rows
        ) d GROUP BY apply_id, wave, state HAVING sum(n) <> 0 OR sum(admitted) <> 0
        ORDER BY apply_id, wave, state
        ON CONFLICT ON CONSTRAINT operation_counts_one_per_state
        DO UPDATE SET n = c.n + excluded.n, admitted = c.admitted + excluded.admitted;
    RETURN NULL;
END $$;
CREATE TRIGGER operations_are_counted_in AFTER INSERT ON apply_operations
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION operations_are_counted();
CREATE TRIGGER operations_are_counted_on AFTER UPDATE ON apply_operations
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION operations_are_counted();

-- What was reviewed, asked for or done stays as it was written (G15).
CREATE FUNCTION rows_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_TABLE_NAME || '_is_append_only';
END $$;
CREATE TRIGGER plans_is_append_only BEFORE UPDATE OR DELETE ON plans
    FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();
CREATE TRIGGER plan_changes_is_append_only BEFORE UPDATE OR DELETE ON plan_changes
    FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();
CREATE TRIGGER previews_is_append_only BEFORE UPDATE OR DELETE ON previews
    FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();
-- Named columns only: progress writes to the same rows all the time, and pays nothing for this.
CREATE TRIGGER table_changes_is_append_only BEFORE UPDATE OF ddl, namespace, table_name, action, unsafe_reason
    ON table_changes FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();
CREATE TRIGGER control_requests_is_append_only BEFORE UPDATE OR DELETE ON control_requests
    FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();
CREATE TRIGGER apply_events_is_append_only BEFORE UPDATE OR DELETE ON apply_events
    FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();

CREATE TRIGGER event_chains_is_append_only BEFORE UPDATE ON event_chains FOR EACH ROW
    WHEN (NEW.apply_id <> OLD.apply_id OR NEW.operation_id <> OLD.operation_id
        OR NEW.length <> OLD.length + 1 OR NEW.previous <> OLD.head)
    EXECUTE FUNCTION rows_are_append_only();
CREATE TRIGGER event_chains_stay BEFORE DELETE ON event_chains
    FOR EACH ROW EXECUTE FUNCTION rows_are_append_only();

-- Once a chain, where a foreign key would look once an event.
CREATE FUNCTION event_chains_belong_to_their_apply() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- By its key alone: before the first ANALYZE a planner that is given both reads all operations of the apply.
    IF (SELECT apply_id FROM apply_operations WHERE id = NEW.operation_id) IS DISTINCT FROM NEW.apply_id THEN
        RAISE EXCEPTION 'operation % is none of apply %', NEW.operation_id, NEW.apply_id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'event_chains_belong_to_their_apply';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER event_chains_belong_to_their_apply AFTER INSERT ON event_chains
    FOR EACH ROW WHEN (NEW.operation_id <> 0) EXECUTE FUNCTION event_chains_belong_to_their_apply();

-- One field of what is hashed: its length in characters and the text, so that no two events read the same. The cast
-- keeps it immutable inside, without which it is called and not inlined: twice the price of an event.
CREATE FUNCTION tern_hashed(field text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT coalesce(length(field)::text || ':' || field, '-') $$;

-- A request is hashed for itself: in a chain, one operator's stop would wait for another's.
CREATE FUNCTION control_requests_are_hashed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.hash := sha256(convert_to(tern_hashed(NEW.id::text) || tern_hashed(NEW.apply_id::text)
        || tern_hashed((extract(epoch FROM NEW.created_at) * 1000000)::bigint::text) || tern_hashed(NEW.verb)
        || tern_hashed(NEW.caller) || tern_hashed(NEW.reason) || tern_hashed(NEW.outcomes::text), 'UTF8'));
    RETURN NEW;
END $$;
CREATE TRIGGER control_requests_are_hashed BEFORE INSERT ON control_requests
    FOR EACH ROW EXECUTE FUNCTION control_requests_are_hashed();

-- Each event carries a hash over itself and its predecessor in its chain. The row in event_chains is written last
-- and by key, so that two writers of one chain follow each other even if they hold no other lock.
CREATE FUNCTION apply_events_are_chained() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line bytea := convert_to(tern_hashed(NEW.id::text) || tern_hashed(NEW.apply_id::text)
        || tern_hashed(NEW.operation_id::text) || tern_hashed((extract(epoch FROM NEW.at) * 1000000)::bigint::text)
        || tern_hashed(NEW.event) || tern_hashed(NEW.who) || tern_hashed(NEW.why) || tern_hashed(NEW.before)
        || tern_hashed(NEW.after) || tern_hashed(NEW.detail::text), 'UTF8');
BEGIN
    INSERT INTO event_chains AS c (apply_id, operation_id, length, previous, head)
        VALUES (NEW.apply_id, coalesce(NEW.operation_id, 0), 1, '\\x00', sha256('\\x00'::bytea || '1:'::bytea || line))
        ON CONFLICT ON CONSTRAINT event_chains_one_per_operation
        DO UPDATE SET length = c.length + 1, previous = c.head,
            head = sha256(c.head || convert_to((c.length + 1)::text || ':', 'UTF8') || line)
        RETURNING c.length, c.previous, c.head INTO NEW.number, NEW.previous_hash, NEW.hash;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_events_are_chained BEFORE INSERT ON apply_events
    FOR EACH ROW EXECUTE FUNCTION apply_events_are_chained();
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (CLOCK, TABLES, INDEXES, GUARDS):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TABLE sweep_leases, worker_canaries, enqueue_refusals, event_chains, apply_events, previews,
            target_reservations, control_deliveries, control_requests, table_changes, operation_counts,
            apply_operations, applies, plan_changes, plans, deployments;
        DROP FUNCTION apply_events_are_chained, control_requests_are_hashed, tern_hashed,
            event_chains_belong_to_their_apply, rows_are_append_only, operations_are_counted,
            applies_operation_count_is_true, apply_operations_fit_their_apply,
            apply_operations_of_single_hold_no_id, apply_operations_are_guarded, applies_are_guarded, tern_clock;
        """
    )

"""Tables full of operations, written past the triggers: what a busy installation looks like after a year."""

from tern.store.database import Database
from tern.store.sql import text

_PLAN = (
    "INSERT INTO plans (plan_identifier, environment, database, database_type, digest, caller)"
    " VALUES ('pln-filling', 'bench', 'shop', 'postgres', 'x', 'bench') ON CONFLICT DO NOTHING"
)
_APPLIES = (
    "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy, idempotency_key,"
    " request_digest, caller, reason, state, completed_at, verdict_effects_done_at)"
    " SELECT 'apl-' || lpad(n::text, 16, '0'), p.id, 'bench', 'shop-' || n, :each, CAST(:policy AS jsonb),"
    " 'filling-' || n, '', 'bench', 'to fill', :apply_state, CASE WHEN :is_over THEN now() END,"
    " CASE WHEN :is_over THEN now() END"
    " FROM plans p, generate_series(CAST(1 AS bigint), :applies) n WHERE p.plan_identifier = 'pln-filling'"
)
_OPERATIONS = (
    "INSERT INTO apply_operations (apply_id, deployment, position, target, state, completed_at, attempt, fence,"
    " engine_resume_context, dispatch_key, dispatch_intent_at, next_poll_at, sampled_at, progress_revision)"
    " SELECT a.id, 'd' || lpad(n::text, 4, '0'), n, 't', :state, CASE WHEN :is_over THEN now() END, 1, 1,"
    " 'job-' || ((a.id - 1) * :each + n), 'key', now(), CASE WHEN NOT :is_over THEN now() END, now(), 1"
    " FROM applies a, generate_series(CAST(0 AS bigint), :each - 1) n WHERE a.caller = 'bench' AND a.reason = 'to fill'"
)
_CHANGES = (
    "INSERT INTO table_changes (operation_id, apply_id, ordinal, namespace, table_name, ddl, action, state)"
    " SELECT id, apply_id, 0, 'public', 'orders', 'ALTER TABLE orders ADD COLUMN note text', 'alter', state"
    " FROM apply_operations"
)
_COUNTS = (
    "INSERT INTO operation_counts (apply_id, wave, state, n, admitted)"
    " SELECT apply_id, wave, state, count(*), 0 FROM apply_operations GROUP BY apply_id, wave, state"
)


def fill(database: Database, *, applies: int, each: int, policy: str, is_over: bool) -> None:
    """So many applies of so many operations each: all completed, or all running and due for a look."""
    given = {
        "applies": applies,
        "each": each,
        "policy": policy,
        "is_over": is_over,
        "apply_state": "completed" if is_over else "running",
        "state": "completed" if is_over else "running",
    }
    with database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("SET LOCAL statement_timeout = 0"))
        tx.execute(text("SET LOCAL synchronous_commit = off"))
        for statement in (_PLAN, _APPLIES, _OPERATIONS, _CHANGES, _COUNTS):
            tx.execute(text(statement), given)
        tx.execute(text("ANALYZE"))

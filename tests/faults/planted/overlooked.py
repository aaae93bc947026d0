"""Planted bugs that a whole suite had overlooked, each of a kind of its own.

Orders of locks, indexes, guarded columns, who holds a lock, sessions, fates, periods, counters, fields, secrets.
"""

from tests.faults.planted.mutant import D_CONTROL, MIGRATION, RESERVATION, mutant

_LOCKS, _SESSION = "tern/engine/locks.py", "tern/engine/session.py"
_ORDER, _GUARDS = "tests/store/test_lock_order.py", "tests/store/test_guards.py"

MUTANTS = (
    mutant(
        "G13",
        "targets are taken in the order in which somebody wrote them",
        _ORDER,
        RESERVATION,
        "name, :apply FROM wanted ORDER BY name",
        "name, :apply FROM wanted",
    ),
    mutant(
        "G13",
        "targets are taken back in no order",
        _ORDER,
        RESERVATION,
        "AS name ORDER BY name",
        "AS name",
    ),
    mutant(
        "§4",
        "an index for open wishes is gone",
        "tests/store/test_index.py",
        MIGRATION,
        "CREATE INDEX control_deliveries_open_of_apply ON control_deliveries (apply_id)",
        "CREATE INDEX control_deliveries_open_of_apply ON control_deliveries (state)",
    ),
    mutant(
        "G15",
        "an operation's target may be rewritten",
        _GUARDS,
        MIGRATION,
        "        OR NEW.target <> OLD.target OR NEW.change_digest",
        "        OR NEW.change_digest",
    ),
    mutant(
        "G16",
        "a prepared transaction is in nobody's way",
        "tests/engine/test_locks.py",
        _LOCKS,
        "AND held.pid IS DISTINCT FROM pg_backend_pid()",
        "AND held.pid <> pg_backend_pid()",
    ),
    mutant(
        "G16",
        "two tables are not locked up front",
        "tests/engine/test_locks.py",
        "tern/engine/attempt.py",
        "        if len(order) > 1:\n",
        "        if False:\n",
    ),
    mutant(
        "G16",
        "two tables are locked in the order in which a step names them",
        "tests/engine/test_locks.py",
        _LOCKS,
        "wanted = sorted((lock for lock in locks if lock.relation in order), key=lambda lock: order[lock.relation])",
        "wanted = [lock for lock in locks if lock.relation in order]",
    ),
    mutant(
        "G16",
        "the engine finds what the application calls like something of the catalogue",
        "tests/engine/test_session.py",
        _SESSION,
        '"search_path": "pg_catalog, pg_temp",',
        '"search_path": "pg_catalog, public, pg_temp",',
    ),
    mutant(
        "G16",
        "what a statement was lent is not taken back",
        "tests/engine/test_session.py",
        "tern/engine/attempt.py",
        '    set_local(connection, search_path="pg_catalog, pg_temp")',
        "    return",
    ),
    mutant(
        "G8",
        "a cutover that led into the revert window is not fulfilled",
        "tests/domain/test_fulfilment.py",
        D_CONTROL,
        "state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}",
        "state in {State.CUTTING_OVER, State.COMPLETED}",
    ),
    mutant(
        "G11",
        "the sweep comes ten times more rarely",
        "tests/house/test_periods.py",
        "tasks/beat.py",
        '"schedule": 2.0,',
        '"schedule": 20.0,',
    ),
    mutant(
        "G7",
        "a deployment is removed under a rollout that is just accepted",
        _ORDER,
        "tern/store/deployment.py",
        '    tx.execute(text("SELECT 1 FROM deployments WHERE name = :name FOR UPDATE"), {"name": name})\n',
        "",
    ),
    mutant(
        "G11",
        "what the broker does not take is not counted",
        "tests/tasks/test_bells.py",
        "tasks/bells.py",
        '            BELLS.add("failed")\n',
        "",
    ),
    mutant(
        "doors",
        "a field of get --json has another name",
        "tests/golden/test_cli.py",
        "tern/view.py",
        '"sampled_age_s":',
        '"sample_age_s":',
    ),
    mutant(
        "doors",
        "an answer over gRPC leaves a field out",
        "tests/golden/test_contracts.py",
        "tern/wire/control/writing.py",
        '        remote_id=answer.remote_id or "",\n',
        "",
    ),
    mutant(
        "logs",
        "a password in an address is logged",
        "tests/hostile/test_secrets.py",
        "tern/domain/redaction.py",
        "        text = _TOKEN_BEFORE_HOST.sub(_KEPT_BEFORE, _USER_AND_PASSWORD.sub(_KEPT_BEFORE, text))\n",
        "        text = _TOKEN_BEFORE_HOST.sub(_KEPT_BEFORE, text)\n",
    ),
    mutant(
        "logs",
        "an exception that is a field of a line is logged as it is",
        "tests/hostile/test_secrets.py",
        "tern/observe.py",
        "    return value if value is None or isinstance(value, int | float) else _clean_text(key, str(value))",
        "    return value",
    ),
)

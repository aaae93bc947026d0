"""Where a module's tests stand that has no test file of the mirrored path: in the story that it is a part of."""

ELSEWHERE = {
    "tests/test_cause.py": "tern/covering",
    "tests/cli/test_apply.py": "tern/cli/accepted tern/cli/choosing tern/cli/policy",
    "tests/cli/test_audit.py": "tern/cli/past tern/doors/record",
    "tests/cli/test_control.py": "tern/cli/receipt tern/cli/selection tern/domain/selection",
    "tests/cli/test_db.py": "tern/wiring",
    "tests/cli/test_deployments.py": (
        "tern/cli/address tern/cli/compared tern/cli/importing tern/cli/moving tern/domain/register"
        " tern/cli/register_picture tern/domain/contact tern/store/contact tern/store/importing"
    ),
    "tests/cli/test_doctor.py": (
        "tasks/broker tern/cli/brokering tern/cli/checkup tern/domain/broker tern/domain/canary tern/store/canary"
        " tern/store/trouble"
    ),
    "tests/cli/test_enqueued.py": "tern/store/refusal",
    "tests/cli/test_help.py": "tern/cli/exit_codes",
    "tests/cli/test_main.py": "tern/cli/envelope tern/cli/failure tern/domain/errors",
    "tests/cli/test_plan.py": (
        "tern/cli/plan_picture tern/cli/plan_show tern/plan_facts tern/probing tern/store/foresee"
        " tern/store/plan_reading"
    ),
    "tests/cli/test_resolve.py": "tern/store/member",
    "tests/cli/test_said_again.py": "tern/domain/command",
    "tests/cli/test_show.py": "tern/domain/subject",
    "tests/domain/test_budget.py": "tern/domain/opening tern/domain/tally",
    "tests/domain/test_own_work.py": "tern/domain/answer tern/domain/doubt",
    "tests/doors/test_request.py": "tern/domain/enqueue tern/doors/change",
    "tests/doors/test_same_everywhere.py": (
        "tern/store/paging tern/wire/control/client tern/wire/control/reading"
    ),
    "tests/doors/test_watching.py": "tern/doors/answers",
    "tests/e2e/test_broker.py": "tasks/transport",
    "tests/e2e/test_doctor.py": "tasks/canary tern/flows/canary",
    "tests/e2e/test_hangup.py": "tern/hangup",
    "tests/e2e/test_recovery.py": "tasks/apply tasks/operation tasks/process tasks/sweep tasks/worker",
    "tests/engine/test_accept.py": "tern/engine/keys tern/engine/preview",
    "tests/engine/test_controls.py": "tern/engine/ending",
    "tests/engine/test_crash.py": (
        "tern/engine/job tern/engine/reconcile tern/engine/runner tern/engine/tenure"
    ),
    "tests/engine/test_oracle.py": "tern/engine/clones tern/engine/judge tern/engine/trial",
    "tests/engine/test_progress.py": "tern/engine/sampling",
    "tests/engine/test_recipes.py": (
        "tern/engine/altering tern/engine/catalog tern/engine/names tern/engine/recipes/constraint"
        " tern/engine/recipes/direct tern/engine/recipes/model tern/engine/recipes/split"
    ),
    "tests/cli/test_attempts.py": "tern/store/attempts",
    "tests/cli/test_ways_out.py": "tern/ways",
    "tests/engine/test_scope.py": "tern/engine/grammar tern/engine/parse",
    "tests/engine/test_server.py": (
        "tern/engine/errors tern/engine/health tern/engine/identity tern/engine/service tern/engine/tokens"
    ),
    "tests/house/test_wheel.py": "tasks/app tasks/logs tern/native tern/shipped",
    "tests/flows/test_accept.py": "tern/store/apply tern/store/reservation",
    "tests/flows/test_barrier.py": "tern/domain/barrier tern/store/barrier",
    "tests/flows/test_bulk.py": "tern/store/receipt tern/store/uncalled tern/store/wish",
    "tests/flows/test_clock.py": "tern/store/clock",
    "tests/flows/test_crowd.py": "tern/domain/crowd tern/store/notify",
    "tests/flows/test_dispatch.py": "tern/domain/work tern/store/dispatch",
    "tests/flows/test_drained.py": "tern/store/withdraw",
    "tests/flows/test_half_done.py": "tern/domain/half_done tern/store/half_done",
    "tests/flows/test_effect.py": "tern/store/statement tern/store/statement_answer",
    "tests/flows/test_kept_id.py": "tern/flows/keep tern/store/outstanding",
    "tests/flows/test_taken_id.py": "tern/store/identity tern/store/doubt",
    "tests/flows/test_outstanding_taken.py": "tern/store/taken tern/store/outstanding_settle",
    "tests/flows/test_outstanding_here.py": "tern/store/outstanding_here",
    "tests/flows/test_gone.py": (
        "tern/blocking tern/domain/outstanding tern/store/gone tern/store/outstanding_hold"
        " tern/store/outstanding_look"
    ),
    "tests/flows/test_outstanding.py": (
        "tern/cli/register tern/cli/settling tern/settling tern/store/outstanding_cancel"
    ),
    "tests/flows/test_moving.py": "tern/domain/moving tern/moving tern/store/moving",
    "tests/flows/test_own_work.py": "tern/store/foreign tern/store/own_work",
    "tests/flows/test_poll.py": "tern/store/poll tern/store/progress tern/store/seen",
    "tests/flows/test_projection.py": "tern/flows/advance tern/store/projection",
    "tests/flows/test_refusals.py": "tern/domain/outcome",
    "tests/flows/test_release.py": "tern/store/release",
    "tests/flows/test_resolve.py": "tern/store/resolve",
    "tests/flows/test_rest.py": (
        "tern/domain/rest tern/domain/rest_asked tern/domain/rest_digest tern/store/carried tern/store/chain"
        " tern/store/rest"
    ),
    "tests/flows/test_review.py": "tern/domain/choice tern/store/preview",
    "tests/flows/test_same_target.py": "tern/store/twin",
    "tests/flows/test_scope.py": "tern/domain/model tern/store/scope",
    "tests/flows/test_start.py": "tern/store/start",
    "tests/flows/test_stop.py": "tern/flows/control tern/store/answer tern/store/delivery",
    "tests/flows/test_sweep.py": "tasks/direct tern/store/sweep",
    "tests/hostile/test_secrets.py": "tern/domain/redaction",
    "tests/local/test_account.py": "tern/local/launching",
    "tests/store/test_event.py": "tern/store/session",
    "tests/store/test_gate.py": "tern/holding",
    "tests/store/test_race.py": "tern/store/step tern/store/store",
    "tests/store/test_reading.py": "tern/store/database tern/store/reading_rows tern/store/sql",
    "tests/store/test_record.py": "tern/domain/chain",
    "tests/store/test_schema.py": "tern/store/evidence_comments",
    "tests/tasks/test_names.py": "tasks/routing",
    "tests/test_client.py": "tern/doors/rest tern/wire/control/resting tern/__init__",
    "tests/test_exporter.py": "tern/store/counted tern/store/gauge",
    "tests/test_proving.py": "tern/domain/targets",
    "tests/test_view.py": "tern/operation tern/facts tern/leftover tern/wave",
    "tests/engine/test_foreign_clients.py": "tern/wire/numbering tern/wire/options tern/wire/per_table",
    "tests/wire/test_engine_client.py": "tern/wire/asking",
    "tests/wire/test_translation.py": "tern/wire/looking",
    "tests/wire/control/test_facade.py": "tern/wire/control/showing",
    "tests/wire/control/test_service.py": (
        "tern/wire/control/adapter tern/wire/control/asking tern/wire/control/words tern/wire/control/writing"
    ),
}
"""Test file -> the modules whose behaviour it would miss."""

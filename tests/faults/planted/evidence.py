"""Planted bugs in what an answer proves: findings, taken ids, ids that can't be stored, calls without an answer."""

from tests.faults.planted.mutant import D_DISPATCH, S_ANSWER, mutant

_EVIDENCE = "tests/flows/test_evidence.py::test_"
_TAKEN_ID = "tests/flows/test_taken_id.py::test_"
_KEPT_ID = "tests/flows/test_kept_id.py::test_"
_UNANSWERED = "tests/flows/test_unanswered.py::test_"
_MIGRATION = "migrations/versions/0006_evidence.py"
_DOMAIN = "tern/domain/evidence.py"

# As they stand on the way up, and not on the way down.
_LET_GO = "migrations/versions/0009_outstanding.py"
_FINISHED = "WHERE r.operation_id = operation AND o.id = operation\n        AND o.completed_at IS NOT NULL"
_NOT_KEPT = "        AND NOT EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = operation)\n"

MUTANTS = (
    mutant(
        "G4",
        "a key is taken to an engine that was found at another database",
        "tests/flows/test_evidence.py -k found_at_another_database",
        "tern/store/dispatch.py",
        "            and not scope.deployment.names_another_database,\n",
        "            and True,\n",
    ),
    mutant(
        "G4",
        "what an engine was found to offer permits a second send",
        f"{_EVIDENCE}an_engine_that_was_replaced_by_one_that_offers_neither",
        "tern/store/dispatch.py",
        "may_be_repeated=scope.deployment.idempotent_dispatch or row.repeat_is_safe,",
        "may_be_repeated=bool(scope.deployment.capabilities.resolve) or row.repeat_is_safe,",
        "tern/flows/dispatch.py",
        "        deduplicates=claimed.scope.deployment.idempotent_dispatch,",
        "        deduplicates=bool(claimed.scope.deployment.capabilities.resolve),",
    ),
    mutant(
        "G4",
        "a key is asked about at whatever engine stands there now",
        f"{_EVIDENCE}a_key_is_not_asked_about_at_another_engine",
        D_DISPATCH,
        "    if not is_same_engine:\n",
        "    if False:\n",
    ),
    mutant(
        "G4",
        "a forbidden key is sent again",
        f"{_EVIDENCE}a_forbidden_key_is_no_failure_and_the_next_one_is_sent",
        "tern/store/withdraw.py",
        "dispatch_generation = dispatch_generation + 1, dispatch_key_is_dead = false,",
        "dispatch_key_is_dead = false,",
    ),
    mutant(
        "G10",
        "an engine that forbids for ever is asked for ever",
        f"{_EVIDENCE}an_engine_that_forbids_for_ever_ends_with_a_person",
        "tern/flows/dispatch.py",
        "    if is_spent(attempts + 1, age_s):",
        "    if False:",
    ),
    mutant(
        "G10",
        "an empty answer counts as forbidden",
        f"{_EVIDENCE}an_empty_answer_settles_nothing",
        "tern/wire/translation.py",
        "    return Ok(Unsupported()) if forbid else Ok(NeverStarted())",
        "    return Ok(Forbidden()) if forbid else Ok(NeverStarted())",
    ),
    mutant(
        "G4",
        "a probe writes down a declaration",
        f"{_EVIDENCE}a_finding_is_never_written_down_as_a_declaration",
        "tern/store/deployment.py",
        "probed_at = CASE WHEN f.offers IS NULL THEN d.probed_at ELSE tern_clock() END,",
        "deduplicates = true, probed_at = tern_clock(),",
    ),
    mutant(
        "G2",
        "the database lets two operations have one id",
        f"{_TAKEN_ID}an_id_that_a_live_operation_has_is_not_stored",
        _MIGRATION,
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id) VALUES (engine, given, operation);",
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id) VALUES (engine, given, operation)\n"
        "            ON CONFLICT DO NOTHING;",
    ),
    mutant(
        "G2",
        "the holder of a taken id is left as it is",
        f"{_TAKEN_ID}an_id_that_a_live_operation_has_is_not_stored",
        "tern/store/identity.py",
        "doubt(tx, [own, rows[holder]], remote_id, self.owner)",
        "doubt(tx, [own], remote_id, self.owner)",
    ),
    mutant(
        "G10",
        "a sample ends a doubt",
        f"{_TAKEN_ID}no_sample_ends_it",
        "tern/domain/samples.py",
        "    if context.is_in_doubt:\n",
        "    if False:\n",
    ),
    mutant(
        "G2",
        "an id is polled without its row in the guard",
        f"{_TAKEN_ID}without_its_row_in_the_guard_nothing_is_sent_with_an_id",
        "tern/store/poll.py",
        "if row.remote_id is not None and row.is_held),",
        "if row.remote_id is not None),",
    ),
    mutant(
        "G2",
        "an id is sent without its row in the guard",
        f"{_TAKEN_ID}without_its_row_in_the_guard_nothing_is_sent_with_an_id",
        "tern/domain/scope.py",
        "    if identity.remote_id is not None and not found.holds_remote_id:\n",
        "    if False:\n",
    ),
    mutant(
        "G2",
        "an id is let go with its operation though its call may act",
        f"{_UNANSWERED}after_an_unanswered_cutover_it_is_looked_at_every_second_whatever_its_state",
        _LET_GO,
        f"{_FINISHED} AND o.unanswered_since IS NULL\n{_NOT_KEPT}",
        f"{_FINISHED}\n{_NOT_KEPT}",
    ),
    mutant(
        "G2",
        "the loser of an id goes on as if nothing had happened",
        f"{_TAKEN_ID}a_person_takes_the_id_from_its_holder",
        "tern/store/resolve.py",
        "                if holder is not None:\n                    _take_from(",
        "                if False:\n                    _take_from(",
    ),
    mutant(
        "G4",
        "an id that comes too late is dropped",
        f"{_KEPT_ID}an_id_that_arrives_after_its_operation_was_resolved",
        "tern/flows/dispatch.py",
        "                keep_id(claimed.claim, claimed.scope, remote_id, ports)",
        "                pass",
    ),
    mutant(
        "G4",
        "a late id is adopted though another was sent since",
        "tests/domain/test_evidence.py",
        _DOMAIN,
        "    if facts.has_remote_id or facts.was_sent_again or facts.is_in_doubt:",
        "    if facts.has_remote_id or facts.is_in_doubt:",
    ),
    mutant(
        "G4",
        "a late id is adopted without a look",
        f"{_KEPT_ID}an_id_that_its_engine_does_not_know_is_not_adopted",
        "tern/flows/keep.py",
        "    if not isinstance(ports.engines.of(scope.deployment).progress(call), Ok):\n        return\n",
        "",
    ),
    mutant(
        "G12",
        "a person's word is taken while a call is under way",
        f"{_KEPT_ID}a_person_waits_for_a_claim_and_for_a_calls_deadline",
        _DOMAIN,
        "    return max(0.0, claimed_for_s, in_flight)",
        "    return 0.0",
    ),
    mutant(
        "G10",
        "what is finished is not looked at, though a call may act",
        f"{_UNANSWERED}what_is_finished_and_works_again_is_outstanding",
        _MIGRATION,
        "        NEW.next_poll_at := least(NEW.next_poll_at, tern_clock() + interval '1 s');",
        "        NULL;",
    ),
    mutant(
        "G10",
        "the answer to the second start counts for the first",
        f"{_UNANSWERED}a_start_without_an_answer_is_not_forgotten_by_the_answer_to_the_next",
        S_ANSWER,
        "                is_answered=is_answered and wish.verb in ACTS_LATE and not claim.follows_unanswered,",
        "                is_answered=is_answered and wish.verb in ACTS_LATE,",
    ),
    mutant(
        "G10",
        "a look at an unanswered dispatch forbids it",
        f"{_UNANSWERED}an_unanswered_dispatch_is_looked_at_by_its_key_and_nothing_is_forbidden",
        "tern/flows/poll.py",
        "claim.key, forbid=False)",
        "claim.key, forbid=True)",
    ),
    mutant(
        "G4",
        "an id that can't be stored is written down in one try or not at all",
        f"{_KEPT_ID}an_id_is_kept_although_the_storage_stumbles",
        "tern/flows/keep.py",
        "_TRIES = 3",
        "_TRIES = 1",
    ),
    mutant(
        "G10",
        "the last dispatch without an answer is not looked at by its key",
        f"{_UNANSWERED}the_last_dispatch_without_an_answer_is_looked_at_by_its_key_too",
        "tern/store/dispatch.py",
        " WHEN NOT :is_answered THEN {LOOK_BY_KEY} END",
        " WHEN CAST(:delay_s AS float) IS NOT NULL AND NOT :is_answered THEN {LOOK_BY_KEY} END",
    ),
    mutant(
        "G10",
        "what a stop found unanswered is not looked at by its key",
        f"{_UNANSWERED}a_dispatch_that_a_stop_found_unanswered_is_looked_at_by_its_key",
        S_ANSWER,
        "next_poll_at = coalesce({LOOK_BY_KEY}, tern_clock()",
        "next_poll_at = coalesce(tern_clock()",
    ),
)

"""Planted bugs in what other people's engines and clients are told, and in what is made of their words."""

from tests.faults.planted.mutant import DISPATCH, mutant

_ENGINE = "tests/flows/test_foreign_engine.py::test_"
_CLIENTS = "tests/engine/test_foreign_clients.py::test_"
_FACADE = "tests/wire/control/test_foreign_clients.py::test_"

MUTANTS = (
    mutant(
        "G10",
        "what its engine tries again by itself has failed",
        f"{_ENGINE}what_tries_again_by_itself_is_neither_lost_nor_failed",
        "tern/wire/looking.py",
        "        tern_v1.STATE_FAILED_RETRYABLE: State.RUNNING,\n",
        "        tern_v1.STATE_FAILED_RETRYABLE: State.FAILED,\n",
    ),
    mutant(
        "G13",
        "a busy target is a failure",
        f"{_ENGINE}a_busy_target_is_waited_for_and_its_holder_is_named",
        DISPATCH,
        "            if claimed.claim.is_first_sender and reason in BUSY:\n",
        "            if False:\n",
    ),
    mutant(
        "G4",
        "a busy target ends what an earlier call under the key may have begun",
        "tests/flows/test_dispatch.py -k busy_target_says_nothing_of_an_earlier_call",
        DISPATCH,
        "            if claimed.claim.is_first_sender and reason in BUSY:\n",
        "            if reason in BUSY:\n",
    ),
    mutant(
        "G10",
        "one entry for a table calls all its statements done",
        f"{_ENGINE}one_entry_for_a_table_says_of_no_statement_that_it_is_done",
        "tern/domain/entries.py",
        "            shared = _of_table(min(unread, key=_advance))\n",
        "            shared = min(unread, key=_advance)\n",
    ),
    mutant(
        "G2",
        "an answer for another operation is taken for this one's",
        "tests/wire/test_translation.py -k another_operation",
        "tern/wire/translation.py",
        "    return is_scope(operation) and operation != str(call.name)\n",
        "    return False\n",
    ),
    mutant(
        "G2",
        "a call for another operation is taken by our engine",
        f"{_CLIENTS}a_scoped_call_for_another_operation_is_refused",
        "tern/engine/controls.py",
        '    if operation not in {"", job.operation or job.id}:\n',
        "    if False:\n",
    ),
    mutant(
        "G2",
        "a call for another operation is taken by tern serve",
        f"{_FACADE}a_call_for_another_operation_is_refused",
        "tern/wire/control/facade.py",
        '        if operation not in {"", str(name), self._desk.known_as(name)}:\n',
        "        if False:\n",
    ),
    mutant(
        "G7",
        "the order of a foreign client's statements is taken for the plan's",
        f"{_FACADE}the_order_that_holds_is_the_kept_plan_s",
        "tern/wire/control/facade.py",
        '            return {"plan": request.plan_id}\n        unnamed',
        '            return {"changes": changes}\n        unnamed',
    ),
    mutant(
        "G16",
        "an index is built before the column that it is on",
        "tests/engine/test_order.py -k what_is_next_before_a_cutover",
        "tern/engine/order.py",
        "(_is_long(kept, each) and _is_independent(each, left_behind))",
        "_is_long(kept, each)",
    ),
    mutant(
        "G16",
        "an index is built ahead of the renames that give its column the name of its table",
        "tests/engine/test_order.py -k called_as_its_table",
        "tern/engine/order.py",
        "    return bool((_words(one.sql, shared) & _words(other.sql, shared)) - _EVERYBODYS)\n",
        "    own = {name.name for name in shared}\n"
        "    return bool((_words(one.sql, shared) & _words(other.sql, shared)) - _EVERYBODYS - own)\n",
    ),
    mutant(
        "G16",
        "an index is built while another has its name",
        "tests/engine/test_order.py -k waits_for_its_name",
        "tern/engine/order.py",
        "    if one.takes_name or not (",
        "    if not (",
    ),
    mutant(
        "G10",
        "the one entry for a table says of each of its statements that it never began",
        "tests/domain/test_effect.py tests/flows/test_foreign_engine.py",
        "tern/domain/effect.py",
        '    if not is_alone and word in {PENDING, "failed", "cancelled", NEVER_BEGUN}:\n',
        '    if not is_alone and word in {"failed", "cancelled"}:\n',
    ),
    mutant(
        "G10",
        "a failure that its engine tries again is the last word about the statement",
        "tests/domain/test_effect.py tests/flows/test_foreign_engine.py",
        "tern/domain/effect.py",
        "        return FAILING\n",
        "        return word\n",
    ),
    mutant(
        "G16",
        "a pooler that gives its sessions in turn passes for the server",
        "tests/engine/test_contact.py -k in_turn",
        "tern/engine/contact.py",
        "        for _ in range(2):\n",
        "        for _ in range(1):\n",
    ),
)

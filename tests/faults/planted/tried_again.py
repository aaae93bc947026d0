"""Planted bugs about a retry of what a person called ended: its earlier key may act (G4, G9, G10, G13)."""

from tests.faults.planted.mutant import (
    D_ADMISSION,
    D_DISPATCH,
    DISPATCH,
    FLOWS,
    S_UNCALLED,
    STEP,
    mutant,
)

_LOOK, _CARRIED = "tern/store/outstanding_look.py", "tern/store/carried.py"
_RULES = "migrations/versions/0017_tried_again.py"
_T = f"{FLOWS}tried_again.py"

MUTANTS = (
    mutant(
        "G13",
        "one whose key may act is put back in line as if nothing had been sent",
        f"{_T} -k 'retryable_and_not_pending or halted_rollout'",
        S_UNCALLED,
        "CASE WHEN n.may_act THEN 'failed_retryable' ELSE 'pending' END",
        "'pending'",
        "tern/domain/states.py",
        "        Event.REPEAT: State.FAILED_RETRYABLE,\n    },\n    State.COMPLETED",
        "    },\n    State.COMPLETED",
    ),
    mutant(
        "G4",
        "a retry sends the earlier key again, out of its turn",
        f"{_T} -k its_own_turn",
        D_DISPATCH,
        "    if is_tried_again:\n",
        "    if False:\n",
    ),
    mutant(
        "G4",
        "asking once in vain makes a retry like any repeated dispatch",
        f"{_T} -k asking_in_vain",
        STEP,
        'return TRIED_AGAIN if row.error_reason == TRIED_AGAIN else "UNANSWERED"',
        'return "UNANSWERED"',
    ),
    mutant(
        "G10",
        "an engine is called gone by what was not heard before the retry",
        f"{_T} -k counted_anew",
        S_UNCALLED,
        "answered_attempts = 0, {HEARD}",
        "answered_attempts = 0",
    ),
    mutant(
        "G4",
        "nobody writes down that the watch has forbidden the key",
        f"{_T} -k watched_key",
        _LOOK,
        "if found.fate is Fate.SETTLED and line.dispatch_key is not None:",
        "if False:",
    ),
    mutant(
        "G10",
        "a refusal of the key fails the change",
        f"{_T} -k of_the_key",
        DISPATCH,
        "case Forbidden() if refused is not None and refused.reason != KEY_FORBIDDEN:",
        "case Forbidden() if refused is not None:",
    ),
    mutant(
        "G10",
        "a refusal of a first key fails the change",
        f"{_T} -k first_key",
        DISPATCH,
        "claimed.claim.is_first_sender and reason != KEY_FORBIDDEN:",
        "claimed.claim.is_first_sender:",
    ),
    mutant(
        "G9",
        "a retry is taken although what was sent is asked to end",
        f"{_T} -k refused_while_a_cancel",
        D_ADMISSION,
        "        case _ if facts.is_asked_to_end:",
        "        case _ if False:",
    ),
    mutant(
        "G9",
        "whoever drives a retry does not look whether what was sent is asked to end",
        f"{_T} -k came_before",
        _CARRIED,
        "for row in tx.execute(_ASKED_TO_END, given)}",
        "for row in ()}",
    ),
    mutant(
        "G13",
        "the version before makes pending what may run",
        f"{_T} -k version_before",
        _RULES,
        "    NEW.state := 'failed_retryable';\n",
        "",
    ),
    mutant(
        "G4",
        "what is carried on is tried again where its key may act",
        f"{_T} -k carried_on",
        _RULES,
        "_REVIVED.format(states=\"'pending', 'resuming', 'failed_retryable'\")",
        "_REVIVED.format(states=\"'pending', 'resuming'\")",
    ),
    mutant(
        "G13",
        "what the version before left pending stays so",
        "tests/store/test_migrations.py -k on_the_way_up",
        _RULES,
        "        _FILL,\n",
        "",
    ),
)

"""Planted bugs in what is looked at again because something may have come between two steps."""

from tests.faults.planted.mutant import FLOWS, S_DISPATCH, mutant

_SEQUENCES = f"{FLOWS}sequences.py"
_LOOK, _CARRIED, _RESOLVE = (
    "tern/store/outstanding_look.py",
    "tern/store/carried.py",
    "tern/store/resolve.py",
)
_TRIED = "migrations/versions/0017_tried_again.py"

MUTANTS = (
    mutant(
        "G8",
        "a cancel stays behind where two lines become one",
        f"{_SEQUENCES} -k two_lines_become_one",
        "tern/store/moving.py",
        '        tx.execute(_CANCEL_GOES_ALONG, {"ids": [line.id for line in moved], "address": after.address})\n',
        "",
    ),
    mutant(
        "G8",
        "a cancel stays behind where what a word has settled works again",
        f"{_SEQUENCES} -k works_again",
        _LOOK,
        '            if line.cancel_asked_at is not None and line.settled_as == "said":',
        "            if False:",
    ),
    mutant(
        "G13",
        "what is followed is not asked again under the locks",
        f"{_SEQUENCES} -k while_a_look_begins",
        _LOOK,
        "if line.settled_at is None and here is not None and _is_followed(line, here):",
        "if line.settled_at is None:",
    ),
    mutant(
        "G14",
        "a retry at an engine without keys is sent out of turn",
        f"{_SEQUENCES} -k without_keys",
        S_DISPATCH,
        "is_tried_again=row.error_reason == TRIED_AGAIN,",
        "is_tried_again=row.error_reason == TRIED_AGAIN and scope.deployment.knows_keys,",
    ),
    mutant(
        "G10",
        "what came late and completed is not written down while another generation waits",
        f"{_SEQUENCES} -k came_late",
        _LOOK,
        "is_alone = line.is_finished or line.own_id is None",
        "is_alone = line.is_finished",
    ),
    mutant(
        "G4",
        "the next generation is sent although its statements are in",
        f"{_SEQUENCES} -k came_late",
        _CARRIED,
        "   AND c.state = 'completed')",
        "   AND false)",
    ),
    mutant(
        "G8",
        "a retry is taken while the id of what was sent is in doubt",
        f"{_SEQUENCES} -k in_doubt",
        "tern/domain/admission.py",
        '        case _ if facts.doubt is Doubt.TAKEN:\n            why = "its engine gave an id of what',
        '        case _ if False:\n            why = "its engine gave an id of what',
    ),
    mutant(
        "G2",
        "two persons say of one id that it is their work",
        f"{_SEQUENCES} -k same_work_of_one",
        _RESOLVE,
        "if (other := tx.execute(_VOUCHED_FOR, given).scalar_one_or_none()) is not None:",
        "if (other := tx.execute(_VOUCHED_FOR, given).scalar_one_or_none()) == 1:",
    ),
    mutant(
        "G13",
        "a word is taken against an engine that knows the very key",
        f"{_SEQUENCES} -k very_key",
        "tern/settling.py",
        "is_that_database = knows_key or (bool",
        "is_that_database = (bool",
    ),
    mutant(
        "G15",
        "the record tells of an old worker's retry what the row never was",
        f"{_SEQUENCES} -k old_worker",
        _TRIED,
        "        NEW.after := 'failed_retryable';\n    END IF;",
        "        NEW.after := NEW.after;\n    END IF;",
    ),
    mutant(
        "G15",
        "the upgrade moves operations and tells nobody",
        f"{_SEQUENCES} -k old_worker",
        _TRIED,
        "'failed_retryable' FROM settled ORDER BY id)",
        "'failed_retryable' FROM settled WHERE false)",
    ),
    mutant(
        "§4",
        "an alarm rings for a start that waits for a stop",
        f"{FLOWS}superseded.py -k nobody_takes",
        "tern/store/gauge.py",
        "x.next_attempt_at > d.next_attempt_at)",
        "x.next_attempt_at > d.next_attempt_at AND false)",
    ),
)

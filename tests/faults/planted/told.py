"""Planted bugs in what people are told: who carries something on, whom a digest was sent by, and what to say again."""

from tests.faults.planted.mutant import D_ENDING, S_WISH, mutant

_CARRIED, _AGAIN = "tests/cli/test_carried_on.py", "tests/cli/test_said_again.py"

MUTANTS = (
    mutant(
        "G15",
        "a rest is named that is carried on to its end",
        f"{_CARRIED} -k asks_for_nothing_more",
        "tern/leftover.py",
        "        return carried.leaves_more and not carried.is_in_doubt\n",
        "        return True\n",
    ),
    mutant(
        "G15",
        "a rest of which nobody can tell is named as one that can be carried on",
        f"{_CARRIED} -k nobody_can_tell",
        "tern/leftover.py",
        "    if carried.is_in_doubt:\n",
        "    if not carried:\n",
    ),
    mutant(
        "G15",
        "a retry is named of what is carried on",
        f"{_CARRIED} -k printed_where_it_is_taken",
        "tern/leftover.py",
        "        carried_on_by=record.carried_on_by,\n",
        "",
    ),
    mutant(
        "G15",
        "what no engine took needs nobody once its rollout is over",
        f"{_CARRIED} -k no_engine_took",
        "tern/leftover.py",
        " or (is_over and record.state is State.FAILED)\n",
        " or (is_over and record.remote_id is not None)\n",
    ),
    mutant(
        "G15",
        "what was cancelled half done is named as if it were carried on without its name",
        f"{_CARRIED} -k cancelled_half_done",
        "tern/leftover.py",
        "    return last in {State.CANCELLED, State.REVERTED} or",
        "    return last is State.REVERTED or",
    ),
    mutant(
        "G15",
        "a retry is named that a cancel of what was sent keeps from being taken",
        f"{_CARRIED} -k no_retry_is_printed",
        "tern/leftover.py",
        "        is_asked_to_end=any(each.cancel_asked for each in record.outstanding),\n",
        "",
    ),
    mutant(
        "G7",
        "whom to choose is named without asking whether the verb is taken there",
        "tests/flows/test_start.py -k named_to_be_chosen",
        S_WISH,
        "apply) if line.outcome is Receipt.ACCEPTED)",
        "apply))",
    ),
    mutant(
        "G15",
        "a digest with a wrong letter is only said to have changed",
        "tests/flows/test_rest.py -k mistyped",
        "tern/domain/rest_digest.py",
        "        why += _perhaps_mistyped(changed, rest.groups, said)\n",
        "",
    ),
    mutant(
        "G15",
        "a digest that was sent is one that differs",
        f"{_CARRIED} -k digest_that_was_sent",
        "tern/flows/rest.py",
        "                ports.store.refuse_sent(new)\n",
        "",
    ),
    mutant(
        "G7",
        "whoever asks again is shown more than was chosen",
        f"{_AGAIN} -k unexpected_number",
        "tern/domain/command.py",
        "    words += selectors(asked.selection)\n",
        "",
    ),
    mutant(
        "G8",
        "what completed under a stop counts as stopped for whoever waits",
        "tests/cli/test_watch.py -k rule_of_the_stop",
        D_ENDING,
        "        return Ending.DONE if anybody_asked and seen.fate is None else Ending.NOT_DONE\n",
        "        return Ending.DONE\n",
    ),
)

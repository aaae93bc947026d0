"""What each state makes of each open wish, written down by hand (§7, G8, S15).

Nothing here is computed by the code that it holds. A change of one cell is a change of what an operator is told, and is
made in both places.
"""

import pytest

from tern.domain.control import Verb, fulfilment
from tern.domain.states import State

STATES = [
    *("pending", "running", "waiting_for_cutover", "cutting_over", "revert_window", "reverting", "resuming"),
    *("failed_retryable", "uncertain", "completed", "failed", "cancelled", "reverted", "skipped", "stopped"),
]
FATES = {"·": None, "ack": "acknowledged", "late": "too_late"}

# · stays open, ack acknowledged: its effect is there, late too late: it can't come any more.
TABLE = """
             pend run  wait cut  rwin rvtg resu retr unc  done fail canc rvtd skip stop
stop         ·    ·    ·    ·    late late ·    ·    ·    late late late late late ack
cancel       ·    ·    ·    ·    late late ·    ·    ·    late late ack  late late ·
start        ack  ack  ack  ack  ack  ack  ·    ack  ·    ack  late late late late ·
cutover      ·    ·    ·    ack  ack  ·    ·    ·    ·    ack  late late late late late
retry        ack  ack  ack  ack  ack  ack  ack  ack  ack  late ·    late late late late
skip         ·    ·    ·    ·    ·    ·    ·    ·    ·    late late late late ack  ·
revert       ·    ·    ·    ·    ·    ack  ·    ·    ·    late late late ack  late late
skip-revert  ·    ·    ·    ·    ·    late ·    ·    ·    ack  late late late late late
volume       ·    ·    ·    ·    ·    ·    ·    ·    ·    late late late late late late
release      ·    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·
"""
ROWS = {words[0]: words[1:] for line in TABLE.strip().splitlines()[1:] if (words := line.split())}


def test_the_table_knows_every_verb_and_every_state() -> None:
    """A verb or a state that is new gets its row or its column here, by whoever thought about it."""
    assert set(ROWS) == {verb.value for verb in Verb}
    assert [state.value for state in State] == STATES
    assert {verb: len(row) for verb, row in ROWS.items()} == dict.fromkeys(ROWS, len(STATES))


@pytest.mark.parametrize("verb", Verb)
def test_what_a_state_makes_of_a_wish(verb: Verb) -> None:
    found = {state.value: fate.value if (fate := fulfilment(verb, state)) else None for state in State}
    assert found == {state: FATES[cell] for state, cell in zip(STATES, ROWS[verb.value], strict=True)}

"""Planted bugs in what a wish is about: who is selected, which of two counts, what was asked of an engine at all."""

from tests.faults.planted.mutant import CONTROL, D_CONTROL, FLOWS, S_WISH, mutant

MUTANTS = (
    mutant(
        "G7",
        "what was counted before it was accepted is believed",
        f"{FLOWS}bulk.py -k selected",
        S_WISH,
        "            refuse_unexpected(asked.expected, lines, again)\n",
        "",
        S_WISH,
        "            refuse_unexpected(asked.expected, told, again)\n",
        "",
    ),
    mutant(
        "G9",
        "a stop that could not be sent counts as refused",
        f"{FLOWS}refusals.py -k waits_until_it_can",
        CONTROL,
        "        case Refused() as refused if claimed.verb.is_halting and not refused.was_sent:",
        "        case Refused() as refused if claimed.verb is None:",
    ),
    mutant(
        "S14",
        "of two that exclude each other both are sent",
        "tests/domain/test_control.py -k exclude_each_other",
        D_CONTROL,
        "    if verb in CONTRARY and facts.contrary_came_first:",
        "    if False:",
    ),
    mutant(
        "S14",
        "an unanswered revert is repeated at once",
        f"{FLOWS}revert.py -k deadline",
        D_CONTROL,
        "    return Step.SEND if facts.is_fresh or verb not in MOMENT else Step.WAIT",
        "    return Step.SEND if facts.is_fresh or verb is not Verb.CUTOVER else Step.WAIT",
    ),
    mutant(
        "S18",
        "a release that opens nothing closes what an earlier one has opened",
        f"{FLOWS}release.py -k not_released",
        "tern/store/release.py",
        "    if asked.dry_run or line.outcome is not Receipt.ACCEPTED:",
        "    if asked.dry_run:",
    ),
    mutant(
        "S18",
        "a release that nobody rang for is never heard of",
        f"{FLOWS}release.py -k lost",
        "tern/store/sweep.py",
        "    \" WHERE a.state IN ('paused', 'running_degraded') AND NOT EXISTS",
        "    \" WHERE a.state IN ('nothing') AND NOT EXISTS",
    ),
    mutant(
        "G14",
        "a release is waited for while the apply is paused",
        "tests/cli/test_verbs.py -k followed_by_the_next",
        "tern/domain/ending.py",
        "    opened_nothing = state is ApplyState.PAUSED and newest",
        "    if state is ApplyState.PAUSED:\n        return None\n    opened_nothing = newest",
    ),
)

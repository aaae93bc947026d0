"""Every exit code of the command line, in one table: for `tern help exit-codes`, and docs/operations.md repeats it."""

from collections.abc import Mapping

EXIT_CODES: Mapping[int, str] = {
    0: "done; for `watch`, `wait` and `apply --watch`: completed",
    1: "something unexpected, or an answer that could not be written; what was asked for may be done all the same",
    2: "the command can't be read as it stands",
    3: "there is no such thing",
    4: "not allowed",
    5: "refused, or done nowhere; what was said to be unchanged is unchanged",
    6: "partly: done at some operations, others say why not",
    10: "the rollout, or the operation, failed",
    11: "it was cancelled, reverted or skipped",
    12: "it is stopped",
    13: "it needs a person",
    14: "it is ready for a cutover, and a person says when",
    15: "nobody knows, of at least one operation: it is uncertain, or its engine doesn't answer; nothing is on its way"
    " any more",
    69: "a server doesn't answer",
    75: "try again",
    78: "settings are missing or wrong, or the database is not migrated",
    124: "`--timeout` is over; what was asked for stays open",
    130: "interrupted (Ctrl-C); the rollout goes on",
    141: "whoever read the answer has left",
    143: "terminated; the rollout goes on",
}

"""Which stop, skip or cancel covers an operation: the SQL that every gate reads (G9)."""

NO_CALL_IS_OUT = "{0}.attempts = {0}.refused_attempt"
"""The wish {0} was never sent, or its engine's last answer was a refusal: no call of it can still act."""

_NO_CALL_OF_IT_IS_OUT = NO_CALL_IS_OUT.format("d")
SUPERSEDED = (
    "EXISTS (SELECT 1 FROM control_deliveries s WHERE s.operation_id = d.operation_id AND s.verb = 'start'"
    " AND s.id > d.id AND s.state <> 'failed'"
    # A stop whose answer is missing may still act, and covers until its answer is there.
    f" AND (d.verb = 'stop' AND (d.state = 'acknowledged' OR {_NO_CALL_OF_IT_IS_OUT})"
    "   OR d.verb = 'cancel' AND s.overrides_cancel AND d.state <> 'acknowledged' AND d.refusals > 0"
    f"     AND {_NO_CALL_OF_IT_IS_OUT}))"
)
"""A later start takes the stop d back, or the cancel d that its engine refused. One that failed takes nothing back."""

STOP_IN_FORCE = (
    "(SELECT d.verb FROM control_deliveries d WHERE d.operation_id = o.id"
    " AND (d.verb IN ('stop', 'cancel') AND d.state IN ('pending', 'sent', 'acknowledged')"
    # The change is live there: stopping comes too late, and must not stand between a person and the way back.
    "     AND o.state NOT IN ('revert_window', 'reverting')"
    "   OR d.verb = 'skip' AND d.state = 'pending')"
    f" AND NOT {SUPERSEDED}"
    " ORDER BY d.verb = 'cancel' DESC, d.verb = 'skip' DESC LIMIT 1)"
)
"""The cancel, skip or stop that covers operation o and that no accepted start has superseded, or NULL (G9).

An engine that refuses a stop, and one that has stopped, are told no more of it; it covers all the same.
"""

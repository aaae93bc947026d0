"""Which stop, skip or cancel covers an operation: the SQL that every gate reads (G9)."""

STOP_IN_FORCE = (
    "(SELECT d.verb FROM control_deliveries d WHERE d.operation_id = o.id"
    " AND (d.verb IN ('stop', 'cancel') AND d.state IN ('pending', 'sent', 'acknowledged')"
    "   OR d.verb = 'skip' AND d.state = 'pending')"
    " AND (d.verb <> 'stop' OR NOT EXISTS (SELECT 1 FROM control_deliveries s"
    " WHERE s.operation_id = d.operation_id AND s.verb = 'start' AND s.id > d.id AND s.state <> 'failed'))"
    " ORDER BY d.verb = 'cancel' DESC, d.verb = 'skip' DESC LIMIT 1)"
)
"""The cancel, skip or stop that covers operation o and that no accepted start has superseded, or NULL (G9)."""

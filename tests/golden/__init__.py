"""Golden documents: everything that somebody's script, dashboard or stub reads, as it was promised."""

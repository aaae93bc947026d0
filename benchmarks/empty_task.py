"""The task that does nothing but be counted."""

import redis

from tasks.app import app, settings

_client = redis.Redis.from_url(settings.broker_url)


@app.task(name="bench.empty")
def empty() -> None:
    """Counts itself."""
    _client.incr("empty-done")

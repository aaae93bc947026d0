"""What the broker says when `tern doctor` asks it. Nothing is taken out of it, and nothing is put in."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import ResponseError

from tasks.app import app
from tern.domain.broker import BrokerState
from tern.domain.canary import QUEUES

STOCK_QUEUE = "celery"
"""Where a client of Celery's sends what nobody told it a queue for."""
_ROUNDS = 20
_KEYS_A_ROUND = 500
_MOST_READ = 200
_SEPARATOR = "\x06\x16"
"""Between a queue's name and a priority, in the names of Celery's lists."""


def look(url: str) -> BrokerState:
    """Raises what Celery and its transport raise where the broker does not answer."""
    with app.connection_for_read(url) as connection:
        client: Any = connection.default_channel.client  # type: ignore[attr-defined] # of kombu's Redis transport
        stray = dict(_stray(client))
        try:
            said: Mapping[str, Any] = client.info("memory") | client.info("replication")
        except ResponseError as error:
            return BrokerState(unasked=str(error), stray=stray)
    return BrokerState(
        policy=str(said.get("maxmemory_policy", "")),
        most_bytes=int(said.get("maxmemory", 0)),
        used_bytes=int(said.get("used_memory", 0)),
        is_replica=said.get("role") == "slave",
        stray=stray,
    )


def _stray(client: Any) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Messages for Tern in queues of other names. Others may share the broker: what is theirs is left alone."""
    for name in sorted(_lists(client)):
        if name.partition(_SEPARATOR)[0] in QUEUES:
            continue
        try:
            found = Counter(_task(each) for each in client.lrange(name, -_MOST_READ, -1))
        except ResponseError:
            # Not a list any more, or not ours to read.
            continue
        ours = {task: count for task, count in found.items() if task.startswith("tern.")}
        if ours:
            yield name.partition(_SEPARATOR)[0], ours


def _lists(client: Any) -> set[str]:
    """The lists that there are, as far as a short look goes; that one at least which Celery has by default."""
    found, cursor = {STOCK_QUEUE}, 0
    try:
        for _ in range(_ROUNDS):
            cursor, keys = client.scan(cursor, count=_KEYS_A_ROUND, _type="list")
            found |= {key.decode(errors="replace") for key in keys}
            if cursor == 0:
                break
    except ResponseError:
        return found
    return found


def _task(message: bytes) -> str:
    """The name of its task; empty for what is no message of Celery's."""
    try:
        headers = json.loads(message)["headers"]
        return str(headers["task"])
    except (ValueError, KeyError, TypeError):
        return ""

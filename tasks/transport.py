"""Kombu's Redis transport, which throws a message away that nobody can read, instead of failing with it.

Anyone can write to a broker. What is no message would otherwise break the connection each time that it is read, and as
a message that waits to be delivered again it would break every new one.
"""

import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import RedisError

_log = logging.getLogger("tern.listener")
_NOT_THE_MESSAGE = (OSError, RedisError, Empty)
"""What a connection raises, and what says that there was nothing."""


class _QoS(redis.QoS):
    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002
        try:
            super().restore_by_tag(tag, client, leftmost)
        except _NOT_THE_MESSAGE:
            raise
        except Exception as error:  # noqa: BLE001 - there is no end to what can be wrong with a message
            _log.warning("a message that can't be read is not delivered again: %r", error)
            with self.pipe_or_acquire(client=client) as pipe:
                self._remove_from_indices(tag, pipe).execute()


class _Channel(redis.Channel):
    QoS = _QoS

    def close(self) -> None:
        try:
            super().close()
        finally:
            # Giving back what was not acknowledged opened connections anew.
            self._disconnect_pools()

    def _brpop_read(self, **options: Any) -> Any:
        taken = len(self.qos._delivered)  # noqa: SLF001 - kombu has no other word for it
        try:
            return super()._brpop_read(**options)
        except _NOT_THE_MESSAGE:
            raise
        except Exception as error:
            if len(self.qos._delivered) != taken:  # noqa: SLF001
                # It could be read and takes a place, which only the end of the connection gives back.
                raise
            _log.warning("a message that can't be read was thrown away: %r", error)
            return True

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)
        except _NOT_THE_MESSAGE:
            raise
        except Exception as error:  # noqa: BLE001 - as above; here nothing takes a place
            _log.warning("a broadcast that can't be read was thrown away: %r", error)
            return None


class Transport(redis.Transport):
    """What `redis://` and `rediss://` mean in this process."""

    Channel = _Channel


def use() -> None:
    """Makes it so for every connection that is opened from here on, whatever it is opened for."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"

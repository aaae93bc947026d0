"""How a worker listens to the broker, and goes on listening whatever the broker or its client library does.

The broker is a doorbell (G11). Celery knows which errors mean a lost connection, and ends the whole process at any
other one; the library raises others, above all while a broken connection is being closed. Here every error is a lost
connection: logged, and listening begins anew. The worker's own sweep goes on meanwhile.
"""

import logging
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.bootsteps import CLOSE, TERMINATE
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

_log = logging.getLogger("tern.listener")
_SHORT_S = 5.0
"""Listening that ends sooner is begun anew with a pause, twice as long each time."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

# At each lost connection it explains a setting that ours says already.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


class Listener(Consumer):
    """Celery's consumer, which nothing but an order to stop can end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known_errors: tuple[type[Exception], ...] = self.connection_errors + self.channel_errors
        self.connection_errors = (Exception,)
        self._since = time.monotonic()
        self._pause_s = 0.0

    def connect(self) -> Any:
        """A connection that the loop reads from; one that can't be read from is closed again."""
        connection = self.connection_for_read(heartbeat=self.amqheartbeat)
        try:
            if self.hub:
                connection.transport.register_with_event_loop(connection.connection, self.hub)
        except Exception:
            with suppress(Exception):
                connection.close()
            raise
        return connection

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Says so, and waits a little."""
        super().on_connection_error_before_connected(exc)
        self._rest(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Lets go of the connection. Closing one whose server is gone can fail in ways that nobody knows of."""
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:  # noqa: BLE001 - the connection is given up already
            _log.info("the broken connection could not be closed in order: %r", error)
        finally:
            self.connection = None
            if self.hub:
                # Else the loop goes on asking each connection that there ever was.
                self.hub.on_tick.clear()
        self._rest(exc)

    def call_soon_ack(self, p: Callable[..., None], *args: Any, **kwargs: Any) -> Any:
        """Acknowledges, in the loop's thread."""
        return super().call_soon_ack(self._acknowledge, p, *args, **kwargs)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Throws it away."""
        super().on_unknown_message(body, message)
        _must_be_gone(message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Throws it away."""
        super().on_unknown_task(body, message, exc)
        _must_be_gone(message)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Throws it away."""
        super().on_invalid_task(body, message, exc)
        _must_be_gone(message)

    def shutdown(self) -> None:
        """Ends in order, or without: what comes after it gives claims and connections back."""
        try:
            super().shutdown()
        except Exception as error:  # noqa: BLE001 - a broker that is gone must not spoil the end of a worker
            _log.info("the connection to the broker could not be closed in order: %r", error)

    def _acknowledge(
        self, acknowledge: Callable[..., None], logger: logging.Logger, _errors: object, *more: Any
    ) -> None:
        """An acknowledgement that fails must not be forgotten: its message would take a place for ever. So it ends the
        connection, and all that was not acknowledged is given back with it.
        """
        channel = acknowledge.__self__.channel  # a message's own method
        if self.task_consumer is None or channel is not self.task_consumer.channel:
            # It came over a connection that is gone, and was given back when that ended.
            return
        try:
            acknowledge(logger, (), *more)
        except Exception as error:
            if self.blueprint.state not in (CLOSE, TERMINATE):
                raise
            _log.info("the last message could not be acknowledged: %r", error)

    def _rest(self, exc: Exception) -> None:
        if not isinstance(exc, self._known_errors):
            _log.error("listening failed unexpectedly", exc_info=exc)
        short = time.monotonic() - self._since < _SHORT_S
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S) if short else 0.0
        ends_at = time.monotonic() + self._pause_s
        while time.monotonic() < ends_at:
            maybe_shutdown()
            time.sleep(_FIRST_PAUSE_S)
        self._since = time.monotonic()


def _must_be_gone(message: Any) -> None:
    """As with an acknowledgement: what could not be rejected is given back with its connection."""
    if not message.acknowledged:
        text = "a message could not be rejected"
        raise ConnectionError(text)

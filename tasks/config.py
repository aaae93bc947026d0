"""Celery's settings, each with its reason."""

import ssl
from collections.abc import Mapping
from typing import Any

from kombu.utils.url import parse_url

from tasks.beat import SCHEDULE
from tasks.routing import QUEUES
from tern.settings import Settings


def broker_tls(url: str) -> Mapping[str, Any] | None:
    """How the broker's certificate is looked at: as the address says, and where it says nothing it is verified. Kombu
    would take anybody's.
    """
    said: Mapping[str, Any] = parse_url(url).get("ssl", {})
    if not said and not url.startswith("rediss://"):
        return None
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **said}


def celery_config(settings: Settings) -> dict[str, Any]:
    """The whole configuration of the app."""
    broker_url = settings.broker_url or "redis://127.0.0.1:6379/0"
    return {
        "broker_url": broker_url,
        # Flower reads what concerns TLS here alone.
        "broker_use_ssl": broker_tls(broker_url),
        # What may enter: ids in JSON. A broker that anyone can write to must not be able to run code.
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "event_serializer": "json",
        # A typo fails at publish, instead of making a queue that nobody reads.
        "task_create_missing_queues": False,
        "task_default_queue": "control",
        "task_queues": QUEUES,
        "task_routes": ("tasks.routing.route",),
        # The row is the result.
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # A process that dies rings again; how often, the row counts.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # An error is acknowledged: what happens next stands in the row.
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        # One message per thread: the rest stays where other workers can take it.
        "worker_prefetch_multiplier": 1,
        # A bell that can't be rung at once is found by the sweep; nobody waits for the broker.
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        "broker_pool_limit": 10,
        # Without it a silent broker blocks a publisher for ever.
        "broker_pool_acquire_timeout": 5,
        "broker_connection_retry_on_startup": True,
        # The default makes a worker give up after a hundred tries.
        "broker_connection_max_retries": None,
        # Celery's own ends the worker at any error that it doesn't take for a lost connection.
        "worker_consumer": "tasks.consumer:Listener",
        "broker_transport_options": {
            # Longer than any task with all its deadlines; redelivery is no recovery, the sweeps are.
            "visibility_timeout": 120,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # Without these a half-open connection hangs a publisher for ever.
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Queues are separated by kind; four lists a queue would only slow the reader down.
            "priority_steps": [0],
            # New work goes before looks at what goes on by itself: in a burst the looks wait a little, not the work.
            "queue_order_strategy": "tasks.turns:Turns",
            "max_connections": 40,
            "client_name": "tern",
        },
        # Claims make the second delivery of a task harmless.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Waiting is all that a task does; and neither gRPC nor libpq like to be forked.
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_concurrency,
        "worker_soft_shutdown_timeout": 20,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Flower is the window on the workers.
        "worker_send_task_events": True,
        # It costs publishers a third, and says nothing that the rows don't.
        "task_send_sent_event": False,
        "timezone": "UTC",
        "enable_utc": True,
        "beat_schedule": SCHEDULE,
        # In memory: the ticks are idempotent, and a file on disk can be corrupt.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1,
    }

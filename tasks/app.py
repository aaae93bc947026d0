"""The Celery app: `celery -A tasks.app worker | beat | flower`."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging

from tasks import logs, transport
from tasks.config import celery_config
from tern.settings import load

settings = load()
if logs.is_program_of_celery():
    logs.shape(settings)
transport.use()
app = Celery(
    "tern", include=["tasks.operation", "tasks.apply", "tasks.sweep", "tasks.canary", "tasks.worker"]
)
app.Task.Strategy = "tasks.strategy:checked"
app.config_from_object(celery_config(settings))


@setup_logging.connect
def _shape_logs(**_: Any) -> None:
    """Celery leaves them alone then."""
    logs.shape(settings)

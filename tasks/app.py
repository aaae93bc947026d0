"""The Celery app: `celery -A tasks.app worker | beat | flower`."""

from celery import Celery

from tasks import transport
from tasks.config import celery_config
from tern.settings import load

settings = load()
transport.use()
app = Celery(
    "tern", include=["tasks.operation", "tasks.apply", "tasks.sweep", "tasks.canary", "tasks.worker"]
)
app.Task.Strategy = "tasks.strategy:checked"
app.config_from_object(celery_config(settings))

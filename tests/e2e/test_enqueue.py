"""`tern.apply.enqueue` as another service sends it: a message to a real broker, taken by a real worker."""

from collections.abc import Iterator

import pytest
from celery import Celery

from tasks.config import celery_config
from tern.doors.answers import KeyFate
from tern.settings import Settings
from tern.store.paging import Paging
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.world import World

MESSAGE = {
    "ddl": "ALTER TABLE orders ADD COLUMN note text",
    "environment": "test",
    "database": "shop",
    "deployments": ["A", "B"],
    "policy": {"copy": "parallel"},
    "caller": "billing",
    "reason": "because",
    "key": "billing-7",
}


@pytest.fixture
def sender(broker_url: str) -> Iterator[Celery]:
    """A service that knows the broker and a task's name, and nothing else of Tern's."""
    with Celery("billing", set_as_current=False) as app:
        app.config_from_object(celery_config(Settings(broker_url=broker_url)))
        yield app


def test_a_message_is_one_apply_however_often_it_is_sent(
    fleet: Fleet, make_world: MakeWorld, sender: Celery
) -> None:
    """ID1, G11: repeated until the apply is seen; a refusal is found by its key, and nothing else is written."""
    world: World = make_world("A", "B", complete_after_polls=2)
    fleet.worker()
    reading = Paging(world.database)

    def send(**changed: object) -> str:
        message = {**MESSAGE, **changed}
        sender.send_task("tern.apply.enqueue", kwargs=message)
        return str(message["key"])

    def fate(key: str, *, refusals: int) -> KeyFate:
        def is_known() -> bool:
            found = reading.fate_of_key(key)
            return bool(found.apply_id) if not refusals else len(found.refusals) == refusals

        wait_for(is_known, fleet.picture)
        return reading.fate_of_key(key)

    for _ in range(3):
        key = send()
    made = fate(key, refusals=0)
    world.last = made.apply_id or ""  # type: ignore[assignment]
    other = fate(send(allow_unsafe=True), refusals=1)
    assert (other.apply_id, other.refusals[0].reason) == (made.apply_id, "KEY_REUSED")
    refused = fate(send(key="billing-8", deployments=["nowhere"], surprise=1), refusals=1)
    assert (refused.apply_id, refused.refusals[0].reason) == (None, "USAGE")
    assert refused.refusals[0].why == ("'surprise' is not known",)
    wait_for(lambda: world.apply_row().state == "completed", fleet.picture)
    assert world.one("SELECT count(*) AS n FROM applies").n == 1
    assert world.apply_row().caller == "billing"

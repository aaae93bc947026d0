"""Where a sender looks whose message got no answer."""

import json

import pytest

from tern.domain.errors import TernError
from tern.flows.accept import enqueue_message
from tests.cli.conftest import Tern
from tests.world import World

MESSAGE = {
    "ddl": "ALTER TABLE orders ADD COLUMN note text",
    "environment": "test",
    "database": "shop",
    "deployments": ["A"],
    "caller": "billing",
    "reason": "because",
    "key": "k1",
}


def send(world: World, **changed: object) -> None:
    enqueue_message(json.loads(json.dumps({**MESSAGE, **changed})), world.ports)


def test_a_key_leads_to_its_apply(world: World, tern: Tern) -> None:
    send(world)
    found = tern("enqueued", "k1", "--json")
    assert (found.code, found.data["refusals"]) == (0, [])
    assert f"tern watch {found.data['apply_id']}" in tern("enqueued", "k1").out


def test_a_refusal_is_found_by_its_key_with_all_causes(world: World, tern: Tern) -> None:
    with pytest.raises(TernError):
        send(world, deployments=["A", "nowhere"])
    with pytest.raises(TernError):
        send(world, reason=7)
    found = tern("enqueued", "k1", "--json")
    assert (found.code, found.data["apply_id"]) == (5, None)
    newest, oldest = found.data["refusals"]
    assert (newest["reason"], oldest["reason"]) == ("USAGE", "NOT_FOUND")
    assert newest["why"] == ["reason is no text, or one that can't be stored"]
    assert (oldest["caller"], "nowhere" in oldest["what"]) == ("billing", True)
    said = tern("enqueued", "k1").out
    assert "there is no deployment nowhere" in said
    assert "by billing" in said
    # What was wrong is put right and sent again, with the same key.
    send(world)
    assert tern("enqueued", "k1", "--json").code == 0


def test_another_request_under_the_key_of_an_apply_is_told_the_differences(world: World, tern: Tern) -> None:
    send(world)
    with pytest.raises(TernError):
        send(world, allow_unsafe=True)
    found = tern("enqueued", "k1", "--json").data
    assert found["apply_id"]
    assert found["refusals"][0]["why"] == ["allow_unsafe: False before, True now"]


@pytest.mark.parametrize("key", [None, "", " ", "k" * 201, "a\x00b", 7, ["k"]])
def test_a_message_without_a_usable_key_writes_nothing(key: object, world: World) -> None:
    """G7: a broker that anybody can write to must not fill the database."""
    with pytest.raises(TernError):
        send(world, key=key, deployments=["nowhere"])
    assert world.one("SELECT count(*) AS n FROM enqueue_refusals").n == 0


def test_old_refusals_give_way_to_new_ones(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tern.store.refusal.MOST_KEPT", 3)
    for number in range(5):
        with pytest.raises(TernError):
            send(world, key=f"k{number}", deployments=["nowhere"])
    kept = world.one("SELECT array_agg(idempotency_key ORDER BY id) AS keys FROM enqueue_refusals").keys
    assert kept == ["k2", "k3", "k4"]


def test_a_key_that_nobody_used(world: World, tern: Tern) -> None:
    nothing = tern("enqueued", "nobody's")
    assert (nothing.code, "send it again, with the same key" in nothing.err) == (3, True)
    assert tern("enqueued", " ").code == 2

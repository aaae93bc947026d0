"""Our engine for clients that somebody else made from the numbers of the public contract: of today, of a later day, and
of the day before the calls were renumbered.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tern.engine.server import EngineServer, serve
from tern.wire.numbering import WORDS
from tests.faults.foreign_contract import LATER, MAY, TODAY, Contract, ForeignClient

from .conftest import IDENTITY, Database, eventually

HERE = {"environment": "prod", "database": "orders", "target": "eu-1", "type": "postgres"}
IN_FIVE_WORDS = "this client speaks an older numbering"


@pytest.fixture
def channel(database_url: str) -> Iterator[grpc.Channel]:
    server: EngineServer = serve(database_url, "127.0.0.1:0", IDENTITY)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened
    server.stop()


@pytest.fixture(params=[TODAY, LATER], ids=["today", "later"])
def client(request: pytest.FixtureRequest, channel: grpc.Channel) -> ForeignClient:
    return Contract(request.param).client(channel)


@pytest.fixture
def today(channel: grpc.Channel) -> ForeignClient:
    return Contract(TODAY).client(channel)


@pytest.fixture
def may(channel: grpc.Channel) -> ForeignClient:
    return Contract(MAY).client(channel)


def change(ddl: str, table: str = "t") -> dict[str, Any]:
    return {"table_name": table, "ddl": ddl, "change_type": 5, "namespace": "public"}


def begin(client: ForeignClient, *ddl: str, **more: Any) -> Any:
    return client.call("Apply", **HERE, ddl_changes=[change(each) for each in ddl], **more)


def refusal(client: ForeignClient, method: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
    """All that a client without our details can read."""
    with pytest.raises(grpc.RpcError) as raised:
        client.call(method, **fields)
    return raised.value.code(), raised.value.details()


def state(client: ForeignClient, job: str) -> int:
    return int(client.call("Progress", apply_id=job).state)


def reaches(client: ForeignClient, job: str, number: int) -> None:
    eventually(lambda: state(client, job) == number)


def test_a_change_from_apply_to_its_end(client: ForeignClient, table: str) -> None:
    answer = begin(
        client,
        "ALTER TABLE t ADD COLUMN k int",
        "CREATE INDEX t_k ON t (k)",
        options={
            "defer_cutover": "true",
            "allow_unsafe": "false",
            "target": "eu-1",
            "branch": "",
            "volume": "",
        },
        idempotency_key="k1",
        caller="cli:dana",
    )
    assert answer.accepted
    assert answer.apply_operation_id
    job = answer.apply_id
    reaches(client, job, 3)
    asked = {"apply_id": job, "apply_operation_id": answer.apply_operation_id}
    seen = client.call("Progress", **asked)
    assert (seen.engine, seen.apply_operation_id) == (3, answer.apply_operation_id)
    # Waiting is begun.
    assert seen.started_at
    (entry,) = seen.tables
    assert (entry.namespace, entry.table_name) == ("public", "t")
    assert client.call("Cutover", caller="cli:dana", **asked).accepted
    reaches(client, job, 6)
    (entry,) = client.call("Progress", apply_id=job).tables
    assert (entry.status, entry.task_id) == ("completed", f"{job}/1")
    logs = client.call("Logs", apply_id=job).logs
    assert "cli:dana" in logs[0].message


def test_stop_start_and_cancel(client: ForeignClient, db: Database, table: str) -> None:
    with db.transaction():
        db.execute("SELECT FROM t")
        job = begin(client, "ALTER TABLE t ADD COLUMN k int").apply_id
        assert client.call("Stop", apply_id=job, caller="dana").stopped_count == 1
        reaches(client, job, 8)
        assert client.call("Start", apply_id=job, environment="prod").accepted
        reaches(client, job, 2)
        assert client.call("Cancel", apply_id=job, caller="dana").cancelled_count == 1
        reaches(client, job, 10)


def test_a_busy_table_is_no_error_and_names_its_holder(
    client: ForeignClient, db: Database, table: str
) -> None:
    with db.transaction():
        db.execute("SELECT FROM t")
        job = begin(client, "ALTER TABLE t ADD COLUMN k int").apply_id
        answer = begin(client, "CREATE INDEX ON t (a)", idempotency_key="later")
        assert (answer.accepted, answer.apply_id) == (False, "")
        assert (answer.conflict.table, answer.conflict.holder_external_id) == ("t", job)
    reaches(client, job, 6)
    assert begin(client, "CREATE INDEX ON t (a)", idempotency_key="later").accepted


def test_tables_are_told_apart_and_statements_are_not(
    client: ForeignClient, db: Database, table: str
) -> None:
    """A client keeps what it reads by namespace and table."""
    db.execute("CREATE TABLE u (id int)")
    changes = [
        change("ALTER TABLE t ADD COLUMN k int"),
        change("ALTER TABLE u ADD COLUMN k int", "u"),
        change("ALTER TABLE t ADD CONSTRAINT small CHECK (a < 3)"),
    ]
    job = client.call("Apply", **HERE, ddl_changes=changes).apply_id
    reaches(client, job, 7)
    tables = client.call("Progress", apply_id=job).tables
    assert [(each.table_name, each.status) for each in tables] == [("t", "failed"), ("u", "completed")]
    assert len({each.task_id for each in tables}) == len(tables)


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ({"branch": "b-1"}, "FAILED_PRECONDITION", "branch"),
        ({"defer_deploy": "true"}, "FAILED_PRECONDITION", "defer_deploy"),
        ({"enable_revert": "true"}, "FAILED_PRECONDITION", "enable_revert"),
        ({"volume": "3"}, "FAILED_PRECONDITION", "volume"),
        ({"target": "us-1"}, "INVALID_ARGUMENT", "target"),
        ({"allow_unsafe": "yes"}, "INVALID_ARGUMENT", "allow_unsafe"),
        ({"surprise": "1"}, "INVALID_ARGUMENT", "surprise"),
    ],
)
def test_an_option_that_can_t_be_met_is_refused_by_its_name(
    options: dict[str, str], code: str, word: str, today: ForeignClient, db: Database, table: str
) -> None:
    fields = {**HERE, "ddl_changes": [change("ALTER TABLE t ADD COLUMN k int")], "options": options}
    found, message = refusal(today, "Apply", **fields)
    assert (found.name, word in message) == (code, True), message
    assert db.execute("SELECT count(*) FROM _tern.job").fetchone() == (0,)


def test_options_that_ask_for_nothing_are_taken(today: ForeignClient, table: str) -> None:
    options = {
        "defer_cutover": "false",
        "allow_unsafe": "true",
        "enable_revert": "false",
        "skip_revert": "true",
    }
    more = {"target": "eu-1", "branch": "", "defer_deploy": "false", "volume": ""}
    job = begin(today, "ALTER TABLE t DROP COLUMN j", options={**options, **more}).apply_id
    reaches(today, job, 6)


def test_the_reason_stands_in_the_message(today: ForeignClient, table: str) -> None:
    assert refusal(today, "Progress", apply_id="job-0") == (
        grpc.StatusCode.NOT_FOUND,
        "there is no apply 'job-0' here (APPLY_NOT_FOUND)",
    )
    _, message = refusal(today, "Apply", **HERE, ddl_changes=[change("ALTER TABLE t DROP COLUMN a")])
    assert message.endswith("(UNSAFE_CHANGE)")


def test_the_order_that_nobody_can_tell_is_not_guessed(today: ForeignClient, table: str) -> None:
    """Its client sends a plan's files with the statements, those on one table the last one first."""
    files = {"public": {"files": {"t.sql": "CREATE TABLE t ()"}}}
    one = begin(today, "ALTER TABLE t ADD COLUMN k int", schema_files=files, plan_id="plan-9")
    reaches(today, one.apply_id, 6)
    both = [change("CREATE INDEX t_m ON t (m)"), change("ALTER TABLE t ADD COLUMN m int")]
    code, message = refusal(today, "Apply", **HERE, ddl_changes=both, schema_files=files, plan_id="plan-9")
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "PLAN_UNKNOWN" in message


def test_a_scoped_call_for_another_operation_is_refused(today: ForeignClient, table: str) -> None:
    job = begin(today, "ALTER TABLE t ADD COLUMN k int").apply_id
    for method in ("Progress", "Cutover"):
        code, message = refusal(today, method, apply_id=job, apply_operation_id="of-another")
        assert (code, "OPERATION_MISMATCH" in message) == (grpc.StatusCode.FAILED_PRECONDITION, True)


@pytest.mark.parametrize("method", ["Stop", "Start", "Cutover", "Progress", "Revert", "SkipRevert", "Volume"])
@pytest.mark.parametrize("where", [{"database": "orders", "type": "postgres"}, {}])
def test_the_older_numbering_is_told_so(
    method: str, where: dict[str, str], may: ForeignClient, today: ForeignClient, table: str
) -> None:
    """Its Apply is taken, so it has to learn why it can neither see nor stop what it began."""
    job = begin(may, "ALTER TABLE t ADD COLUMN k int", options={"defer_cutover": "true"}).apply_id
    reaches(today, job, 3)
    code, message = refusal(may, method, **where, environment="prod", apply_id=job)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == f"{WORDS} (OLDER_NUMBERING)"
    assert message.startswith(IN_FIVE_WORDS)
    assert state(today, job) == 3


def test_the_older_numbering_without_an_id_is_told_so_too(may: ForeignClient, table: str) -> None:
    """Then it meant whatever was active."""
    code, message = refusal(may, "Progress", database="orders", type="mysql", environment="prod")
    assert (code, message.startswith(IN_FIVE_WORDS)) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_a_later_field_is_no_older_numbering(channel: grpc.Channel, table: str) -> None:
    later = Contract(LATER).client(channel)
    job = begin(later, "ALTER TABLE t ADD COLUMN k int", options={"defer_cutover": "true"}).apply_id
    reaches(later, job, 3)
    assert later.call("Stop", apply_id=job, apply_operation_id=job, urgency=3).accepted


def test_a_scoped_call_about_an_unknown_id_is_no_older_numbering(today: ForeignClient, table: str) -> None:
    """Cutover has a caller and an operation where the id once was: what is wrong is the id, and a client that is told
    to be made anew would never learn it.
    """
    scoped = {"caller": "cli:dana", "apply_operation_id": "of-yesterday/1"}
    code, message = refusal(today, "Cutover", apply_id="of-yesterday", environment="prod", **scoped)
    assert (code, IN_FIVE_WORDS in message) == (grpc.StatusCode.NOT_FOUND, False), message


def test_health_says_version_and_what_is_offered_beside(today: ForeignClient) -> None:
    answer = today.call("Health")
    assert (answer.status, bool(answer.version)) == ("ok", True)
    assert list(answer.capabilities) == ["tern.engine.v1.EngineService"]

"""Hostile DDL: a clear refusal at every door, nothing changed, everything alive."""

from typing import Any

import grpc
import psycopg
import pytest

from tern.domain.errors import Refused
from tern.doors.ddl import split_ddl
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.engine.v1 import engine_service_pb2_grpc as ours_grpc
from tests.cli.conftest import Tern, bare, tern
from tests.engine.conftest import eventually
from tests.engine.process import Process
from tests.hostile.catalogue import differences, fingerprint
from tests.hostile.statements import ALL, HOSTILE, LOOKS_HOSTILE, ONLY_AS_DECLARED

__all__ = ["bare", "tern"]

OWN = frozenset({"_tern"})
CLEAR = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def names(case: tuple[str, str]) -> str:
    return f"{case[0]}: {case[1][:40]!r}"


def test_an_engine_refuses_every_one_and_changes_nothing(
    engine: Process, ground: psycopg.Connection[Any]
) -> None:
    """G16, and the fourth item of the list of what is refused: by Preview, and by Apply with every consent."""
    asked = ours_grpc.EngineServiceStub(engine.channel)
    before = fingerprint(ground, but=OWN)
    wrong = []
    for number, case in enumerate(ALL):
        ddl = case[1]
        try:
            change = ours.PreviewChange(namespace="public", table="t", ddl=ddl)
            (seen,) = asked.Preview(ours.PreviewRequest(changes=[change]), timeout=30).changes
            if not seen.refused or ": " not in seen.refused_reason or seen.recipe:
                wrong.append((names(case), "previewed", str(seen)[:300]))
        except grpc.RpcError as error:
            if error.code() not in CLEAR:
                wrong.append((names(case), "Preview", error.code().name, error.details()))
        try:
            job = engine.apply(ddl, key=f"k{number}", allow_unsafe="true")
            wrong.append((names(case), "applied", job))
        except grpc.RpcError as error:
            if error.code() not in CLEAR or not error.details():
                wrong.append((names(case), "Apply", error.code().name, error.details()))
    assert wrong == [], "\n".join(map(str, wrong))
    assert engine.is_running
    assert differences(before, fingerprint(ground, but=OWN)) == []
    for kept in ("job", "dispatch_key", "fence", "tbl", "event"):
        assert ground.execute(f"SELECT count(*) FROM _tern.{kept}").fetchone() == (0,)
    job = engine.apply("ALTER TABLE t ADD COLUMN k int")
    eventually(lambda: engine.completed(job))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_plan_is_refused_or_holds_what_was_written(kind: str) -> None:
    """What `tern plan` lets through is one change with its own words, for the engine to judge."""
    mute: list[str] = []
    for ddl in HOSTILE[kind]:
        try:
            changes = split_ddl(ddl)
        except Refused as refused:
            mute += [] if refused.what and refused.why else [ddl[:80]]
            continue
        assert "\x00" not in ddl
        assert len(" ".join(ddl.split())) >= sum(len(" ".join(one.ddl.split())) for one in changes)
        for one in changes:
            assert one.ddl in ddl
            assert one.table_name
            assert one.namespace
    assert mute == []


def test_what_only_looks_hostile_does_what_it_says(engine: Process, ground: psycopg.Connection[Any]) -> None:
    """The reader of the statement and its writer agree about where a text ends."""
    for number, (ddl, default) in enumerate(LOOKS_HOSTILE.items()):
        (change,) = split_ddl(ddl)
        job = engine.apply(change.ddl, key=f"key-{number}")
        eventually(lambda job=job: engine.completed(job))
        assert ground.execute("SELECT DISTINCT k FROM t").fetchall() == [(default,)], ddl[:80]
        assert ground.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        ground.execute("ALTER TABLE t DROP COLUMN k")


def test_tern_plan_refuses_or_passes_the_refusal_on(
    tern: Tern, engine: Process, ground: psycopg.Connection[Any]
) -> None:
    """Never a traceback at a user; nothing of it reaches the target, and the plan says whose refusal it is."""
    here = ("--target", "eu-1", "--address", f"grpc://127.0.0.1:{engine.port}")
    assert tern("deployments", "add", "eu", "-e", "prod", "-d", "orders", *here).code == 0
    before = fingerprint(ground, but=OWN)
    wrong = []
    for case in ALL:
        if case[1] in ONLY_AS_DECLARED:
            continue
        said = tern("plan", "--ddl", "-", "-e", "prod", "-d", "orders", "--all", stdin=case[1])
        if said.code not in {2, 5} or "Traceback" in said.err or not said.err + said.out:
            wrong.append((names(case), said.code, said.err[-300:]))
    assert wrong == [], "\n".join(map(str, wrong))
    assert differences(before, fingerprint(ground, but=OWN)) == []
    assert (
        tern(
            "plan", "--ddl", "-", "-e", "prod", "-d", "orders", "--all", stdin="ALTER TABLE t ADD k int"
        ).code
        == 0
    )

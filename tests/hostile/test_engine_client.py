"""An engine that lies with every word: our client answers Ok, Refused or Unknown, and raises nothing (G10)."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from tern.domain.identity import RemoteId
from tern.domain.model import Capabilities, Forbidden, NeverStarted, Started, Unsupported
from tern.domain.outcome import Ok, Refused, Unknown
from tern.domain.samples import Sample
from tern.ports import ChangePreview, Engine
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.outcomes import About
from tern.wire.routing import EngineDirectory
from tern.wire.translation import read_apply, read_resolve
from tests.faults.behaviour import garbage
from tests.faults.fake_engine import FakeEngine
from tests.hostile.garbage import TEXTS, Garbage, calls_asked_for
from tests.hostile.liar import Liar
from tests.wire.conftest import NAME, call_for, claim_on, cursor_for, deployment_at, scope_at

CALLS = 10_000
THREADS = 4
LONGEST = 2_000
OWN = ("job-1", "job-2", "job-3")


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar("engine", (*OWN, str(NAME.apply_id))) as one:
        yield one


def asked(engine: Engine, chance: Garbage, address: str) -> tuple[str, Any]:
    """One call of any kind, and what came of it."""
    deployment = deployment_at(address)
    scope = scope_at(deployment)
    claim = claim_on(scope)
    call = call_for(chance.one_of(OWN))
    cursors = [cursor_for(n, own, revision=chance.one_of((0, 7))) for n, own in enumerate(OWN)]
    verbs: dict[str, Callable[[], Any]] = {
        "apply": lambda: engine.apply(scope, claim),
        "resolve": lambda: engine.resolve(scope, claim, claim.key, forbid=chance.happens(0.5)),
        "progress": lambda: engine.progress(call),
        "batch": lambda: engine.batch_progress(cursors),
        "stop": lambda: engine.stop(call),
        "start": lambda: engine.start(call),
        "cutover": lambda: engine.cutover(call),
        "cancel": lambda: engine.cancel(call),
        "health": engine.health,
        "probe": engine.probe,
        "preview": lambda: engine.preview(deployment, [one.change for one in scope.changes]),
        "logs": lambda: engine.logs(call, 5),
    }
    verb = chance.one_of(list(verbs))
    return verb, verbs[verb]()


def test_ten_thousand_lies_and_no_exception(liar: Liar) -> None:
    seen: Counter[str] = Counter()
    doubts: list[str] = []

    def listen(number: int) -> None:
        chance, directory = Garbage(f"asker {number}"), EngineDirectory(deadline_s=0.3)
        for _ in range(calls_asked_for(CALLS) // THREADS):
            verb, outcome = asked(directory.of(deployment_at(liar.address)), chance, liar.address)
            for one in [look.outcome for look in outcome] if verb == "batch" else [outcome]:
                seen[type(one).__name__] += 1
                doubts.extend(f"{verb}: {doubt}" for doubt in doubtful(one))
            if verb == "batch" and len({look.cursor.operation_id for look in outcome}) != len(outcome):
                doubts.append("batch: an operation is spoken of twice")
        directory.close()

    with ThreadPoolExecutor(THREADS) as threads:
        for share in [threads.submit(listen, number) for number in range(THREADS)]:
            share.result()
    assert doubts == [], Counter(doubt[:90] for doubt in doubts)
    assert set(seen) == {"Ok", "Refused", "Unknown"}
    assert liar.calls > calls_asked_for(CALLS) * 0.9


def doubtful(outcome: Any) -> Iterator[str]:
    """What of an outcome must not reach anybody."""
    yield from (f"{text!r} in a text" for text in texts_of(outcome) if "\x00" in text or len(text) > 80_000)
    match outcome:
        case Refused(message) | Unknown(message):
            if not message:
                yield "no words"
        case Ok(Started(remote_id) | str(remote_id)) if len(remote_id) > LONGEST:
            yield f"an id of {len(remote_id)} characters"
        case Ok(Sample() as sample):
            yield from doubtful_sample(sample)
        case Ok(tuple() as many):
            for each in many:
                if isinstance(each, ChangePreview) and not (
                    math.isfinite(each.estimated_s) and each.estimated_s >= 0 and each.estimated_rows >= 0
                ):
                    yield f"an estimate of {each.estimated_s} s, {each.estimated_rows} rows"
        case Ok(None | str() | Started() | Forbidden() | NeverStarted() | Unsupported() | Capabilities()):
            pass
        case _:
            yield f"{outcome!r} is no outcome"


def doubtful_sample(sample: Sample) -> Iterator[str]:
    if sample.remote_id not in OWN:
        yield f"a sample of {sample.remote_id}"
    if not 0 <= sample.revision < 2**64:
        yield f"revision {sample.revision}"
    for table in sample.tables:
        for name in ("rows_copied", "rows_total", "eta_s", "checksum_rows_checked", "checksum_rows_total"):
            number = getattr(table, name)
            if number is not None and not 0 <= number < 2**63:
                yield f"{name} {number}"
        if table.percent is not None and not 0 <= table.percent <= 100:
            yield f"{table.percent} %"


def texts_of(value: Any) -> Iterator[str]:
    """Every text anywhere in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from texts_of(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts_of(getattr(value, field.name))


@pytest.mark.parametrize("text", [*TEXTS, "apl-one", "a\u2028b", "a\u200bb"], ids=ascii)
def test_an_id_is_storable_or_not_taken(text: str) -> None:
    """G5: an id once stored stays, so one that no call could carry must never be Ok."""
    about = About("Apply", NAME.deployment, NAME)
    given = read_apply(about, tern_v1.ApplyResponse(accepted=True, apply_id=text))
    found = read_resolve(about, engine_v1.ResolveResponse(apply_id=text), forbid=False)
    for outcome in (given, found):
        if isinstance(outcome, Ok) and outcome.value != NeverStarted():
            remote_id = outcome.value.remote_id if isinstance(outcome.value, Started) else outcome.value
            assert remote_id == RemoteId(text)
            assert remote_id.strip()
            assert remote_id.isprintable()
            assert remote_id != NAME.apply_id


@pytest.mark.parametrize("said", [b"\x0a\x02\xc3\x28", b"\xfa\x7f\x03abc", b"\x98\x06\x01"])
@pytest.mark.parametrize("method", ["Apply", "Stop", "Cancel"])
def test_an_answer_of_which_nothing_can_be_read_is_no_refusal(method: str, said: bytes) -> None:
    """G10: it has the shape of a message whose every field is empty, which would mean "not accepted"."""
    with FakeEngine("R") as fake:
        directory = EngineDirectory(deadline_s=5)
        deployment = deployment_at(fake.address)
        scope, engine = scope_at(deployment), directory.of(deployment)
        fake.always(method, garbage(said))
        if method == "Apply":
            outcome: Any = engine.apply(scope, claim_on(scope))
        else:
            outcome = getattr(engine, method.lower())(call_for("job-1"))
        directory.close()
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "ILLEGIBLE"

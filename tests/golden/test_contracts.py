"""The contracts over gRPC: every message, field, number, word and call; and what each call really fills in."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.flows.accept import enqueue_message
from tern.wire.generated.tern.control.v1 import apply_pb2, control_service_pb2, policy_pb2, record_pb2
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tern.wire.generated.tern.engine.v1 import engine_service_pb2
from tern.wire.generated.tern.v1 import tern_pb2
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.doors.calling import Stubs, call
from tests.engine.conftest import Driver, db, driver, engine, make_engine, table
from tests.faults.behaviour import fail
from tests.flows.steps import engine_says, settle
from tests.golden.golden import hold
from tests.world import World

__all__ = ["db", "driver", "engine", "make_engine", "table"]

FILES = (control_service_pb2, apply_pb2, policy_pb2, record_pb2, engine_service_pb2, tern_pb2)
SCALARS = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
DDL = "ALTER TABLE orders ADD COLUMN note text"


def fields(message: Descriptor) -> dict[str, object]:
    """Name, number and type: all that a stub of somebody else's was made from."""
    found: dict[str, object] = {}
    for field in message.fields:
        kind = field.message_type or field.enum_type
        told = kind.full_name if kind is not None else SCALARS[field.type]
        found[f"{field.name} = {field.number} {'repeated ' * field.is_repeated}{told}"] = True
    return found


def contract(file: FileDescriptor) -> dict[str, object]:
    """One file of proto/, as plain words."""
    return {
        "kind": file.package,
        "messages": {name: fields(message) for name, message in file.message_types_by_name.items()},
        "words": {
            name: {f"{value.name} = {value.number}": True for value in enum.values}
            for name, enum in file.enum_types_by_name.items()
        },
        "calls": {
            name: {
                f"{method.name}({method.input_type.name}) -> {'stream ' * method.server_streaming}"
                f"{method.output_type.name}": True
                for method in service.methods
            }
            for name, service in file.services_by_name.items()
        },
    }


def test_no_message_field_word_or_call_is_gone() -> None:
    """A number is a promise too: an old stub reads by it."""
    hold("contracts", {file.DESCRIPTOR.name.replace("/", "-"): contract(file.DESCRIPTOR) for file in FILES})


def told(name: str, answer: Message) -> dict[str, Any]:
    """Only what is filled in: a field that nobody fills in any more is as good as gone."""
    return {"kind": name, **MessageToDict(answer, preserving_proto_field_name=True)}


def test_every_answer_of_the_control_service_is_filled_in_as_promised(world: World, stubs: Stubs) -> None:
    documents: dict[str, Any] = {}

    def ask(name: str, request: Message, *, at: Any = stubs.control, suffix: str = "") -> Any:
        answer = call(getattr(at, name), request)
        if hasattr(answer, "__next__"):
            answer = next(iter(answer))
        documents[f"{name}{suffix}"] = told(name, answer)
        return answer

    waves = (Wave(deployments=("A",), max_failures=0, bake_s=600.0), Wave())
    policy = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.PAUSE, cutover=Cutover.MANUAL, waves=waves)
    apply_id = world.apply(policy=policy)
    world.answer_bells()
    engine_says(world, "A", "waiting_for_cutover")
    subject = {"subject": str(apply_id)}
    ask("GetApply", control_v1.GetApplyRequest(**subject, page_size=2))
    ask("ExplainApply", control_v1.ExplainApplyRequest(**subject))
    ask("WatchApply", control_v1.WatchApplyRequest(apply_id=apply_id))
    given = {**subject, "reason": "the night is long"}
    both = control_v1.Selection(deployments=["A", "B"])
    for verb in ("CUTOVER", "STOP", "START", "RETRY"):
        asked = control_v1.ControlRequest(verb=control_v1.Verb.Value(f"VERB_{verb}"), selection=both, **given)
        ask("Control", asked, suffix=f"-{verb.lower()}")
    settle(world)
    ask("GetApply", control_v1.GetApplyRequest(**subject), suffix="-after-a-stop")
    ask("ListEvents", control_v1.ListEventsRequest(**subject))
    ask("ListApplies", control_v1.ListAppliesRequest(page_size=1))
    ask("VerifyRecords", control_v1.VerifyRecordsRequest())
    ask("Control", control_v1.ControlRequest(verb=control_v1.VERB_CANCEL, **given), suffix="-cancel")
    settle(world)
    world.engines["B"].script("Apply", fail("FAILED_PRECONDITION", "the column is there"))
    failed = world.apply("B")
    world.answer_bells()
    ask("GetApply", control_v1.GetApplyRequest(subject=failed), suffix="-failed")
    ask("CarryOn", control_v1.CarryOnRequest(subject=failed))
    made = ask(
        "Enqueue",
        control_v1.EnqueueRequest(
            idempotency_key="k1", reason="because", ddl=DDL, environment="test", database="shop",
            targets=control_v1.Targets(deployments=["C"]),
        ),
    )  # fmt: skip
    ask("GetEnqueued", control_v1.GetEnqueuedRequest(idempotency_key="k1"))
    message = {"ddl": DDL, "environment": "test", "database": "shop", "deployments": ["nowhere"]}
    try:
        enqueue_message({**message, "caller": "billing", "reason": "because", "key": "k2"}, world.ports)
    except Exception as error:  # noqa: BLE001 - refused, and kept
        assert "nowhere" in str(error)  # noqa: PT017
    ask("GetEnqueued", control_v1.GetEnqueuedRequest(idempotency_key="k2"), suffix="-refused")
    world.last = made.apply_id
    world.forget_bells()
    claimed = world.store.claim_dispatch(world.operation("C").id, world.name("C"))
    world.store.record_uncertain(claimed.claim, "who knows")  # type: ignore[union-attr]
    # Its deadline is over: nothing of the call can arrive any more.
    world.write("UPDATE apply_operations SET unanswered_since = unanswered_since - interval '1 minute'")
    asked_about = {"subject": f"{world.last}/C", "reason": "because"}
    ask("Resolve", control_v1.ResolveRequest(finding=control_v1.FINDING_ENDED, **asked_about))
    documents.update(_of_the_facade(world, stubs))
    hold("control-service", documents)


def _of_the_facade(world: World, stubs: Stubs) -> dict[str, Any]:
    """The public contract, answered by Tern itself."""
    world.apply("B")
    world.answer_bells()
    engine_says(world, "B", "running")
    documents = {}
    for name, request, suffix in (
        ("Progress", tern_v1.ProgressRequest(apply_id=str(world.name("B"))), ""),
        ("Logs", tern_v1.LogsRequest(apply_id=str(world.name("B"))), ""),
        ("Health", tern_v1.HealthRequest(), ""),
        ("Stop", tern_v1.StopRequest(apply_id=str(world.name("B"))), ""),
    ):
        documents[f"facade-{name}{suffix}"] = told(f"facade {name}", call(getattr(stubs.tern, name), request))
    return documents


def test_every_answer_of_the_engine_is_filled_in_as_promised(driver: Driver, table: str) -> None:
    """Tern reads the same contract from every engine; so may anybody who drives ours by another client."""
    request = driver.request(f"ALTER TABLE {table} ADD COLUMN k int", "CREATE INDEX t_a ON t (a)")
    job = driver.service.apply(request, driver.context).apply_id
    documents = {"Apply": driver.service.apply(request, driver.context)}
    driver.wait(job, "COMPLETED")
    documents["Progress-completed"] = driver.progress(job)
    documents["Resolve-known"] = driver.resolve(request.idempotency_key)
    documents["Resolve-forbidden"] = driver.resolve("never", forbid=True)
    documents["Preview"] = engine_service_pb2.PreviewResponse(
        changes=driver.preview(f"ALTER TABLE {table} ADD COLUMN l int DEFAULT random()", "DROP TABLE t")
    )
    documents["Logs"] = driver.service.logs(tern_v1.LogsRequest(apply_id=job), driver.context)
    documents["Health"] = driver.service.health(tern_v1.HealthRequest(), driver.context)
    documents["BatchProgress"] = driver.service.batch_progress(
        engine_service_pb2.BatchProgressRequest(
            cursors=[
                engine_service_pb2.ProgressCursor(apply_id=job),
                engine_service_pb2.ProgressCursor(apply_id="no"),
            ]
        ),
        driver.context,
    )
    failing = driver.apply(f"ALTER TABLE {table} ADD CONSTRAINT small CHECK (a < 3)")
    documents["Progress-failed"] = driver.wait(failing, "FAILED")
    hold("engine", {name: told(name.partition("-")[0], answer) for name, answer in documents.items()})

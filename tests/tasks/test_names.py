"""Everything that has a name on the wire, pinned: other services and people's dashboards rely on it."""

import ast
from pathlib import Path

import pytest

import tasks
from tasks.app import app
from tasks.beat import SCHEDULE
from tasks.routing import QUEUE_OF, QUEUES, route
from tern.domain.errors import ScopeRefused, UsageError
from tern.domain.timing import SWEEP_PERIOD_S

TASKS = {
    "tern.operation.dispatch": "dispatch",
    "tern.operation.stop": "control",
    "tern.operation.start": "control",
    "tern.operation.cutover": "control",
    "tern.operation.cancel": "control",
    "tern.operation.retry": "control",
    "tern.operation.skip": "control",
    "tern.operation.revert": "control",
    "tern.operation.skip-revert": "control",
    "tern.operation.volume": "control",
    "tern.operation.progress": "poll",
    "tern.deployment.poll": "poll",
    "tern.apply.advance": "control",
    "tern.apply.enqueue": "dispatch",
    "tern.progress.sweep": "sweep",
    "tern.sweep": "sweep",
}
OPERATION_TASKS = sorted(name for name in TASKS if name.startswith("tern.operation."))


CANARY = "tern.queue.answer"


def test_task_names_and_queues_are_these() -> None:
    app.loader.import_default_modules()
    assert {name for name in app.tasks if name.startswith("tern.")} == {*TASKS, CANARY}
    assert QUEUE_OF == TASKS
    assert {queue.name for queue in QUEUES} == {"control", "sweep", "dispatch", "poll"}


def test_beat_has_two_entries() -> None:
    assert {name: entry["task"] for name, entry in SCHEDULE.items()} == {
        "poll-progress": "tern.progress.sweep",
        "reconcile": "tern.sweep",
    }
    assert [entry["schedule"] for entry in SCHEDULE.values()] == [
        SWEEP_PERIOD_S["progress"],
        SWEEP_PERIOD_S["reconcile"],
    ]


def test_no_message_expires() -> None:
    """§11: that would be one machine's clock against another's; what comes too late reads in its row that it does."""
    for module in Path(tasks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            given = [word.arg for word in node.keywords] if isinstance(node, ast.Call) else []
            keys = node.keys if isinstance(node, ast.Dict) else []
            given += [key.value for key in keys if isinstance(key, ast.Constant)]
            assert not {"expires", "eta", "countdown", "task_default_expires", "result_expires"} & set(
                given
            ), module


@pytest.mark.parametrize("name", OPERATION_TASKS)
def test_operation_task_is_routed_by_its_scope(name: str) -> None:
    given = {"operation_id": "7", "scope": "apl-0123456789abcdef/us-east"}
    assert route(name, (), given, {}) == {"queue": TASKS[name]}


@pytest.mark.parametrize("name", OPERATION_TASKS)
@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"operation_id": "7"},
        {"operation_id": "7", "scope": ""},
        {"operation_id": "7", "scope": "apl-0123456789abcdef"},
        {"operation_id": "7", "scope": "apl-0123456789abcdef/"},
        {"operation_id": "0", "scope": "apl-0123456789abcdef/us-east"},
        {"operation_id": "-1", "scope": "apl-0123456789abcdef/us-east"},
        {"operation_id": "x", "scope": "apl-0123456789abcdef/us-east"},
        {"operation_id": True, "scope": "apl-0123456789abcdef/us-east"},
        {"scope": "apl-0123456789abcdef/us-east"},
    ],
)
def test_operation_task_without_its_scope_is_refused(name: str, given: dict[str, object] | None) -> None:
    """G7: refused before it reaches the broker."""
    with pytest.raises(ScopeRefused):
        route(name, (), given, {})


@pytest.mark.parametrize("queue", ["control", "sweep", "dispatch", "poll"])
def test_a_canary_goes_to_the_queue_that_it_names(queue: str) -> None:
    assert route(CANARY, (), {"queue": queue, "token": "0" * 24}, {}) == {"queue": queue}


@pytest.mark.parametrize(
    "given",
    [None, {}, {"queue": "celery", "token": "0" * 24}, {"queue": "poll", "token": "'; --"}, {"queue": []}],
)
def test_a_canary_that_is_none_is_refused(given: dict[str, object] | None) -> None:
    with pytest.raises(UsageError):
        route(CANARY, (), given, {})


def test_unknown_task_is_refused() -> None:
    with pytest.raises(ScopeRefused, match="no task"):
        route("tern.operation.destroy", (), {}, {})


def test_nothing_but_json_is_taken_from_the_broker() -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.result_backend is None
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1


def test_every_task_is_one_statement() -> None:
    """A task hands an id to a flow, and that is all."""
    import ast  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    for module in ("operation", "apply", "sweep"):
        tree = ast.parse((Path(__file__).parents[2] / "tasks" / f"{module}.py").read_text())
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            statements = [node for node in function.body if not isinstance(node, ast.Expr | ast.Assign)]
            assert statements == [], function.name
            assert len(function.body) <= 3, function.name
            assert not function.args.args, f"{function.name} takes keywords only"

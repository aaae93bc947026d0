"""Messages as Celery sends them, with anything in them: for a broker that everybody may write to."""

import base64
import itertools
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

OPERATION_TASKS = tuple(
    f"tern.operation.{verb}" for verb in ("dispatch", "stop", "start", "cutover", "cancel", "progress")
)
QUEUE_OF = {"dispatch": "dispatch", "progress": "poll", "poll": "poll", "sweep": "sweep"}
_numbers = itertools.count(1)


class Bomb:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self._path), "w")


def queue_of(task: str) -> str:
    return QUEUE_OF.get(task.rpartition(".")[2], "control")


def envelope(
    task: str,
    kwargs: Any = None,
    *,
    args: Any = (),
    embed: Any = None,
    body: bytes | None = None,
    content_type: str = "application/json",
    encoding: str = "utf-8",
    headers: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
) -> bytes:
    """One element of a queue, as kombu writes it."""
    number = f"poison-{next(_numbers)}"
    if body is None:
        body = json.dumps([args, {} if kwargs is None else kwargs, embed or {}]).encode()
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {
                "lang": "py", "task": task, "id": number, "root_id": number, "parent_id": None, "group": None,
                "retries": 0, "timelimit": [None, None], "eta": None, "expires": None, "argsrepr": "()",
                "kwargsrepr": "{}", "origin": "nobody", **(headers or {}),
            },
            "properties": {
                "correlation_id": number, "reply_to": "", "delivery_mode": 2, "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": queue_of(task)}, "body_encoding": "base64",
                "delivery_tag": number, **(properties or {}),
            },
        }
    ).encode()  # fmt: skip


def strange_ids(own: int) -> Iterator[Any]:
    """What may stand where an operation's id belongs."""
    yield from (0, -1, -own, own + 100_000, 2**31, 2**63 - 1, 2**63, 10**400, float(own), own + 0.5, 1e308)
    yield from (
        True,
        False,
        None,
        [],
        [own],
        {},
        {"id": own},
        "",
        " ",
        f"{own}; DROP TABLE applies",
        f"0x{own:x}",
    )
    yield from (f"{own}.0", f"{own}e0", "NaN", "-1", "9" * 5_000, f"{own}\x00", "apl-1/A", "\u0661", "1_0")


def strange_scopes(own: str, siblings: str, strangers: str) -> Iterator[Any]:
    """What may stand where a scope belongs."""
    apply_id, _, deployment = own.partition("/")
    yield from (
        siblings,
        strangers,
        f"{apply_id}/",
        f"/{deployment}",
        "/",
        "",
        apply_id,
        deployment,
        None,
        0,
        True,
    )
    yield from (
        [own],
        {"scope": own},
        f"{own}/",
        f" {own}",
        f"{own}\n",
        f"{own}\x00",
        own.upper(),
        f"{own}/{deployment}",
    )
    yield from (
        f"{apply_id}/*",
        f"{apply_id}/%",
        f"{apply_id}/../{deployment}",
        f"apl-0/{deployment}",
        "x" * 500_000,
    )
    yield from (
        own.replace("apl-", "apl\u2010"),
        f"{apply_id}/{deployment}\u200b",
        f"{apply_id}\u2215{deployment}",
    )


def about_operations(own: int, name: str, siblings: str, strangers: str) -> Iterator[tuple[str, bytes]]:
    """Every operation task with everything but its own id and scope together."""
    for task in OPERATION_TASKS:
        for strange in strange_ids(own):
            yield task, envelope(task, {"operation_id": strange, "scope": name})
        for strange in strange_scopes(name, siblings, strangers):
            yield task, envelope(task, {"operation_id": str(own), "scope": strange})
        yield task, envelope(task)
        yield task, envelope(task, {"operation_id": str(own)})
        yield task, envelope(task, {"scope": name})
        yield task, envelope(task, args=[str(own), name])
        yield task, envelope(task, {"operation_id": str(own), "scope": name, "force": True})
        yield task, envelope(task, {"operation_id": str(own), "scope": name}, args=[1])


def about_others() -> Iterator[tuple[str, bytes]]:
    """Tasks that name no operation, and tasks that Tern does not have."""
    names = (
        "",
        " ",
        "nowhere",
        "../A",
        "A/B",
        "a" * 500_000,
        "A\x00",
        "A\n",
        None,
        1,
        True,
        [],
        {},
        "\u202e",
    )
    for strange in names:
        yield "tern.deployment.poll", envelope("tern.deployment.poll", {"deployment": strange})
        yield "tern.apply.advance", envelope("tern.apply.advance", {"apply_id": strange})
        yield "tern.apply.enqueue", envelope("tern.apply.enqueue", {"key": strange})
        yield (
            "tern.apply.enqueue",
            envelope("tern.apply.enqueue", {"key": "k", "plan": strange, "caller": strange}),
        )
        yield (
            "tern.apply.enqueue",
            envelope("tern.apply.enqueue", {"key": "", "ddl": strange, "environment": strange}),
        )
    for task in ("tern.sweep", "tern.progress.sweep"):
        yield task, envelope(task, {"owner": "me"})
        yield task, envelope(task, args=[1, 2, 3])
    for task in (
        "os.system",
        "tern",
        "",
        "tern.operation.nothing",
        "celery.backend_cleanup",
        "__main__.x",
        "x" * 9_000,
    ):
        yield task, envelope(task, {"command": "reboot"})
    signature = {
        "task": "tern.operation.cutover",
        "args": [],
        "kwargs": {},
        "options": {},
        "subtask_type": None,
    }
    for task in (
        "celery.map",
        "celery.starmap",
        "celery.chunks",
        "celery.group",
        "celery.chain",
        "celery.chord",
    ):
        yield task, envelope(task, {"task": signature, "it": [[1]], "tasks": [signature], "n": 1})
        yield task, envelope(task, args=[signature, [[1]]])


def around_a_bell(own: int, name: str, leaves: Path) -> Iterator[tuple[str, bytes]]:
    """A bell that anybody may ring, in wrappings that nobody should open."""
    task, kwargs = "tern.operation.progress", {"operation_id": str(own), "scope": name}
    sound = json.dumps([[], kwargs, {}]).encode()
    for kind in ("application/x-python-serialize", "pickle", "application/json"):
        yield (
            task,
            envelope(task, body=pickle.dumps([[], Bomb(leaves), {}]), content_type=kind, encoding="binary"),
        )
    yaml = f"- []\n- !!python/object/apply:builtins.open ['{leaves}', 'w']\n- {{}}\n".encode()
    for kind in (
        "application/x-yaml",
        "application/x-msgpack",
        "text/plain",
        "application/data",
        "",
        "x" * 999,
    ):
        yield task, envelope(task, body=yaml, content_type=kind)
    for encoding in ("utf-16", "nothing", "binary", "zlib", "idna", ""):
        yield task, envelope(task, body=sound, encoding=encoding)
    for body in (
        b"",
        b"null",
        b"{}",
        b"[]",
        b"[[], {}",
        b"\xff\xfe",
        b"[" * 90_000,
        b"NaN",
        b'[[],{"a":Infinity},{}]',
    ):
        yield task, envelope(task, body=body)
    yield task, envelope(task, body=b"[[],{},{}]" + b" " * 3_000_000)
    yield task, envelope(task, body=b'[[],{"operation_id":' + b"[" * 900 + b"]" * 900 + b"},{}]")
    yield task, envelope(task, body=sound, headers={"compression": "application/x-gzip"})
    yield (
        task,
        envelope(task, body=zlib.compress(b"\0" * 50_000_000), headers={"compression": "application/x-gzip"}),
    )
    for strange in (None, 1, "x", [], {}, [None], "9999-12-31T23:59:59", "yesterday", -1, 10**30):
        for header in (
            "eta",
            "expires",
            "timelimit",
            "retries",
            "group",
            "root_id",
            "shadow",
            "stamps",
            "replaced_task_nesting",
        ):
            yield task, envelope(task, {"operation_id": "0", "scope": name}, headers={header: strange})
        for part in ("callbacks", "errbacks", "chain", "chord"):
            yield task, envelope(task, {"operation_id": "0", "scope": name}, embed={part: strange})
    follow = {"task": "tern.operation.cutover", "args": [], "kwargs": kwargs, "options": {"queue": "nowhere"}}
    for part in ("callbacks", "errbacks", "chain"):
        yield task, envelope(task, kwargs, embed={part: [follow]})
        yield task, envelope(task, {"operation_id": "0", "scope": name}, embed={part: [follow]})
    for strange in (None, 1, "x", [], {}):
        for part in ("reply_to", "delivery_info", "priority", "correlation_id"):
            yield task, envelope(task, {"operation_id": "0", "scope": name}, properties={part: strange})

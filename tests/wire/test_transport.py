"""The methods are those of the contracts, and the generated code is what the contracts say."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tern.wire import transport
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.transport import Method

ROOT = Path(__file__).resolve().parents[2]
METHODS = [value for value in vars(transport).values() if isinstance(value, Method)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_one_of_the_contracts(method: Method) -> None:  # type: ignore[type-arg]
    services = [
        tern_v1.DESCRIPTOR.services_by_name["Tern"],
        engine_v1.DESCRIPTOR.services_by_name["EngineService"],
    ]
    (service,) = [found for found in services if method.path == f"/{found.full_name}/{method.name}"]
    declared = service.methods_by_name[method.name]
    assert declared.input_type is method.request.DESCRIPTOR
    assert declared.output_type is method.answer.DESCRIPTOR


def test_the_generated_code_is_what_the_contracts_say(tmp_path: Path) -> None:
    checked_in = ROOT / "tern" / "wire" / "generated"
    # protoc finds its plugins by name; they are installed beside this Python, wherever the tests were started.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, ROOT / "proto" / "generate.py", tmp_path],
        env={**os.environ, "PATH": path},
        check=True,
    )
    fresh = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*") if path.suffix != ".pyc"}
    kept = {path.relative_to(checked_in) for path in checked_in.rglob("*.py*") if path.suffix != ".pyc"}
    assert fresh == kept
    names = [str(path) for path in fresh]
    _, different, unreadable = filecmp.cmpfiles(tmp_path, checked_in, names, shallow=False)
    assert (different, unreadable) == ([], [])

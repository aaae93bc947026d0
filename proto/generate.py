"""Generates the Python side of the contracts into tern/wire/generated (or the folder given).

protoc names Python packages after proto packages, and `tern.v1` would then claim the name of this very project;
so the generated imports are moved below tern.wire.generated. A test runs this again and compares.
"""

import os
import re
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
# Timestamp and the like come with the compiler.
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
PACKAGE = "tern.wire.generated"
OWN_IMPORT = re.compile(r"^(from|import) tern\.((?:engine\.|control\.)?v1)\b", re.MULTILINE)
OWN_NAME = re.compile(r"(?<![\w./\"'])tern\.((?:engine\.|control\.)?v1)\.(?=\w+_pb2)")


def generate(destination: Path) -> None:
    """Writes *_pb2.py, *_pb2_grpc.py and their stubs below `destination`; raises RuntimeError if protoc refuses."""
    destination.mkdir(parents=True, exist_ok=True)
    # protoc finds its plugins by name, beside the interpreter that runs this.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={WELL_KNOWN}",
        f"--python_out={destination}",
        f"--grpc_python_out={destination}",
        f"--mypy_out={destination}",
        f"--mypy_grpc_out={destination}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        message = "protoc refused the contracts"
        raise RuntimeError(message)
    own = destination / "tern"
    for path in sorted(path for path in own.rglob("*") if path.suffix in {".py", ".pyi"}):
        text = OWN_IMPORT.sub(rf"\1 {PACKAGE}.tern.\2", path.read_text())
        path.write_text(OWN_NAME.sub(rf"{PACKAGE}.tern.\1.", text))
    for folder in [destination, *(path for path in destination.rglob("*") if path.is_dir())]:
        if folder.name != "__pycache__":
            (folder / "__init__.py").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "tern/wire/generated")

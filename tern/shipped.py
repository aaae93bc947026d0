"""What comes with Tern and isn't Python: the contracts. In a wheel they stand inside the package, in a checkout beside
it.

Alarms for Prometheus are shipped too, as `tern/alerts.yml`; migrations are a package of their own.
"""

from collections.abc import Sequence
from pathlib import Path

import tern

_PACKAGE = Path(tern.__file__).parent


def contracts() -> Path:
    """The folder that protoc and buf take as their root: `tern/control/v1/control_service.proto` stands below it."""
    inside = _PACKAGE / "proto"
    return inside if inside.is_dir() else _PACKAGE.parent / "proto"


def contract_files() -> Sequence[Path]:
    """Every .proto file, relative to that folder."""
    root = contracts()
    return sorted(path.relative_to(root) for path in root.rglob("*.proto"))

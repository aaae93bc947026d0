"""The wheel, built by the pinned backend, and a place where nothing is installed but that wheel and what it declares.

The place is made of links to what is installed here, so it needs no network and no minute. With WHEEL=pip it is made by
`pip install` of the wheel instead, from whatever index this machine uses (.ci/run does so).
"""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENTRY = "import sys\nfrom tern.cli.main import main\nmain(sys.argv[1:])\n"


def build(source: Path, folder: Path, kind: str) -> Path:
    """The file that hatchling makes of a source tree: `wheel` or `sdist`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=100)
    (made,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def declared(wheel: Path) -> list[Requirement]:
    """What a wheel asks for, without its extras."""
    with zipfile.ZipFile(wheel) as inside:
        (name,) = [each for each in inside.namelist() if each.endswith(".dist-info/METADATA")]
        lines = inside.read(name).decode().partition("\n\n")[0].splitlines()
    wanted = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]


def closure(wanted: list[Requirement]) -> Mapping[str, Distribution]:
    """Every distribution that an installer would bring for these, by its name; extras as they are asked for."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    left = list(wanted)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in {"", *requirement.extras} - {extra for who, extra in asked if who == name}:
            asked.add((name, extra))
            for line in found[name].requires or ():
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    left.append(inner)
    return found


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment with this wheel; the path of its Python."""
    if os.environ.get("WHEEL") == "pip":
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=100)
        python = folder / "bin/python"
        quietly = ("--quiet", "--disable-pip-version-check")
        subprocess.run([python, "-m", "pip", "install", *quietly, wheel], check=True, timeout=500)
        return python
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=100)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as inside:
        inside.extractall(packages)
    for target, link in links(closure(declared(wheel)), packages):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return folder / "bin/python"


def links(wanted: Mapping[str, Distribution], packages: Path) -> Iterator[tuple[Path, Path]]:
    """Of each file or whole folder where it is, and where it has to be seen. A folder that others share is linked file
    by file.
    """
    shared = {
        top
        for top, owners in packages_distributions().items()
        if len({canonicalize_name(owner) for owner in owners}) > 1
    }
    seen: set[str] = set()
    for each in wanted.values():
        for file in each.files or ():
            top = file.parts[0]
            name = str(file) if top in shared else top
            if top in {"..", "__pycache__"} or name in seen:
                continue
            seen.add(name)
            yield Path(str(each.locate_file(name))).resolve(), packages / name


def run(python: Path, *words: str, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """`tern …` in that place, to its end."""
    command = [str(python), "-c", ENTRY, *words]
    return subprocess.run(
        command, env=clean(env), cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )


def clean(env: Mapping[str, str]) -> Mapping[str, str]:
    """Nothing of this checkout takes part."""
    ours = re.compile("PYTHON|TERN_|CELERY_|FLOWER_|VIRTUAL_ENV|COVERAGE")
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | dict(env)

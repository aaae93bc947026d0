"""What the tests of tern.local share."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of our own that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="tern-test-"))
    folder.chmod(0o755)
    yield folder
    for link in folder.rglob("shelter"):
        shutil.rmtree(link.resolve())
    shutil.rmtree(folder)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Polls a fact until it holds or twenty seconds have passed; the answer is the fact's last value."""

    def wait(fact: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if fact():
                return True
            time.sleep(0.05)
        return fact()

    return wait

"""What the tests of tern.local share."""

import time
from collections.abc import Callable

import pytest


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

"""What `tern doctor` looks at around the broker: what it says of itself, whether somebody reads each queue, and by what
clock, and what waits where nobody reads.
"""

import importlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tern.cli.checkup import CLOCK_SKEW_S, FRESH_SWEEP_S, MISCONFIGURED, NEEDS_PERSON, Finding
from tern.cli.words import duration, one_line, plural
from tern.domain.broker import BrokerState, dangers
from tern.domain.canary import QUEUES
from tern.domain.timing import OWN_SWEEP
from tern.flows.sweep import RECONCILE
from tern.ports import Ports

if TYPE_CHECKING:
    from tern.store.canary import Answer

CANARY_PATIENCE_S = 5.0
LASTING_S = 3_600.0
WRONG_CLOCK_S = 60.0
"""From here on it is more than a matter of reading logs: certificates may not be valid yet, or any more, and what
others work at looks forgotten and is delivered again.
"""


def broker(problem: str) -> Finding:
    """Whether it accepts connections; without it all goes on, slower."""
    if problem:
        meaning = "Rollouts go on without it, a few seconds slower: workers sweep for themselves."
        return Finding("broker", is_well=False, said=problem, help=meaning)
    return Finding("broker", is_well=True, said="accepts connections")


def queues(ports: Ports) -> Iterator[Finding]:
    """A canary through each queue: whoever reads it writes it down, and that is the proof."""
    from tern.store.store import PostgresStore  # noqa: PLC0415

    assert isinstance(ports.store, PostgresStore)  # noqa: S101 - wiring has no other
    token = secrets.token_hex(12)
    begun = time.monotonic()
    silence = _release(token)
    if silence:
        meaning = "Rollouts go on without it, a few seconds slower: workers sweep for themselves."
        yield Finding("queues", is_well=False, said=silence, help=meaning)
        return
    heard: dict[str, str] = {}
    while len(heard) < len(QUEUES) and time.monotonic() - begun < CANARY_PATIENCE_S:
        for queue, answer in ports.store.canaries().items():
            # Another doctor's canary that was answered while we waited proves as much.
            # One from before the clock was set back, whose age is below zero, proves nothing.
            if answer.token == token or 0 <= answer.age_s < time.monotonic() - begun:
                heard.setdefault(queue, f"{answer.answered_by} answered within {_passed(begun)}")
        if len(heard) < len(QUEUES):
            time.sleep(0.05)
    # Who has said nothing for that long may be gone, and its clock with it.
    last = {queue: each for queue, each in ports.store.canaries().items() if abs(each.age_s) < LASTING_S}
    alone = "" if heard else _works_alone(ports)
    for queue in QUEUES:
        if queue in heard:
            yield Finding(f"queue {queue}", is_well=True, said=heard[queue])
            continue
        said = f"nobody answered within {CANARY_PATIENCE_S:g} s: no worker reads it, or all are busy"
        if queue in last and _is_wrong(last[queue]):
            # It may be there and not get through to the broker, to which its certificate is of another time.
            said = f"nobody answered within {CANARY_PATIENCE_S:g} s; who answered last has a wrong clock, see below"
        step = f"tern worker -Q {queue}"
        if alone:
            said = f"nobody answered within {CANARY_PATIENCE_S:g} s; the worker {alone} is at work without the broker"
            step = "Its log says why it hears nothing: the broker's address, password or certificate, or its own clock."
        yield Finding(f"queue {queue}", is_well=False, said=said, help=step)
    yield clocks({answer.answered_by: answer for answer in last.values()}.values())


def _works_alone(ports: Ports) -> str:
    """The worker that swept last and on its own account; empty for none. Another one would not get through either."""
    age_s, by = ports.store.seconds_since_sweep(RECONCILE)
    return by.removeprefix(OWN_SWEEP) if age_s <= FRESH_SWEEP_S and by.startswith(OWN_SWEEP) else ""


def clocks(answers: "Iterable[Answer]") -> Finding:
    """Workers' clocks beside PostgreSQL's, by what each said when it last answered from a queue. None decides anything
    of Tern's.
    """
    off = sorted(
        (each for each in answers if abs(each.clock_ahead_s or 0.0) >= CLOCK_SKEW_S),
        key=lambda each: -abs(each.clock_ahead_s or 0.0),
    )
    if not off:
        return Finding("worker clocks", is_well=True, said="they agree with PostgreSQL's")
    said = "; ".join(_clock_words(each) for each in off)
    wrong = any(_is_wrong(each) for each in off)
    step = (
        "Check the time service (NTP) there, then restart that worker: certificates may count as invalid to it, and"
        " the broker delivers messages again that are being worked at."
        if wrong
        else "Nothing is decided by it, but log lines of different machines won't fit together: check NTP."
    )
    return Finding("worker clocks", is_well=not wrong, said=said, help=step, code=NEEDS_PERSON)


def _is_wrong(answer: "Answer") -> bool:
    return abs(answer.clock_ahead_s or 0.0) >= WRONG_CLOCK_S


def _clock_words(answer: "Answer") -> str:
    ahead_s = answer.clock_ahead_s or 0.0
    than = "ahead of" if ahead_s > 0 else "behind"
    # To the next minute: the way of the message is in it, too.
    off_s = abs(ahead_s) if abs(ahead_s) < WRONG_CLOCK_S else 60.0 * round(abs(ahead_s) / 60.0)
    return f"the clock of worker {answer.answered_by} is {duration(off_s)} {than} PostgreSQL's"


def state(url: str) -> Iterator[Finding]:
    """What the broker says of itself, and what waits where no worker reads."""
    found = _asked(lambda: importlib.import_module("tasks.broker").look(url))
    if isinstance(found, str):
        yield Finding("broker state", is_well=True, said=f"could not ask: {found}")
        return
    assert isinstance(found, BrokerState)  # noqa: S101 - nothing else comes from there
    wrong = dangers(found)
    if wrong:
        said, help_ = "; ".join(words for words, _ in wrong), wrong[0][1]
        yield Finding("broker state", is_well=False, said=said, help=help_, code=MISCONFIGURED)
    elif found.unasked:
        yield Finding("broker state", is_well=True, said=f"could not ask: {one_line(found.unasked)}")
    else:
        limit = "no limit of memory" if not found.most_bytes else f"maxmemory-policy {found.policy}"
        yield Finding("broker state", is_well=True, said=f"keeps its messages ({limit})")
    for queue, tasks in found.stray.items():
        count = sum(tasks.values())
        said = (
            f"{plural(count, 'message')} for Tern in the queue {queue}, which no worker reads:"
            f" {', '.join(sorted(tasks))}"
        )
        step = 'Whoever sends them says queue="dispatch", and sends them again under the same keys.'
        yield Finding("stray messages", is_well=False, said=said, help=step, code=NEEDS_PERSON)


def _passed(begun: float) -> str:
    return f"{max(1, round((time.monotonic() - begun) * 1000))} ms"


def _release(token: str) -> str:
    """Why the broker did not take the canaries; empty if it did."""
    # Entry points bring Celery; it is imported here and nowhere else in Tern.
    found = _asked(lambda: importlib.import_module("tasks.canary").release(token))
    return f"it accepts connections and took no message: {found}" if isinstance(found, str) else ""


def _asked(question: Callable[[], object]) -> object:
    """The answer, or a text that says why there is none. A broker that hangs is not waited for."""
    said: list[object] = []

    def ask() -> None:
        try:
            said.append(question())
        except Exception as error:  # noqa: BLE001 - whatever a broker or its library does is a finding
            said.append(f"{type(error).__name__}: {one_line(str(error))}")

    thread = threading.Thread(target=ask, daemon=True, name="tern-canary")
    thread.start()
    thread.join(CANARY_PATIENCE_S)
    return said[0] if said else f"no answer within {CANARY_PATIENCE_S:g} s"

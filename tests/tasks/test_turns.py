"""Which queue is looked at first, and that none waits for ever."""

from collections import Counter

from tasks.config import celery_config
from tasks.routing import QUEUES
from tasks.turns import ORDER, TURNS, Line, Turns
from tern.settings import Settings


def served(turns: Turns, waiting: Counter[str], count: int) -> list[str]:
    """Whose messages a worker takes, one after the other."""
    taken = []
    for _ in range(count):
        first = next(queue for queue in turns.consume(4) if waiting[queue])
        waiting[first] -= 1
        turns.rotate(first)
        taken.append(first)
    return taken


def test_the_order_names_every_queue() -> None:
    assert sorted(ORDER) == sorted(queue.name for queue in QUEUES)
    options = celery_config(Settings(broker_url="redis://h"))["broker_transport_options"]
    assert options["queue_order_strategy"] == "tasks.turns:Turns"


def test_new_work_goes_before_looks() -> None:
    turns = Turns(["poll", "dispatch"])
    assert served(turns, Counter(dispatch=3, poll=3), 6) == ["dispatch"] * 3 + ["poll"] * 3


def test_a_stop_goes_before_everything() -> None:
    turns = Turns(["poll", "sweep", "dispatch", "control"])
    waiting = Counter(control=1, dispatch=5, poll=5)
    assert served(turns, waiting, 1) == ["control"]


def test_nothing_waits_for_ever() -> None:
    """However much new work there is, every eighth message is somebody else's."""
    turns = Turns(["dispatch", "poll"])
    taken = served(turns, Counter(dispatch=1000, poll=1000), 10 * TURNS)
    assert Counter(taken) == {"dispatch": 10 * (TURNS - 1), "poll": 10}


def test_the_turn_is_kept_until_somebody_takes_it() -> None:
    turns = Turns(["dispatch", "poll"])
    assert set(served(turns, Counter(dispatch=20), 20)) == {"dispatch"}
    assert served(turns, Counter(dispatch=1, poll=1), 2) == ["poll", "dispatch"]


def all_of(line: Line) -> list[str]:
    taken: list[str] = []
    while (work := line.take()) is not None:
        work()
        taken.append(done.pop())
    return taken


done: list[str] = []


def put(line: Line, kind: str, group: str, name: str) -> None:
    line.put(kind, group, lambda: done.append(name))


def test_in_a_line_each_group_has_its_turn() -> None:
    """Whoever comes last waits for one of each other, not for all of them."""
    line = Line()
    for number in range(4):
        put(line, "dispatch", "wide", f"w{number}")
    put(line, "dispatch", "small", "s0")
    put(line, "dispatch", "small", "s1")
    put(line, "poll", "place", "p")
    put(line, "control", "wide", "stop")
    assert all_of(line) == ["stop", "w0", "s0", "w1", "s1", "w2", "w3", "p"]
    assert line.take() is None


def test_in_a_line_nothing_waits_for_ever() -> None:
    line = Line()
    for number in range(100):
        put(line, "dispatch", "wide", f"w{number}")
    put(line, "poll", "place", "p")
    assert all_of(line).index("p") < TURNS

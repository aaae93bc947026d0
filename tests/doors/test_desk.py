"""The door in this process, where it matters who else is asking."""

import threading
from typing import Any, cast

import pytest

from tern.domain.errors import TryAgain
from tern.domain.identity import ApplyId
from tern.doors.desk import Desk
from tern.doors.record import Verified
from tern.ports import Ports
from tern.store.paging import Paging
from tern.store.record import Record
from tests.engine.conftest import eventually

NAMES = (ApplyId("apl-one"), ApplyId("apl-two"))


class SlowRecord:
    """Two records, each of which is read for as long as the test likes."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun: list[ApplyId] = []
        self.meetings = 0
        self._meeting = threading.Barrier(2)

    def applies(self, since: object) -> tuple[ApplyId, ...]:
        return NAMES

    def verify(self, apply_id: ApplyId) -> Verified:
        self.begun.append(apply_id)
        try:
            self._meeting.wait(0.02)
            self.meetings += 1
        except threading.BrokenBarrierError:
            self._meeting.reset()
        assert self.may_end.wait(20)
        return Verified(apply_id, 1, 1, 0, (), "seal")


@pytest.fixture
def record() -> SlowRecord:
    return SlowRecord()


@pytest.fixture
def slow(record: SlowRecord) -> Desk:
    """It is asked to verify, and nothing else."""
    return Desk(cast("Ports", None), cast("Paging", None), cast("Record", record))


def verifying(slow: Desk, found: list[Any]) -> threading.Thread:
    def verify() -> None:
        try:
            found.extend(slow.verify(None))
        except TryAgain as error:
            found.append(error)

    thread = threading.Thread(target=verify)
    thread.start()
    return thread


def test_however_many_verify_one_record_is_read_at_a_time(slow: Desk, record: SlowRecord) -> None:
    """A stop must find a connection of this process."""
    found: list[Any] = []
    threads = [verifying(slow, found) for _ in range(4)]
    record.may_end.set()
    for thread in threads:
        thread.join(20)
    assert (len(found), len(record.begun), record.meetings) == (8, 8, 0)


def test_a_verification_ends_between_two_records_when_the_process_does(
    slow: Desk, record: SlowRecord
) -> None:
    found: list[Any] = []
    thread = verifying(slow, found)
    eventually(lambda: record.begun)
    slow.end_watches()
    record.may_end.set()
    thread.join(20)
    assert [type(each) for each in found] == [Verified, TryAgain]
    assert found[1].reason == "CLOSING"


def test_nothing_is_read_for_somebody_who_went(slow: Desk, record: SlowRecord) -> None:
    record.may_end.set()
    wanted = iter([True, False])
    assert [each.apply_id for each in slow.verify(None, is_wanted=lambda: next(wanted))] == [NAMES[0]]
    assert record.begun == [NAMES[0]]

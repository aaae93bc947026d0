"""Whether a record is the one that was written: every hash computed again, every number counted, every story told to
its end (G15). Pure; shares no line with the trigger that made the hashes.

An apply has one chain of events per operation and one for its own events. A fault names the event or the row.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

GENESIS = b"\x00"
"""What the first event of a chain follows."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Link:
    """One event as the row says it. detail is the JSON text that was written, byte for byte."""

    event_id: int
    apply_pk: int
    operation_id: int | None
    number: int
    at: datetime
    event: str
    who: str
    why: str
    before: str
    after: str
    detail: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where a chain ends according to the row that was written with its last event."""

    length: int
    head: bytes


@dataclass(frozen=True, slots=True)
class RequestSeal:
    """A control request with the hash that was made when it was written. outcomes is the JSON text; volume and
    failures_released are there where the request is about them.
    """

    request_id: int
    apply_pk: int
    at: datetime
    verb: str
    caller: str
    reason: str
    outcomes: str
    hash: bytes
    volume: int | None = None
    failures_released: int | None = None


class Fault(StrEnum):
    """What is wrong with a record."""

    CHANGED = "changed"
    """An event's content is not what was hashed."""
    MISSING = "missing"
    """Events between two others are gone."""
    REORDERED = "reordered"
    """An event stands at another place than the one that it was written for."""
    REPLACED = "replaced"
    """An event does not follow the one before it: that one is another than at the time."""
    INSERTED = "inserted"
    """An event that the chain was never extended by."""
    CUT = "cut"
    """The last events are gone."""
    UNTOLD = "untold"
    """A row's state, or an event's `before`, is not what the events before it tell (S21)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. event_id and number are those of the event it was seen at, None where it is about a row."""

    fault: Fault
    detail: str
    event_id: int | None = None
    number: int | None = None


def link_hash(link: Link, previous: bytes, number: int) -> bytes:
    """The hash that the event has as the number-th of its chain, after previous."""
    line = _hashed(
        link.event_id,
        link.apply_pk,
        link.operation_id,
        _micros(link.at),
        link.event,
        link.who,
        link.why,
        link.before,
        link.after,
        link.detail,
    )
    return hashlib.sha256(previous + f"{number}:{line}".encode()).digest()


def request_hash(seal: RequestSeal, *, in_full: bool = True) -> bytes:
    """The hash that the request has by what its row says now. Not in full: as it was made until 0011, without what only
    some requests have.
    """
    line = _hashed(
        seal.request_id,
        seal.apply_pk,
        _micros(seal.at),
        seal.verb,
        seal.caller,
        seal.reason,
        seal.outcomes,
    )
    if in_full:
        more = {"volume": seal.volume, "failures_released": seal.failures_released}
        line += "".join(f"{name}{_hashed(value)}" for name, value in more.items() if value is not None)
    return hashlib.sha256(line.encode()).digest()


def chain_findings(links: Sequence[Link], end: ChainEnd | None) -> Iterator[Finding]:
    """Every fault of one chain; links are in the order of their numbers, end is None where there is no such row."""
    expected, head, is_sound = 1, GENESIS, True
    last = 0 if end is None else end.length
    for link in links:
        if link.number < expected:
            yield _at(link, Fault.INSERTED, f"there are two events of number {link.number}")
            continue
        if link.number > last:
            yield _at(link, Fault.INSERTED, f"the chain was extended to number {last} and no further")
            continue
        if link.number > expected:
            is_sound = False
            yield _at(link, Fault.MISSING, f"{_numbers(expected, link.number - 1)} gone before it")
        if (finding := _own_fault(link, last)) is not None:
            yield finding
        elif is_sound and link.previous_hash != head:
            yield _at(link, Fault.REPLACED, f"it follows another number {link.number - 1} than the one here")
        # What follows a wrong event is not wrong for that: one fault is told once.
        expected, head, is_sound = link.number + 1, link.hash, finding is None
    if expected <= last:
        yield Finding(Fault.CUT, f"{_numbers(expected, last)} gone at the end", number=last)
    elif end is not None and links and is_sound and head != end.head:
        yield _at(links[-1], Fault.REPLACED, "the chain was ended by another event than this one")


def _own_fault(link: Link, length: int) -> Finding | None:
    """What is wrong with an event by itself: its content, or its place."""
    if link_hash(link, link.previous_hash, link.number) == link.hash:
        return None
    for number in range(1, length + 1):
        if link_hash(link, link.previous_hash, number) == link.hash:
            return _at(link, Fault.REORDERED, f"it was written as number {number}")
    return _at(link, Fault.CHANGED, "its content is not what was written")


def story_findings(
    links: Iterable[Link], state: str, *, arrows: frozenset[str], begins: str = "pending"
) -> Iterator[Finding]:
    """Whether the events that move a state follow each other, and end where its row stands (S21).

    arrows: the events that move it; others stand beside the story.
    """
    told = begins
    for link in links:
        if link.event not in arrows:
            continue
        if link.before != told:
            yield _at(link, Fault.UNTOLD, f"it begins at {link.before}, and the story was at {told}")
        told = link.after
    if told != state:
        yield Finding(Fault.UNTOLD, f"the row says {state}, and its events end at {told}")


def request_findings(seals: Iterable[RequestSeal]) -> Iterator[Finding]:
    """Every request that is not what was written. One of before 0011 has a hash that leaves something out; no request
    since has, whatever was changed in it.
    """
    for seal in seals:
        if seal.hash not in {request_hash(seal), request_hash(seal, in_full=False)}:
            yield Finding(Fault.CHANGED, f"request {seal.request_id} ({seal.verb}) is not what was written")


def _hashed(*fields: str | int | None) -> str:
    """Each field as its length in characters and its text, so that no two records read the same."""
    return "".join("-" if field is None else f"{len(str(field))}:{field}" for field in fields)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _at(link: Link, fault: Fault, detail: str) -> Finding:
    return Finding(fault, detail, link.event_id, link.number)


def _numbers(first: int, last: int) -> str:
    return f"number {first} is" if first == last else f"numbers {first} to {last} are"

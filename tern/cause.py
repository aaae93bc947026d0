"""What many operations have in common, as one entry: what only a person moves on, and what goes wrong by itself. Pure.

Every face shows causes and none shows ten thousand blockers: the command line, `--json`, the page.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from tern.blocking import Blocker, matters
from tern.covering import Crowd, Place, lifted
from tern.domain.holds import ClearedBy, Hold, HoldKind
from tern.domain.likeness import alike, common, without_name
from tern.domain.states import State
from tern.operation import OperationView

EXAMPLES = 5
"""So many of its deployments stand in a document; `--cause` chooses all of them."""


class Kind(StrEnum):
    """What is the matter with an operation, as far as one looks at it alone."""

    FAILED = "failed"
    UNCERTAIN = "uncertain"
    LOST_CONTACT = "lost_contact"
    STOPPED = "stopped"
    RETRYING = "retrying"
    LOCK = "waiting_for_lock"
    HELD = "held"
    READY = "ready_for_cutover"


_HELD_BY_ITSELF = {
    *(HoldKind.STOP, HoldKind.RESERVATION, HoldKind.SAME_TARGET, HoldKind.DRAINED),
    *(HoldKind.SILENT, HoldKind.OUTSTANDING, HoldKind.REFUSED, HoldKind.BACKOFF),
}
"""The others are its place in the rollout: the order, a wave, the slots."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One matter, and all whom it concerns, in rollout order. ways: each command with its consequence, the first first.

    cause_id: the same from look to look, as long as its words say the same; `--cause` selects by it.
    """

    cause_id: str
    kind: str
    what: str
    deployments: tuple[str, ...]
    ways: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        """How many operations it concerns."""
        return len(self.deployments)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        found: dict[str, object] = {
            "cause": self.cause_id,
            "kind": self.kind,
            "what": self.what,
            "count": self.count,
            "deployments": list(self.deployments[:EXAMPLES]),
        }
        if self.ways:
            command, consequence = self.ways[0]
            ways = [{"command": each, "consequence": what} for each, what in self.ways]
            found |= {"command": command, "consequence": consequence, "ways": ways}
        return found


def needs(
    apply_id: str, operations: Sequence[OperationView], blockers: Sequence[Blocker]
) -> tuple[Cause, ...]:
    """What only a person moves on: one entry for each cause, the most numerous first."""
    if not blockers:
        return ()
    known = {each.deployment: each for each in operations}
    crowd = Crowd.of(apply_id, [_place(each) for each in operations])
    groups: dict[tuple[str, ...], list[tuple[Blocker, ...]]] = defaultdict(list)
    for ways in matters(blockers):
        groups[_key(known[ways[0].deployment], ways)].append(ways)
    found = [_need(key, group, known, crowd) for key, group in groups.items()]
    return tuple(sorted(found, key=lambda cause: -cause.count))


def _key(operation: OperationView, ways: Sequence[Blocker]) -> tuple[str, ...]:
    own = _names(operation)
    said = (
        part
        for way in ways
        for part in (alike(without_name(way.command, operation.scope), own), alike(way.consequence, own))
    )
    return operation.state.value, operation.record.error_reason, alike(ways[0].what, own), *said


def _need(
    key: tuple[str, ...],
    group: Sequence[tuple[Blocker, ...]],
    known: Mapping[str, OperationView],
    crowd: Crowd,
) -> Cause:
    cause_id = _id(key)
    names = tuple(ways[0].deployment for ways in group)
    places = [_place(known[name]) for name in names]
    found: list[tuple[str, str]] = []
    for number in range(len(group[0])):
        commands = {each[number].deployment: each[number].command for each in group}
        command = lifted(commands, places, crowd, cause_id)
        if command is None:
            command, consequence = (
                f"tern explain {crowd.apply_id} --cause {cause_id}",
                "shows the command of each",
            )
        else:
            consequence = _consequence_of_all([each[number] for each in group], places, crowd)
        if (command, consequence) not in found:
            found.append((command, consequence))
    # What moves all of them comes before what has to be said of each.
    found.sort(key=lambda way: " --cause " in way[0] and way[0].startswith("tern explain "))
    what = common([ways[0].what for ways in group], key[2])
    return Cause(cause_id, key[0], what, names, tuple(found))


def _consequence_of_all(ways: Sequence[Blocker], places: Sequence[Place], crowd: Crowd) -> str:
    """What the command would do; where that names the one after it, the one after it for all of them."""
    told, then, _ = ways[0].consequence.partition(": tern ")
    if not then or len(ways) == 1:
        return ways[0].consequence
    commands = {each.deployment: f"tern {each.consequence.partition(then)[2]}" for each in ways}
    # The first command changes what they have in common, so a selector by their cause would find nobody after it.
    after = lifted(commands, places, crowd, cause="")
    return f"{told}: {after or f'tern explain {crowd.apply_id}'}"


def troubles(operations: Iterable[OperationView]) -> tuple[Cause, ...]:
    """What does not go as it should, whether a person is needed or not: one entry for each cause, numerous first."""
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for each in operations:
        if (found := trouble(each)) is not None:
            kind, words = found
            words = words or kind.replace("_", " ")
            key = (kind.value, each.record.error_reason, alike(words, _names(each)))
            groups[key].append((each.deployment, words))
    causes = (
        Cause(_id(key), key[0], common([words for _, words in said], key[2]), tuple(name for name, _ in said))
        for key, said in groups.items()
    )
    return tuple(sorted(causes, key=lambda cause: -cause.count))


def trouble(operation: OperationView) -> tuple[Kind, str] | None:
    """What is the matter with one, and what is known about it; None where nothing is."""
    record = operation.record
    if operation.lost_contact:
        return Kind.LOST_CONTACT, record.poll_error or "its engine does not answer"
    match operation.state:
        case State.FAILED:
            return Kind.FAILED, record.error_words or "without a word"
        case State.UNCERTAIN:
            return Kind.UNCERTAIN, record.error_words
        case State.STOPPED:
            return Kind.STOPPED, _held(operation, {HoldKind.DRAINED})
        case State.FAILED_RETRYABLE:
            return Kind.RETRYING, _held(operation, _HELD_BY_ITSELF) or record.error_words
        case State.PENDING:
            words = _held(operation, _HELD_BY_ITSELF)
            return (Kind.HELD, words) if words else None
        case State.WAITING_FOR_CUTOVER:
            if any(hold.kind is HoldKind.TURN for hold in operation.holds):
                return None
            fixes = any(hold.cleared_by is ClearedBy.FIX for hold in operation.holds)
            words = _held(operation, _HELD_BY_ITSELF)
            return (Kind.READY, words) if fixes or words else None
        case _ if (table := operation.waits_for_lock) is not None:
            return Kind.LOCK, table.detail
        case _:
            return None


def _held(operation: OperationView, kinds: set[HoldKind]) -> str:
    found: Iterator[Hold] = (hold for hold in operation.holds if hold.kind in kinds)
    return next((hold.detail for hold in found), "")


def chosen_by(cause_id: str, *causes: Sequence[Cause]) -> frozenset[str] | None:
    """The deployments of a cause; None where there is no such cause (any more)."""
    found = [cause.deployments for each in causes for cause in each if cause.cause_id == cause_id]
    return frozenset(name for names in found for name in names) if found else None


def _place(operation: OperationView) -> Place:
    return Place(operation.deployment, operation.state, operation.record.wave)


def _names(operation: OperationView) -> tuple[str, ...]:
    record = operation.record
    return operation.deployment, record.target, record.remote_id or ""


def _id(key: Sequence[str]) -> str:
    return sha256("\0".join(key).encode()).hexdigest()[:6]

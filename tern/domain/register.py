"""What becomes of each entry of a list of deployments that somebody wants to make known, all of it or nothing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tern.domain.model import Deployment
from tern.domain.plaintext import exposures_of

COMPARED = ("environment", "database", "address", "target", "labels", "position", "credentials")
"""What a person says of a deployment. What was found out about its engine is not compared."""
_PLACE = ("environment", "database", "address", "target")


class Entered(StrEnum):
    """What came of one entry."""

    ADDED = "added"
    KNOWN = "known already"
    REPLACED = "replaced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the list, counted from 1. `declared` is what it says about deduplication, None for nothing."""

    number: int
    deployment: Deployment
    declared: bool | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """An entry with what came of it; `deployment` is what the register holds of it afterwards, `why` every reason
    against it.
    """

    entry: Entry
    outcome: Entered
    deployment: Deployment
    why: tuple[str, ...] = ()


def judge(
    entries: Sequence[Entry],
    known: Iterable[Deployment],
    users: Mapping[str, Sequence[str]],
    *,
    replaces: bool,
) -> tuple[Judged, ...]:
    """Judges every entry, in the order given.

    known: those of the register that have the name of an entry, or its address and target. users: by name, the
    applies that need the one of the register as it is.
    """
    by_name = {each.name: each for each in known}
    by_target = {(each.address, each.target): each for each in by_name.values()}
    names: dict[str, list[int]] = defaultdict(list)
    targets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for entry in entries:
        names[entry.deployment.name].append(entry.number)
        targets[entry.deployment.address, entry.deployment.target].append(entry.number)
    judged = []
    for entry in entries:
        wanted = entry.deployment
        place = (wanted.address, wanted.target)
        why = [f"entry {other} has the same name" for other in names[wanted.name] if other != entry.number]
        why += [
            f"entry {other} has the same address and target"
            for other in targets[place]
            if other != entry.number and other not in names[wanted.name]
        ]
        why += [each.words for each in exposures_of(wanted.address, wanted.credentials)]
        holder = by_target.get(place)
        if holder is not None and holder.name != wanted.name:
            why.append(f"{holder.name} has the same address and target")
        there = by_name.get(wanted.name)
        outcome, held = Entered.ADDED, replace(wanted, idempotent_dispatch=bool(entry.declared))
        if there is not None:
            different = differences(there, wanted)
            outcome, held = (
                Entered.REPLACED if different else Entered.KNOWN,
                _continued(there, wanted, declared=entry.declared),
            )
            if different and not replaces:
                why.append(
                    f"another deployment has its name ({'; '.join(different)}); --replace takes its place"
                )
            elif different and users.get(wanted.name):
                why.append(f"it is used by {', '.join(users[wanted.name])}, so it can't be replaced")
        judged.append(Judged(entry, Entered.REFUSED if why else outcome, held, tuple(why)))
    return tuple(judged)


def differences(known: Deployment, wanted: Deployment) -> tuple[str, ...]:
    """Where what is said now differs from what stands in the register."""
    return tuple(
        f"{field}: {getattr(known, field)} there, {getattr(wanted, field)} here"
        for field in COMPARED
        if getattr(known, field) != getattr(wanted, field)
    )


def _continued(there: Deployment, wanted: Deployment, *, declared: bool | None) -> Deployment:
    """What was found out about an engine, or declared, holds as long as it is the same engine at the same target."""
    is_same = all(getattr(there, field) == getattr(wanted, field) for field in _PLACE)
    if declared is None:
        declared = is_same and there.idempotent_dispatch
    return replace(
        wanted,
        capabilities=there.capabilities if is_same else wanted.capabilities,
        idempotent_dispatch=declared,
        drained=there.drained,
    )

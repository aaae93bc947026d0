"""Which deployments a rollout goes to: chosen by name, by label, or all of a database. Pure; nothing is loaded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.model import Deployment

MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody asked for, before anybody looked whether it is there. The order of names is the rollout's; of what
    was chosen otherwise those in `first` begin, in their order, and the others follow by position and name.

    Raises UsageError where two ways of choosing are mixed, or where none was used.
    """

    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    everywhere: bool = False
    excepted: frozenset[str] = frozenset()
    first: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum((bool(self.names), bool(self.labels), self.everywhere)) > 1:
            what = "deployments are chosen in one way: --deployments, -l or --all"
            raise UsageError(what)
        if self.excepted and not (self.labels or self.everywhere):
            what = "--except takes away from -l or --all"
            raise UsageError(what)
        if self.first and not (self.labels or self.everywhere):
            what = "--first is for -l or --all; --deployments has an order of its own"
            raise UsageError(what)

    @property
    def is_made(self) -> bool:
        """Something was chosen."""
        return bool(self.names or self.labels or self.everywhere)

    def as_json(self) -> object:
        """What was asked for, as the record of the request holds it: a repeated request is compared by this (ID1)."""
        if not (self.labels or self.everywhere):
            return list(self.names)
        chosen = {"labels": dict(self.labels), "all": self.everywhere, "except": sorted(self.excepted)}
        return {**chosen, "first": list(self.first)} if self.first else chosen

    def choose(self, known: Sequence[Deployment], environment: str, database: str) -> tuple[Deployment, ...]:
        """The deployments in rollout order; raises Refused with every reason against them, NotFound, UsageError."""
        if not self.is_made:
            what = "no deployments were chosen"
            raise UsageError(what, next_step="Say --deployments a,b or -l key=value or --all.")
        found = self._found({each.name: each for each in known}, (environment, database))
        why = [
            f"{each.name} is for {each.database} in {each.environment}, the change for {database} in {environment}"
            for each in found
            if (each.environment, each.database) != (environment, database)
        ]
        why += [f"{each.name} is drained" for each in found if each.drained]
        if why:
            what = "the change can't go everywhere that was chosen"
            drained = next((each.name for each in found if each.drained), "")
            step = f"tern deployments undrain {drained}, or choose without it." if drained else ""
            raise Refused(what, why=shortened(why), next_step=step, reason="DEPLOYMENTS_REFUSED")
        if not found:
            what = f"no deployment of {database} in {environment} was chosen"
            step = "`tern deployments ls` lists them with their labels."
            raise Refused(what, next_step=step, reason="NO_DEPLOYMENTS")
        return found

    def _found(self, known: Mapping[str, Deployment], place: tuple[str, str]) -> tuple[Deployment, ...]:
        if self.names:
            return _named(self.names, known)
        if unknown := sorted(self.excepted - known.keys()):
            what = f"--except names deployments that are not there: {', '.join(unknown)}"
            raise NotFound(what)
        found = {
            each.name: each
            for each in known.values()
            if (each.environment, each.database) == place
            and each.name not in self.excepted
            and self.labels.items() <= dict(each.labels).items()
        }
        if absent := [name for name in self.first if name not in found]:
            what = f"--first names deployments that were not chosen: {', '.join(absent[:MOST_TOLD])}"
            raise NotFound(what)
        return tuple(found[name] for name in dict.fromkeys([*self.first, *found]))


def _named(names: Sequence[str], known: Mapping[str, Deployment]) -> tuple[Deployment, ...]:
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        what = f"there is no deployment {', '.join(unknown[:MOST_TOLD])}"
        raise NotFound(what, next_step="`tern deployments ls` lists them.")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        what = f"deployments are named twice: {', '.join(doubled[:MOST_TOLD])}"
        raise Refused(what, reason="DEPLOYMENT_DOUBLED")
    return tuple(known[name] for name in names)


def shortened(why: Sequence[str]) -> tuple[str, ...]:
    """All reasons, as long as they fit on a screen."""
    if len(why) <= MOST_TOLD:
        return tuple(why)
    return (*why[: MOST_TOLD - 1], f"and {len(why) - MOST_TOLD + 1} more")

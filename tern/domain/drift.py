"""What engines foretell about a change, where a target strays from the others or from its review, and what that means
for a rollout that has not begun. Pure.

Refused: what an engine refuses, can't be asked about, or would do at a higher price than was reviewed. Everything
else that differs is told and not in the way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tern.domain.choice import shortened
from tern.domain.errors import Refused

PRICE: Mapping[str, int] = {"metadata": 0, "fk_scan": 1, "index_build": 1, "scan": 1, "rewrite": 2}
"""What a class of change costs the database: nothing, reading every row, writing every row."""


class Look(StrEnum):
    """What came of asking one engine."""

    PREVIEWED = "previewed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_OFFERED = "not_offered"
    NOT_ASKED = "not_asked"


@dataclass(frozen=True, slots=True)
class ForetoldChange:
    """What one change would do at one target.

    What only describes takes no part in comparing: a lock is told in words, and rows and seconds are estimates.
    """

    namespace: str
    table_name: str
    change_class: str
    recipe: str
    refused_reason: str = ""
    locks: tuple[str, ...] = field(default=(), compare=False)
    unsafe_reason: str = field(default="", compare=False)
    estimated_rows: int = field(default=0, compare=False)
    estimated_s: float = field(default=0.0, compare=False)
    after_cutover_s: float = field(default=0.0, compare=False)

    @property
    def words(self) -> str:
        """In a word or two."""
        if self.refused_reason:
            return "refused"
        return f"{self.recipe or 'no recipe'} ({self.change_class.replace('_', ' ')})"

    def as_json(self) -> dict[str, object]:
        """What stands in previews.changes."""
        return {
            "namespace": self.namespace,
            "table": self.table_name,
            "class": self.change_class,
            "recipe": self.recipe,
            "refused_reason": self.refused_reason or None,
            "locks": list(self.locks),
            "unsafe_reason": self.unsafe_reason or None,
            "estimated_rows": self.estimated_rows,
            "estimated_s": self.estimated_s,
            "after_cutover_s": self.after_cutover_s,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> "ForetoldChange":
        """Reads what as_json wrote, also where an earlier version wrote less."""
        return cls(
            namespace=str(stored["namespace"]),
            table_name=str(stored["table"]),
            change_class=str(stored["class"]),
            recipe=str(stored["recipe"]),
            refused_reason=str(stored["refused_reason"] or ""),
            locks=tuple(map(str, stored.get("locks", ()))),  # type: ignore[call-overload]
            unsafe_reason=str(stored.get("unsafe_reason") or ""),
            estimated_rows=int(str(stored.get("estimated_rows", 0))),
            estimated_s=float(str(stored.get("estimated_s", 0.0))),
            after_cutover_s=float(str(stored.get("after_cutover_s", 0.0))),
        )


@dataclass(frozen=True, slots=True)
class Foretold:
    """What one target's engine said, or why it said nothing. drift: how it strays, in words; is_dearer: that the
    change costs more here than was reviewed.
    """

    deployment: str
    look: Look
    words: str = ""
    changes: tuple[ForetoldChange, ...] = ()
    drift: tuple[str, ...] = ()
    is_dearer: bool = False

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the target can't take the change, one reason a statement; none where its engine does not refuse."""
        if self.look is not Look.REFUSED:
            return ()
        found = [
            f"change {number}, {change.namespace}.{change.table_name}: {change.refused_reason}"
            for number, change in enumerate(self.changes, 1)
            if change.refused_reason
        ]
        return tuple(found) or (self.words,)


def compared(
    found: Sequence[Foretold], reviewed: Mapping[str, Foretold] | None = None
) -> tuple[Foretold, ...]:
    """Each with its drift: from what most of the others say, and from what the same engine said to the reviewer."""
    usual = _usual(found)
    return tuple(_with_drift(each, usual, (reviewed or {}).get(each.deployment)) for each in found)


def refuse_drift(found: Sequence[Foretold], *, accepted: bool) -> None:
    """Raises Refused with every target's reasons against beginning at all; with consent nothing is in the way."""
    if accepted:
        return
    step = "Choose without them, or add --accept-drift: each engine then decides when its turn comes."
    refused = [f"{each.deployment}: {each.words}" for each in found if each.look is Look.REFUSED]
    if refused:
        what = "targets refuse the change"
        raise Refused(what, why=shortened(refused), next_step=step, reason="PREVIEW_REFUSED")
    silent = [f"{each.deployment}: {each.words}" for each in found if each.look is Look.UNREACHABLE]
    if silent:
        what = f"{len(silent)} engine{'' if len(silent) == 1 else 's'} could not be asked about the change"
        raise Refused(what, why=shortened(silent), next_step=step, reason="ENGINE_UNREACHABLE")
    dearer = [f"{each.deployment}: {words}" for each in found if each.is_dearer for words in each.drift]
    if dearer:
        what = "the change costs more than was reviewed"
        raise Refused(what, why=shortened(dearer), next_step=step, reason="DRIFTED")


def warnings(found: Sequence[Foretold]) -> tuple[str, ...]:
    """What somebody who begins the rollout should know, one line per target."""
    told: list[str] = []
    for each in found:
        match each.look:
            case Look.PREVIEWED:
                told += [f"{each.deployment}: {words}" for words in each.drift]
            case Look.REFUSED:
                told.append(f"{each.deployment} refuses the change: {each.words}")
            case Look.UNREACHABLE:
                told.append(f"{each.deployment} could not be asked: {each.words}")
            case Look.NOT_OFFERED:
                told.append(f"{each.deployment} was not previewed: its engine offers none")
            case Look.NOT_ASKED:
                told.append(f"{each.deployment} was not previewed: the request said not to ask")
    return tuple(told)


def _usual(found: Sequence[Foretold]) -> tuple[ForetoldChange, ...] | None:
    """What most targets say; None where no answer is more usual than another."""
    answers = Counter(each.changes for each in found if each.look is Look.PREVIEWED)
    most = answers.most_common(2)
    if not most or (len(most) > 1 and most[0][1] == most[1][1]):
        return None
    return most[0][0]


def _with_drift(
    each: Foretold, usual: tuple[ForetoldChange, ...] | None, reviewed: Foretold | None
) -> Foretold:
    if each.look is not Look.PREVIEWED:
        return each
    drift: list[str] = []
    is_dearer = False
    if reviewed is not None and reviewed.look is Look.PREVIEWED:
        for number, (was, now) in enumerate(zip(reviewed.changes, each.changes, strict=False), 1):
            if was != now:
                drift.append(f"change {number} was reviewed as {was.words}, now {now.words}")
                is_dearer = is_dearer or _price(now) > _price(was)
    if usual is not None and not drift:
        drift += [
            f"change {number} would be {own.words}; elsewhere {other.words}"
            for number, (own, other) in enumerate(zip(each.changes, usual, strict=False), 1)
            if own != other
        ]
    return replace(each, drift=tuple(drift), is_dearer=is_dearer)


def _price(change: ForetoldChange) -> int:
    return PRICE.get(change.change_class, 0)

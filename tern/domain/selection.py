"""Which operations of an apply a wish is about: the same selectors at every door. Pure; nothing is loaded here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tern.domain.control import Receipt, ReceiptLine
from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.identity import ApplyId
from tern.domain.states import State

MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Member:
    """One operation as selectors see it."""

    deployment: str
    state: State
    labels: Mapping[str, str] = field(default_factory=dict)
    wave: int = 0
    """Counted from 1; 0 in a rollout without waves."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for, before the apply was looked at. Selectors of several kinds narrow each other down.

    Raises UsageError where selectors contradict each other.
    """

    deployments: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    states: frozenset[State] = frozenset()
    everywhere: bool = False
    excepted: frozenset[str] = frozenset()
    wave: int | None = None

    def __post_init__(self) -> None:
        if self.everywhere and (self.deployments or self.labels or self.states or self.wave is not None):
            what = "--all means every operation; it can't be narrowed down by --deployment, -l, --wave or --state"
            raise UsageError(what)

    @property
    def is_made(self) -> bool:
        """Something narrows the apply down, or says outright that all of it is meant."""
        return self.is_explicit or bool(self.excepted)

    @property
    def is_explicit(self) -> bool:
        """It says which operations go forward; taking some away says nothing about the others."""
        return bool(
            self.deployments or self.labels or self.states or self.everywhere or self.wave is not None
        )

    def choose(self, apply_id: ApplyId, members: Sequence[Member]) -> tuple[str, ...]:
        """The deployments meant, in rollout order; raises NotFound and Refused."""
        known = {member.deployment for member in members}
        unknown = [name for name in (*self.deployments, *sorted(self.excepted)) if name not in known]
        if unknown:
            what = f"{apply_id} has no operation on {', '.join(repr(name) for name in unknown)}"
            listed = ", ".join([member.deployment for member in members][:MOST_LISTED])
            raise NotFound(what, why=(f"it has {listed}",), next_step=f"`tern get {apply_id}` shows them.")
        chosen = tuple(member.deployment for member in members if self._wants(member))
        if not chosen:
            what = f"no operation of {apply_id} was selected"
            states = sorted({member.state.value for member in members})
            raise Refused(what, why=(f"its operations are {', '.join(states)}",), reason="SELECTION_EMPTY")
        return chosen

    def _wants(self, member: Member) -> bool:
        return (
            (not self.deployments or member.deployment in self.deployments)
            and (not self.states or member.state in self.states)
            and (self.wave is None or member.wave == self.wave)
            and self.labels.items() <= member.labels.items()
            and member.deployment not in self.excepted
        )


def refuse_unexpected(expected: int | None, lines: Sequence[ReceiptLine], again: str) -> None:
    """Raises Refused where a wish would be accepted for another number of operations than its asker thought of.

    again: the command that says the number.
    """
    accepted = [line.deployment for line in lines if line.outcome is Receipt.ACCEPTED]
    if expected is None or len(accepted) == expected:
        return
    named = ", ".join(accepted[:MOST_LISTED]) + (", …" if len(accepted) > MOST_LISTED else "")
    others = [line for line in lines if line.outcome is not Receipt.ACCEPTED]
    raise Refused(
        f"it would be accepted for {len(accepted)} operation{'' if len(accepted) == 1 else 's'}, not {expected}",
        why=(
            *((f"accepted: {named}",) if accepted else ()),
            *(f"{line.deployment}: {line.outcome}: {line.reason}" for line in others[:MOST_LISTED]),
        ),
        unchanged="Nothing was sent to any engine and nothing was written.",
        next_step=f"Look again, which says the number: {again}",
        reason="EXPECTATION_MISSED",
    )

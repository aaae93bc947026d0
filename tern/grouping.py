"""A rollout by its waves, or by the values of one label: each group as the whole is shown. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tern.domain.states import State
from tern.domain.whole import Weight, whole
from tern.operation import OperationView, share
from tern.view import ApplyView

WAVE = "wave"
"""What is asked for by this word is not a label."""
WITHOUT = "without"


@dataclass(frozen=True, slots=True)
class Group:
    """Those of one wave, or with one value of the label."""

    name: str
    operations: int
    percent: int
    percent_by: Weight
    counts: Mapping[State, int]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "group": self.name,
            "operation_count": self.operations,
            "percent": self.percent,
            "percent_by": self.percent_by.value,
            "counts": {state.value: number for state, number in self.counts.items()},
        }


@dataclass(frozen=True, slots=True)
class Grouped:
    """All groups: waves in their order, values in theirs, and last those without."""

    by: str
    groups: tuple[Group, ...]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {"by": self.by, "groups": [group.as_json() for group in self.groups]}


def grouped(view: ApplyView, by: str, labels: Mapping[str, Mapping[str, str]]) -> Grouped:
    """By `wave`, or by a label's key."""
    found: dict[tuple[bool, int, str], list[OperationView]] = {}
    for operation in view.operations:
        found.setdefault(_place(operation, by, labels), []).append(operation)
    return Grouped(by, tuple(_group(name, found[_, number, name]) for _, number, name in sorted(found)))


def _place(
    operation: OperationView, by: str, labels: Mapping[str, Mapping[str, str]]
) -> tuple[bool, int, str]:
    if by == WAVE:
        wave = operation.record.wave
        return not wave, wave, f"wave {wave}" if wave else f"{WITHOUT} a wave"
    value = labels.get(operation.deployment, {}).get(by)
    return value is None, 0, f"{WITHOUT} {by}" if value is None else value


def _group(name: str, operations: Sequence[OperationView]) -> Group:
    found = whole([share(each) for each in operations], moves=False)
    counted = Counter(each.state for each in operations)
    counts = {state: counted[state] for state in State if counted[state]}
    return Group(name, len(operations), found.percent, found.percent_by, counts)

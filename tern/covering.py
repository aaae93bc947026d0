"""The one command for several operations: it covers them and no other, and it works as it is copied. Pure.

A command that is printed for one operation is lifted to all of its group: where it names the operation, a selector
takes the name's place; where it names the deployment, all their names do. Where that would be too long to be read, the
names are taken from `tern get AP --cause … --names`, which prints the group as it is then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tern.domain.states import State

MOST_NAMES_LENGTH = 40
"""Names that are longer together are not spelled out."""
_HERE = "\N{REPLACEMENT CHARACTER}"
_SELECTING = {"start", "stop", "cutover", "cancel", "retry", "skip", "revert", "skip-revert", "resolve"}
_TAKES_NAMES = {"undrain", "drain", "check", "settle"}


@dataclass(frozen=True, slots=True)
class Place:
    """An operation as far as selectors tell it from others."""

    deployment: str
    state: State
    wave: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """All operations of an apply, counted once: which of them a selector takes."""

    apply_id: str
    total: int
    by_state: Mapping[State, tuple[str, ...]]
    by_wave: Mapping[tuple[State, int], tuple[str, ...]]

    @classmethod
    def of(cls, apply_id: str, places: Sequence[Place]) -> "Crowd":
        """Counts them."""
        by_state: dict[State, list[str]] = {}
        by_wave: dict[tuple[State, int], list[str]] = {}
        for each in places:
            by_state.setdefault(each.state, []).append(each.deployment)
            by_wave.setdefault((each.state, each.wave), []).append(each.deployment)
        return cls(
            apply_id,
            len(places),
            {state: tuple(names) for state, names in by_state.items()},
            {key: tuple(names) for key, names in by_wave.items()},
        )

    def selector(self, group: Sequence[Place]) -> str | None:
        """The shortest selector that takes exactly these; None where none does that is short enough to be read."""
        names = [each.deployment for each in group]
        alike = {(each.state, each.wave) for each in group}
        state = group[0].state
        if is_alike := all(each.state is state for each in group):
            if len(self.by_state[state]) == len(names):
                return f"--state {state.value}"
            wave = group[0].wave
            if wave and len(alike) == 1 and len(self.by_wave[state, wave]) == len(names):
                return f"--state {state.value} --wave {wave}"
        if _is_short(names):
            return f"--deployment {','.join(names)}"
        if is_alike:
            chosen = set(names)
            if _is_short(others := [name for name in self.by_state[state] if name not in chosen]):
                return f"--state {state.value} --except {','.join(others)}"
        return "--all" if len(names) == self.total else None


def lifted(commands: Mapping[str, str], group: Sequence[Place], crowd: Crowd, cause: str) -> str | None:
    """The command for all of a group, from that of each, by deployment; None where there is no such command.

    cause: by which the group is found again; empty where it can't be.
    """
    if len(group) == 1 or len(set(commands.values())) == 1:
        return commands[group[0].deployment]
    patterns = {
        _unnamed(commands[each.deployment], f"{crowd.apply_id}/{each.deployment}", each.deployment)
        for each in group
    }
    if len(patterns) > 1:
        return None
    (pattern,) = patterns
    if "--statement" in pattern:
        # That is said of one operation only.
        return None
    names = [each.deployment for each in group]
    if not cause and not _is_short(names) and crowd.selector(group) is None:
        return None
    asked = f"tern get {crowd.apply_id} --cause {cause} --names"
    match pattern.split():
        case ["tern", "apply", "--rest-of", there, *_] if there == f"{_HERE}/":
            named = ",".join(names) if _is_short(names) else f'"$({asked} | paste -sd, -)"'
            return pattern.replace(there, f"{crowd.apply_id} --deployments {named}", 1)
        case ["tern", verb, there, *_] if verb in _SELECTING and there == f"{_HERE}/":
            if verb == "resolve":
                # Nobody takes a word back: it is given for as many as were looked at, and not for one that came since.
                pattern = pattern.replace(" --reason", f" --expect {len(names)} --reason", 1)
            selector = crowd.selector(group)
            if selector is None:
                return f"{asked} | {pattern.replace(there, f'{crowd.apply_id} --deployment -', 1)}"
            return pattern.replace(there, f"{crowd.apply_id} {selector}", 1)
        case ["tern", "deployments", verb, there, *more] if verb in _TAKES_NAMES and there == _HERE:
            if _is_short(names):
                return pattern.replace(there, " ".join(names), 1)
            return f"{asked} | xargs {' '.join(['tern', 'deployments', verb, *more])}"
        case _:
            return None


def _unnamed(command: str, scope: str, deployment: str) -> str:
    """The command with a mark where it names the operation, or its deployment."""
    words = [
        f"{_HERE}/" if word == scope else _HERE if word == deployment else word for word in command.split(" ")
    ]
    return " ".join(words)


def _is_short(names: Sequence[str]) -> bool:
    return sum(map(len, names)) + len(names) - 1 <= MOST_NAMES_LENGTH

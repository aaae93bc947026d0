"""A rollout's waves as they are shown: how far each is, and how long it bakes. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tern.domain.opening import bakes_for_s
from tern.domain.policy import Wave
from tern.domain.tally import PASSED, Tally
from tern.facts import ApplyFacts
from tern.holding import standing


@dataclass(frozen=True, slots=True)
class WaveView:
    """One wave. bakes_for_s: how long the next one still waits for it; 0 when it does not."""

    number: int
    wave: Wave
    operations: int
    through: int
    bakes_for_s: float = 0.0

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "wave": self.number,
            "selector": self.wave.selector,
            "operation_count": self.operations,
            "through": self.through,
            "bakes_for_s": round(self.bakes_for_s, 1),
        }


def waves_of(facts: ApplyFacts) -> tuple[WaveView, ...]:
    """The waves in their order; none in a rollout without."""
    if not facts.policy.waves:
        return ()
    sizes = Counter(record.wave for record in facts.operations)
    through = Counter(record.wave for record in facts.operations if record.state in PASSED)
    tally = Tally.of(map(standing, facts.operations), facts.released)
    current = tally.current_wave
    baking = current - 1 if current is not None else 0
    return tuple(
        WaveView(
            number,
            wave,
            sizes[number],
            through[number],
            max(0.0, bakes_for_s(facts.policy, tally, number + 1)) if number == baking else 0.0,
        )
        for number, wave in enumerate(facts.policy.waves, start=1)
    )


def bakes_left_s(waves: Sequence[WaveView]) -> float:
    """For how long waves are still to bake; after the last one nobody waits."""
    waiting = [wave for wave in waves[:-1] if wave.through < wave.operations]
    return sum(wave.bakes_for_s for wave in waves) + sum(wave.wave.bake_s for wave in waiting)

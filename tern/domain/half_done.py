"""A change that was left half done at a target, in words for whoever begins another one there. Pure."""

from dataclasses import dataclass

from tern.domain.counting import plural
from tern.domain.effect import Effect, effect_of


@dataclass(frozen=True, slots=True)
class HalfDone:
    """The last operation that touched a deployment's target, how it ended, and what became of its statements."""

    deployment: str
    scope: str
    state: str
    statements: tuple[str, ...]
    is_registered: bool = True
    """Its deployment is known under that name still."""

    @property
    def command(self) -> str:
        """What leads on: of a statement that nobody can tell about a person speaks first."""
        effects = {effect_of(word) for word in self.statements}
        if effects & {Effect.UNKNOWN, Effect.UNDER_WAY}:
            return f"tern explain {self.scope}"
        return f"tern apply --rest-of {self.scope}"

    @property
    def words(self) -> str:
        """Which of its statements are in, and of which nobody can tell."""
        of = {
            effect: [
                str(number) for number, word in enumerate(self.statements, 1) if effect_of(word) is effect
            ]
            for effect in (Effect.DONE, Effect.UNKNOWN)
        }
        told = [
            f"{name} {', '.join(of[effect])}"
            for effect, name in ((Effect.DONE, "done:"), (Effect.UNKNOWN, "unknown:"))
            if of[effect]
        ]
        left = f"of its {plural(len(self.statements), 'statement')}, {'; '.join(told)}"
        return f"{self.deployment}: its last change, {self.scope}, ended half done ({self.state}): {left}"

"""A person's word about single statements whose effect nobody knows: what it may say, and when. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tern.domain.effect import NEVER_BEGUN, Effect, effect_of
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import ScopeName
from tern.domain.states import State

SAYABLE: Final = (Effect.DONE, Effect.NOT_DONE)
TO_SAY: Final = f"put {Effect.DONE} or {Effect.NOT_DONE} for each …, whichever you found"
"""What belongs beside a printed command: only who has looked can finish it."""
WORDS: Final[Mapping[Effect, str]] = {Effect.DONE: "completed", Effect.NOT_DONE: NEVER_BEGUN}
"""What a statement reads after a person's word."""


@dataclass(frozen=True, slots=True)
class StatementAnswer:
    """What a person who looked says of statements of one operation, by their numbers, which count from 1.

    Raises UsageError for one without a reason, and for what no statement can be said to be.
    """

    name: ScopeName
    effects: Mapping[int, Effect]
    caller: str
    reason: str
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.reason.strip():
            what = "an answer needs a reason"
            raise UsageError(what, next_step="Say how you know; it stands in the record.")
        if not self.effects:
            what = "no statement was named"
            raise UsageError(
                what, next_step=f"Name it: --statement N=done or N=not-done (tern get {self.name})."
            )
        if any(effect not in SAYABLE for effect in self.effects.values()):
            what = "a statement is said to be done or not-done"
            raise UsageError(what)


def printed_statements(numbers: Iterable[int]) -> str:
    """The options of a command that has to be finished, and is refused where it is copied unread; TO_SAY belongs beside
    it. A word that stands there already would be taken for somebody's.
    """
    return " ".join(f"--statement {number}=…" for number in numbers)


def read_statements(said: Sequence[str]) -> Mapping[int, Effect]:
    """`N=done` and `N=not-done`; raises UsageError with everything that is neither, and for a number said twice."""
    found: dict[int, Effect] = {}
    why: list[str] = []
    for each in said:
        number, _, word = each.partition("=")
        if not (number.isascii() and number.isdigit()) or word not in set(SAYABLE):
            why.append(f"{each!r} is not N=done or N=not-done")
        elif int(number) in found:
            why.append(f"statement {int(number)} is named twice")
        else:
            found[int(number)] = Effect(word)
    if why:
        what = "the statements can't be read"
        raise UsageError(
            what, why=tuple(why), next_step="For example: --statement 2=done --statement 3=not-done."
        )
    return found


def check_answer(answer: StatementAnswer, state: State, words: Sequence[str]) -> None:
    """Raises Refused with all that speaks against it: then nothing is written of any of the statements."""
    name = answer.name
    if not state.is_finished:
        steps = {
            State.UNCERTAIN: f"Say first what became of it as a whole: tern resolve {name} --as … --reason '…'",
            State.STOPPED: f"End it first: tern cancel {name} --reason '…'",
        }
        what = f"{name} is {state}, and what becomes of its statements is not over"
        step = steps.get(state, f"Wait for it: tern watch {name.apply_id}")
        raise Refused(what, unchanged="Nothing was written.", next_step=step, reason="STILL_LIVE")
    why = []
    for number in sorted(answer.effects):
        if not 1 <= number <= len(words):
            why.append(f"it has no statement {number}: they are counted from 1 to {len(words)}")
        elif effect_of(words[number - 1]) is not Effect.UNKNOWN:
            why.append(f"statement {number} is {words[number - 1]}, and that is known")
    if why:
        open_ones = [number for number, word in enumerate(words, 1) if effect_of(word) is Effect.UNKNOWN]
        step = (
            f"Unknown are {', '.join(map(str, open_ones))}."
            if open_ones
            else "None of its statements is unknown."
        )
        what = f"nothing was said of {name}"
        raise Refused(
            what, why=tuple(why), unchanged="Nothing was written.", next_step=step, reason="STATEMENT_KNOWN"
        )

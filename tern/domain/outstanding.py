"""What was sent and may still act although no operation follows it: what a look at it means, and what a person may say
of an engine that is gone (G4, G10).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from tern.domain.counting import plural
from tern.domain.errors import Refused as WordRefused
from tern.domain.identity import ScopeName
from tern.domain.model import (
    Claim,
    Deployment,
    Forbidden,
    NeverStarted,
    OperationScope,
    RemoteCall,
    Resolution,
    Started,
    Unsupported,
)
from tern.domain.outcome import TLS_FAILED, Ok, Outcome, Refused, Unknown
from tern.domain.samples import Sample
from tern.domain.states import State
from tern.domain.text import within
from tern.domain.timing import (
    GONE_AFTER_S,
    GONE_AFTER_TRIES,
    HALT_RETRY_MAX_S,
    OUTSTANDING_LOOK_MOST_S,
    OUTSTANDING_LOOK_S,
)


def is_heard(outcome: Outcome[object]) -> bool:
    """Somebody answered, be it with a refusal, or our own side is what has to be mended: nothing that says that the
    engine is gone. An answer that means nothing to us is no usable one.
    """
    match outcome:
        case Ok(Sample() as sample):
            return sample.state is not None
        case Ok() | Refused():
            return True
        case Unknown(reason=reason):
            return reason == TLS_FAILED
        case _:
            assert_never(outcome)


@dataclass(frozen=True, slots=True)
class Silent:
    """The calls of an operation that its engine gave no usable answer, in a row, up to now.

    for_s: since the first of them; a stamp ahead of now, under a clock that was set back, counts as now.
    """

    tries: int = 0
    for_s: float = 0.0
    last_words: str = ""

    @property
    def is_gone(self) -> bool:
        """So many and for so long that a person may say that the engine is gone."""
        return self.tries >= GONE_AFTER_TRIES and self.for_s >= GONE_AFTER_S

    @property
    def wait_s(self) -> float:
        """At least so long until that may be said."""
        return max(0.0, GONE_AFTER_S - max(0.0, self.for_s))

    @property
    def words(self) -> str:
        """How long it has been silent."""
        return f"{plural(self.tries, 'try', 'tries')} in {max(0.0, self.for_s):.0f} s without a usable answer"


def refuse_unless_gone(name: ScopeName, silent: Silent) -> None:
    """Raises Refused where an engine was heard, or not asked often and long enough."""
    if silent.is_gone:
        return
    message = f"nothing says that the engine of {name} is gone"
    if not silent.tries:
        words = f": {silent.last_words}" if silent.last_words else ""
        raise WordRefused(
            message,
            why=(f"its last answer was a usable one, or a refusal, which is an answer too{words}",),
            unchanged="Nothing was written.",
            next_step=f"tern explain {name} says what holds it, tern deployments check {name.deployment} asks it now;"
            f" {mending(name.deployment)}.",
            reason="ENGINE_ANSWERS",
        )
    why = [f"there were {silent.words}; it takes {GONE_AFTER_TRIES} tries and {GONE_AFTER_S:.0f} s"]
    missing = max(0, GONE_AFTER_TRIES - silent.tries)
    if missing:
        why.append(f"{missing} more are missing, which come by themselves")
    wait_s = max(silent.wait_s, 1.0)
    raise WordRefused(
        message,
        why=tuple(why),
        unchanged="Nothing was written.",
        next_step=f"Say it again in {wait_s:.0f} s, unless it answers before.",
        reason="ENGINE_NOT_YET_GONE",
    )


def mending(deployment: str) -> str:
    """How what we are refused for is mended, ready to copy."""
    return (
        f"credentials and TLS are mended with: tern deployments set {deployment} --token-ref REF --tls-ca REF"
        " --reason '…'"
    )


class Fate(StrEnum):
    """What a look makes of something outstanding."""

    SETTLED = "settled"
    """Nothing of it can act any more."""
    BECAME_ID = "became_id"
    """The key has started something, which is what may act from now on."""
    LIVE = "live"
    """It is at work, or can be set to work."""
    TOLD = "told"
    """Somebody answered, and it says nothing about that."""
    SILENT = "silent"
    """No usable answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """A look's meaning. words: how it is settled, what it does, or what was said. sample: what a job has come to."""

    fate: Fate
    words: str
    remote_id: str = ""
    sample: Sample | None = None


def found_by_key(outcome: Outcome[Resolution]) -> Found:
    """What Resolve, which forbids the key, says of it."""
    match outcome:
        case Ok(resolution):
            match resolution:
                case Started(remote_id):
                    return Found(Fate.BECAME_ID, "became_id", str(remote_id))
                case Forbidden():
                    return Found(Fate.SETTLED, "forbidden")
                case NeverStarted() | Unsupported():
                    return Found(Fate.TOLD, "its engine can't say what became of the key")
                case _:
                    assert_never(resolution)
        case (Refused() | Unknown()) as failed:
            return _failed(failed)
        case _:
            assert_never(outcome)


def found_by_id(outcome: Outcome[Sample], against: tuple[str, ...]) -> Found:
    """What a look at the job says. against: why it is about other work, or comes from another engine, whose no is none
    of ours.
    """
    if against and not isinstance(outcome, Unknown):
        return Found(Fate.TOLD, within(f"other work is there under its id: {'; '.join(against)}", 500))
    match outcome:
        case Ok(sample):
            if sample.state is None:
                return Found(Fate.SILENT, f"the engine says {sample.said}, which has no meaning here")
            fate = Fate.SETTLED if sample.state.is_finished else Fate.LIVE
            return Found(fate, sample.state.value, sample=sample)
        case Refused(code="NOT_FOUND"):
            return Found(Fate.SETTLED, "not_found")
        case (Refused() | Unknown()) as failed:
            return _failed(failed)
        case _:
            assert_never(outcome)


def _failed(failed: Refused | Unknown) -> Found:
    return Found(Fate.TOLD if is_heard(failed) else Fate.SILENT, within(failed.message, 500))


def works_again(fate: Fate, words: str) -> bool:
    """What was let go is at work: it may act at its target, whoever holds that by now."""
    return fate is Fate.BECAME_ID or (fate is Fate.LIVE and words != State.STOPPED.value)


def look_pause_s(looks: int, *, is_asked_to_end: bool = False) -> float:
    """Until the next look: longer and longer, and never longer than a minute; soon, where it is to be ended."""
    if is_asked_to_end:
        return HALT_RETRY_MAX_S
    return min(OUTSTANDING_LOOK_MOST_S, OUTSTANDING_LOOK_S * 2.0 ** min(looks, 10))


@dataclass(frozen=True, slots=True)
class OutstandingLook:
    """One look that is due: at the address that it was sent to, or where that engine was proven to be since.

    scope and claim: what a question about a key needs; call: what one about an id does. The claim is nobody's.
    """

    call_id: int
    deployment: Deployment
    scope: OperationScope | None = None
    claim: Claim | None = None
    call: RemoteCall | None = None
    ends: bool = False
    """Somebody wants it ended."""
    identity: str = ""
    """The server and database where its operation's work was seen."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """One line, as people see it."""

    call_id: int
    scope: str
    deployment: str
    remote_id: str | None
    key: str | None
    why: str
    address: str
    last_seen: str = ""
    last_seen_age_s: float | None = None
    silent_looks: int = 0
    looks: int = 0
    age_s: float = 0.0
    cancel_asked: bool = False
    is_own: bool = True
    """Its id is its operation's at that engine: without that nobody asks or calls with it (G2)."""
    now_at: str = ""
    """Where its deployment is by now; empty where it is not in the register any more."""
    in_doubt: bool = False
    """Its engine gave the id to another operation as well, and no person has said yet whose it is."""

    @property
    def what(self) -> str:
        """The job or the key."""
        return f"the job {self.remote_id}" if self.remote_id else "an unanswered Apply"

    @property
    def seen(self) -> str:
        """What was seen of it last."""
        if not self.is_own:
            return "its id is another operation's by now, so nothing is asked with it"
        if self.in_doubt:
            return "its engine gave its id to another operation as well, so nothing is sent with it"
        if not self.looks:
            return "nobody has looked yet"
        if self.silent_looks or not self.last_seen:
            tries = plural(self.silent_looks, "try", "tries")
            return f"its engine has left {tries} in a row without an answer"
        return f"its engine says {self.last_seen}"

    @property
    def is_live(self) -> bool:
        """It was seen at work, or where it can be set to work."""
        return self.is_own and self.remote_id is not None and self.last_seen in set(State)

    @property
    def is_doubted(self) -> bool:
        """Whether it is at work there only a person can tell: what runs under its id may be another's."""
        return self.is_own and self.in_doubt

    @property
    def words(self) -> str:
        """Whose it is, what it is, and what is known of it."""
        told = f"{self.what} of {self.scope} is outstanding at {self.address}, and may still act there: {self.seen}"
        return told + ("; it is asked to end" if self.cancel_asked else "")

    @property
    def ways(self) -> tuple[tuple[str, str], ...]:
        """Commands that work now, each with what it does."""
        asks = "asks whether an engine answers there"
        if self.now_at and self.now_at != self.address:
            asks = f"asks the engine that is at {self.now_at} now; {self.address} is looked at by itself"
        settles = f"tern deployments settle {self.deployment} --reason '…'"
        settle = (settles, "says that nothing of it can act any more")
        check = (
            f"tern deployments check {self.deployment}",
            f"{asks}; once one answers, {settles} says that nothing of it can act any more",
        )
        if self.is_doubted:
            same = (
                f"tern resolve {self.scope} --as same-work --reason '…'",
                "says that the job of that id is this work",
            )
            return (same,)
        if self.is_live and not self.silent_looks:
            cancel = (f"tern cancel {self.scope} --outstanding --reason '…'", "ends it there, by its own id")
            return (cancel,) if not self.cancel_asked else ()
        if self.last_seen and self.is_own and not self.silent_looks:
            return (settle,)
        # A word is taken only beside an engine that answers.
        return (check,)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "id": self.call_id,
            "scope": self.scope,
            "remote_id": self.remote_id,
            "key": self.key,
            "why": self.why,
            "address": self.address,
            "last_seen": self.last_seen or None,
            "last_seen_age_s": None if self.last_seen_age_s is None else round(self.last_seen_age_s, 1),
            "looks": self.looks,
            "silent_looks": self.silent_looks,
            "age_s": round(self.age_s, 1),
            "cancel_asked": self.cancel_asked,
            "is_own": self.is_own,
            "in_doubt": self.in_doubt,
            "ways": [{"command": command, "consequence": what} for command, what in self.ways],
        }


def refuse_live(deployment: str, lines: Sequence[Outstanding]) -> None:
    """Raises Refused where one was seen at work by the last look: a person's word does not stand against an answer. Of
    what runs under an id that was given out twice, somebody says first whose it is.
    """
    doubted = [line for line in lines if line.is_doubted]
    live = doubted or [line for line in lines if line.is_live and not line.silent_looks]
    if not live:
        return
    raise WordRefused(
        f"what is outstanding at {deployment} was not settled",
        why=tuple(line.words for line in live),
        unchanged="Nothing was written." if doubted else "A word does not stand against an answer.",
        next_step="; ".join(command for line in live for command, _ in line.ways)
        or "Wait until it has ended.",
        reason="REMOTE_ID_TAKEN" if doubted else "OUTSTANDING_LIVE",
    )


def told_before(found: Mapping[str, Outstanding]) -> tuple[str, ...]:
    """What somebody is told who selects these deployments for a rollout: it is accepted, and waits."""
    return tuple(
        f"{name} waits until it is settled: {each.words}; {' or '.join(command for command, _ in each.ways)}"
        for name, each in found.items()
    )

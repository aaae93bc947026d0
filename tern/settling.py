"""A person's second word about what is outstanding at a target: engines are asked first, outside of any transaction."""

from dataclasses import dataclass
from typing import assert_never

from tern.domain.errors import Refused
from tern.domain.identity import ApplyId
from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok
from tern.domain.outstanding import Fate, Found, Outstanding, OutstandingLook, found_by_id, found_by_key
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Ports


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the lines at one deployment, in words; `count` of them by this word."""

    count: int
    words: str


def settle_outstanding(deployment: str, caller: str, reason: str, ports: Ports) -> Settled:
    """Looks once more, and takes the person's word for what no look can settle. Raises Refused where no engine answers
    at the target, or one says that it is at work; NotFound, StorageUnavailable.
    """
    message = f"what is outstanding at {deployment} was not settled"
    if not reason.strip():
        raise Refused(
            message, why=("a reason is missing",), next_step="Say it with --reason.", reason="REASON_MISSING"
        )
    (found,) = ports.store.load_deployments([deployment])
    before = ports.store.outstanding_at(deployment)
    if not before:
        raise Refused(
            f"nothing is outstanding at {deployment}",
            next_step=f"tern deployments check {deployment}",
            reason="NOTHING_OUTSTANDING",
        )
    answer = ports.engines.of(found).health()
    if not isinstance(answer, Ok):
        raise Refused(
            message,
            why=(
                f"no engine answers at {found.address}, so nobody can say what is at its target: {answer.message}",
            ),
            unchanged="It stays outstanding, and is looked at again and again.",
            next_step=f"Once one answers: tern deployments check {deployment}. A new engine for the same target is"
            f" registered with: tern deployments add {deployment} --replace … --address ADDRESS",
            reason=answer.reason or "NO_ANSWER",
        )
    ports.store.make_outstanding_due(deployment)
    for line in before:
        look_at_outstanding(line.call_id, ports)
    left = ports.store.outstanding_at(deployment)
    waiting: tuple[ApplyId, ...] = ()
    if here := tuple(filter(None, (_works_here(line, ports) for line in left))):
        raise Refused(
            message,
            why=here,
            unchanged="A word does not stand against an answer.",
            next_step="; ".join(f"tern cancel {line.scope} --outstanding --reason '…'" for line in left)
            + f"; then again: tern deployments settle {deployment} --reason '…'",
            reason="OUTSTANDING_LIVE",
        )
    if left:
        waiting = ports.store.settle_by_word(deployment, [line.call_id for line in left], caller, reason)
    for apply_id in waiting:
        ports.bells.advance(apply_id)
    return Settled(len(left), _words(before, left))


def _works_here(line: Outstanding, ports: Ports) -> str:
    """Why the engine that serves this target by now contradicts the word; '' where it doesn't. A database may have
    outlived the machine of its engine, and with it the work: whoever serves it now goes on with it.
    """
    look = ports.store.outstanding_here(line.call_id)
    if look is None:
        return ""
    engine = ports.engines.of(look.deployment)
    if look.scope is not None and look.claim is not None:
        found = found_by_key(engine.resolve(look.scope, look.claim, look.claim.key, forbid=True))
    else:
        assert look.call is not None  # noqa: S101 - the other kind of line
        found, identity = _asked(look, look.call, ports)
        if found.fate is Fate.LIVE and look.ends and identity and identity == look.identity:
            # Somebody wants it ended, and it is known at the very database where it worked.
            words = engine.cancel(look.call)
            ports.store.record_outstanding_call(line.call_id, "" if isinstance(words, Ok) else words.message)
            found, _ = _asked(look, look.call, ports)
    match found.fate:
        case Fate.SETTLED | Fate.TOLD:
            return ""
        case Fate.LIVE | Fate.BECAME_ID:
            return f"the engine at {look.deployment.address} knows {line.what} of {line.scope}: {found.words}"
        case Fate.SILENT:
            return f"the engine at {look.deployment.address} does not say whether it knows it: {found.words}"
        case _:
            assert_never(found.fate)


def _asked(look: OutstandingLook, call: RemoteCall, ports: Ports) -> tuple[Found, str]:
    outcome = ports.engines.of(look.deployment).progress(call)
    against = ports.store.refuting_outstanding(look.call_id, outcome)
    return found_by_id(outcome, against), outcome.value.identity if isinstance(outcome, Ok) else ""


def _words(before: tuple[Outstanding, ...], left: tuple[Outstanding, ...]) -> str:
    by_look = len(before) - len(left)
    told = [f"{each.what} of {each.scope} by your word" for each in left]
    if by_look > 0:
        told.append(f"{by_look} by a look")
    return ", ".join(told)

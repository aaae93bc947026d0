"""A person's second word about what is outstanding at a target: engines are asked first, outside of any transaction."""

from dataclasses import dataclass

from tern.domain.errors import Refused
from tern.domain.identity import ApplyId
from tern.domain.outcome import Ok
from tern.domain.outstanding import Outstanding
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
    if left:
        waiting = ports.store.settle_by_word(deployment, [line.call_id for line in left], caller, reason)
    for apply_id in waiting:
        ports.bells.advance(apply_id)
    return Settled(len(left), _words(before, left))


def _words(before: tuple[Outstanding, ...], left: tuple[Outstanding, ...]) -> str:
    by_look = len(before) - len(left)
    told = [f"{each.what} of {each.scope} by your word" for each in left]
    if by_look > 0:
        told.append(f"{by_look} by a look")
    return ", ".join(told)

"""A person's second word about what is outstanding at a target: engines are asked first, outside of any transaction."""

import shlex
from dataclasses import dataclass
from typing import assert_never

from tern.domain.errors import Refused
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.model import Deployment, RemoteCall
from tern.domain.outcome import Ok
from tern.domain.outstanding import Fate, Found, Outstanding, OutstandingLook, found_by_id, found_by_key
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Ports


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the lines at one deployment, in words; `count` of them by this word."""

    count: int
    words: str


@dataclass(frozen=True, slots=True)
class SaidOfJobs:
    """What a person says of jobs that the engine which serves a target by now knows, by their ids there."""

    same: str = ""
    """It is the job of what is outstanding: it is ended there."""
    other: str = ""
    """It is other work."""


NOTHING_SAID = SaidOfJobs()


def _registered_anew(known: Deployment) -> str:
    """The command, with everything that stays as it is."""
    scheme = known.address.partition(":")[0] if known.address.startswith("grpc") else "grpc"
    words = [
        "tern",
        "deployments",
        "add",
        known.name,
        "--replace",
        "-e",
        known.environment,
        "-d",
        known.database,
    ]
    words += [
        "--target",
        known.target,
        *(word for each in known.labels.items() for word in ("-l", "=".join(each))),
    ]
    words += ["--position", str(known.position)] if known.position else []
    return shlex.join([*words, "--address", f"{scheme}://HOST:PORT"])


def settle_outstanding(
    deployment: str, caller: str, reason: str, ports: Ports, said: SaidOfJobs = NOTHING_SAID
) -> Settled:
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
            f" registered with its own HOST:PORT: {_registered_anew(found)}",
            reason=answer.reason or "NO_ANSWER",
        )
    ports.store.make_outstanding_due(deployment)
    for line in before:
        look_at_outstanding(line.call_id, ports)
    left = ports.store.outstanding_at(deployment)
    waiting: tuple[ApplyId, ...] = ()
    if here := tuple(
        found_here
        for line in left
        if (found_here := _works_here(line, said, caller, reason, ports)) is not None
    ):
        raise Refused(
            message,
            why=tuple(each.words for each in here),
            unchanged="A word does not stand against an answer.",
            next_step="; ".join(dict.fromkeys(each.way for each in here)),
            reason="OUTSTANDING_LIVE",
        )
    if left:
        told = f"{reason} (the job {said.other} there is other work)" if said.other else reason
        waiting = ports.store.settle_by_word(deployment, [line.call_id for line in left], caller, told)
    for apply_id in waiting:
        ports.bells.advance(apply_id)
    return Settled(len(left), _words(before, left))


@dataclass(frozen=True, slots=True)
class _Here:
    """What the engine that serves the target by now says against the word, and what leads on."""

    words: str
    way: str


def _works_here(line: Outstanding, said: SaidOfJobs, caller: str, reason: str, ports: Ports) -> _Here | None:
    """Why the engine that serves this target by now contradicts the word; None where it doesn't. A database may have
    outlived the machine of its engine, and with it the work: whoever serves it now goes on with it.
    """
    look = ports.store.outstanding_here(line.call_id)
    if look is None:
        return None
    knows_key = look.scope is not None and look.claim is not None
    if look.scope is not None and look.claim is not None:
        engine = ports.engines.of(look.deployment)
        found = found_by_key(engine.resolve(look.scope, look.claim, look.claim.key, forbid=True))
        if found.fate is not Fate.BECAME_ID:
            return _against(line, look, found, "")
        look = ports.store.outstanding_here(line.call_id, RemoteId(found.remote_id))
        if look is None:
            return None
    assert look.call is not None  # noqa: S101 - what has no key has an id
    call = look.call
    found, identity = _asked(look, call, ports)
    # Nobody but the engine that was sent it, or one that goes on with its storage, knows the very key.
    is_that_database = knows_key or (bool(identity) and identity == look.identity)
    remote_id = call.remote_id
    if found.fate is not Fate.LIVE:
        return _against(line, look, found, remote_id)
    if remote_id == said.other and not is_that_database:
        return None
    if remote_id == said.same:
        look = ports.store.end_here(line.call_id, remote_id, caller, reason)
        if look is None or look.call is None:
            return None
        call = look.call
    if remote_id == said.same or (look.ends and is_that_database):
        # Somebody wants it ended: a person says that it is this job, or it is known at the very database where it was.
        words = ports.engines.of(look.deployment).cancel(call)
        ports.store.record_outstanding_call(line.call_id, "" if isinstance(words, Ok) else words.message)
        found, _ = _asked(look, call, ports)
    return _against(line, look, found, remote_id, is_that_database=is_that_database)


def _against(
    line: Outstanding,
    look: OutstandingLook,
    found: Found,
    remote_id: str,
    *,
    is_that_database: bool = False,
) -> _Here | None:
    where, again = look.deployment.address, f"tern deployments settle {line.deployment}"
    match found.fate:
        case Fate.SETTLED | Fate.TOLD:
            return None
        case Fate.LIVE | Fate.BECAME_ID if is_that_database:
            way = f"tern cancel {line.scope} --outstanding --reason '…'; then again: {again} --reason '…'"
        case Fate.LIVE | Fate.BECAME_ID:
            way = (
                f"if that is the job of {line.scope}, this ends it there: {again} --same-job {remote_id} --reason '…';"
                f" if it is other work: {again} --other-job {remote_id} --reason '…'"
            )
        case Fate.SILENT:
            words = f"the engine at {where} does not say whether it knows it: {found.words}"
            return _Here(words, f"once it does: {again} --reason '…'")
        case _:
            assert_never(found.fate)
    what = f"the job {remote_id}" if remote_id else line.what
    return _Here(f"the engine at {where} knows {what} of {line.scope}: {found.words}", way)


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

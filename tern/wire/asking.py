"""Asking one deployment's engine, whatever is asked: what came back as Ok, Refused or Unknown, and who answered."""

from collections.abc import Callable

from tern.domain.model import Deployment, OperationScope, RemoteCall
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.wire import translation
from tern.wire.outcomes import About
from tern.wire.transport import (
    Answer,
    AnswerT,
    CallFailed,
    Metadata,
    Method,
    NotSent,
    RequestT,
    Transport,
)


class Asking:
    """A deployment's engine over a transport. Nothing here raises for what an engine or a network does."""

    def __init__(self, deployment: Deployment, transport: Transport, *, deadline_s: float) -> None:
        self._deployment = deployment
        self._transport = transport
        self._deadline_s = deadline_s

    def _about(self, verb: str, what: OperationScope | RemoteCall | None = None) -> About:
        if what is None:
            return About(verb, self._deployment.name)
        return About(verb, self._deployment.name, what.name, what.remote_id)

    def _ask(
        self,
        about: About,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> Outcome[AnswerT]:
        match self._ask_who(about, method, request, metadata=metadata, timeout_s=timeout_s):
            case Ok(answer):
                return Ok(answer.message)
            case Refused() | Unknown() as failed:
                return failed

    def _ask_who(
        self,
        about: About,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> Outcome[Answer[AnswerT]]:
        """The answer, and which database it names."""
        try:
            answer = self._transport.call(
                method,
                request,
                timeout_s=self._deadline_s if timeout_s is None else timeout_s,
                metadata=metadata,
            )
        except (NotSent, CallFailed) as failed:
            return _read(about, failed)
        return _read(about, answer)

    def _ask_later(
        self,
        about: About,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        metadata: Metadata,
        done: Callable[[Outcome[AnswerT]], None],
    ) -> None:
        self._ask_who_later(about, method, request, metadata, lambda found: done(_message(found)))

    def _ask_who_later(
        self,
        about: About,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        metadata: Metadata,
        done: Callable[[Outcome[Answer[AnswerT]]], None],
    ) -> None:
        self._transport.call_later(
            method,
            request,
            timeout_s=self._deadline_s,
            metadata=metadata,
            done=lambda found: done(_read(about, found)),
        )

    def _offers(self, method: Method[RequestT, AnswerT], request: RequestT) -> Outcome[tuple[bool, str]]:
        """A request that asks for nothing is either answered or found wanting, unless nobody is there to read it.
        Whether it is offered, and which database the answer names.
        """
        match self._ask_who(self._about(method.name), method, request):
            case Ok(answer):
                return Ok((True, answer.identity))
            case Refused(code="INVALID_ARGUMENT", identity=identity):
                return Ok((True, identity))
            case Refused(code="UNIMPLEMENTED", identity=identity):
                return Ok((False, identity))
            case Refused() | Unknown() as failed:
                return failed


def _read(about: About, found: Answer[AnswerT] | NotSent | CallFailed) -> Outcome[Answer[AnswerT]]:
    """What came back, or why nothing did."""
    if isinstance(found, NotSent):
        return about.not_sent(found)
    if isinstance(found, CallFailed):
        return about.failed(found)
    if translation.is_illegible(found.message):
        words = "nothing of the answer is known to this contract"
        return about.unknown("ILLEGIBLE", words, "OK")
    return Ok(found)


def _message(found: Outcome[Answer[AnswerT]]) -> Outcome[AnswerT]:
    """Without the database that was named beside it."""
    return Ok(found.value.message) if isinstance(found, Ok) else found

"""The closed sets of words of the contract, beside ours: the same words with a prefix. A test holds them equal."""

from enum import StrEnum
from typing import Any, Generic, TypeVar

from tern.domain.chain import Fault
from tern.domain.control import Delivery, Receipt, Verb
from tern.domain.errors import Misconfigured
from tern.domain.holds import ClearedBy
from tern.domain.model import Action
from tern.domain.policy import Copy, Cutover, OnFailure
from tern.domain.states import ApplyState, State
from tern.ports import Resolved
from tern.wire.generated.tern.control.v1 import apply_pb2, control_service_pb2, policy_pb2, record_pb2

Word = TypeVar("Word", bound=StrEnum)


class Words(Generic[Word]):
    """One set, both ways."""

    def __init__(self, wrapper: Any, kind: type[Word]) -> None:
        self.wrapper = wrapper
        self.kind = kind
        self.prefix = str(wrapper.Name(0)).removesuffix("UNSPECIFIED")
        self._by_name = {self.name(word): word for word in kind}

    def name(self, word: Word) -> str:
        """As the contract writes it."""
        return self.prefix + word.value.upper().replace("-", "_")

    def number(self, word: Word) -> Any:
        """As it travels."""
        return self.wrapper.Value(self.name(word))

    def said(self, number: int) -> str | None:
        """What a caller said, to be judged with the rest of the request; None for nothing."""
        if number == 0:
            return None
        name = self.wrapper.Name(number) if number in self.wrapper.values() else f"{self.prefix}{number}"
        return self._by_name[name].value if name in self._by_name else str(name)

    def word(self, number: int) -> Word:
        """What a server answered; raises Misconfigured for a word that came after this version."""
        said = self.said(number)
        for word in self.kind:
            if word.value == said:
                return word
        what = f"the server says {said or 'nothing'} where this version knows {', '.join(self.kind)}"
        raise Misconfigured(what, next_step="Use a client as new as the server.", reason="CLIENT_TOO_OLD")


APPLY_STATES = Words(apply_pb2.ApplyState, ApplyState)
OPERATION_STATES = Words(apply_pb2.OperationState, State)
FATES = Words(apply_pb2.Fate, Delivery)
ACTIONS = Words(apply_pb2.Action, Action)
CLEARED_BY = Words(apply_pb2.ClearedBy, ClearedBy)
COPIES = Words(policy_pb2.Copy, Copy)
ON_FAILURE = Words(policy_pb2.OnFailure, OnFailure)
CUTOVERS = Words(policy_pb2.Cutover, Cutover)
VERBS = Words(control_service_pb2.Verb, Verb)
OUTCOMES = Words(control_service_pb2.Outcome, Receipt)
FINDINGS = Words(control_service_pb2.Finding, Resolved)
FAULTS = Words(record_pb2.Fault, Fault)
ALL: tuple[Words[Any], ...] = (
    APPLY_STATES,
    OPERATION_STATES,
    FATES,
    ACTIONS,
    CLEARED_BY,
    COPIES,
    ON_FAILURE,
    CUTOVERS,
    VERBS,
    OUTCOMES,
    FINDINGS,
    FAULTS,
)

"""The part of ports.Store around a forward call: the last look before it, what undoes its claim, and what a start needs
beside, which is looked at first.
"""

from typing import Protocol

from tern.domain.model import Claim
from tern.domain.work import Fenced


class ForwardStore(Protocol):
    """Durable steps just before something goes forward, or doesn't."""

    def may_go_forward(self, claim: Claim, *, is_new_work: bool = False) -> bool:
        """The last look before a forward call: our claim, and no stop or cancel in force (G9); before a call that
        begins work, an open deployment too.
        """

    def withdraw_intent(self, claim: Claim) -> Fenced:
        """An intent that this tick wrote and never sent is taken back; the stop that came between is obeyed (G8). Where
        none did, the operation is pending again.
        """

    def record_key_dead(self, claim: Claim, message: str, *, delay_s: float | None = None) -> Fenced:
        """The key started nothing and never will: pending again, and the next dispatch is of the next generation."""

    def record_busy(self, claim: Claim, message: str, *, delay_s: float) -> Fenced:
        """The engine began nothing because its target is taken: pending again, and asked again after a while."""

    def resume(self, claim: Claim, delivery_id: int) -> Fenced:
        """The engine was seen stopped: target, `resuming` and the claim under which Start is sent. Not DONE where that
        is no more so, or another apply holds the target.
        """

    def take_over(self, claim: Claim, delivery_id: int, words: str) -> Fenced:
        """The engine was seen to run: `resuming` without a call, until a look says the same."""

    def record_look(
        self, claim: Claim, delivery_id: int, words: str, *, was_answered: bool, is_heard: bool = True
    ) -> Fenced:
        """The look before a Start did not say `stopped`. Ten answers of that kind fail the start with what was seen,
        unless a Start may have left; no answer counts for nothing. is_heard: anything was heard of the engine.
        """

    def withdraw_start(self, claim: Claim, delivery_id: int, words: str) -> Fenced:
        """A stop or a drain came before the call: stopped again, unless an earlier Start may act yet; open still."""

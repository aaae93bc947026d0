"""What somebody asks for who wants to carry on what is left of an apply. Pure."""

from dataclasses import dataclass

from tern.domain.command import selectors
from tern.domain.drift import Foretold
from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId
from tern.domain.policy import Policy
from tern.domain.selection import Selection


def rest_key(digest: str) -> str:
    """The key of a rest whose asker says none: the same digest sent twice is the same follow-up. Empty without one."""
    return f"rest {digest}" if digest else ""


@dataclass(frozen=True, slots=True)
class NewRest:
    """What is left of an apply, to be shown or, with the digest of what was shown, to be carried on.

    Raises UsageError for one that is to be sent without a reason or a key. policy: None for that of the first apply.
    """

    apply_id: ApplyId
    selection: Selection
    caller: str
    digest: str = ""
    reason: str = ""
    idempotency_key: str = ""
    policy: Policy | None = None
    allow_unsafe: bool = False
    previews: bool = True
    accept_drift: bool = False
    foretold: tuple[Foretold, ...] = ()
    typed: str = ""
    """What of which apply, as a command line said it; empty at every other door."""

    @property
    def command(self) -> str:
        """What shows the same once more, ready to copy."""
        chosen = [str(self.apply_id), *selectors(self.selection, "--deployments")]
        return f"tern apply --rest-of {self.typed or ' '.join(chosen)}"

    def __post_init__(self) -> None:
        if self.digest and not self.reason.strip():
            what = "a rollout needs a reason"
            raise UsageError(what, next_step="Say why; it stands in the record.")
        if self.digest and not self.idempotency_key.strip():
            what = "a rollout needs an idempotency key"
            raise UsageError(what, next_step="Leave --key out: then the digest is the key.")
        if self.policy is not None and (contradictions := self.policy.contradictions()):
            what = "the rollout policy contradicts itself"
            raise UsageError(what, why=contradictions)

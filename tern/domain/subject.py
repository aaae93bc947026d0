"""What a command is about: `AP` or `AP/DEPLOYMENT`, read in one place."""

from dataclasses import dataclass

from tern.domain.errors import UsageError
from tern.domain.identity import APPLY_ID, ApplyId, ScopeName


@dataclass(frozen=True, slots=True)
class Subject:
    """An apply, or one of its operations."""

    apply_id: ApplyId
    deployment: str | None = None

    @property
    def scope(self) -> ScopeName | None:
        """The operation's name, where one was named."""
        return None if self.deployment is None else ScopeName(self.apply_id, self.deployment)

    @classmethod
    def read(cls, text: str) -> "Subject":
        """Raises UsageError for what is no apply, ScopeRefused for a malformed operation."""
        if "/" in text:
            name = ScopeName.parse(text)
            return cls(name.apply_id, name.deployment)
        if APPLY_ID.fullmatch(text) is None:
            what = f"{text!r} is not an apply"
            raise UsageError(what, why=("it is written apl-… or apl-…/DEPLOYMENT",), next_step="tern ls")
        return cls(ApplyId(text))

    @classmethod
    def read_apply(cls, text: str) -> ApplyId:
        """Where only a whole apply will do; raises UsageError for anything else."""
        subject = cls.read(text)
        if subject.scope is not None:
            what = f"{text} is one operation, and this is about a whole apply"
            raise UsageError(what, next_step=f"Name it: {subject.apply_id}.")
        return subject.apply_id

    @classmethod
    def read_operation(cls, text: str) -> ScopeName:
        """Where only an operation will do; raises UsageError for a whole apply."""
        subject = cls.read(text)
        if subject.scope is None:
            what = f"{text} is a whole apply, and this is about one operation"
            raise UsageError(what, next_step=f"Name it: {text}/DEPLOYMENT (`tern get {text}` lists them).")
        return subject.scope

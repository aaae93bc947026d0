"""What a command is about: `AP` or `AP/DEPLOYMENT`, read in one place."""

from dataclasses import dataclass

from tern.domain.errors import ScopeRefused, UsageError
from tern.domain.identity import APPLY_ID, ApplyId, ScopeName, is_scope


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
        """Raises UsageError for what is no apply and no operation, with what is odd about it."""
        if "/" not in text:
            if APPLY_ID.fullmatch(text) is None:
                what = f"{text!r} is not an apply"
                raise UsageError(what, why=_odd(text), next_step=_meant(text) or "tern ls")
            return cls(ApplyId(text))
        try:
            name = ScopeName.parse(text)
        except ScopeRefused as refusal:
            what = f"{text!r} is not an operation"
            raise UsageError(
                what, why=_odd(text), next_step=_meant(text) or "tern ls", reason=refusal.reason
            ) from None
        return cls(name.apply_id, name.deployment)

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


def _odd(text: str) -> tuple[str, ...]:
    """How an apply and an operation are written, and where this is not."""
    apply_id, slash, deployment = text.partition("/")
    why = ["it is written apl-… or apl-…/DEPLOYMENT"]
    if text != text.strip():
        why.append("white space stands around it")
    if slash and not apply_id:
        why.append("no apply stands before the slash")
    if slash and not deployment:
        why.append("no deployment stands after the slash")
    if "/" in deployment:
        why.append("a deployment has no slash in its name")
    if apply_id != apply_id.lower():
        why.append("an apply's id has no capitals")
    return tuple(why)


def _meant(text: str) -> str:
    """What it would be without what is odd about it, where that leaves something; empty where nothing is known."""
    apply_id, _, deployment = text.strip().partition("/")
    meant = "/".join(filter(None, (apply_id.lower(), deployment.rstrip("/"))))
    good = meant != text and (APPLY_ID.fullmatch(meant) or is_scope(meant))
    return f"Did you mean {meant}?" if good else ""

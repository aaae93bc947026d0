"""Requests of other services, spelled as plain values, read into what flows take.

Nothing is guessed from a value of another type: the text "false" is no consent, and a text is no list. Everything
that is wrong with a request is said at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict, TypeVar

from tern.domain.choice import Choice
from tern.domain.control import Verb
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId, PlanId, RemoteId, ScopeName
from tern.domain.model import PlannedChange
from tern.domain.policy import Policy
from tern.domain.rest_asked import rest_key
from tern.domain.selection import Selection
from tern.domain.statement import StatementAnswer, read_statements
from tern.domain.states import State
from tern.domain.subject import Subject
from tern.domain.text import is_storable
from tern.doors.change import POSTGRES, from_ddl, from_entries
from tern.ports import Answered, Asked, NewRest, Resolved

LONGEST_DDL = 1_000_000
LONGEST_TEXT = 10_000
Word = TypeVar("Word", bound=StrEnum)

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueRequest:
    """A rollout as another service asks for it: readable, and not yet understood.

    One of plan (an id), ddl (a text) and changes with database_type (see change.py); environment and database, which
    a kept plan knows by itself; one of deployments (names in rollout order), labels and everywhere, these with
    excepted and first; policy, as in applies.policy, each key optional; caller, reason, key; allow_unsafe, previews,
    accept_drift; digest, of a kept plan. A plan that was reviewed for its targets and policy needs neither here.
    known_as is said by another Tern alone, beside its request.
    """

    plan: str = ""
    ddl: str = ""
    changes: Sequence[object] = ()
    database_type: str = POSTGRES
    environment: str = ""
    database: str = ""
    deployments: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    everywhere: bool = False
    excepted: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    policy: Policy | None = None
    caller: str = ""
    reason: str = ""
    key: str = ""
    allow_unsafe: bool = False
    previews: bool = True
    accept_drift: bool = False
    digest: str = ""
    known_as: str = ""

    @classmethod
    def read(cls, message: Mapping[str, object]) -> "EnqueueRequest":
        """From values of any type; raises UsageError with everything that is none of the above."""
        fields = _Fields(message)
        request = cls(
            plan=fields.text("plan"),
            ddl=fields.text("ddl", longest=LONGEST_DDL),
            changes=fields.entries("changes"),
            database_type=fields.text("database_type", POSTGRES),
            environment=fields.text("environment"),
            database=fields.text("database"),
            deployments=fields.texts("deployments"),
            labels=fields.labels("labels"),
            everywhere=fields.flag("everywhere"),
            excepted=fields.texts("excepted"),
            first=fields.texts("first"),
            policy=fields.policy("policy"),
            caller=fields.text("caller"),
            reason=fields.text("reason"),
            key=fields.text("key"),
            allow_unsafe=fields.flag("allow_unsafe"),
            previews=fields.flag("previews", default=True),
            accept_drift=fields.flag("accept_drift"),
            digest=fields.text("digest"),
        )
        if sum((bool(request.plan), bool(request.ddl), bool(request.changes))) != 1:
            fields.why.append("one change is given: plan, ddl or changes")
        fields.end()
        return request

    def understood(self) -> Enqueue:
        """What is asked for; raises UsageError, and Refused for statements that are no change."""
        return Enqueue(
            change=self._change(),
            choice=Choice(
                self.deployments, self.labels, self.everywhere, frozenset(self.excepted), self.first
            ),
            caller=self.caller,
            reason=self.reason,
            key=self.key,
            policy=self.policy,
            environment=self.environment,
            database=self.database,
            allow_unsafe=self.allow_unsafe,
            previews=self.previews,
            accept_drift=self.accept_drift,
            digest=self.digest,
            known_as=self.known_as,
        )

    def _change(self) -> PlanId | NewChange:
        if self.plan:
            return PlanId(self.plan)
        if self.ddl:
            return NewChange(self.environment, self.database, POSTGRES, from_ddl(self.ddl))
        return NewChange(self.environment, self.database, self.database_type, self.spelled_out())

    def spelled_out(self) -> tuple[PlannedChange, ...]:
        """The changes that came spelled out; raises UsageError."""
        return from_entries(self.database_type, self.changes)


def read_asked(message: Mapping[str, object]) -> Asked:
    """A wish; raises UsageError, and ScopeRefused for a malformed operation.

    verb; what _chosen() says; caller, reason; dry_run; expected, for how many operations it is to be accepted; volume,
    of that verb alone; although_cancel_refused, of a start alone; although_foreign, an id, of stop and cancel alone;
    outstanding, of a cancel alone.
    """
    fields = _Fields(message)
    verb, volume = fields.word("verb", Verb), fields.number("volume")
    although = fields.flag("although_cancel_refused")
    outstanding = fields.flag("outstanding")
    foreign = fields.text("although_foreign").strip()
    choose, rest = _chosen(fields), _rest(fields)
    fields.end()
    apply_id, selection = choose()
    return Asked(
        verb,
        apply_id,
        selection,
        volume=volume,
        although_cancel_refused=although,
        although_foreign=foreign,
        outstanding=outstanding,
        **rest,
    )


def read_answered(message: Mapping[str, object]) -> Answered:
    """A person's answer about uncertain operations; raises UsageError, and ScopeRefused for a malformed operation.

    found; remote_id, and taken_from beside it, of that answer alone; what _chosen() says; caller, reason; dry_run;
    expected; engine_is_gone.
    """
    fields = _Fields(message)
    found, remote_id = fields.word("found", Resolved), fields.text("remote_id").strip()
    taken_from = fields.text("taken_from").strip()
    engine_is_gone = fields.flag("engine_is_gone")
    choose, rest = _chosen(fields), _rest(fields)
    fields.end()
    apply_id, selection = choose()
    return Answered(
        apply_id,
        selection,
        found,
        RemoteId(remote_id) if remote_id else None,
        taken_from=ScopeName.parse(taken_from) if taken_from else None,
        engine_is_gone=engine_is_gone,
        **rest,
    )


def read_statement_answer(message: Mapping[str, object]) -> StatementAnswer:
    """A person's word about single statements; raises UsageError, and ScopeRefused for a malformed operation.

    subject, which names one operation; statements, each `N=done` or `N=not-done`; caller, reason; dry_run.
    """
    fields = _Fields(message)
    subject, said = fields.text("subject"), fields.texts("statements")
    caller, reason = fields.text("caller"), fields.text("reason")
    dry_run = fields.flag("dry_run")
    fields.end()
    return StatementAnswer(Subject.read_operation(subject), read_statements(said), caller, reason, dry_run)


def read_rest(message: Mapping[str, object]) -> NewRest:
    """What is left of an apply, to be shown or carried on; raises UsageError, and ScopeRefused for a malformed
    operation.

    What _chosen() says; policy; allow_unsafe, previews, accept_drift; digest, reason, key (the digest where it is
    empty); caller.
    """
    fields = _Fields(message)
    digest, key = fields.text("digest").strip(), fields.text("key")
    policy, allow_unsafe = fields.policy("policy"), fields.flag("allow_unsafe")
    previews, accept_drift = fields.flag("previews", default=True), fields.flag("accept_drift")
    caller, reason, choose = fields.text("caller"), fields.text("reason"), _chosen(fields)
    fields.end()
    apply_id, selection = choose()
    return NewRest(
        apply_id,
        selection,
        caller,
        digest=digest,
        reason=reason,
        idempotency_key=key or rest_key(digest),
        policy=policy,
        allow_unsafe=allow_unsafe,
        previews=previews,
        accept_drift=accept_drift,
    )


class _Rest(TypedDict):
    """What every request about operations says beside them."""

    caller: str
    reason: str
    dry_run: bool
    expected: int | None


def _rest(fields: "_Fields") -> _Rest:
    return {
        "caller": fields.text("caller"),
        "reason": fields.text("reason"),
        "dry_run": fields.flag("dry_run"),
        "expected": fields.number("expected"),
    }


def _chosen(fields: "_Fields") -> Callable[[], tuple[ApplyId, Selection]]:
    """subject, which is `apl-…` or `apl-…/DEPLOYMENT`; deployments, labels, states, wave, everywhere, excepted.

    Understood once all fields could be read.
    """
    subject = fields.text("subject")
    names, labels = fields.texts("deployments"), fields.labels("labels")
    states, wave = fields.words("states", State), fields.number("wave")
    everywhere, excepted = fields.flag("everywhere"), fields.texts("excepted")

    def choose() -> tuple[ApplyId, Selection]:
        named = Subject.read(subject)
        if named.deployment and (names or labels or states or everywhere or excepted or wave is not None):
            what = f"{named.scope} names its operation; no other selector fits"
            raise UsageError(what)
        only = (named.deployment,) if named.deployment else ()
        selection = Selection(names or only, labels, frozenset(states), everywhere, frozenset(excepted), wave)
        return named.apply_id, selection

    return choose


class _Fields:
    """A message's fields, each taken once by its type; end() raises UsageError with every complaint."""

    def __init__(self, message: Mapping[str, object]) -> None:
        # None is how JSON and optional arguments say that nothing was said.
        self._left = {name: value for name, value in message.items() if value is not None}
        self.why: list[str] = []

    def entries(self, name: str) -> Sequence[object]:
        """A list of anything; what its entries must be is said where they are understood."""
        value = self._left.pop(name, ())
        if isinstance(value, list | tuple):
            return tuple(value)
        self.why.append(f"{name} is no list")
        return ()

    def text(self, name: str, default: str = "", *, longest: int = LONGEST_TEXT) -> str:
        """A text that can be written down."""
        value = self._left.pop(name, default)
        if not is_storable(value):
            self.why.append(f"{name} is no text, or one that can't be stored")
            return default
        if len(value) > longest:
            self.why.append(f"{name} has {len(value)} characters, more than {longest}")
            return default
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false, and nothing that looks like it."""
        value = self._left.pop(name, default)
        if isinstance(value, bool):
            return value
        self.why.append(f"{name} is neither true nor false")
        return default

    def number(self, name: str) -> int | None:
        """A count; None where it is not there."""
        value = self._left.pop(name, None)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        self.why.append(f"{name} is no number")
        return None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, none of them empty."""
        value = self._left.pop(name, ())
        found = tuple(value) if isinstance(value, list | tuple) else ()
        if isinstance(value, list | tuple) and all(is_storable(each) and each for each in found):
            return found
        self.why.append(f"{name} is no list of names")
        return ()

    def labels(self, name: str) -> Mapping[str, str]:
        """An object of texts."""
        value = self._left.pop(name, {})
        found = dict(value) if isinstance(value, Mapping) else {}
        if isinstance(value, Mapping) and all(_is_label(*pair) for pair in found.items()):
            return found
        self.why.append(f"{name} is no object of labels: letters, digits, '.', '_', '/' and '-', at most 63")
        return {}

    def word(self, name: str, kind: type[Word]) -> Word:
        """One of a closed set of words."""
        value = self._left.pop(name, None)
        known = list(kind)
        if isinstance(value, str) and value in {each.value for each in known}:
            return kind(value)
        self.why.append(f"{name} is one of {', '.join(known)}")
        return known[0]

    def words(self, name: str, kind: type[Word]) -> tuple[Word, ...]:
        """A list of such words."""
        found = self.texts(name)
        known = {each.value for each in kind}
        self.why += [f"{name} has no {each!a}" for each in found if each not in known]
        return tuple(kind(each) for each in found if each in known)

    def policy(self, name: str) -> Policy | None:
        """What is said of a policy, over the defaults; None where nothing is."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        default = Policy().as_json()
        if not isinstance(value, Mapping):
            self.why.append(f"{name} is no object")
            return Policy()
        self.why += [f"{name} has no {each!a}" for each in value if each not in default]
        if not _is_storable_throughout(value):
            self.why.append(f"{name} holds a text that can't be stored")
            return Policy()
        try:
            return Policy.from_json({**default, **{each: value[each] for each in value if each in default}})
        except ValueError as error:
            self.why.append(f"{name} can't be read: {error}")
            return Policy()

    def end(self) -> None:
        """Raises UsageError unless everything was taken and everything could be read."""
        self.why += [f"{name!a} is not known" for name in self._left]
        if self.why:
            what = "the message can't be read"
            raise UsageError(what, why=tuple(self.why))


def _is_storable_throughout(value: object) -> bool:
    match value:
        case Mapping():
            return all(_is_storable_throughout(each) for pair in value.items() for each in pair)
        case list() | tuple():
            return all(_is_storable_throughout(each) for each in value)
        case str():
            return is_storable(value)
        case _:
            return True


def _is_label(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and LABEL.fullmatch(key) is not None
        and isinstance(value, str)
        and (not value or LABEL.fullmatch(value) is not None)
    )

"""Tern for Python services: `import tern; tern.Client()`.

    with tern.Client() as client:
        made = client.enqueue(
            ddl="ALTER TABLE orders ADD COLUMN note text", environment="production", database="shop",
            labels={"region": "eu"}, reason="notes, as reviewed", key="notes-2026-11",
        )
        for apply in client.watch(made.apply_id):
            print(apply.headline)

Two ways lead in, and both answer alike. With an address it asks a ControlService (`tern serve`): a token and a
certificate authority are all that a service needs to hold, the token says who it is and what it may do, and nothing of
Tern's database is handed out. That is the way for every service that isn't Tern's own. Without one it uses Tern's
database directly, with the same flows as the command line; whoever may do that may do everything.

Nothing here imports Celery. In the direct way workers find what is asked for by their own sweep, a few seconds later;
a process that has a broker may give `bells` that ring at once (tasks.bells.CeleryBells).
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar, Unpack

from tern.client_options import RestOptions, Selectors
from tern.domain.control import Verb
from tern.domain.errors import UsageError, storage_unavailable
from tern.domain.identity import ApplyId
from tern.domain.model import Credentials
from tern.domain.policy import Policy
from tern.domain.states import ApplyState
from tern.domain.subject import Subject
from tern.doors.answers import Apply, Event, Explanation, KeyFate, Receipt, Summary
from tern.doors.door import Door
from tern.doors.record import Verification
from tern.doors.request import EnqueueRequest, read_answered, read_asked, read_rest, read_statement_answer
from tern.doors.rest import RestShown
from tern.ports import Bells, Enqueued, NewRest, Resolved, StorageUnavailable

ADDRESS = "TERN_CONTROL_ADDRESS"
TOKEN = "TERN_CONTROL_TOKEN"  # noqa: S105 - the name of a variable
AUTHORITY = "TERN_CONTROL_CA"
Answer = TypeVar("Answer")


class Client:
    """One way to Tern, for all threads of a process. Every method raises TernError and its kinds (tern.domain.errors).

    address: `grpcs://HOST:PORT` of a ControlService; TERN_CONTROL_ADDRESS where it is empty. Secrets are given by
    reference, `env:NAME` or `file:/path`: token (TERN_CONTROL_TOKEN where it is empty and that is set), tls_ca
    (TERN_CONTROL_CA, a path), tls_cert and tls_key for mutual TLS. Plaintext goes to this machine only.

    With no address at all: Tern's own database, database_url or TERN_DATABASE_URL, in the name of `caller`.
    """

    def __init__(
        self,
        address: str = "",
        *,
        token: str = "",
        tls_ca: str = "",
        tls_cert: str = "",
        tls_key: str = "",
        database_url: str = "",
        caller: str = "",
        bells: Bells | None = None,
    ) -> None:
        where = address or ("" if database_url else os.environ.get(ADDRESS, ""))
        self._caller = caller
        self._door: Door
        if where:
            from tern.wire.control.client import RemoteDesk  # noqa: PLC0415 - the direct way needs none of it

            credentials = Credentials(
                token=token or (f"env:{TOKEN}" if os.environ.get(TOKEN) else ""),
                tls_ca=tls_ca or (f"file:{os.environ[AUTHORITY]}" if os.environ.get(AUTHORITY) else ""),
                tls_cert=tls_cert,
                tls_key=tls_key,
            )
            self._door = RemoteDesk(where, credentials)
            return
        from tern import settings, wiring  # noqa: PLC0415 - as above, the other way round

        found = settings.load()
        if database_url:
            found = replace(found, database_url=database_url)
        self._caller = caller or settings.caller(found)
        self._door = wiring.open_desk(found, bells or wiring.Silent())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives connections back."""
        self._door.close()

    def enqueue(
        self,
        *,
        reason: str,
        key: str | None = None,
        plan: str = "",
        ddl: str = "",
        changes: Sequence[Mapping[str, str]] = (),
        database_type: str = "",
        environment: str = "",
        database: str = "",
        deployments: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        everywhere: bool = False,
        excepted: Sequence[str] = (),
        first: Sequence[str] = (),
        policy: Policy | None = None,
        allow_unsafe: bool = False,
        previews: bool = True,
        accept_drift: bool = False,
        digest: str = "",
    ) -> Enqueued:
        """Takes a rollout in; accepted is written down, not done.

        The change is a kept plan, ddl, or changes spelled out. Deployments are named in rollout order, or chosen by
        label or all (everywhere), of which those in `first` begin. With a key of its own a call may be repeated until
        it is answered: the same key and request are the same apply for ever. Without one, a repeated call is another
        rollout. A plan that was reviewed for its targets and policy needs neither, and with its digest no other
        plan is taken for it.
        """
        request = EnqueueRequest.read(
            {
                "plan": plan,
                "ddl": ddl,
                "changes": list(changes),
                "database_type": database_type or None,
                "environment": environment,
                "database": database,
                "deployments": _listed(deployments),
                "labels": labels,
                "everywhere": everywhere,
                "excepted": _listed(excepted),
                "first": _listed(first),
                "policy": None if policy is None else policy.as_json(),
                "caller": self._caller,
                "reason": reason,
                "key": secrets.token_hex(16) if key is None else key,
                "allow_unsafe": allow_unsafe,
                "previews": previews,
                "accept_drift": accept_drift,
                "digest": digest,
            }
        )
        return _told(lambda: self._door.enqueue(request))

    def enqueued(self, key: str) -> KeyFate:
        """What became of a key: for rollouts that were asked for by message (`tern.apply.enqueue`)."""
        return _told(lambda: self._door.enqueued(key))

    def get(self, apply_id: str) -> Apply:
        """One apply with all of its operations."""
        name = _apply(apply_id)
        return _told(lambda: self._door.get(name))

    def applies(
        self,
        *,
        environment: str = "",
        states: Sequence[ApplyState] = (),
        limit: int = 50,
        before: str = "",
    ) -> tuple[Summary, ...]:
        """The newest applies, newest first; older than `before` where that is given."""
        older_than = _apply(before) if before else None
        return _told(
            lambda: self._door.applies(environment=environment, states=states, limit=limit, before=older_than)
        )

    def watch(self, apply_id: str, *, revision: int = 0, until_person: bool = False) -> Iterator[Apply]:
        """Every change that can be seen, until it is settled, or nothing moves without a person (until_person).

        With the revision of an earlier look nothing comes until it is another one: so a watch goes on after a break.
        """
        seen = self._door.watch(_apply(apply_id), revision=revision, until_person=until_person)
        try:
            while (apply := _told(lambda: next(seen, None))) is not None:
                yield apply
        finally:
            seen.close()

    def explain(self, subject: str) -> Explanation:
        """All reasons why `apl-…` or `apl-…/DEPLOYMENT` does not move, and who can change each."""
        named = Subject.read(subject)
        return _told(lambda: self._door.explain(named))

    def events(self, subject: str, *, limit: int = 100, after: int = 0) -> tuple[Event, ...]:
        """Who did what, when, why, oldest first, after an event's id."""
        named = Subject.read(subject)
        return _told(lambda: self._door.events(named, limit=limit, after=after))

    def verify(self, apply_id: str = "", *, since: datetime | None = None) -> Verification:
        """Computes every hash of the record again: of one apply, of all, or of all accepted since a time with its zone.

        With many years of applies this takes its time; a look at one is quick.
        """
        name = _apply(apply_id) if apply_id else None
        if since is not None and since.tzinfo is None:
            what = "since says no time zone, and the same hour comes twenty-four times a day"
            raise UsageError(what)
        return _told(lambda: Verification(tuple(self._door.verify(name, since=since))))

    def stop(
        self, subject: str, reason: str, *, although_foreign: str = "", **selectors: Unpack[Selectors]
    ) -> Receipt:
        """Halts, so that it can be resumed. A whole apply needs no selector. although_foreign: the operation's id, to
        halt that job although it turned out to be other work.
        """
        return self._ask(Verb.STOP, subject, reason, selectors, although_foreign=although_foreign)

    def start(
        self,
        subject: str,
        reason: str,
        *,
        although_cancel_refused: bool = False,
        **selectors: Unpack[Selectors],
    ) -> Receipt:
        """Resumes what was stopped. although_cancel_refused: takes back a cancel too whose engine refused it."""
        return self._ask(
            Verb.START, subject, reason, selectors, although_cancel_refused=although_cancel_refused
        )

    def cutover(self, subject: str, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """Lets the application see the change, where it is ready."""
        return self._ask(Verb.CUTOVER, subject, reason, selectors)

    def cancel(
        self,
        subject: str,
        reason: str,
        *,
        although_foreign: str = "",
        outstanding: bool = False,
        **selectors: Unpack[Selectors],
    ) -> Receipt:
        """Ends it for good. A whole apply needs no selector. although_foreign: as for stop. outstanding: not the
        operation, but what was sent and is followed no more, by its own id.
        """
        return self._ask(
            Verb.CANCEL,
            subject,
            reason,
            selectors,
            although_foreign=although_foreign,
            outstanding=outstanding,
        )

    def retry(self, subject: str, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """Dispatches failed operations once more that no engine has given an id."""
        return self._ask(Verb.RETRY, subject, reason, selectors)

    def skip(self, subject: str, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """Leaves deployments behind."""
        return self._ask(Verb.SKIP, subject, reason, selectors)

    def release(self, subject: str, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """Opens one pause of a whole apply, once."""
        return self._ask(Verb.RELEASE, subject, reason, selectors)

    def revert(self, subject: str, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """Takes the change back, in its revert window."""
        return self._ask(Verb.REVERT, subject, reason, selectors)

    def skip_revert(self, subject: str, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """Closes the revert window early."""
        return self._ask(Verb.SKIP_REVERT, subject, reason, selectors)

    def volume(self, subject: str, volume: int, reason: str, **selectors: Unpack[Selectors]) -> Receipt:
        """How hard the engines may work, 1 to 11."""
        return self._ask(Verb.VOLUME, subject, reason, selectors, volume)

    def resolve(
        self,
        subject: str,
        found: Resolved,
        reason: str,
        *,
        remote_id: str = "",
        taken_from: str = "",
        engine_is_gone: bool = False,
        **selectors: Unpack[Selectors],
    ) -> Receipt:
        """Says what became of uncertain operations, by somebody who looked at the engine; or, with engine_is_gone, of
        operations whose engine nobody can ask any more.
        """
        message: dict[str, object] = {"found": str(found), "remote_id": remote_id, "taken_from": taken_from}
        message["engine_is_gone"] = engine_is_gone
        answered = read_answered({**message, **self._operations(subject, reason, selectors)})
        return _told(lambda: self._door.resolve(answered))

    def settle_statements(
        self, subject: str, reason: str, *statements: str, dry_run: bool = False
    ) -> Receipt:
        """Says of one that is over which of its statements of unknown effect are in: `2=done`, `3=not-done`."""
        said = {"subject": subject, "statements": statements, "caller": self._caller}
        answer = read_statement_answer({**said, "reason": reason, "dry_run": dry_run})
        return _told(lambda: self._door.settle_statements(answer))

    def rest(self, subject: str, **how: Unpack[RestOptions]) -> RestShown:
        """What is left of an apply over all that carries it on, in groups with a digest each; sends nothing."""
        return _told(lambda: self._door.rest(self._new_rest(subject, "", "", how)))

    def carry_on(self, subject: str, digest: str, reason: str, **how: Unpack[RestOptions]) -> Enqueued:
        """Carries the group on that was shown under the digest, as it was asked for then. Sent twice it is one."""
        return _told(lambda: self._door.carry_on(self._new_rest(subject, digest, reason, how)))

    def _new_rest(self, subject: str, digest: str, reason: str, how: RestOptions) -> NewRest:
        policy = how.get("policy")
        named = {
            "deployments": _listed(how.get("deployments", ())),
            "excepted": _listed(how.get("excepted", ())),
        }
        said = {**how, **named, "policy": None if policy is None else policy.as_json()}
        asked = {"subject": subject, "digest": digest, "reason": reason, "caller": self._caller}
        return read_rest({**said, **asked})

    def _ask(
        self,
        verb: Verb,
        subject: str,
        reason: str,
        selectors: Selectors,
        volume: int | None = None,
        *,
        although_cancel_refused: bool = False,
        although_foreign: str = "",
        outstanding: bool = False,
    ) -> Receipt:
        message = {
            "verb": verb.value,
            "volume": volume,
            "although_cancel_refused": although_cancel_refused,
            "although_foreign": although_foreign,
            "outstanding": outstanding,
        }
        asked = read_asked({**message, **self._operations(subject, reason, selectors)})
        return _told(lambda: self._door.ask(asked))

    def _operations(self, subject: str, reason: str, selectors: Selectors) -> Mapping[str, object]:
        return {
            **selectors,
            "subject": subject,
            "deployments": _listed(selectors.get("deployments", ())),
            "states": [str(state) for state in selectors.get("states", ())],
            "excepted": _listed(selectors.get("excepted", ())),
            "caller": self._caller,
            "reason": reason,
        }


def _apply(text: str) -> ApplyId:
    return Subject.read_apply(text)


def _listed(names: Sequence[str]) -> object:
    """A list, for the reader to judge; a text stays the text that it is."""
    return names if isinstance(names, str) else list(names)


def _told(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except StorageUnavailable as silence:
        raise storage_unavailable(str(silence)) from None

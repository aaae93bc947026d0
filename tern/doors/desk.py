"""The door in this process: flows for what is asked, views for what is shown (door.py says what that is)."""

import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from tern import cause
from tern.domain import outstanding
from tern.domain.enqueue import is_usable_key
from tern.domain.errors import NotFound, Refused, TryAgain, UsageError
from tern.domain.identity import ApplyId, PlanId, ScopeName
from tern.domain.model import Plan
from tern.domain.scope import require_single
from tern.domain.statement import StatementAnswer
from tern.domain.states import ApplyState
from tern.domain.subject import Subject
from tern.domain.text import is_storable
from tern.doors.answers import (
    Apply,
    Blocker,
    Cause,
    Event,
    Explanation,
    Hold,
    KeyFate,
    Operation,
    Outstanding,
    Progress,
    Reason,
    Receipt,
    Summary,
    TableChange,
    Way,
    Wish,
)
from tern.doors.record import Verified
from tern.doors.request import EnqueueRequest
from tern.doors.rest import RestShown, shown
from tern.doors.watching import INTERVAL_S, MOST_WATCHERS, Watching
from tern.flows import accept
from tern.flows import rest as rest_flow
from tern.operation import OperationView
from tern.ports import Answered, Asked, Enqueued, NewRest, Ports
from tern.store.paging import Paging
from tern.store.record import Record
from tern.view import ApplyView, apply_view

MOST_BLOCKERS = 50
MOST_NAMED = 50


class Desk:
    """Everything that Tern can be asked. Shared by all threads of a process."""

    def __init__(
        self,
        ports: Ports,
        reading: Paging,
        record: Record,
        *,
        close: Callable[[], None] = lambda: None,
        interval_s: float = INTERVAL_S,
        most_watchers: int = MOST_WATCHERS,
    ) -> None:
        self._ports = ports
        self._reading = reading
        self._record = record
        self._one_at_a_time = threading.Lock()
        self._ends = threading.Event()
        self._close = close
        self._watching = Watching(self.get, interval_s=interval_s, most=most_watchers)

    def enqueue(self, request: EnqueueRequest) -> Enqueued:
        """See Door."""
        return accept.enqueue(request.understood(), self._ports)

    def enqueued(self, key: str) -> KeyFate:
        """See Door."""
        if not is_usable_key(key):
            what = "that is no key under which anything can be asked for"
            raise UsageError(what)
        return self._reading.fate_of_key(key)

    def ask(self, asked: Asked) -> Receipt:
        """See Door."""
        receipt = accept.ask(asked, self._ports)
        return Receipt(receipt.request_id, receipt.lines)

    def resolve(self, answered: Answered) -> Receipt:
        """See Door."""
        return Receipt(None, accept.answer(answered, self._ports))

    def settle_statements(self, answer: StatementAnswer) -> Receipt:
        """See Door."""
        return Receipt(None, (accept.settle_statements(answer, self._ports),))

    def rest(self, new: NewRest) -> RestShown:
        """See Door."""
        return shown(rest_flow.show(new, self._ports))

    def carry_on(self, new: NewRest) -> Enqueued:
        """See Door."""
        return rest_flow.send(new, self._ports)

    def get(self, apply_id: ApplyId) -> Apply:
        """See Door."""
        return answer_of(apply_view(self._reading.apply(apply_id)))

    def applies(
        self,
        *,
        environment: str = "",
        states: Sequence[ApplyState] = (),
        limit: int = 50,
        before: ApplyId | None = None,
    ) -> tuple[Summary, ...]:
        """See Door."""
        if not is_storable(environment):
            what = "that is no environment's name"
            raise UsageError(what)
        return self._reading.page_of_applies(
            environment=environment, states=states, limit=limit, before=before
        )

    def watch(
        self,
        apply_id: ApplyId,
        *,
        revision: int = 0,
        until_person: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Apply, None, None]:
        """See Door."""
        return self._watching.watch(
            apply_id, revision=revision, until_person=until_person, is_wanted=is_wanted
        )

    def explain(self, subject: Subject) -> Explanation:
        """See Door."""
        scope = subject.scope
        facts = self._reading.operation(scope) if scope else self._reading.apply(subject.apply_id)
        apply = answer_of(apply_view(facts))
        chosen = (apply.operation(scope.deployment),) if scope else apply.operations
        return Explanation(replace(apply, operations=()), tuple(_reasons(chosen)))

    def events(self, subject: Subject, *, limit: int = 100, after: int = 0) -> tuple[Event, ...]:
        """See Door."""
        if subject.scope:
            self._reading.progress(subject.scope)
        else:
            self._ports.store.members(subject.apply_id)
        return self._reading.page_of_events(subject.apply_id, subject.deployment, limit=limit, after=after)

    def verify(
        self,
        apply_id: ApplyId | None,
        *,
        since: datetime | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Verified, None, None]:
        """See Door."""
        if apply_id is not None and since is not None:
            what = "a time chooses among all applies, and one is named"
            raise UsageError(what)
        for name in self._record.applies(since) if apply_id is None else (apply_id,):
            # However many ask: a record is long, and a stop must find a connection of this process.
            with self._one_at_a_time:
                if not is_wanted():
                    return
                if self._ends.is_set():
                    what = "this process ends"
                    raise TryAgain(what, next_step="Ask again.", reason="CLOSING")
                found = self._record.verify(name)
            yield found

    def close(self) -> None:
        """See Door."""
        self.end_watches()
        self._close()

    # What an engine's client may ask about one operation.

    def only_operation(self, apply_id: ApplyId, verb: str) -> ScopeName:
        """See FrontDesk. The operations are counted each time: an id that the parent holds opens nothing, and an
        error of the count reaches the caller, who is told to try again.
        """
        members = self._ports.store.members(apply_id)
        require_single(apply_id, len(members), verb)
        return ScopeName(apply_id, members[0].deployment)

    def known_as(self, name: ScopeName) -> str:
        """See FrontDesk."""
        return self._reading.known_as(name)

    def progress(self, name: ScopeName) -> Progress:
        """One operation alone."""
        return self._reading.progress(name)

    def newest_events(self, name: ScopeName, limit: int) -> tuple[Event, ...]:
        """The newest lines about one operation and the apply itself, oldest first."""
        return tuple(
            Event(
                each.event_id,
                each.at,
                each.deployment,
                each.event,
                each.who,
                each.why,
                each.before,
                each.after,
            )
            for each in self._reading.events(name.apply_id, deployment=name.deployment, limit=limit)
        )

    def deployment_of_target(self, environment: str, database: str, target: str) -> str:
        """The deployment with this name or target; raises Refused unless there is exactly one."""
        found = [
            each.name
            for each in self._ports.store.load_deployments()
            if (each.environment, each.database) == (environment, database)
            and target in {each.name, each.target}
        ]
        if len(found) != 1:
            what = f"{len(found)} deployments of {database} in {environment} are called {target}"
            raise Refused(
                what, why=tuple(found), reason="NO_DEPLOYMENTS" if not found else "TARGET_AMBIGUOUS"
            )
        return found[0]

    def kept_plan(self, plan_id: str) -> Plan | None:
        """See FrontDesk."""
        if not is_storable(plan_id):
            return None
        try:
            return self._ports.store.load_plan(PlanId(plan_id))
        except NotFound:
            return None

    def end_watches(self) -> None:
        """Whoever watches or verifies is told to come back: this process ends."""
        self._ends.set()
        self._watching.close()

    def check_health(self) -> None:
        """Raises StorageUnavailable while the database does not answer."""
        self._reading.clock()


def answer_of(view: ApplyView) -> Apply:
    """A view as doors answer it."""
    facts = view.facts
    return Apply(
        apply_id=facts.apply_id,
        plan_id=facts.plan_id,
        state=facts.state,
        headline=view.headline,
        environment=facts.environment,
        database=facts.database,
        caller=facts.caller,
        reason=facts.reason,
        policy=facts.policy,
        created_at=facts.created_at,
        operation_count=facts.operation_count,
        counts=view.counts,
        percent=view.percent,
        error=facts.error_message,
        exit_code=view.exit_code,
        blockers=tuple(
            Blocker(each.deployment, each.what, each.command, each.consequence)
            for each in view.blockers[:MOST_BLOCKERS]
        ),
        revision=facts.revision,
        observed_at=facts.observed_at,
        operations=tuple(_operation(each) for each in view.operations),
        needs_you=tuple(_cause(each) for each in view.needs[:MOST_BLOCKERS]),
    )


def _cause(found: cause.Cause) -> Cause:
    return Cause(
        found.cause_id,
        found.kind,
        found.what,
        found.count,
        found.deployments[: cause.EXAMPLES],
        _ways(found.ways),
    )


def _ways(found: Iterable[tuple[str, str]]) -> tuple[Way, ...]:
    return tuple(Way(command, consequence) for command, consequence in found)


def _outstanding(found: outstanding.Outstanding) -> Outstanding:
    return Outstanding(
        found.call_id,
        found.remote_id,
        found.address,
        found.words,
        found.last_seen,
        found.cancel_asked,
        found.is_own,
        found.in_doubt,
        _ways(found.ways),
        found.last_seen_age_s,
    )


def _operation(view: OperationView) -> Operation:
    record = view.record
    return Operation(
        scope=view.scope,
        deployment=view.deployment,
        position=record.position,
        wave=record.wave,
        target=record.target,
        state=view.state,
        remote_id=record.remote_id,
        attempt=record.attempt,
        percent=view.percent,
        rows_copied=view.rows_copied,
        rows_total=view.rows_total,
        eta_s=view.eta_s,
        volume=record.volume,
        lost_contact=view.lost_contact,
        summary=record.summary,
        error=record.known_error,
        error_reason=record.error_reason,
        holds=tuple(Hold(each.kind.value, each.detail, each.cleared_by, each.until_s) for each in view.holds),
        wishes=tuple(
            Wish(
                each.request_id,
                each.verb.value,
                each.fate,
                each.caller,
                each.reason,
                each.attempts,
                each.engine_words,
                each.age_s,
            )
            for each in record.wishes
        ),
        tables=tuple(
            TableChange(
                each.namespace,
                each.table_name,
                each.ddl,
                each.action,
                each.unsafe_reason,
                each.state,
                each.done_percent,
                each.rows_copied,
                each.rows_total,
                each.eta_s,
                each.detail,
                each.error,
                each.settled_by,
                number,
            )
            for number, each in enumerate(record.tables, 1)
        ),
        state_age_s=record.state_age_s,
        worked_s=record.worked_s,
        sampled_age_s=record.sampled_age_s,
        carries_on=record.carries_on or "",
        carried_on_by=record.carried_on_by or "",
        follow_ups=record.follow_ups,
        carried_on_state=None if record.carried_on is None else record.carried_on.state,
        outstanding=tuple(_outstanding(each) for each in record.outstanding),
    )


def _reasons(operations: Sequence[Operation]) -> Iterator[Reason]:
    """Each hold once, with the operations that it holds."""
    held: dict[Hold, list[str]] = defaultdict(list)
    for operation in operations:
        for hold in operation.holds:
            held[hold].append(operation.deployment)
    for hold, names in held.items():
        yield Reason(hold, len(names), tuple(names[:MOST_NAMED]))

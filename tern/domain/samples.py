"""Merging what an engine says into what we know, never backwards (control over time lives in control.py)."""

from dataclasses import dataclass

from tern.domain.identity import RemoteId
from tern.domain.states import OBSERVED, RANK, TRANSITIONS, Event, State


@dataclass(frozen=True, slots=True)
class TableSample:
    """Progress of one table change. Rows and seconds are None where the engine left them out."""

    namespace: str
    table_name: str
    ddl: str
    status: str
    percent: int | None = None
    rows_copied: int | None = None
    rows_total: int | None = None
    eta_s: int | None = None
    checksum_rows_checked: int | None = None
    checksum_rows_total: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one remote job. `state` is None where the engine's word has no meaning for us: nothing is
    written from it (G10).

    identity: the server and database that the engine says it works at; '' where it doesn't say. started_at: when the
    job began, in the engine's own words. Both tell one job from another that has the same id.
    """

    remote_id: RemoteId
    state: State | None
    said: str
    summary: str = ""
    error_message: str = ""
    tables: tuple[TableSample, ...] = ()
    revision: int = 0
    identity: str = ""
    started_at: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What merging decided: the arrow to take, if any, and whether the sample may move the cursor on."""

    event: Event | None
    state: State
    applied: bool
    note: str = ""
    resend_stop: bool = False


@dataclass(frozen=True, slots=True)
class MergeContext:
    """What else the merge depends on.

    start_sent_s_ago: how long ago a Start was sent; None when none is open.
    stop_was_sent: a stop is open that the engine has taken, after any Start: what it says now is about that stop.
    start_is_open: a person wants it to run, so that running is no contradiction.
    is_in_doubt: the sample may be about another's work, and only a person can tell.
    """

    start_sent_s_ago: float | None = None
    grace_s: float = 30.0
    stop_was_sent: bool = False
    start_is_open: bool = False
    is_in_doubt: bool = False


def merge(current: State, sampled: State | None, context: MergeContext) -> Observed:
    """Which arrow a sample takes an operation along.

    - no meaning (None): nothing written, cursor stays.
    - `stopped` within the grace after a Start: stale, dropped, cursor stays (PO6).
    - `stopped` still, after the grace: the start did not work. After a Stop that was taken it is that Stop's effect.
    - `running` of a stopped operation: somebody else's start or a lost stop; Stop is sent again (ST12), unless a
      person's start is just on its way.
    - a lower rank than the known one: progress is taken, the state is not.
    """
    if context.is_in_doubt:
        return Observed(
            None, current, applied=False, note="nobody can tell whose work this is until a person has"
        )
    if sampled is None:
        return Observed(None, current, applied=False, note="the engine's state has no meaning here")
    if current is State.RESUMING and sampled is State.STOPPED and not context.stop_was_sent:
        sent = context.start_sent_s_ago
        if sent is None or sent < context.grace_s:
            return Observed(None, current, applied=False, note="taken before the start took effect")
        return Observed(Event.RESUME_REFUSED, State.STOPPED, applied=True, note="still stopped after Start")
    if sampled is current:
        return Observed(None, current, applied=True)
    if current is State.STOPPED and sampled in RANK and context.start_is_open:
        return Observed(
            None, current, applied=False, note=f"the engine says {sampled} before the start was driven"
        )
    if current is State.STOPPED and sampled in RANK:
        note = f"the engine says {sampled} though it was stopped"
        return Observed(None, current, applied=False, note=note, resend_stop=True)
    if sampled in RANK and current in RANK and RANK[sampled] < RANK[current]:
        return Observed(None, current, applied=True, note=f"{sampled} is behind {current}")
    event = OBSERVED[sampled]
    if event not in TRANSITIONS[current]:
        return Observed(None, current, applied=False, note=f"{sampled} can't follow {current}")
    return Observed(event, sampled, applied=True)

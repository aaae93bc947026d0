"""Looking at what is outstanding, for ever, and settling it by what its engine says (G2, G4, G10).

Each is asked only at the address that it was sent to, or where that engine was proven to be since; an id only as long
as it is its operation's. Each method is one transaction; nothing here calls anybody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tern.domain.effect import SETTLED_WORDS, effect_of
from tern.domain.errors import ScopeRefused
from tern.domain.identity import ApplyId, DispatchKey, RemoteId, ScopeName
from tern.domain.model import Claim, Deployment, RemoteCall
from tern.domain.outcome import Ok, Outcome
from tern.domain.outstanding import (
    Fate,
    Found,
    OutstandingLook,
    look_pause_s,
    works_again,
)
from tern.domain.own_work import against_identity
from tern.domain.samples import Sample
from tern.domain.states import State
from tern.domain.text import within
from tern.domain.timing import OUTSTANDING_LOOK_MOST_S, WATCHED_MOST_S, WATCHED_S
from tern.ports import NotClaimed
from tern.store.deployment import deployment_in
from tern.store.doubt import doubt, holder_of_id, lock_operations
from tern.store.event import Happening, append
from tern.store.outstanding import Sent, Why, open_outstanding
from tern.store.outstanding_cancel import ask_to_end, hand_over_cancel
from tern.store.outstanding_hold import WHERE_ASKED
from tern.store.outstanding_settle import concerned_by, lock_applies, settle, tell, wake
from tern.store.own_work import Judge, evidence_columns
from tern.store.progress import write_tables
from tern.store.projection import project_parent
from tern.store.scope import REMOTE_ID, load_scope
from tern.store.session import single, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import NOW, Steps

GIVEN_OUT_TWICE = "its engine gave its id to another operation as well"
MOST_LOOKS = 5
"""At one deployment in one poll: each may cost a deadline."""

IS_DUE = (
    f"(c.next_look_at <= {NOW} OR c.next_look_at > {NOW} + make_interval(secs => {OUTSTANDING_LOOK_MOST_S}))"
)
OF_DEPLOYMENT = text(
    f"SELECT c.id FROM outstanding_calls c WHERE c.deployment = :deployment AND c.next_look_at IS NOT NULL"
    f" AND {IS_DUE} ORDER BY c.next_look_at LIMIT {MOST_LOOKS}"
)
_LINE = (
    "SELECT c.*, a.apply_identifier, o.fence AS newest_fence, o.attempt, o.remote_identity,"
    f" {WHERE_ASKED} AS asked_at, {REMOTE_ID} AS own_id, o.completed_at IS NOT NULL AS is_finished,"
    # While it is in doubt whose an id is, it is nobody's to ask or to call with.
    " coalesce((SELECT i.operation_id = c.operation_id FROM remote_ids i WHERE i.engine_number = c.engine_number"
    "   AND i.remote_id = c.remote_id), false) AND o.doubt <> 'taken' AS is_held,"
    " o.doubt = 'taken' AS is_in_doubt,"
    " o.doubt = 'taken' OR EXISTS (SELECT FROM remote_ids i WHERE i.engine_number = c.engine_number"
    "   AND i.remote_id = c.remote_id AND i.operation_id <> c.operation_id) AS is_doubted"
    " FROM outstanding_calls c JOIN apply_operations o ON o.id = c.operation_id JOIN applies a ON a.id = c.apply_id"
)
LINE_OF = text(f"{_LINE} WHERE c.id = :id")
_LINE_LOCKED = text(f"{_LINE} WHERE c.id = :id FOR NO KEY UPDATE OF c")
_TAKE = text(
    # Whoever comes meanwhile does not look as well.
    "UPDATE outstanding_calls c SET next_look_at = CASE WHEN c.settled_at IS NULL"
    f"   OR n.now < c.settled_at + make_interval(secs => {WATCHED_MOST_S})"
    "   THEN n.now + make_interval(secs => :pause_s) END"
    f" FROM (SELECT tern_clock() AS now) n WHERE c.id = :id AND c.next_look_at IS NOT NULL AND {IS_DUE} RETURNING c.id"
)
_LOOKED = text(
    "UPDATE outstanding_calls SET looks = looks + 1,"
    " silent_looks = CASE WHEN :is_silent THEN silent_looks + 1 ELSE 0 END,"
    " last_seen = CASE WHEN :is_silent THEN last_seen ELSE :words END,"
    " last_seen_at = CASE WHEN :is_silent THEN last_seen_at ELSE tern_clock() END,"
    # What was let go is watched for a while after it was over. While nobody answers that is not seen, so it takes two
    # answers in a row to end it; but it is not watched for ever.
    " next_look_at = CASE WHEN settled_at IS NULL"
    f"   OR tern_clock() < settled_at + make_interval(secs => {WATCHED_S})"
    f"   OR tern_clock() < settled_at + make_interval(secs => {WATCHED_MOST_S}) AND (:is_silent OR silent_looks > 0)"
    "   THEN tern_clock() + make_interval(secs => :pause_s) END WHERE id = :id"
)
FENCE = text("UPDATE apply_operations SET fence = fence + 1 WHERE id = :id")
_KEY_IS_DEAD = text(
    # What was put back in line since goes under the next one; whoever drives it just now finds out for himself.
    "UPDATE apply_operations SET dispatch_key_is_dead = state <> 'pending',"
    " dispatch_key = CASE WHEN state <> 'pending' THEN dispatch_key END,"
    " dispatch_intent_at = CASE WHEN state <> 'pending' THEN dispatch_intent_at END,"
    " dispatch_generation = dispatch_generation + CAST(state = 'pending' AS integer)"
    " WHERE id = :operation_id AND dispatch_key = :key AND claim_token IS NULL"
    " AND (completed_at IS NOT NULL OR state = 'pending')"
)
_APPLIES_OF = text("SELECT apply_id FROM apply_operations WHERE id = ANY(:ids)")
_ALL_IS_IN = text(
    # Of those alone of which the look said nothing itself.
    "UPDATE table_changes SET state = 'completed', settled_by = 'engine', eta_seconds = NULL"
    " WHERE operation_id = :id AND state <> 'completed' AND NOT ordinal = ANY(CAST(:kept AS integer[]))"
)
DEPLOYMENT = text("SELECT * FROM deployments WHERE name = :name")
_EFFECTS = text("SELECT state, settled_by FROM table_changes WHERE operation_id = :id ORDER BY ordinal")
_SAID_SINCE = text(
    # Beside what a person gave as the reason, where everybody looks.
    "UPDATE apply_operations SET error_message ="
    " left(concat_ws('; ', nullif(error_message, ''), CAST(:words AS text)), 1000)"
    " WHERE id = :id"
)
_WEIGHED = text(
    f"SELECT o.id, {evidence_columns(':remote_id')} FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " JOIN plans p ON p.id = a.plan_id WHERE o.id = :id"
)


class OutstandingLookSteps(Steps):
    """The looking part of outstanding_port.OutstandingStore."""

    def begin_outstanding_look(self, call_id: int) -> OutstandingLook | NotClaimed:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            line = tx.execute(LINE_OF, {"id": call_id}).one_or_none()
            if line is None:
                return NotClaimed("there is no such line")
            found = tx.execute(DEPLOYMENT, {"name": line.deployment}).one_or_none()
            if found is not None and _is_followed(line, found):
                line, _, _ = lock_line(tx, call_id)
                # Under the locks: it may have been given up, or its deployment have moved by a word, meanwhile.
                here = tx.execute(DEPLOYMENT, {"name": line.deployment}).one_or_none()
                if line.settled_at is None and here is not None and _is_followed(line, here):
                    settle(tx, [line], as_="followed", who=self.owner)
                    hand_over_cancel(tx, line, f"the operation is followed as {line.remote_id} by now")
                    project_parent(tx, line.apply_id, self.owner)
                return NotClaimed("its operation is followed by this id")
            is_kept_back = line.remote_id is not None and not line.is_held
            if ends(line) and line.is_finished and not is_kept_back:
                # Before the line, as everywhere: whoever once drove it is fenced off from what is to be ended.
                tx.execute(FENCE, {"id": line.operation_id})
            pause_s = look_pause_s(line.looks, is_asked_to_end=ends(line))
            if tx.execute(_TAKE, {"id": call_id, "pause_s": pause_s}).one_or_none() is None:
                return NotClaimed("it is not due, or somebody else looks")
            if found is None:
                return NotClaimed("its deployment is not in the register, so nobody can be asked")
            # With the credentials that the deployment has now: those of then may be worth nothing any more.
            if is_kept_back:
                return NotClaimed("the id is another operation's, or may be, so nothing is sent with it")
            return question(tx, line, replace(deployment_in(found), address=line.asked_at), line.remote_id)

    def refuting_outstanding(self, call_id: int, outcome: Outcome[Sample]) -> tuple[str, ...]:
        """See outstanding_port.OutstandingStore."""
        # What an engine wrote is read before anybody's lock is taken.
        judge = Judge((outcome.value,) if isinstance(outcome, Ok) else ())
        with transaction(self.engine) as tx:
            line = tx.execute(LINE_OF, {"id": call_id}).one()
            # A cancel follows what is said here: since the look began its id may have been given out once more.
            if line.is_doubted:
                return (GIVEN_OUT_TWICE,)
            weighed = tx.execute(_WEIGHED, {"id": line.operation_id, "remote_id": line.remote_id}).one()
            if isinstance(outcome, Ok):
                return judge.weigh(tx, weighed, outcome.value).against
            return against_identity(weighed.remote_identity, outcome.identity)

    def record_outstanding(self, call_id: int, found: Found, asked_at: str) -> tuple[ApplyId, ...]:
        """See outstanding_port.OutstandingStore."""
        if found.fate in {Fate.SILENT, Fate.TOLD}:
            with single(self.engine) as tx:
                _note(tx, call_id, found)
            return ()
        judge = Judge(() if found.sample is None else (found.sample,))
        with transaction(self.engine) as tx:
            line, applies, rows = lock_line(tx, call_id, found.remote_id)
            who = f"engine:{line.deployment}"
            if line.asked_at != asked_at:
                # Its engine was proven to have moved meanwhile: whoever listens at the old address knows nothing of it.
                return ()
            if line.remote_id is not None and line.is_doubted:
                # Since it was asked: what was seen may be another's.
                _note(tx, call_id, Found(Fate.TOLD, GIVEN_OUT_TWICE))
                return ()
            holder = holder_of_id(tx, line.engine_number, found.remote_id) if found.remote_id else None
            if holder is not None and holder not in rows:
                # Whose the id is has changed in this very moment; the next look finds the same.
                return ()
            # Where its operation follows an id, that one's looks say what it has come to.
            is_alone = line.is_finished or line.own_id is None
            if found.fate is Fate.SETTLED and found.sample is not None and is_alone:
                _take_over_effects(tx, line, found.sample, judge)
            if line.settled_at is not None:
                # Of two looks at one key the later found what the first has written down; it may be settled by now.
                if line.settled_as != Fate.BECAME_ID.value:
                    self._watched(tx, line, found, who)
                return ()
            match found.fate:
                case Fate.BECAME_ID:
                    settle(tx, [line], as_=found.words, who=who)
                    self._follow_id(tx, line, found.remote_id)
                    if holder is not None and holder != line.operation_id:
                        # It is no answer about its own work alone, and both can't be looked at by it.
                        doubt(tx, [rows[line.operation_id], rows[holder]], found.remote_id, who)
                    return ()
                case Fate.SETTLED:
                    _note(tx, call_id, found)
                    is_watched = line.remote_id is not None and found.words != "not_found"
                    settle(tx, [line], as_=found.words, who=who, is_watched=is_watched)
                    if line.dispatch_key is not None:
                        tx.execute(
                            _KEY_IS_DEAD, {"operation_id": line.operation_id, "key": line.dispatch_key}
                        )
                    return wake(tx, [call_id], applies)
                case _:
                    if found.words != line.last_seen:
                        words = f"what is outstanding works at {line.asked_at}: its engine says {found.words}"
                        tell(tx, line, "outstanding_seen", who, words)
                    _note(tx, call_id, found, ends=ends(line))
                    return ()

    def _watched(self, tx: Connection, line: Row, found: Found, who: str) -> None:
        """What was let go is looked at for a while longer: if it works again it may act, whoever has its target."""
        if not works_again(found.fate, found.words):
            _note(tx, line.id, found)
            if found.fate is Fate.SETTLED and line.dispatch_key is not None:
                # It was asked with a Resolve that forbids: whoever tries it again must not be refused for that.
                tx.execute(_KEY_IS_DEAD, {"operation_id": line.operation_id, "key": line.dispatch_key})
            return
        if found.fate is Fate.BECAME_ID:
            self._follow_id(tx, line, found.remote_id)
        else:
            words = f"it was let go, and the engine at {line.asked_at} says {found.words}"
            call_id = open_outstanding(tx, _sent(line), why=Why.CONTRADICTED, caller=self.owner, reason=words)
            if line.cancel_asked_at is not None and line.settled_as == "said":
                ask_to_end(tx, [call_id], line.cancel_caller, line.cancel_reason)
            tell(tx, line, "contradicted", who, words, call_id)
        tx.execute(text("UPDATE outstanding_calls SET next_look_at = NULL WHERE id = :id"), {"id": line.id})

    def _follow_id(self, tx: Connection, line: Row, remote_id: str) -> None:
        """The key has started something there: that is what may act now, and can be ended."""
        words = f"its key started {remote_id} at {line.asked_at}"
        call_id = open_outstanding(
            tx, _sent(line, remote_id=remote_id), why=Why(line.why), caller=self.owner, reason=words
        )
        tx.execute(
            text(
                # What stood there already may know more: it may have been asked to end, and have moved.
                "UPDATE outstanding_calls n SET cancel_asked_at = coalesce(n.cancel_asked_at, c.cancel_asked_at),"
                " cancel_caller = CASE WHEN n.cancel_asked_at IS NULL THEN c.cancel_caller ELSE n.cancel_caller END,"
                " cancel_reason = CASE WHEN n.cancel_asked_at IS NULL THEN c.cancel_reason ELSE n.cancel_reason END,"
                " next_look_at = tern_clock() FROM outstanding_calls c WHERE c.id = :old AND n.id = :new"
            ),
            {"old": line.id, "new": call_id},
        )
        detail = {"outstanding": call_id, "remote_id": remote_id, "key": line.dispatch_key}
        who = f"engine:{line.deployment}"
        append(tx, Happening(line.apply_id, "remote_id_kept", who, line.operation_id, words, detail=detail))

    def record_outstanding_call(self, call_id: int, words: str) -> None:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            line = tx.execute(_LINE_LOCKED, {"id": call_id}).one()
            if words != line.cancel_words or not line.cancel_calls:
                tell(tx, line, "outstanding_cancel_sent", line.cancel_caller, words or "its engine took it")
            tx.execute(
                text(
                    "UPDATE outstanding_calls SET cancel_calls = cancel_calls + 1, cancel_words = :words WHERE id = :id"
                ),
                {"words": within(words, 500), "id": call_id},
            )


def question(
    tx: Connection, line: Row, deployment: Deployment, remote_id: str | None
) -> OutstandingLook | NotClaimed:
    """What is to be asked about a line at the deployment's address: by that id, or by its key where there is none. The
    caller has raised the fence of what ends.
    """
    name = ScopeName(ApplyId(line.apply_identifier), line.deployment)
    if remote_id is not None:
        fence = line.newest_fence + int(ends(line) and line.is_finished)
        call = RemoteCall(name, RemoteId(remote_id), line.environment, fence)
        return OutstandingLook(
            line.id, deployment, call=call, ends=ends(line), identity=line.remote_identity or ""
        )
    try:
        scope = replace(load_scope(tx, line.operation_id, name), deployment=deployment)
    except ScopeRefused as refused:
        return NotClaimed(str(refused))
    claim = Claim(
        line.operation_id,
        token="",
        fence=line.newest_fence,
        attempt=line.attempt,
        generation=line.generation,
        key=DispatchKey(line.dispatch_key),
    )
    return OutstandingLook(line.id, deployment, scope=scope, claim=claim)


def lock_line(
    tx: Connection, call_id: int, remote_id: str = ""
) -> tuple[Row, Sequence[int], Mapping[int, Row]]:
    """One line under its lock, after those of all applies that its settling concerns and of its operation; and these
    applies, and the operations. remote_id: an id that was found for it, whose holder is locked as well.
    """
    applies = set(concerned_by(tx, [call_id]))
    line = tx.execute(LINE_OF, {"id": call_id}).one()
    holder = holder_of_id(tx, line.engine_number, remote_id) if remote_id else None
    ids = [line.operation_id, *([] if holder is None else [holder])]
    lock_applies(tx, applies | set(tx.execute(_APPLIES_OF, {"ids": ids}).scalars()))
    rows = lock_operations(tx, ids)
    return tx.execute(_LINE_LOCKED, {"id": call_id}).one(), sorted(applies), rows


def _take_over_effects(tx: Connection, line: Row, sample: Sample, judge: Judge) -> None:
    """What an engine says in the end of what was given up is written down (G10), and counts against what a person
    believed meanwhile: whoever carries on what is left would run again what is in.
    """
    assert sample.state is not None  # noqa: S101 - it is over
    before = tx.execute(_EFFECTS, {"id": line.operation_id}).all()
    weighed = tx.execute(_WEIGHED, {"id": line.operation_id, "remote_id": line.remote_id}).one()
    told = judge.told(tx, weighed, sample)
    write_tables(tx, {line.operation_id: told}, {line.operation_id: sample.state})
    if sample.state is State.COMPLETED:
        kept = [
            place for place, table in enumerate(told) if table is not None and table.status in SETTLED_WORDS
        ]
        tx.execute(_ALL_IS_IN, {"id": line.operation_id, "kept": kept})
    after = tx.execute(_EFFECTS, {"id": line.operation_id}).all()
    changed = [
        f"{number} {effect_of(new.state)}"
        + (f", where {old.settled_by} had said otherwise" if old.settled_by else "")
        for number, (old, new) in enumerate(zip(before, after, strict=True), 1)
        if effect_of(old.state) is not effect_of(new.state)
    ]
    if changed:
        words = f"its engine has said since then: {sample.state}; statements {', '.join(changed)}"
        tell(tx, line, "statements_told", f"engine:{line.deployment}", words)
        tx.execute(_SAID_SINCE, {"id": line.operation_id, "words": words})


def _note(tx: Connection, call_id: int, found: Found, *, ends: bool = False) -> None:
    looks = tx.execute(
        text("SELECT looks FROM outstanding_calls WHERE id = :id"), {"id": call_id}
    ).scalar_one()
    tx.execute(
        _LOOKED,
        {
            "is_silent": found.fate is Fate.SILENT,
            "words": found.words,
            "pause_s": look_pause_s(looks + 1, is_asked_to_end=ends),
            "id": call_id,
        },
    )


def _is_followed(line: Row, deployment: Row) -> bool:
    """Its operation got the very id after all, and is looked at where this would be."""
    is_own = line.remote_id is not None and line.own_id == line.remote_id and not line.is_finished
    return bool(is_own and line.is_held and line.asked_at == deployment.address and line.settled_at is None)


def ends(line: Row) -> bool:
    """Somebody wants it ended."""
    return line.cancel_asked_at is not None and line.settled_at is None


def _sent(line: Row, remote_id: str | None = None) -> Sent:
    return Sent(
        apply_pk=line.apply_id,
        operation_id=line.operation_id,
        environment=line.environment,
        database=line.database,
        deployment=line.deployment,
        generation=line.generation,
        fence=line.fence,
        engine_number=line.engine_number,
        address=line.address,
        remote_id=remote_id or line.remote_id,
        # Where its engine was proven to be since is proven of all that was sent to it.
        proven_address=line.proven_address,
    )

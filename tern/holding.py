"""What holds each operation, from what the rows say about an apply: the same answers as admission's. Pure."""

from collections import Counter
from collections.abc import Iterator

from tern.domain.dispatch import TARGET_BUSY
from tern.domain.holds import Hold, OperationFacts, holds, holds_all_behind
from tern.domain.states import State
from tern.domain.tally import UNPASSED, Standing, Tally
from tern.facts import ApplyFacts, OperationRecord


def standing(record: OperationRecord) -> Standing:
    """An operation as policy and projection count it."""
    return Standing(
        position=record.position,
        state=record.state,
        wave=record.wave,
        is_admitted=record.is_admitted,
        is_wished=record.is_driven,
        has_remote_id=record.remote_id is not None,
        was_seen=record.was_seen,
        ended_s_ago=record.ended_s_ago,
    )


def held(facts: ApplyFacts) -> Iterator[tuple[OperationRecord, tuple[Hold, ...]]]:
    """Each operation with its holds, in one pass over all: what stands before it in the order goes before it."""
    tally = Tally.of(map(standing, facts.operations), facts.released)
    ahead: Counter[int] = Counter()
    stuck: dict[int, str] = {}
    before = ""
    before_in: dict[int, str] = {}
    alike: tuple[object, ...] = ()
    found: tuple[Hold, ...] = ()
    for record in facts.operations:
        wave = record.wave
        is_stuck = record.drained or record.stop_in_force is not None or record.blocked_by is not None
        is_stuck = is_stuck or record.held_by is not None
        is_outside = record.state is State.PENDING and not record.is_admitted
        is_odd = is_stuck or record.wishes or record.claimed_for_s or record.pauses_s or record.wait_s > 0
        waits = record.state is State.PENDING and not is_odd
        place = (wave, is_outside, before, before_in.get(wave, ""), stuck.get(wave, "")) if waits else ()
        if not waits or place != alike:
            found = holds(
                facts.policy,
                OperationFacts(
                    state=record.state,
                    tally=tally,
                    position=record.position,
                    wave=wave,
                    is_admitted=record.is_admitted,
                    ahead=ahead[wave],
                    stuck_ahead=stuck.get(wave, "") if is_outside else "",
                    before=before,
                    before_in_wave=before_in.get(wave, ""),
                    stop_in_force=record.stop_in_force,
                    wait_s=record.wait_s,
                    claimed_for_s=record.claimed_for_s,
                    drained=record.drained,
                    drained_by=record.drained_by,
                    deployment=record.deployment,
                    blocked_by=record.blocked_by,
                    outstanding=record.held_by,
                    wished=frozenset(wish.verb.value for wish in record.open_wishes),
                    refusals=record.refusals,
                    silent_looks=record.poll_failures,
                    silent_for_s=record.sampled_age_s,
                    error=record.error_message if record.state is State.UNCERTAIN else record.poll_error,
                    doubt=record.doubt,
                    scope=f"{facts.apply_id}/{record.deployment}",
                    remote_id=record.remote_id or "",
                    unanswered=record.unanswered,
                    pauses_s=record.pauses_s,
                    busy=record.error_message if record.error_reason == TARGET_BUSY else "",
                ),
            )
            alike = place if holds_all_behind(facts.policy, wave, found) else ()
        yield record, found
        if is_outside and is_stuck:
            stuck.setdefault(wave, record.deployment)
        elif is_outside:
            ahead[wave] += 1
        if wave not in before_in and record.state in UNPASSED:
            before_in[wave] = f"{record.deployment} ({record.state.value.replace('_', ' ')})"
            before = before or before_in[wave]

"""Who checks the simulation: guards are taken out of the product, one at a time, and it must go red."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tern.domain import control, opening
from tern.domain.control import Delivery, Step
from tern.domain.dispatch import Approach
from tern.domain.identity import DispatchKey, ScopeName
from tern.domain.states import State
from tern.flows import dispatch as dispatch_flow
from tern.ports import Fenced
from tern.store import answer, chain, delivery, gate, identity, projection, seen, start, uncalled
from tern.store import dispatch as dispatch_steps
from tern.store.sql import text
from tern.store.step import HeldOperation
from tern.store.store import PostgresStore
from tests.simulation import explore
from tests.simulation.backend import Backend
from tests.simulation.scenarios import SCENARIOS

Break = Callable[[pytest.MonkeyPatch], None]


def _write(store: PostgresStore, statement: str, **values: object) -> None:
    with store.engine.begin() as tx:
        tx.execute(text(statement), values)


def _unfenced_writes(patch: pytest.MonkeyPatch) -> None:
    """Whoever once had the claim may write for ever (S7)."""

    def hold_anyway(tx: Any, claim: Any) -> HeldOperation | None:
        row = gate.lock_operation(tx, claim.operation_id)
        if row is None:
            return None
        return HeldOperation(row.id, row.apply_id, State(row.state), row.deployment, row)

    for steps in (dispatch_steps, identity, answer):
        patch.setattr(steps, "hold", hold_anyway)
    for steps, name in ((identity, "_STORE_OWN_ID"), (dispatch_steps, "_FOLLOW")):
        fenced = getattr(steps, name).text
        assert "claim_token = :token" in fenced
        patch.setattr(steps, name, text(fenced.replace("claim_token = :token", "true")))


def _no_last_look(patch: pytest.MonkeyPatch) -> None:
    """The call is made whatever has been asked for since the claim (G9)."""
    patch.setattr(PostgresStore, "may_go_forward", lambda _self, _claim, **_: True)


def _random_key(patch: pytest.MonkeyPatch) -> None:
    """Every claim makes a key of its own (G4)."""
    numbers = itertools.count()
    patch.setattr(dispatch_steps, "dispatch_key", lambda *_: DispatchKey(f"key-{next(numbers)}"))
    real = PostgresStore.claim_dispatch

    def forgetful(self: Any, operation_id: int, name: ScopeName) -> Any:
        forget = "UPDATE apply_operations SET dispatch_key = NULL, dispatch_intent_at = NULL WHERE id = :id"
        _write(self, f"{forget} AND claim_token IS NULL", id=operation_id)
        return real(self, operation_id, name)

    patch.setattr(PostgresStore, "claim_dispatch", forgetful)


def _state_before_id(patch: pytest.MonkeyPatch) -> None:
    """That it is followed, and nothing of it unanswered, is written before the id is there (G3)."""
    real = dispatch_flow._record_id

    def too_early(claimed: Any, remote_id: Any, ports: Any) -> None:
        follow = (
            "UPDATE apply_operations SET next_attempt_at = NULL, unanswered_call = '', unanswered_since = NULL"
            " WHERE id = :id"
        )
        _write(ports.store._inner, follow, id=claimed.claim.operation_id)
        real(claimed, remote_id, ports)

    patch.setattr(dispatch_flow, "_record_id", too_early)


def _unanswered_is_refused(patch: pytest.MonkeyPatch) -> None:
    """No answer counts as no (G10)."""

    def refuse(claimed: Any, _engine: Any, message: str, ports: Any) -> None:
        ports.store.record_refused(claimed.claim, message, "", key_is_dead=False)

    patch.setattr(dispatch_flow, "_unanswered", refuse)


def _sends_again_to_anybody(patch: pytest.MonkeyPatch) -> None:
    """An earlier intent is repeated to an engine that does not deduplicate (D16)."""
    patch.setattr(
        dispatch_steps,
        "approach",
        lambda **facts: Approach.ATTACH if facts["has_remote_id"] else Approach.SEND,
    )
    # Who is there is asked before a key goes out again: that alone would find what the first call has started.
    patch.setattr(dispatch_flow, "_may_repeat", lambda *_: True)


def _stop_without_resolve(patch: pytest.MonkeyPatch) -> None:
    """No id counts as never dispatched (S17)."""
    real = control._next_halting_step

    def careless(verb: Any, facts: Any) -> Step:
        step = real(verb, facts)
        return Step.SETTLE_LOCALLY if step is Step.RESOLVE else step

    patch.setattr(control, "_next_halting_step", careless)


def _stop_is_done_when_sent(patch: pytest.MonkeyPatch) -> None:
    """Taken by the engine counts as stopped (ST9)."""
    real = PostgresStore.record_sent

    def hasty(self: Any, claim: Any, delivery_id: int) -> Fenced:
        done = real(self, claim, delivery_id)
        if done is Fenced.DONE:
            with self.engine.begin() as tx:
                wish = "SELECT verb FROM control_deliveries WHERE id = :id"
                if tx.execute(text(wish), {"id": delivery_id}).scalar_one() != "stop":
                    return done
                projection.close_deliveries(tx, {delivery_id: Delivery.ACKNOWLEDGED}, "")
                quiet = "UPDATE apply_operations SET next_poll_at = NULL WHERE id = :id"
                tx.execute(text(quiet), {"id": claim.operation_id})
        return done

    patch.setattr(PostgresStore, "record_sent", hasty)


def _claims_that_run(patch: pytest.MonkeyPatch) -> None:
    """A claim is taken from whoever has it (S8, G12)."""
    for steps in (dispatch_steps, delivery, gate):
        patch.setattr(steps, "claim_runs_for_s", lambda *_: 0.0)


def _no_order(patch: pytest.MonkeyPatch) -> None:
    """Everybody is let in at once (S18)."""
    patch.setattr(
        projection,
        "opening",
        lambda _policy, tally: opening.Opening(tally.current_wave or 0, None, in_order=False),
    )
    patch.setattr(dispatch_steps, "gather_holds", lambda *_: ())


def _start_has_no_grace(patch: pytest.MonkeyPatch) -> None:
    """A stale `stopped` ends a start (PO6)."""
    patch.setattr(seen, "START_GRACE_S", 0.0)


def _verdicts_twice(patch: pytest.MonkeyPatch) -> None:
    """The effects of a verdict are driven by everybody who comes (K7)."""
    real = PostgresStore.claim_verdict_effects

    def again(self: Any, apply_id: Any) -> Any:
        forget = "UPDATE applies SET verdict_effects_done_at = NULL WHERE apply_identifier = :id"
        _write(self, forget, id=apply_id)
        return real(self, apply_id)

    patch.setattr(PostgresStore, "claim_verdict_effects", again)


def _gives_way_by_failing(patch: pytest.MonkeyPatch) -> None:
    """An intent that may have been sent is withdrawn (S17)."""

    def withdraw(claimed: Any, ports: Any) -> None:
        ports.store.withdraw_intent(claimed.claim)

    patch.setattr(dispatch_flow, "_give_way", withdraw)


def _retries_beside_a_follow_up(patch: pytest.MonkeyPatch) -> None:
    """Neither whoever carries on nor whoever drives a retry looks for the other (G4)."""
    real = chain._link

    def careless(row: Any, statements: Any) -> Any:
        return replace(real(row, statements), revival="")

    patch.setattr(chain, "_link", careless)
    for steps in (start, uncalled):
        patch.setattr(steps, "kept_from_running_again", lambda *_: {})


BROKEN: dict[str, tuple[Break, str]] = {
    "unfenced writes": (_unfenced_writes, "rolling"),
    "no last look": (_no_last_look, "rolling"),
    "a random key": (_random_key, "single"),
    "the state before the id": (_state_before_id, "single"),
    "unanswered counts as refused": (_unanswered_is_refused, "single"),
    "repeated to an engine that does not deduplicate": (_sends_again_to_anybody, "engine-without-dedup"),
    "a stop that takes no id for never dispatched": (_stop_without_resolve, "stop-over-a-lost-answer"),
    "a stop that is done when it is sent": (_stop_is_done_when_sent, "stop-after-dispatch"),
    "claims taken while they run": (_claims_that_run, "single"),
    "no order": (_no_order, "rolling"),
    "a start without grace": (_start_has_no_grace, "start-that-takes-its-time"),
    "a verdict told twice": (_verdicts_twice, "single"),
    "an intent withdrawn that may have been sent": (_gives_way_by_failing, "a-lost-answer"),
    "a retry beside a follow-up": (_retries_beside_a_follow_up, "carry-on-just-after-a-retry"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_without_this_guard_something_breaks(
    name: str, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    take_out, scenario = BROKEN[name]
    take_out(monkeypatch)
    assert any(result.wrong for result in explore.singles(backend, SCENARIOS[scenario])), name

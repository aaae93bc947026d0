"""Every period, lease, deadline and patience of the product: its value, why it has that one, and how they fit together.

A number that is changed here is changed in two places, by somebody who has read the reason. One that is new says its
reason, or the first test names it.
"""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from tasks.beat import SCHEDULE
from tasks.config import celery_config
from tern.domain import timing
from tern.engine import locks, session
from tern.settings import Settings
from tern.store import database, poll, sweep

ROOT = Path(__file__).parents[2]
_IS_ONE = re.compile(r"(_S|_MS|_SECONDS|_AFTER|_PAUSE|_?PATIENCE|_?GRACE|_BATCH|_MAX)$")

# module, name, value, reason
TABLE = """
tern.domain.timing LEASE_S 30.0 two calls and some commits fit in; a dead worker's work is taken over soon
tern.domain.timing RPC_DEADLINE_S 10.0 an engine that takes longer has most likely lost the call
tern.domain.timing START_GRACE_S 30.0 samples from before a Start may come after it
tern.domain.timing RESEND_S 30.0 a control without effect is sent again, not hammered
tern.domain.timing ANSWERED_ATTEMPTS_MAX 10 a person decides about an engine that answers and never takes it
tern.domain.timing FRESHNESS_S 86400.0 an outage of a night is survived; what is older nobody expects any more
tern.domain.timing START_LOOKS_MAX 10 a word that nobody knows, said so often, is no slip
tern.domain.timing HALT_RETRY_MAX_S 3.0 an engine that is back hears of a stop within 5 s
tern.domain.timing UNANSWERED_S 60.0 a proxy or a queue in between may deliver a call long after its deadline
tern.domain.timing UNANSWERED_LOOK_S 1.0 what acts late is found before anybody builds on its absence
tern.domain.timing PROBE_INTERVAL_S 10.0 one Health a deployment, not one an operation
tern.domain.timing SELF_SWEEP_AFTER_S 5.0 broker and beat gone: nothing later than 10 s
tern.domain.timing UNHEARD_AFTER_S 15.0 rung for three times in vain
tern.domain.timing SWEEP_AGAIN_AFTER 0.9 one tick in two comes a little early; the whole period would halve the sweeps
tern.domain.timing BACKOFF_MOST_S 75.0 a minute and its jitter; what is due later was written under another clock
tern.domain.timing LOST_CONTACT_AFTER 10 a restart of an engine is no lost contact
tern.domain.timing FAILED_KEPT_S 60.0 as long as a call without an answer may act; some engines try again by themselves
tern.domain.timing FAILED_LOOK_S 5.0 a dozen looks in that minute, at what is most likely over
tern.domain.timing GONE_AFTER_S 600.0 a machine that is replaced, or a network that is mended, is back by then
tern.domain.timing OUTSTANDING_LOOK_S 2.0 what has just been given up is most likely seen again soon, or never
tern.domain.timing OUTSTANDING_LOOK_MOST_S 60.0 for ever; an engine that comes back frees its target within a minute
tern.domain.timing WATCHED_S 600.0 an engine that tries again by itself does so within minutes
tern.domain.timing WATCHED_MOST_S 86400.0 an engine that is silent for a day is gone, as a person has said
tern.domain.timing WOKEN_S 60.0 no transaction lasts so long, so none that was under way then is missed
tern.domain.timing SAME_TARGET_AGAIN_S 2.0 a cutover that another one of the same target holds up; nobody tells it
tern.domain.timing CUTOVER_REFUSALS_MAX 5 Tern's own cutovers must not starve those behind
tern.store.delivery _TAKEN_BACK_S 5.0 should the start come to nothing, the stop goes on soon
tern.store.sweep SWEEP_LEASE_S 10.0 a sweep takes a second; a dead sweeper holds up nobody for long
tern.store.sweep RING_AGAIN_S 5.0 a lost message is found within it; a shorter one would lengthen a queue by its echo
tern.store.notify NOTIFY_AGAIN_MOST_S 60.0 a queue that is a minute long gets one more message a minute
tern.store.notify _BATCH 200 one sweep's dispatches
tern.domain.crowd AHEAD_S 5.0 broker wiped: nothing later than 10 s, and no queue is lengthened by its echo
tern.domain.silence _ANSWERED_LATE_S 1.0 a port that refuses says so at once; a connection that is swallowed takes two
tern.domain.silence LONGEST_PAUSE_S 30.0 an engine that is back is noticed as soon as one with lost contact
tern.domain.silence SLOW_AFTER 3 one lost packet is no silence
tasks.logs _SAID_AGAIN_AFTER_S 60.0 whoever reads the log sees that it lasts; a line a second would fill a disk
tasks.lanes PATIENCE_S 0.1 engines answer within milliseconds; forty that don't may cost their fortieth part of a second
tasks.lanes _COPY_LASTS_S 1.0 what another worker found out is known here soon, for one small look a second
tasks.halting _A_MOMENT_S 0.1 the pause is the database's, and this process may be a little ahead of it
tern.store.sweep ALONE_AFTER_S 5.0 the bulk way has had its chance by then
tern.store.sweep _BATCH 500 one sweep's messages
tern.store.sweep _DISPATCH_BATCH 200 one sweep's dispatches
tern.store.poll POLL_LEASE_S 15.0 a poll with its deadline, and as much again for what it writes
tern.store.poll FULL_READ_S 30 a cursor that is wrong is wrong for half a minute
tern.store.poll _BATCH 500 what a BatchProgress takes
tern.store.database _PATIENCE_S 10.0 as long as a statement may take
tern.store.database _PREPARED_AFTER 3 what is frequent is planned once a connection
tern.probing LONGEST_LOOK_S 60.0 whoever enqueues waits for it
tern.proving LONGEST_LOOKUP_S 3.0 a name server that is silent costs a warning, and nobody's patience
tern.exporter FRESH_S 2.0 scrapes that come together share a look
tern.domain.whole WINDOW_S 600.0 long enough for a rate of slow operations, short enough to follow a change of pace
tern.cli.telling EVERY_S 60.0 a log that was silent for longer looks broken
tern.view UNTAKEN_AFTER_S 15.0 due for longer: no driver works
tasks.worker _INTERVAL_S 1.0 the self-sweep is five looks late at most by a second
tasks.worker _LAST_TICK_S 40.0 a tick with all its deadlines
tasks.bells _SILENCE_S 2.0 a broker that is away costs a sender two seconds, once
tasks.consumer _SHORT_S 5.0 listening that ends sooner begins anew with a pause
tasks.consumer _FIRST_PAUSE_S 0.1 a hiccup
tasks.consumer _LONGEST_PAUSE_S 5.0 a broker that is back is heard within it
tern.wire.engine_client DEADLINE_S 10.0 the same as timing's
tern.wire.polling CURSORS_MAX 500 what a BatchProgress takes
tern.wire.polling REMEMBERED_S 3600.0 an engine that was updated is asked again whether it offers more
tern.wire.channels MESSAGE_BYTES_MAX 16777216 an engine's answer costs at most that much memory
tern.wire.guard REMOTE_ID_LENGTH_MAX 512 an id is stored, logged and shown
tern.wire.guard _KEY_LENGTH_MAX 512 the same for a key
tern.wire.outcomes _WORDS_MAX 2000 an engine's words are stored and shown
tern.wire.local_engine CALLS_MAX 16 a thread each
tern.wire.control.client DEADLINE_S 15.0 longer than the server's statements may take
tern.wire.control.client ENQUEUE_DEADLINE_S 120.0 engines are asked first: twice LONGEST_LOOK_S
tern.wire.control.paging KEPT_S 30.0 a reader that pages asks again sooner
tern.wire.control.server GRACE_S 5.0 below the seven seconds in which a terminated process is gone
tern.wire.control.server HEALTH_AGE_S 1.0 a load balancer's questions cost one look a second
tern.doors.watching INTERVAL_S 1.0 watchers share one look a second
tern.engine.session CONNECT_SECONDS 5 a server that is alive answers within it
tern.engine.session STATEMENT_MS 10000 the engine's own small statements
tern.engine.session LOCK_MS 3000 below the statement's limit, so that a wait is called a wait
tern.engine.session CLIENT_CHECK_MS 5000 a killed engine's statement gives its locks back
tern.engine.locks FIRST_BUDGET_MS 50 D5: readers queue behind us for no longer
tern.engine.locks LONGEST_BUDGET_MS 250 D5: the longest that anybody notices
tern.engine.locks WEAK_BUDGET_MS 500 writers only, or nobody, wait behind it
tern.engine.locks FIRST_HOLD_MS 500 a change of the catalogue takes milliseconds
tern.engine.locks LONGEST_HOLD_MS 4000 on a server that is too busy
tern.engine.locks OLD_SECONDS 1.0 an older transaction won't end within a budget
tern.engine.locks FIRST_PAUSE 0.5 before the second attempt
tern.engine.locks LONGEST_PAUSE 60.0 patience never ends
tern.engine.oracle LOCK_BUDGET_MS 500 the copies are empty
tern.engine.oracle STATEMENT_BUDGET_MS 5000 a default expression of somebody's may hang
tern.engine.adopt LOOK_SECONDS 1.0 a dead runner is replaced within it
tern.engine.adopt RETRY_SECONDS 2.0 while the database is away
tern.engine.adopt LEAVE_SECONDS 5.0 a runner's last words
tern.engine.adopt REST_SECONDS 2.0 a bug must not become a storm of connections
tern.engine.runner POLL_SECONDS 0.25 a stop is seen within it
tern.engine.server GRACE_SECONDS 2.0 below the seven seconds in which a terminated process is gone
tern.engine.service POOL_SECONDS 5.0 below the caller's deadline
tern.engine.contact ANSWER_SECONDS 2.0 a server that is alive says within it which session one has
tern.engine.tenure GONE_WITHIN_SECONDS 15.0 a vanished owner's session ends by its keepalives
tern.domain.policy LONGEST_BAKE_S 31622400.0 a year
tern.cli.checkup FRESH_SWEEP_S 15.0 several sweeps are missing
tern.cli.brokering LASTING_S 3600.0 a clock that was told longer ago may be mended
tern.cli.brokering WRONG_CLOCK_S 60.0 a certificate of an hour notices it
tern.cli.brokering CANARY_PATIENCE_S 5.0 a queue that is read answers at once
tern.cli.checkup ENGINE_PATIENCE_S 3.0 doctor answers soon, whatever is away
tern.cli.checkup OVERDUE_S 30.0 six times what a lost message costs
tern.cli.checkup OLD_HALT_S 60.0 a stop that nobody has carried out for a minute
tern.cli.checkup CLOCK_SKEW_S 5.0 log lines of two machines can't be compared any more
tern.cli.resolve ASK_AGAIN_S 0.2 a stop is tried again three seconds after its call: that moment must be found
tern.cli.control LOOK_EVERY_S 0.5 somebody waits in front of it
tern.cli.logs LOOK_EVERY_S 1.0 somebody reads along
tern.cli.logs LONGEST_TRANSACTION_S 60.0 events of a transaction that is open may be committed behind later ones
tern.cli.watch INTERVAL_S 1.0 somebody looks at it
tern.cli.reach BROKER_PATIENCE_S 1.0 a command does not wait for a doorbell
"""
ROWS = [line.split(" ", 3) for line in TABLE.strip().splitlines()]
LOCAL = ("tern/local",)
"""The embedded servers and the demo of one machine: nobody's promise."""


def found() -> dict[tuple[str, str], object]:
    """Every number of the product whose name says that it is one of these."""
    numbers: dict[tuple[str, str], object] = {}
    for path in sorted([*(ROOT / "tern").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]):
        name = path.relative_to(ROOT)
        if "generated" in name.parts or str(name).startswith(LOCAL):
            continue
        module = ".".join(name.with_suffix("").parts)
        for line in ast.parse(path.read_text()).body:
            if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                continue
            word = line.targets[0].id
            if _IS_ONE.search(word) and not word.startswith(
                ("MOST_", "_PERCENT", "_PORT", "_REVISION", "_DAY")
            ):
                value = getattr(import_module(module), word)
                if isinstance(value, int | float):
                    numbers[module, word] = value
    return numbers


def test_every_period_stands_here_with_its_reason() -> None:
    numbers, told = found(), {(module, name) for module, name, *_ in ROWS}
    assert sorted(set(numbers) - told) == [], "say in the table above why they are what they are"
    assert sorted(told - set(numbers)) == [], "gone, or renamed: take them out of the table"
    assert all(len(row) == 4 and row[3] for row in ROWS)


def test_a_period_is_what_it_was_chosen_to_be() -> None:
    numbers = found()
    changed = [
        f"{module}.{name} is {numbers[module, name]}, not {value}: {reason}"
        for module, name, value, reason in ROWS
        if numbers.get((module, name)) not in {None, float(value)}
    ]
    assert changed == [], "\n".join(changed)


def test_beat_s_periods_are_those_of_the_promises() -> None:
    """§8: polls are due every second, everything else every two; a lost message costs no more than a sweep."""
    assert {name: entry["schedule"] for name, entry in SCHEDULE.items()} == {
        "poll-progress": 1.0,
        "reconcile": 2.0,
    }
    slowest = max(entry["schedule"] for entry in SCHEDULE.values())
    assert 2 * slowest < timing.SELF_SWEEP_AFTER_S, "a worker sweeps for itself only if beat is gone"
    assert slowest + sweep.RING_AGAIN_S < 10, "G11: broker wiped, nothing later than 10 s"
    assert celery_config(Settings())["beat_max_loop_interval"] <= min(
        entry["schedule"] for entry in SCHEDULE.values()
    ), "beat must not sleep over a tick"


def test_leases_outlive_what_is_done_under_them() -> None:
    """G12: who loses a claim in the middle of an honest tick would leave work to be done twice."""
    assert 2 * timing.RPC_DEADLINE_S + _ms(database.SERVER_SETTINGS["lock_timeout"]) / 1000 <= timing.LEASE_S
    assert poll.POLL_LEASE_S > timing.RPC_DEADLINE_S
    assert _ms(database.SERVER_SETTINGS["statement_timeout"]) / 1000 <= sweep.SWEEP_LEASE_S
    assert timing.LEASE_S + timing.SELF_SWEEP_AFTER_S + 2 <= 40, "killed driver: re-driven within 40 s"


def test_who_rings_again_does_so_before_somebody_is_alarmed() -> None:
    assert sweep.RING_AGAIN_S < timing.UNHEARD_AFTER_S
    assert sweep.ALONE_AFTER_S < timing.UNHEARD_AFTER_S
    assert timing.HALT_RETRY_MAX_S < 5, "an accepted stop is sent within 5 s of the engine's return"
    assert 2 * timing.RPC_DEADLINE_S <= timing.RESEND_S


def test_the_settings_defaults_are_the_same_numbers() -> None:
    given = Settings()
    assert (given.lease_seconds, given.rpc_deadline_seconds) == (timing.LEASE_S, timing.RPC_DEADLINE_S)
    pace = timing.PollPace()
    assert given.pace == pace
    assert (pace.eager_s, pace.steady_s, pace.slow_s) == (0.5, 5.0, 30.0)
    assert (given.pool_size, given.worker_concurrency) == (8, 8)


def test_no_session_of_ours_waits_without_a_limit() -> None:
    """§9: a frozen claimer holds its apply's lock; nobody may wait for it longer than five seconds."""
    limits = database.SERVER_SETTINGS
    assert {name: limits[name] for name in limits if name.endswith(("timeout", "interval"))} == {
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "5s",
        "client_connection_check_interval": "5s",
    }
    assert _ms(limits["lock_timeout"]) < _ms(limits["statement_timeout"])
    assert session.LOCK_MS < session.STATEMENT_MS
    assert locks.LONGEST_BUDGET_MS < session.LOCK_MS


def test_celery_s_waits_are_these() -> None:
    """docs: a publisher waits for no broker, redelivery is no recovery, a stop is warm."""
    config = celery_config(Settings())
    transport: dict[str, Any] = config["broker_transport_options"]
    assert config["task_publish_retry_policy"]["max_retries"] == 1
    assert config["broker_pool_acquire_timeout"] == 5
    assert config["broker_connection_max_retries"] is None, "a worker never gives its broker up"
    assert (transport["socket_timeout"], transport["socket_connect_timeout"]) == (5, 3)
    assert transport["health_check_interval"] == 10
    assert transport["visibility_timeout"] > 2 * timing.LEASE_S, "no second delivery of what still runs"
    assert config["worker_soft_shutdown_timeout"] > timing.RPC_DEADLINE_S, "a tick ends with its call"
    assert config["worker_prefetch_multiplier"] == 1


def _ms(said: str) -> float:
    return float(said.removesuffix("s")) * 1000

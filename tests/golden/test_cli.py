"""Every document that a command writes with `--json` or `--jsonl`, from one day on three deployments."""

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest

from tern.cli import main, watch
from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.flows.accept import enqueue_message
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.flows.gone import comes_back, goes, look_again, pass_long
from tests.flows.steps import engine_says, settle
from tests.golden.golden import hold
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text"
DROP = "ALTER TABLE orders DROP COLUMN note"
PLACE = ("-e", "test", "-d", "shop")
WHY = ("--reason", "the night is long")
FREE = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)
MANUAL = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL, enable_revert=True)


_OF_PLANS = (("show",), ("ls",))


class Day:
    """Runs commands and keeps what each wrote."""

    def __init__(self, tern: Tern) -> None:
        self._tern = tern
        self.documents: dict[str, Any] = {}
        self.commands: set[str] = set()

    def __call__(self, name: str, *words: str, stdin: str = "", flag: str = "--json") -> Any:
        self.commands.add(
            " ".join(words[: 2 if words[0] in {"deployments", "db"} or words[1:2] in _OF_PLANS else 1])
        )
        done = self._tern(*words, flag, stdin=stdin)
        if flag == "--json":
            self.documents[name] = done.document
            refused = name.startswith("refused")
            assert (done.document["kind"] == "error") is refused, done.document
        else:
            self.documents[name] = [json.loads(line) for line in done.out.splitlines()]
        assert self.documents[name], name
        return self.documents[name]


def with_json(command: click.Command, name: str, parent: click.Context) -> set[str]:
    """Every command below this one that writes documents."""
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=name)
        itself = {name} if "as_json" in {each.name for each in command.params} else set()
        return itself | {
            found
            for each in command.list_commands(context)
            if (inner := command.get_command(context, each)) is not None
            for found in with_json(inner, f"{name} {each}".strip(), context)
        }
    flags = {option for parameter in command.params for option in parameter.opts}
    return {name} if flags & {"--json", "--jsonl"} else set()


@pytest.fixture
def day(tern: Tern, world: World, monkeypatch: pytest.MonkeyPatch) -> Day:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.05)
    one = Day(tern)
    the_register(one, world)
    a_rollout(one, world)
    controls(one, world)
    trouble(one, world)
    looking_back(one)
    return one


def the_register(day: Day, world: World) -> None:
    address = world.engines["A"].address
    new = ("--target", "z", "--address", address, "--no-probe", "--deduplicates", "yes", "-l", "region=eu")
    day("deployment-added", "deployments", "add", "Z", *PLACE, *new)
    entry = {"environment": "test", "database": "shop", "address": "grpc://h:1", "deduplicates": True}
    entry["credentials"] = {"insecure_plaintext": True}
    content = json.dumps([{**entry, "name": name, "target": name} for name in ("Y", "X")])
    day("deployments-imported", "deployments", "import", "-", "--no-probe", stdin=content)
    day("deployments-set", "deployments", "set", "Z", "--label", "region=eu", *WHY)
    day("deployments-checked", "deployments", "check", "A")
    day("deployments-drained", "deployments", "drain", "Z", "Y")
    day("deployments-open", "deployments", "undrain", "Y")
    day("deployments-removed", "deployments", "rm", "X", "Y", "Z")
    day("deployments-listed", "deployments", "ls")
    day("deployment-known", "deployments", "show", "A")


def a_rollout(day: Day, world: World) -> None:
    plan = day("plan", "plan", "--ddl", "-", *PLACE, "--deployments", "A,B", stdin=DDL)["data"]
    day("plan-unsafe", "plan", "--ddl", "-", *PLACE, "--deployments", "C", stdin=DROP)
    waves = ("--wave", "A;max_failures=0;bake=10m", "--wave", "*")
    words = ("apply", "--plan", plan["plan_id"], "--deployments", "A,B", *WHY, "--key", "mine")
    accepted = day("apply-accepted", *words, *waves)["data"]
    day("apply-again", *words, *waves)
    world.last = accepted["apply_id"]
    day("get-pending", "get", world.last)
    day("explain-pending", "explain", world.last)
    world.pass_time(6)
    world.sweep()
    engine_says(world, "A", "completed")
    day("get-under-way", "get", world.last)
    day("get-operation", "get", f"{world.last}/A")
    day("explain-baking", "explain", world.last)
    day("listed", "ls")
    day("plan-shown", "plan", "show", plan["plan_id"])
    day("plans-listed", "plan", "ls")
    enqueue_message({"ddl": DDL, **SENT, "key": "sent", "deployments": ["C"]}, world.ports)
    with pytest.raises(TernError):
        enqueue_message({"ddl": DDL, **SENT, "key": "refused", "deployments": ["nowhere"]}, world.ports)
    day("enqueued", "enqueued", "sent")
    day("enqueued-refused", "enqueued", "refused")
    world.last = day.documents["enqueued"]["data"]["apply_id"]
    world.ask(Verb.CANCEL)
    settle(world)
    world.last = accepted["apply_id"]
    day("stop-dry-run", "stop", world.last, *WHY, "--dry-run")
    day("stop", "stop", world.last, *WHY)
    settle(world)
    day("get-stopped", "get", world.last)
    day("cancel", "cancel", world.last, *WHY)
    settle(world)


SENT = {"environment": "test", "database": "shop", "caller": "billing", "reason": "because"}


def controls(day: Day, world: World) -> None:
    """Each verb's receipt, taken and refused; and with the end that it waited for."""
    apply_id = world.apply(policy=MANUAL)
    world.answer_bells()
    day("volume", "volume", apply_id, "3", "--all", *WHY)
    for name in "ABC":
        engine_says(world, name, "waiting_for_cutover")
    day("get-waiting", "get", apply_id)
    day("explain-waiting", "explain", apply_id)
    day("cutover", "cutover", f"{apply_id}/A", *WHY)
    world.answer_bells()
    engine_says(world, "A", "revert_window")
    day("revert", "revert", f"{apply_id}/A", *WHY)
    day("skip-revert-refused", "skip-revert", f"{apply_id}/B", *WHY)
    world.answer_bells()
    day("stop-waited-for", "stop", f"{apply_id}/B", *WHY, "--wait", "--timeout", "0.2")
    settle(world)
    day("start", "start", apply_id, "--all", *WHY)
    settle(world)
    day("refused-selection", "start", apply_id, *WHY)
    day("get-in-the-middle", "get", apply_id)
    day("verbs-without-effect", "retry", apply_id, "--all", *WHY)
    world.ask(Verb.CANCEL)
    settle(world)


def trouble(day: Day, world: World) -> None:
    """Failures, an engine that nobody understands, a pause; and what each command says of it."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION", "the column is there"))
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.PAUSE, max_parallel=1))
    world.answer_bells()
    day("get-paused", "get", apply_id)
    day("explain-paused", "explain", apply_id)
    day("skip", "skip", f"{apply_id}/C", *WHY)
    day("retry", "retry", f"{apply_id}/A", *WHY)
    day("release", "release", apply_id, *WHY)
    settle(world)
    world.ask(Verb.CANCEL)
    settle(world)
    apply_id = world.apply("A", policy=FREE)
    world.forget_bells()
    claimed = world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.store.record_uncertain(claimed.claim, "who knows")  # type: ignore[union-attr]
    # For so long a call may still be answered, and nobody's word is taken.
    world.pass_time(11)
    day("get-uncertain", "get", apply_id)
    day("explain-uncertain", "explain", apply_id)
    # Its deadline is over: nothing of the call can arrive any more.
    world.write("UPDATE apply_operations SET unanswered_since = unanswered_since - interval '1 minute'")
    day("resolve", "resolve", f"{apply_id}/A", "--as", "ended", *WHY)
    day("rest-left-out", "apply", "--rest-of", apply_id)
    day("statement-settled", "resolve", f"{apply_id}/A", "--statement", "1=not-done", *WHY)
    (group,) = day("rest", "apply", "--rest-of", apply_id)["data"]["groups"]
    sent = day("rest-sent", "apply", "--rest-of", apply_id, "--digest", group["digest"], *WHY)
    day("get-carried-on", "get", f"{apply_id}/A")
    world.ask(Verb.CANCEL, apply_id=sent["data"]["apply_id"])
    settle(world)
    given_up_and_found_again(day, world)
    world.apply("B", policy=Policy(waves=(Wave(deployments=("B",)),)))
    day("refused-target-held", "apply", "--ddl", "-", *PLACE, "--deployments", "B", *WHY, stdin=DDL)
    day("refused-unsafe", "apply", "--ddl", "-", *PLACE, "--deployments", "C", *WHY, stdin=DROP)
    day("refused-not-there", "get", "apl-0")
    day("refused-usage", "apply", "--ddl", "-", *PLACE, *WHY, stdin=DDL)
    day("doctor", "doctor")
    day("database-current", "db", "current")
    day("database-checked", "db", "check")


def given_up_and_found_again(day: Day, world: World) -> None:
    """An engine that is gone for long, what is outstanding there then, and how it ends."""
    first = world.apply("A", policy=FREE, accept_drift=True)
    world.run(until=lambda: world.state("A") == "running")
    goes(world, "A")
    pass_long(world)
    day("get-gone", "get", first)
    day("resolve-gone", "resolve", f"{first}/A", "--as", "ended", "--engine-is-gone", *WHY)
    second = world.apply("A", policy=FREE, accept_drift=True)
    comes_back(world, "A")
    look_again(world)
    day("get-outstanding", "get", first)
    day("get-behind-outstanding", "get", second)
    day("explain-behind-outstanding", "explain", second)
    day("doctor-outstanding", "doctor")
    day("deployments-outstanding", "deployments", "ls")
    day("deployments-settled", "deployments", "settle", "A", *WHY)
    day("cancel-outstanding", "cancel", f"{first}/A", "--outstanding", *WHY)
    look_again(world)
    world.ask(Verb.CANCEL)
    settle(world)


def looking_back(day: Day) -> None:
    subject = day.documents["apply-accepted"]["data"]["apply_id"]
    day("logs", "logs", subject)
    day("logs-lines", "logs", subject, flag="--jsonl")
    day("logs-of-the-engine", "logs", f"{subject}/A", "--engine")
    day("waited-for", "wait", subject)
    day("watched", "watch", subject, flag="--jsonl")
    day("audit", "audit", subject)
    day("audit-lines", "audit", subject, flag="--jsonl")
    day("audit-verified", "audit", subject, "--verify")
    day("audit-all-verified", "audit", "--verify")
    day("get-as-it-was", "get", subject, "--at", "1s ago")


def test_every_document_says_what_was_promised(day: Day) -> None:
    """Fields only come: a script that reads one must find it for ever."""
    hold("cli", day.documents)


def test_every_command_that_writes_a_document_is_here(day: Day) -> None:
    root = main.tern
    assert with_json(root, "", click.Context(root)) == day.commands


def test_every_command_that_is_printed_can_be_copied(day: Day) -> None:
    """A shell would take what stands behind a bar for another program."""
    told = [command for document in day.documents.values() for command in commands(document)]
    assert len(told) > 10
    assert [command for command in told if "|" in command] == []


def commands(value: Any) -> Iterator[str]:
    """What is to be typed, wherever a document says it."""
    match value:
        case dict():
            for name, each in value.items():
                if name in {"command", "next"} and isinstance(each, str):
                    yield each
                else:
                    yield from commands(each)
        case list():
            for each in value:
                yield from commands(each)
        case _:
            pass

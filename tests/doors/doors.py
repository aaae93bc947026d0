"""The doors, each asked in its own way and each answering in the same shape.

A request is spelled as a message (tern/doors/request.py); every door writes it down as its own callers would.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc

from tern.client import Client
from tern.domain.errors import TernError
from tern.domain.policy import Policy
from tern.doors.record import Verified
from tern.flows import accept
from tern.store.paging import Paging
from tern.wire.control import reading
from tern.wire.control.words import ACTIONS, COPIES, CUTOVERS, ON_FAILURE, OPERATION_STATES, OUTCOMES, VERBS
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tern.wire.generated.tern.control.v1 import policy_pb2
from tests.cli.conftest import Tern
from tests.doors.calling import Stubs, call, ended
from tests.world import World

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What a door made of a request: an apply, outcomes, or a reason. why: all causes, where it was refused.

    verified: what a verification counted and found, as the command line says it of several records.
    """

    reason: str = ""
    why: tuple[str, ...] = ()
    apply_id: str = ""
    is_new: bool = False
    outcomes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    verified: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_taken(self) -> bool:
        """It was not refused as a whole."""
        return not self.reason


class CommandLine:
    """`tern … --json`."""

    def __init__(self, tern: Tern) -> None:
        self._tern = tern

    def enqueue(self, message: Message) -> Verdict:
        policy = message.get("policy", {})
        texts = {
            "--plan": message.get("plan"),
            "--digest": message.get("digest"),
            "-e": message.get("environment"),
            "-d": message.get("database"),
            "--deployments": ",".join(message.get("deployments", ())) or None,
            "--reason": message.get("reason"),
            "--key": message.get("key"),
            "--copy": policy.get("copy"),
            "--cutover": policy.get("cutover"),
            "--on-failure": policy.get("on_failure"),
            "--max-parallel": policy.get("max_parallel"),
            "--max-failures": policy.get("max_failures"),
        }
        words = [word for name, value in texts.items() if value is not None for word in (name, str(value))]
        words += [word for pair in message.get("labels", {}).items() for word in ("-l", "=".join(pair))]
        words += [word for name in message.get("excepted", ()) for word in ("--except", name)]
        words += ["--first", ",".join(message["first"])] if "first" in message else []
        words += ["--all"] * bool(message.get("everywhere"))
        words += ["--allow-unsafe"] * bool(message.get("allow_unsafe"))
        words += ["--no-preview"] * (not message.get("previews", True))
        words += ["--accept-drift"] * bool(message.get("accept_drift"))
        stdin = ""
        if "ddl" in message:
            words, stdin = [*words, "--ddl", "-"], message["ddl"]
        if "changes" in message:
            given = {"database_type": message.get("database_type"), "changes": message["changes"]}
            words, stdin = [*words, "--changes", "-"], json.dumps(given)
        data = self._run("apply", *words, stdin=stdin)
        return (
            data if isinstance(data, Verdict) else Verdict(apply_id=data["apply_id"], is_new=data["is_new"])
        )

    def ask(self, verb: str, message: Message) -> Verdict:
        level = [str(message["volume"])] if "volume" in message else []
        words = [message["subject"], *level, "--reason", message["reason"]]
        words += [word for name in message.get("deployments", ()) for word in ("--deployment", name)]
        words += [word for state in message.get("states", ()) for word in ("--state", state)]
        words += [word for name in message.get("excepted", ()) for word in ("--except", name)]
        words += [word for pair in message.get("labels", {}).items() for word in ("-l", "=".join(pair))]
        words += ["--all"] * bool(message.get("everywhere"))
        words += ["--dry-run"] * bool(message.get("dry_run"))
        words += ["--expect", str(message["expected"])] if "expected" in message else []
        words += ["--wave", str(message["wave"])] if "wave" in message else []
        named = message.get("although_foreign")
        words += [] if named is None else [f"--although-foreign={named}"]
        words += ["--outstanding"] * bool(message.get("outstanding"))
        data = self._run(verb, *words)
        if isinstance(data, Verdict):
            return data
        return Verdict(
            outcomes={
                each["deployment"] or "": (each["outcome"], each["reason"] or "") for each in data["targets"]
            }
        )

    def verify(self, message: Message) -> Verdict:
        words = [message["subject"]] * bool(message["subject"])
        words += ["--since", message["since"]] if "since" in message else []
        data = self._run("audit", *words, "--verify")
        if isinstance(data, Verdict):
            return data
        if not message["subject"]:
            return Verdict(verified={name: data[name] for name in data if name != "ok"})
        counts = {name: data[name] for name in ("chains", "events", "requests", "seal")}
        return Verdict(verified={"applies": 1, **counts, "broken": [] if data["ok"] else [data]})

    def _run(self, *words: str, stdin: str = "") -> Any:
        done = self._tern(*words, "--json", stdin=stdin)
        if done.document["kind"] == "error":
            assert "Traceback" not in done.err
            return Verdict(reason=done.data["reason"], why=tuple(done.data["why"]))
        return done.data


class PythonClient:
    """`tern.Client`, wherever it asks."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def enqueue(self, message: Message) -> Verdict:
        try:
            given = dict(message)
            if "policy" in given:
                given["policy"] = Policy.from_json({**Policy().as_json(), **given["policy"]})
            made = self._client.enqueue(**given)
        except TernError as error:
            return Verdict(reason=error.reason, why=error.why)
        except ValueError as error:
            # A policy that can't be is none in Python either: it is refused where it is made.
            return Verdict(reason="USAGE", why=(str(error),))
        return Verdict(apply_id=made.apply_id, is_new=made.is_new)

    def ask(self, verb: str, message: Message) -> Verdict:
        try:
            receipt = getattr(self._client, verb.replace("-", "_"))(**message)
        except TernError as error:
            return Verdict(reason=error.reason, why=error.why)
        return Verdict(
            outcomes={each.deployment: (each.outcome.value, each.reason) for each in receipt.lines}
        )

    def verify(self, message: Message) -> Verdict:
        since = datetime.fromisoformat(message["since"]) if "since" in message else None
        try:
            found = self._client.verify(message["subject"], since=since)
        except TernError as error:
            return Verdict(reason=error.reason, why=error.why)
        return _verified(found.records, found.records[0].seal if message["subject"] else found.seal)


class Stub:
    """ControlService, through a generated stub."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    def enqueue(self, message: Message) -> Verdict:
        request = control_v1.EnqueueRequest(
            idempotency_key=message.get("key", ""),
            reason=message.get("reason", ""),
            plan_id=message.get("plan"),
            environment=message.get("environment", ""),
            database=message.get("database", ""),
            targets=control_v1.Targets(
                deployments=message.get("deployments", ()),
                labels=message.get("labels", {}),
                all=message.get("everywhere", False),
                excepted=message.get("excepted", ()),
                first=message.get("first", ()),
            ),
            policy=_policy(message["policy"]) if "policy" in message else None,
            allow_unsafe=message.get("allow_unsafe", False),
            skip_preview=not message.get("previews", True),
            accept_drift=message.get("accept_drift", False),
            digest=message.get("digest", ""),
        )
        if "ddl" in message:
            request.ddl = message["ddl"]
        if "changes" in message:
            request.changes.database_type = message.get("database_type", "")
            for each in message["changes"]:
                action = ACTIONS.wrapper.Value(f"ACTION_{each.get('action', 'other').upper()}")
                request.changes.entries.add(**{**each, "action": action})
        answer = self._call(self._stubs.control.Enqueue, request)
        if isinstance(answer, Verdict):
            return answer
        return Verdict(apply_id=answer.apply_id, is_new=answer.is_new)

    def ask(self, verb: str, message: Message) -> Verdict:
        request = control_v1.ControlRequest(
            verb=VERBS.wrapper.Value(f"VERB_{verb.upper().replace('-', '_')}"),
            subject=message["subject"],
            selection=control_v1.Selection(
                deployments=message.get("deployments", ()),
                labels=message.get("labels", {}),
                states=[
                    OPERATION_STATES.wrapper.Value(f"OPERATION_STATE_{state.upper()}")
                    for state in message.get("states", ())
                ],
                wave=message.get("wave"),
                all=message.get("everywhere", False),
                excepted=message.get("excepted", ()),
            ),
            reason=message["reason"],
            dry_run=message.get("dry_run", False),
            expect=message.get("expected"),
            volume=message.get("volume"),
            although_foreign=message.get("although_foreign", ""),
            outstanding=message.get("outstanding", False),
        )
        answer = self._call(self._stubs.control.Control, request)
        if isinstance(answer, Verdict):
            return answer
        return Verdict(
            outcomes={
                each.deployment: (OUTCOMES.word(each.outcome).value, each.reason) for each in answer.outcomes
            }
        )

    def verify(self, message: Message) -> Verdict:
        request = control_v1.VerifyRecordsRequest(apply_id=message["subject"])
        if "since" in message:
            request.since.FromJsonString(message["since"])
        answer = self._call(self._stubs.control.VerifyRecords, request)
        if isinstance(answer, Verdict):
            return answer
        records = [reading.verified(each.record) for each in answer]
        seals = "".join(f"{each.apply_id}:{each.seal}\n" for each in records).encode()
        return _verified(
            records, records[0].seal if message["subject"] else hashlib.sha256(seals).hexdigest()
        )

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            answer = call(method, request)
            return list(answer) if hasattr(answer, "__next__") else answer
        except grpc.RpcError as error:
            answer = ended(error)
            assert answer.code not in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
            return Verdict(reason=answer.reason, why=answer.why)


class Broker:
    """`tern.apply.enqueue`: what the task's one statement does with a message, and where its sender looks."""

    def __init__(self, world: World, reading: Paging) -> None:
        self._world = world
        self._reading = reading

    def enqueue(self, message: Message) -> Verdict:
        known = self._reading.fate_of_key(message.get("key") or "?")
        try:
            accept.enqueue_message(json.loads(json.dumps({"caller": "shop", **message})), self._world.ports)
        except TernError as error:
            fate = self._reading.fate_of_key(message.get("key") or "?")
            if len(fate.refusals) == len(known.refusals):
                return Verdict(reason=error.reason, why=("nothing was left where the sender looks",))
            return Verdict(reason=fate.refusals[0].reason, why=fate.refusals[0].why)
        fate = self._reading.fate_of_key(message["key"])
        return Verdict(apply_id=fate.apply_id or "", is_new=known.apply_id is None)


def _verified(records: Sequence[Verified], seal: str) -> Verdict:
    """As the command line says it."""
    return Verdict(
        verified={
            "applies": len(records),
            "chains": sum(each.chains for each in records),
            "events": sum(each.events for each in records),
            "requests": sum(each.requests for each in records),
            "seal": seal,
            "broken": [
                {
                    "apply_id": each.apply_id,
                    "ok": False,
                    "chains": each.chains,
                    "events": each.events,
                    "requests": each.requests,
                    "seal": each.seal,
                    "findings": [
                        {
                            "chain": chain or None,
                            "fault": finding.fault.value,
                            "event_id": finding.event_id,
                            "number": finding.number,
                            "detail": finding.detail,
                        }
                        for chain, finding in each.findings
                    ],
                }
                for each in records
                if each.findings
            ],
        }
    )


def _policy(given: Mapping[str, Any]) -> policy_pb2.Policy:
    words = {"copy": COPIES, "on_failure": ON_FAILURE, "cutover": CUTOVERS}
    return policy_pb2.Policy(
        **{
            name: words[name].wrapper.Value(words[name].prefix + str(value).upper())
            if name in words
            else value
            for name, value in given.items()
        }
    )

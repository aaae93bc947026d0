"""What is left of an apply, over the whole chain of its follow-ups, and which parts of it can be carried on. Pure.

An apply has one plan, so deployments at which different statements are left go in different follow-ups. Only what is
known takes part: a statement of unknown effect is in no plan, and what may still act is left alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from tern.domain.counting import named, verb
from tern.domain.effect import Effect, effect_of
from tern.domain.errors import Refused
from tern.domain.identity import ApplyId, PlanId, ScopeName
from tern.domain.model import PlannedChange, ReviewedTarget
from tern.domain.policy import Policy, for_fewer
from tern.domain.statement import TO_SAY, printed_statements
from tern.domain.states import State

PARTS: Final = ("source", "operations", "statements", "targets", "plan", "policy", "consent")
"""What a group's digest is made of, in order, eight characters each: so a difference has a name."""


@dataclass(frozen=True, slots=True)
class Link:
    """One operation of a chain: the first, or one that carries on what was left before it.

    was_sent: it has an id, or a key that is not dead, or a driver has it just now. revival: a retry or start of it that
    is open. by_person: a person's skip left it behind. changed: it has left something at its target, or may have.
    """

    operation_id: int
    name: ScopeName
    state: State
    was_sent: bool = False
    is_driven: bool = False
    revival: str = ""
    by_person: bool = False
    changed: bool = False

    @property
    def may_act(self) -> bool:
        """It is not over."""
        return not self.state.is_finished

    @property
    def counts(self) -> bool:
        """What follows begins after this one: it may act, has done its part, or left something behind."""
        return self.may_act or self.state is State.COMPLETED or self.changed


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the first apply, and what it reads at each operation of the chain that had it.

    at: for each of the words the operation, and the statement's number there: a follow-up counts its own from 1.
    """

    statement_id: int
    number: int
    change: PlannedChange
    words: tuple[str, ...]
    at: tuple[tuple[int, int], ...]

    @property
    def effect(self) -> Effect:
        """Of all of them together: what is done once is done, and what nobody knows of one nobody knows at all."""
        effects = {effect_of(word) for word in self.words}
        for found in (Effect.UNKNOWN, Effect.UNDER_WAY, Effect.DONE):
            if found in effects:
                return found
        return Effect.NOT_DONE


@dataclass(frozen=True, slots=True)
class Chain:
    """What was to be done at one deployment, by whom, and how far it is. target: where it is now, None where the
    deployment is gone; against: why it can't go there. moved_from: where its engine was when the plan was reviewed;
    empty where it still is.
    """

    deployment: str
    links: tuple[Link, ...]
    statements: tuple[Statement, ...]
    target: ReviewedTarget | None
    labels: Mapping[str, str]
    against: tuple[str, ...] = ()
    moved_from: str = ""

    @property
    def tip(self) -> Link:
        """Where whoever carries on begins: the newest that counts, else the first of all."""
        return next((link for link in reversed(self.links[1:]) if link.counts), self.links[0])


@dataclass(frozen=True, slots=True)
class Source:
    """An apply of which something may be left: all that is bound by a digest, in one look.

    revisions: of every apply in the chains, by its id. policy: what the first was rolled out with; is_reviewed: that a
    reviewer said so.
    """

    apply_id: ApplyId
    plan_id: PlanId
    environment: str
    database: str
    database_type: str
    policy: Policy
    is_reviewed: bool
    revisions: Mapping[str, int]
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A deployment that goes in no group, why, and the command that leads on; empty where none does."""

    deployment: str
    why: str
    command: str = ""
    is_done: bool = False
    """Nothing is left there, so nothing is missing either."""

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "deployment": self.deployment,
            "why": self.why,
            "command": self.command or None,
            "is_done": self.is_done,
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Deployments at which the same statements are left: one follow-up, with one plan.

    allow_unsafe: whether the follow-up is begun with consent to what its statements lose.
    """

    source: Source
    numbers: tuple[int, ...]
    chains: tuple[Chain, ...]
    policy: Policy
    allow_unsafe: bool

    @property
    def changes(self) -> tuple[PlannedChange, ...]:
        """What is left, in order: byte for byte what the first apply's plan says."""
        return tuple(each.change for each in self._left(self.chains[0]))

    @property
    def consent(self) -> tuple[str, ...]:
        """What the statements lose, which is agreed to again."""
        return tuple(
            f"statement {each.number}, {each.change.namespace}.{each.change.table_name}: {each.change.unsafe_reason}"
            for each in self._left(self.chains[0])
            if each.change.is_unsafe
        )

    @property
    def deployments(self) -> tuple[str, ...]:
        """In the first apply's order."""
        return tuple(chain.deployment for chain in self.chains)

    @property
    def targets(self) -> tuple[ReviewedTarget, ...]:
        """Where it goes, as it is registered now."""
        return tuple(chain.target for chain in self.chains if chain.target is not None)

    @property
    def withdrawn(self) -> tuple[Link, ...]:
        """What was never sent, and becomes cancelled in the transaction that accepts the follow-up."""
        return tuple(chain.tip for chain in self.chains if chain.tip.may_act)

    def origins(self, chain: Chain) -> tuple[int, ...]:
        """Of which statements of the first apply the follow-up's are, in order."""
        return tuple(each.statement_id for each in self._left(chain))

    @property
    def digest(self) -> str:
        """Everything that a person was shown, in parts."""
        parts: Mapping[str, object] = {
            "source": [self.source.apply_id, sorted(self._revisions().items())],
            "operations": [
                [c.deployment, [[k.operation_id, k.state.value, k.was_sent] for k in c.links]]
                for c in self.chains
            ],
            "statements": [[c.deployment, [list(s.words) for s in c.statements]] for c in self.chains],
            "targets": [[t.deployment, t.address, t.target] for t in self.targets],
            "plan": [
                self.source.plan_id,
                [[c.namespace, c.table_name, c.ddl, c.action.value] for c in self.changes],
            ],
            "policy": self.policy.as_json(),
            "consent": [self.allow_unsafe, list(self.consent)],
        }
        return "-".join(_hash(parts[name]) for name in PARTS)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "digest": self.digest,
            "statements": [
                {
                    "number": each.number,
                    "namespace": each.change.namespace,
                    "table": each.change.table_name,
                    "ddl": each.change.ddl,
                    "action": each.change.action.value,
                    "unsafe_reason": each.change.unsafe_reason or None,
                }
                for each in self._left(self.chains[0])
            ],
            "deployments": [
                {
                    "deployment": chain.deployment,
                    "carries_on": str(chain.tip.name),
                    "state": chain.tip.state.value,
                    "becomes_cancelled": chain.tip.may_act,
                    "address": None if chain.target is None else chain.target.address,
                    "moved_from": chain.moved_from or None,
                }
                for chain in self.chains
            ],
            "policy": self.policy.as_json(),
            "consent": list(self.consent),
            "allow_unsafe": self.allow_unsafe,
        }

    def _revisions(self) -> Mapping[str, int]:
        """Of the first apply, and of those that its own chains lead through: others may move on."""
        own = {str(link.name.apply_id) for chain in self.chains for link in chain.links}
        return {name: revision for name, revision in self.source.revisions.items() if name in own}

    def _left(self, chain: Chain) -> tuple[Statement, ...]:
        return tuple(each for each in chain.statements if each.number in self.numbers)


@dataclass(frozen=True, slots=True)
class Rest:
    """Everything that is left: in groups, and what goes in none."""

    source: Source
    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def is_done(self) -> bool:
        """Nothing is left anywhere of what was chosen."""
        return not self.groups and all(each.is_done for each in self.left_out)


def rest_of(
    source: Source, chosen: Sequence[str], named: Sequence[str], policy: Policy | None, *, allow_unsafe: bool
) -> Rest:
    """Computes it for the chosen deployments. named: those that were said by name, so that a person's skip and what was
    cancelled or reverted is meant as well. Raises Refused for a policy that its plan's review does not bear.
    """
    if policy is not None and source.is_reviewed and policy.as_json() != source.policy.as_json():
        what = f"this is not the policy that {source.plan_id} was reviewed for"
        step = "Leave the policy out: what was reviewed holds for the rest as well."
        raise Refused(what, next_step=step, reason="PLAN_DIFFERS")
    groups: dict[tuple[int, ...], list[Chain]] = {}
    out: list[LeftOut] = []
    wanted = set(chosen)
    for chain in source.chains:
        if chain.deployment not in wanted:
            continue
        if (reason := left_out(chain, is_named=chain.deployment in named)) is not None:
            out.append(reason)
            continue
        left = tuple(each.number for each in chain.statements if each.effect is not Effect.DONE)
        groups.setdefault(left, []).append(chain)
    return Rest(
        source,
        tuple(
            _group(source, numbers, tuple(chains), policy, allow_unsafe=allow_unsafe)
            for numbers, chains in groups.items()
        ),
        tuple(out),
    )


def left_out(chain: Chain, *, is_named: bool) -> LeftOut | None:
    """Why nothing is carried on there; None where it can be."""
    first, tip = chain.links[0], chain.tip
    if tip is not first and (tip.may_act or tip.state is State.COMPLETED):
        how = f"it is {tip.state}" if tip.may_act else "which has completed"
        command = f"tern explain {tip.name}" if tip.may_act else ""
        is_done = tip.state is State.COMPLETED
        return LeftOut(chain.deployment, f"it is carried on by {tip.name}, {how}", command, is_done)
    if (revived := next((link for link in chain.links if link.revival), None)) is not None:
        why = f"a {revived.revival} of {revived.name} is on its way"
        return LeftOut(chain.deployment, why, f"tern stop {revived.name} --reason '…'")
    if (reason := _against_state(chain.deployment, tip, is_named=is_named)) is not None:
        return reason
    if (untold := _untold(chain)) is not None:
        name, numbers = untold
        is_in = verb(len(numbers), "is in", "are in")
        why = f"nobody can tell whether {named('statement', numbers)} of {name} {is_in}: {TO_SAY}"
        return LeftOut(
            chain.deployment, why, f"tern resolve {name} {printed_statements(numbers)} --reason '…'"
        )
    if all(each.effect is Effect.DONE for each in chain.statements):
        return LeftOut(chain.deployment, "all of its statements are done", is_done=True)
    if chain.against:
        return LeftOut(chain.deployment, "; ".join(chain.against))
    return None


def _untold(chain: Chain) -> tuple[ScopeName, tuple[int, ...]] | None:
    """The newest operation of which nobody can tell whether a statement is in, and which of its own those are."""
    for link in reversed(chain.links):
        numbers = tuple(
            number
            for statement in chain.statements
            for word, (operation_id, number) in zip(statement.words, statement.at, strict=True)
            if operation_id == link.operation_id and effect_of(word) in {Effect.UNKNOWN, Effect.UNDER_WAY}
        )
        if numbers:
            return link.name, numbers
    return None


def _against_state(deployment: str, tip: Link, *, is_named: bool) -> LeftOut | None:
    name = tip.name
    match tip.state:
        case State.COMPLETED:
            return LeftOut(deployment, "it is completed", is_done=True)
        case State.FAILED:
            return None
        case State.SKIPPED if not tip.by_person or is_named:
            return None
        case State.SKIPPED:
            why = f"a person's skip left {name} behind, and it was not named"
            return LeftOut(deployment, why, f"tern apply --rest-of {name}")
        case State.CANCELLED | State.REVERTED:
            if is_named:
                return None
            return LeftOut(
                deployment, f"{name} is {tip.state}, and was not named", f"tern apply --rest-of {name}"
            )
        case State.PENDING if not tip.was_sent and not tip.is_driven:
            return None
        case State.STOPPED if not tip.was_sent and not tip.is_driven:
            return None
        case State.STOPPED:
            why = f"{name} is stopped with work at its engine, which is ended first"
            return LeftOut(deployment, why, f"tern cancel {name} --wait --reason '…'")
        case State.UNCERTAIN:
            why = f"{name} is uncertain: nobody can tell whether it runs"
            return LeftOut(deployment, why, f"tern explain {name}")
        case (
            State.PENDING
            | State.RUNNING
            | State.WAITING_FOR_CUTOVER
            | State.CUTTING_OVER
            | State.REVERT_WINDOW
            | State.REVERTING
            | State.RESUMING
            | State.FAILED_RETRYABLE
        ):
            return LeftOut(
                deployment, f"{name} is {tip.state}, so it may still act", f"tern watch {name.apply_id}"
            )
        case _:
            assert_never(tip.state)


def _group(
    source: Source,
    numbers: tuple[int, ...],
    chains: tuple[Chain, ...],
    policy: Policy | None,
    *,
    allow_unsafe: bool,
) -> Group:
    said = policy or for_fewer(source.policy, {chain.deployment: chain.labels for chain in chains})
    group = Group(source, numbers, chains, said, allow_unsafe)
    # Printed with the consent that it needs, so that the command that is printed is the one that is sent.
    return replace(group, allow_unsafe=allow_unsafe or bool(group.consent))


def _hash(part: object) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:8]

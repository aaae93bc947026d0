"""What is left of an apply, as every door answers it: plain values, made from a rest (domain/rest.py)."""

from dataclasses import dataclass

from tern.domain.policy import Policy
from tern.domain.rest import LeftOut, Rest
from tern.domain.states import State


@dataclass(frozen=True, slots=True)
class RestStatement:
    """A statement that is left; its number is that in the first apply."""

    number: int
    namespace: str
    table: str
    ddl: str
    unsafe_reason: str


@dataclass(frozen=True, slots=True)
class RestOperation:
    """A deployment where it is left, and the operation after which a follow-up begins there."""

    deployment: str
    carries_on: str
    state: State
    becomes_cancelled: bool


@dataclass(frozen=True, slots=True)
class RestGroup:
    """Deployments at which the same statements are left. allow_unsafe: with what consent the digest was made."""

    digest: str
    statements: tuple[RestStatement, ...]
    deployments: tuple[RestOperation, ...]
    policy: Policy
    consent: tuple[str, ...]
    allow_unsafe: bool


@dataclass(frozen=True, slots=True)
class RestShown:
    """All of it; apply_id is the apply that the chains begin with."""

    apply_id: str
    groups: tuple[RestGroup, ...]
    left_out: tuple[LeftOut, ...]


def shown(rest: Rest) -> RestShown:
    """A rest as doors answer it."""
    return RestShown(
        str(rest.source.apply_id),
        tuple(
            RestGroup(
                group.digest,
                tuple(
                    RestStatement(number, each.namespace, each.table_name, each.ddl, each.unsafe_reason)
                    for number, each in zip(group.numbers, group.changes, strict=True)
                ),
                tuple(
                    RestOperation(chain.deployment, str(chain.tip.name), chain.tip.state, chain.tip.may_act)
                    for chain in group.chains
                ),
                group.policy,
                group.consent,
                group.allow_unsafe,
            )
            for group in rest.groups
        ),
        rest.left_out,
    )

"""What a person should know about deployments and others: which are one target, which may be, and which have moved."""

from collections.abc import Sequence

from tern.domain.targets import Found, Pair
from tern.ports import Ports
from tern.proving import prove_targets, same_places


def compared_with_others(names: Sequence[str], ports: Ports) -> tuple[str, ...]:
    """What a person should know about these deployments and others: which are one target, and which may be."""
    prove_targets(names, ports.engines, ports.store)
    register = {each.name: each for each in ports.store.load_deployments()}
    asked = [register[name] for name in names if name in register]
    findings = ports.store.findings()
    told: dict[frozenset[str], str] = {}
    for each in asked:
        for other, finding in findings.get(each.name, {}).items():
            if other in register:
                words = Found(Pair(each, register[other]), finding).words
                told.setdefault(frozenset({each.name, other}), words)
    moved = [
        f"the engine of {each.name} names another database than before ({each.capabilities.identity}, not"
        f" {each.engine_identity}), and no new rollout begins there; if that is meant: tern deployments set"
        f" {each.name} --new-identity --reason '…'"
        for each in asked
        if each.names_another_database
    ]
    return (*told.values(), *moved, *same_places(asked, list(register.values())))

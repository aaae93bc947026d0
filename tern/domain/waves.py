"""Which deployment goes with which wave, decided once when a rollout is accepted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tern.domain.choice import shortened
from tern.domain.errors import Refused
from tern.domain.policy import Wave


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment's place in the rollout: positions count from 0, waves from 1; wave 0 is a rollout without any."""

    deployment: str
    position: int
    wave: int


@dataclass(frozen=True, slots=True)
class Division:
    """The rollout in its order; `why` holds every reason against dividing it so."""

    places: tuple[Place, ...]
    why: tuple[str, ...] = ()


def check_division(waves: Sequence[Wave], deployments: Mapping[str, Mapping[str, str]]) -> None:
    """Raises Refused with every reason against dividing the deployments so."""
    if why := divide(waves, deployments).why:
        what = "the deployments can't be divided into these waves"
        step = "A last wave '*' takes whoever is left."
        raise Refused(what, why=shortened(why), next_step=step, reason="WAVES_REFUSED")


def divide(waves: Sequence[Wave], deployments: Mapping[str, Mapping[str, str]]) -> Division:
    """Deployments with their labels, in the order that was asked for, wave by wave; a wave that names its deployments
    orders them itself.

    Of several waves that select a deployment the first takes it. Refused: a deployment that no wave selects, and a
    wave that selects nothing, because a canary that nobody is would let everybody else go unprotected.
    """
    if not waves:
        return Division(tuple(Place(name, number, 0) for number, name in enumerate(deployments)))
    taken: dict[int, list[str]] = {number: [] for number in range(1, len(waves) + 1)}
    why: list[str] = []
    for name, labels in deployments.items():
        number = next((n for n, wave in enumerate(waves, start=1) if wave.selects(name, labels)), None)
        if number is None:
            why.append(f"no wave selects deployment {name}")
        else:
            taken[number].append(name)
    for number, wave in enumerate(waves, start=1):
        if wave.deployments:
            taken[number].sort(key=wave.deployments.index)
        why += [
            f"wave {number} names {x}, which is not among them"
            for x in wave.deployments
            if x not in deployments
        ]
        if not taken[number]:
            why.append(
                f"wave {number} ({wave.selector}) has no deployment that an earlier wave does not take"
            )
    ordered = [(name, number) for number, names in taken.items() for name in names]
    return Division(tuple(Place(name, at, number) for at, (name, number) in enumerate(ordered)), tuple(why))

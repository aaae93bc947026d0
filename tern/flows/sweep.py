"""Finding what is due and ringing for it: the metronome's half of Tern, and the cure for every lost bell (G11)."""

from dataclasses import replace

from tern.domain.timing import OWN_SWEEP, SELF_SWEEP_AFTER_S, UNHEARD_AFTER_S
from tern.ports import Bells, DueWork, Ports

RECONCILE = "reconcile"
PROGRESS = "progress"


def reconcile(owner: str, ports: Ports) -> bool:
    """Rings for due dispatches, wishes and applies; False when another sweep is under way.

    Raises StorageUnavailable.
    """
    if not ports.store.begin_sweep(RECONCILE, owner):
        return False
    _ring(ports.store.due_work(), ports)
    ports.store.finish_sweep(RECONCILE, owner)
    return True


def sweep_progress(owner: str, ports: Ports) -> bool:
    """Rings one poll per deployment that has something to look at; False when another sweep is under way.

    Raises StorageUnavailable.
    """
    if not ports.store.begin_sweep(PROGRESS, owner):
        return False
    for deployment in ports.store.due_deployments():
        ports.bells.poll(deployment)
    ports.store.finish_sweep(PROGRESS, owner)
    return True


def sweep_when_nobody_does(owner: str, ports: Ports, bells: Bells) -> bool:
    """A worker's own sweep: both, when the last finished one is too old or was this worker's own. Else it only takes
    what others have rung for in vain: a broker can lose the messages of one kind and deliver the rest (G11).

    `bells` do the work in this process, because a broker that is away rings nothing. Raises StorageUnavailable.
    """
    owner = f"{OWN_SWEEP}{owner}"
    age_s, by = ports.store.seconds_since_sweep(RECONCILE)
    direct = replace(ports, bells=bells)
    if age_s < SELF_SWEEP_AFTER_S and by != owner:
        _take_unheard(direct)
        return False
    swept = reconcile(owner, direct)
    return sweep_progress(owner, direct) or swept


def _take_unheard(direct: Ports) -> None:
    unheard = direct.store.unheard_work(UNHEARD_AFTER_S)
    _ring(unheard, direct)
    for deployment in direct.store.unheard_deployments(UNHEARD_AFTER_S):
        direct.bells.poll(deployment)


def _ring(due: DueWork, ports: Ports) -> None:
    # Stops before starts: who is stopped now is not dispatched a moment later.
    for apply_id in due.applies:
        ports.bells.advance(apply_id)
    for control in sorted(due.controls, key=lambda control: control.verb.precedence):
        ports.bells.control(control)
    for dispatch in due.dispatches:
        ports.bells.dispatch(dispatch)

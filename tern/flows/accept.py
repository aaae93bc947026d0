"""Taking in a rollout or a wish: committed first, answered as accepted, and only then rung (G15)."""

from tern.domain.control import Verb
from tern.ports import AcceptedApply, NewApply, Ports, Wish, WishReceipt


def accept_apply(new: NewApply, ports: Ports) -> AcceptedApply:
    """A new rollout, or the one that the same key made before. Raises Refused, NotFound, StorageUnavailable."""
    accepted = ports.store.accept_apply(new)
    for due in accepted.first:
        ports.bells.dispatch(due)
    return accepted


def accept_wish(wish: Wish, ports: Ports) -> WishReceipt:
    """A wish, one outcome per operation. Raises Refused, NotFound, StorageUnavailable."""
    receipt = ports.store.accept_wish(wish)
    if receipt.due and wish.verb in {Verb.STOP, Verb.CANCEL}:
        # Settles all that was never dispatched in one statement, before the single bells arrive.
        ports.bells.advance(wish.apply_id)
    for due in receipt.due:
        ports.bells.control(due)
    return receipt

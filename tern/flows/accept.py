"""Taking in a rollout or a wish: committed first, answered as accepted, and only then rung (G15)."""

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.ports import AcceptedApply, Asked, NewApply, Ports, Store, Wish, WishReceipt

MOST_LISTED = 20


def accept_apply(new: NewApply, ports: Ports) -> AcceptedApply:
    """A new rollout, or the one that the same key made before. Raises Refused, NotFound, StorageUnavailable."""
    accepted = ports.store.accept_apply(new)
    for due in accepted.first:
        ports.bells.dispatch(due)
    return accepted


def ask(asked: Asked, ports: Ports) -> WishReceipt:
    """A wish as any door takes it in: selected, counted where a number was given, and accepted.

    With dry_run the same answer is computed and nothing is written. Raises Refused, NotFound, StorageUnavailable.
    """
    wish = Wish(asked.verb, asked.apply_id, _selected(asked, ports.store), asked.caller, asked.reason)
    if asked.dry_run:
        return ports.store.accept_wish(wish, dry_run=True)
    return accept_wish(wish, ports)


def accept_wish(wish: Wish, ports: Ports) -> WishReceipt:
    """A wish, one outcome per operation. Raises Refused, NotFound, StorageUnavailable."""
    receipt = ports.store.accept_wish(wish)
    if receipt.due and wish.verb in {Verb.STOP, Verb.CANCEL}:
        # Settles all that was never dispatched in one statement, before the single bells arrive.
        ports.bells.advance(wish.apply_id)
    for due in receipt.due:
        ports.bells.control(due)
    return receipt


def _selected(asked: Asked, store: Store) -> tuple[str, ...] | None:
    """The deployments meant, None for the whole apply; raises Refused where the number is another."""
    selection = asked.selection
    if not selection.is_made and asked.expected is None:
        return None
    members = store.members(asked.apply_id)
    if asked.verb.is_forward and len(members) > 1 and not selection.is_explicit:
        # Left to the store, which names the operations: nothing may narrow a choice that was not made (G7).
        return None
    chosen = selection.choose(asked.apply_id, members)
    if asked.expected is not None and len(chosen) != asked.expected:
        what = f"{len(chosen)} operation{'' if len(chosen) == 1 else 's'} selected, not {asked.expected}"
        why = (", ".join(chosen[:MOST_LISTED]),)
        raise Refused(what, why=why, reason="EXPECTATION_MISSED")
    return chosen if selection.is_made else None

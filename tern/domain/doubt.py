"""Doubt about whose work a remote id is, and what it holds back. One rule for whoever admits, drives or explains."""

from enum import StrEnum

from tern.domain.identity import RemoteId


class Doubt(StrEnum):
    """Why an operation's id is not used, and by what that ends."""

    NONE = ""
    FOREIGN = "foreign"
    """What the engine says of the id is not about our work: a later answer that is ends it, or a person who looked."""
    TAKEN = "taken"
    """The engine gave the id out twice. Both would answer to it, so no answer ends it: only a person does."""


def is_held(doubt: Doubt, *, may_halt_all_the_same: bool) -> bool:
    """Whether no call may carry the id. A person who names a foreign id may stop or cancel that work all the same;
    of an id that was given out twice nobody can know whom it would hit.
    """
    match doubt:
        case Doubt.NONE:
            return False
        case Doubt.FOREIGN:
            return not may_halt_all_the_same
        case Doubt.TAKEN:
            return True


def held_words(doubt: Doubt, scope: str, remote_id: RemoteId | str | None) -> str:
    """Why nothing is sent, and the ways out that work now; empty where nothing is in doubt."""
    same = f"`tern resolve {scope} --as same-work --reason '…'`"
    match doubt:
        case Doubt.NONE:
            return ""
        case Doubt.FOREIGN:
            return (
                f"nothing is sent with the id {remote_id}: what its engine says of it is not about this work. The next"
                f" answer that is ends that; or look there, and if it is this work all the same: {same}; to halt that"
                f" job although it is other work: `tern stop {scope} --although-foreign={remote_id} --reason '…'`"
            )
        case Doubt.TAKEN:
            return (
                f"nothing is sent with the id {remote_id}: its engine gave it to another operation as well. Look there,"
                f" and if the job of that id is this work: {same}"
            )

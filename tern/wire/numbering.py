"""Telling a client that was made from the contract's earlier numbers.

Until May 2026 every call about an apply began with `database = 1, type = 2, environment = 3, apply_id = 4`. What such a
client sends is read here as an id that is no id, and would be answered with words about that: it could start work, and
neither see nor stop it. The numbers alone prove nothing, because a later contract may use them for something else;
where field 1 does not name anything here as well, they do.
"""

from typing import Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

WORDS: Final = (
    "this client speaks an older numbering of the contract: it sends apply_id as field 4 and environment as field 3,"
    " which are 1 and 2 by now; nothing was done. Make the client anew from the contract of today"
)
_EARLIER_ID: Final = frozenset({4, 5})
"""Where the id stood: 4, and 5 of Volume."""
_EARLIER_ENVIRONMENT: Final = 3
_TYPES: Final = frozenset({"mysql", "vitess", "postgres", "postgresql", "strata"})
"""What stood in field 2."""


def speaks_older_numbering(request: Message, *, names_something: bool) -> bool:
    """Whether a call about an apply was made from the earlier numbers. names_something: its field 1 has the form of an
    id that this server gives.
    """
    if names_something:
        return False
    filled = {field.number for field, _ in request.ListFields()}
    unknown = UnknownFieldSet(request)
    filled |= {unknown[index].field_number for index in range(len(unknown))}
    if filled & _EARLIER_ID - _own_numbers(request):
        return True
    # One that leaves the id out means whatever is active; its database type stands where the environment is by now.
    # Without that, one that names something in field 1 may be of today, and what it names be unknown here.
    return _EARLIER_ENVIRONMENT in filled and (
        getattr(request, "environment", "") in _TYPES
        or bool(filled & _EARLIER_ID and not getattr(request, "apply_id", ""))
    )


def _own_numbers(request: Message) -> set[int]:
    """Numbers that the contract of today uses itself: what stands there may be just that."""
    return {field.number for field in request.DESCRIPTOR.fields}

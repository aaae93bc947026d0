"""Tern rolls one reviewed schema change out to many deployments.

`tern.Client` is the way in for Python services; it is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tern.client import Client as Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from tern.client import Client  # noqa: PLC0415 - every command imports this package

        return Client
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)

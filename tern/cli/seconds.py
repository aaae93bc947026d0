"""A length of time on the command line."""

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """A number of seconds from 0 on; `nan` is a number to Python, and a wait that never ends."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises what click shows as a usage error."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found

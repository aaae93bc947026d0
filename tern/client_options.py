"""What the methods of tern.client.Client take by name."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from tern.domain.policy import Policy
from tern.domain.states import State


class RestOptions(TypedDict, total=False):
    """Of which operations what is left is meant, by selectors, and how it is carried on: as on the command line."""

    deployments: Sequence[str]
    labels: Mapping[str, str]
    everywhere: bool
    excepted: Sequence[str]
    policy: Policy
    allow_unsafe: bool
    previews: bool
    accept_drift: bool
    key: str


class Selectors(TypedDict, total=False):
    """Which operations, and how. Selectors of several kinds narrow each other down, as on the command line.

    deployments, labels, states; wave, counted from 1; everywhere: every operation, explicitly; excepted: but not
    these. dry_run: answer for each operation and write nothing. expected: refuse unless it is accepted for so many.
    """

    deployments: Sequence[str]
    labels: Mapping[str, str]
    states: Sequence[State]
    wave: int
    everywhere: bool
    excepted: Sequence[str]
    dry_run: bool
    expected: int

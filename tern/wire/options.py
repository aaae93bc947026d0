"""The options that an Apply of the public contract may carry: which are known, and what is wrong with those given.

One that is silently ignored would be a promise broken; one that asks for something else than what is offered is refused
by its name, and so is one that nobody here has ever heard of. The engine and `tern serve` read them alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

FLAGS: Final = ("defer_cutover", "allow_unsafe", "enable_revert", "skip_revert", "defer_deploy")
"""Those that are true or false; left out and empty mean false."""

KNOWN: Final = frozenset({*FLAGS, "target", "branch", "volume"})
_WORDS: Final = {"true": True, "false": False, "": False}


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with an option. is_offered is False where it is understood, and not to be had here."""

    words: str
    is_offered: bool = True


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """What an Apply asks for, once nothing is wrong with it."""

    defer_cutover: bool
    allow_unsafe: bool
    enable_revert: bool


def read_options(
    given: Mapping[str, str], *, target: str, refuse: Callable[[Wrong], Exception], reverts: bool
) -> ApplyOptions:
    """Raises what `refuse` makes of the first thing that is wrong. target: of the request; the option may only repeat
    it. reverts: a revert window can be had here.
    """
    unknown = sorted(given.keys() - KNOWN)
    if unknown:
        raise refuse(Wrong(f"the option {unknown[0][:80]!a} is not known"))
    flags: dict[str, bool] = {}
    for name in FLAGS:
        word = given.get(name, "")
        if word not in _WORDS:
            raise refuse(Wrong(f"the option {name} is {word[:80]!a}, neither true nor false"))
        flags[name] = _WORDS[word]
    if given.get("target", "") not in {"", target}:
        words = f"the option target names {given['target'][:80]!a}, the request is for {target[:80]!a}"
        raise refuse(Wrong(words))
    if given.get("branch"):
        raise refuse(Wrong("the option branch is not offered: there are no branches here", is_offered=False))
    if given.get("volume"):
        words = "the option volume is not offered at Apply"
        raise refuse(Wrong(f"{words}; the call Volume sets it where it is", is_offered=False))
    if flags["defer_deploy"]:
        words = "the option defer_deploy is not offered: nothing is deployed apart from the change"
        raise refuse(Wrong(f"{words}; defer_cutover lets it wait", is_offered=False))
    if flags["enable_revert"] and not reverts:
        words = "the option enable_revert is not offered: this engine keeps no revert window"
        raise refuse(Wrong(words, is_offered=False))
    if flags["enable_revert"] and flags["skip_revert"]:
        raise refuse(Wrong("the options enable_revert and skip_revert contradict each other"))
    # A window that nobody asked for is skipped as it is.
    return ApplyOptions(flags["defer_cutover"], flags["allow_unsafe"], flags["enable_revert"])

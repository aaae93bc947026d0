"""Deployments as lines of text: a few with all that is known of each, many with a line for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from tern.cli import symbols
from tern.cli.words import Sign, ago, contact_words, duration, one_line, plural, silence_words
from tern.domain.contact import Contact, Drain
from tern.domain.model import Deployment
from tern.domain.outstanding import Outstanding
from tern.domain.silence import Silence
from tern.domain.targets import Finding
from tern.facts import Held

FOLDED_ABOVE = 20
NAME_WIDTH = 24
OPEN = Sign(symbols.OPEN, "open", "green")
"""New work may begin there; whether its engine answers is asked by `deployments check` alone."""
DRAINED = Sign(symbols.SET_ASIDE, "drained", "magenta")
LOST = Sign(symbols.UNKNOWN, "no answer", "yellow")
HELD_UP = Sign("!", "outstanding", "yellow")


@dataclass(frozen=True, slots=True)
class Listed:
    """A deployment with what is known of it besides."""

    deployment: Deployment
    held: Held | None = None
    contact: Contact | None = None
    silences: Sequence[Silence] = ()
    drain: Drain | None = None
    outstanding: Outstanding | None = None
    others: Mapping[str, Finding] | None = None

    @property
    def sign(self) -> Sign:
        """What matters most about it: that nobody is heard there, that something is left there, that it is drained."""
        if self.contact is not None and self.contact.is_lost:
            return LOST
        if self.outstanding is not None:
            return HELD_UP
        return DRAINED if self.deployment.drained else OPEN

    @property
    def lost_contact(self) -> bool:
        """Nobody at its engine is heard any more."""
        return self.contact is not None and self.contact.is_lost


def drain_words(drain: Drain | None) -> str:
    """Since when, by whom and why nothing begins there, as far as that was kept."""
    if drain is None or drain.age_s is None:
        return "nothing new begins there"
    by = f" by {one_line(drain.by)}" if drain.by else ""
    why = f": {one_line(drain.reason)}" if drain.reason else ", without a reason"
    return f"{ago(drain.age_s)}{by}{why if by else ''}"


def offers(deployment: Deployment) -> str:
    """What its engine was found to offer, and what a person declared of it."""
    found = deployment.capabilities
    declared = f"deduplicates: {'yes' if deployment.idempotent_dispatch else 'no'}"
    if found.resolve is None:
        return f"its engine was not asked yet, {declared}"
    names = [name for name, there in found.as_json().items() if there]
    told = f"offers {', '.join(name.replace('_', ' ') for name in names)}" if names else "plain contract only"
    if deployment.probe_is_old:
        told += " (it did not answer when it was asked again)"
    return told if found.resolve and not deployment.idempotent_dispatch else f"{told}, {declared}"


def listing(found: Sequence[Listed]) -> Iterator[Text]:
    """Each with what is known of it; of many one line each, what is odd about them first."""
    if len(found) <= FOLDED_ABOVE:
        width = max((len(each.deployment.name) for each in found), default=0)
        for each in found:
            yield from whole(each, width)
        return
    signs = (LOST, HELD_UP, DRAINED, OPEN)
    counts = [(sign, sum(each.sign == sign for each in found)) for sign in signs]
    told = "   ".join(f"{sign.symbol} {count:,} {sign.word}" for sign, count in counts if count)
    yield Text(f"{plural(len(found), 'deployment')}   {told}")
    width = min(NAME_WIDTH, max(len(each.deployment.name) for each in found))
    for each in sorted(found, key=lambda each: signs.index(each.sign)):
        yield _line(each, width)
    yield Text("tern deployments show NAME says all of one", "dim")


def whole(each: Listed, width: int = 0) -> Iterator[Text]:
    """All that is known of one: what it is, where, and each fact about it on a line of its own."""
    deployment = each.deployment
    yield _line(each, max(width, len(deployment.name)))
    facts = [("address", deployment.address), ("target", deployment.target)]
    if deployment.labels:
        facts.append(("labels", _labels(deployment)))
    facts.append(("engine", offers(deployment)))
    if deployment.drained:
        facts.append(("drained", drain_words(each.drain)))
    if each.held is not None:
        facts.append(("held by", f"{each.held.scope} ({each.held.operation_state})"))
    if each.outstanding is not None:
        facts.append(("outstanding", each.outstanding.words))
    if each.lost_contact and each.contact is not None and not each.silences:
        facts.append(("no answer", contact_words(each.contact)))
    facts += [("no answer", silence_words(quiet)) for quiet in each.silences]
    facts += [
        ("same target", f"{'' if finding is Finding.SAME else 'perhaps '}the same target as {other}")
        for other, finding in (each.others or {}).items()
        if finding is not Finding.TWO
    ]
    for name, value in facts:
        yield Text.assemble((f"    {name:<12} ", "dim"), one_line(value))


def _line(each: Listed, width: int) -> Text:
    deployment, sign = each.deployment, each.sign
    text = Text(f"{sign.symbol} ", sign.style)
    text.append(deployment.name[:width].ljust(width), "bold")
    since = each.contact.for_s if each.lost_contact and each.contact is not None else None
    word = sign.word if since is None else f"{sign.word} for {duration(since)}"
    text.append(f"  {word:<11}", sign.style)
    text.append(f"  {deployment.database} in {deployment.environment}")
    text.append(f"  {_labels(deployment)}", "dim")
    text.rstrip()
    return text


def _labels(deployment: Deployment) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(deployment.labels.items()))

"""A plan as lines of text: the same for whoever makes it and whoever looks at it again."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from tern.cli.words import count, duration, one_line
from tern.domain.drift import Foretold, ForetoldChange, Look
from tern.domain.errors import Refused
from tern.domain.model import Plan

DIGEST_SHOWN = 16
MOST_TARGETS = 20


def change_lines(plan: Plan) -> Iterator[Text]:
    """Id, place, digest and each statement with what it loses."""
    yield Text.assemble(
        (plan.plan_id, "bold"), f"  {plan.database} in {plan.environment}, ", plan.database_type
    )
    yield Text(f"  digest {plan.digest}", "dim")
    for number, change in enumerate(plan.changes, 1):
        yield Text(f"  {number}. {one_line(change.ddl)}")
        if change.unsafe_reason:
            yield Text(f"     ! unsafe: {change.unsafe_reason}", "yellow")


def target_lines(found: Sequence[Foretold]) -> Iterator[Text]:
    """What each target's engine said, of the first few; and of the others how many refuse."""
    for each in found[:MOST_TARGETS]:
        yield from _target(each)
        yield from (Text(f"      ! drift: {one_line(words)}", "yellow") for words in each.drift)
    if len(found) > MOST_TARGETS:
        refused = sum(bool(each.refusals) for each in found[MOST_TARGETS:])
        yield Text(f"  … {len(found) - MOST_TARGETS} more targets, {refused} of them refuse", "dim")


def refusal_lines(refusals: Sequence[Refused]) -> Iterator[Text]:
    """What an apply would be told now, and what leads on."""
    for refusal in refusals:
        yield Text(f"  ! an apply would be refused now: {one_line(refusal.what)}", "yellow")
        yield from (Text(f"      {one_line(why)}") for why in refusal.why)
        if refusal.next_step:
            yield Text(f"      next: {one_line(refusal.next_step)}", "dim")


def command_lines(plan: Plan, found: Sequence[Foretold]) -> Iterator[Text]:
    """The command that rolls it out, with the consent that it needs."""
    asks = any(change.unsafe_reason for each in found for change in each.changes)
    consent = " --allow-unsafe" if asks or any(change.is_unsafe for change in plan.changes) else ""
    where = "" if plan.targets else " --deployments …"
    digest = f" --digest {plan.digest[:DIGEST_SHOWN]}"
    yield Text(f"  tern apply --plan {plan.plan_id}{digest}{where}{consent} --reason '…'", "bold")
    held = [
        word for word, is_held in (("targets", plan.targets), ("policy", plan.policy is not None)) if is_held
    ]
    exactly = f", with exactly these {' and this '.join(held)}" if held else ""
    yield Text(f"  rolls out exactly this change{exactly}", "dim")


def _target(found: Foretold) -> Iterator[Text]:
    match found.look:
        case Look.REFUSED:
            yield Text(f"  ✖ {found.deployment}  refused", "red")
            yield from (Text(f"      {one_line(why)}") for why in found.refusals)
        case Look.UNREACHABLE:
            yield Text(f"  ? {found.deployment}  no answer", "yellow")
            yield Text(f"      {one_line(found.words)}")
        case Look.NOT_OFFERED | Look.NOT_ASKED:
            yield Text(f"  ◷ {found.deployment}  not previewed: its engine offers no preview", "dim")
        case Look.PREVIEWED:
            yield Text(f"  ✔ {found.deployment}", "green")
            for number, change in enumerate(found.changes, 1):
                yield from _change(number, change)


def _change(number: int, change: ForetoldChange) -> Iterator[Text]:
    words = [change.change_class.replace("_", " ").lower(), change.recipe]
    if change.estimated_rows:
        words.append(f"about {count(change.estimated_rows)} rows")
    if change.estimated_s >= 1:
        words.append(f"about {duration(change.estimated_s)}")
    if change.after_cutover_s >= 1:
        words.append(f"{duration(change.after_cutover_s)} of it in the cutover, if that is deferred")
    yield Text(f"      {number}. {', '.join(one_line(word) for word in words if word)}", "dim")
    yield from (Text(f"         {one_line(lock)}", "dim") for lock in change.locks)
    if change.unsafe_reason:
        yield Text(f"         ! unsafe: {one_line(change.unsafe_reason)}", "yellow")

"""`tern enqueued KEY`: what became of a rollout that was asked for by message; its sender got no answer."""

from collections.abc import Iterator

import click
from rich.text import Text

from tern.cli import reach
from tern.cli.envelope import json_option, write_document
from tern.cli.picture import show
from tern.cli.words import one_line
from tern.domain.enqueue import is_usable_key
from tern.domain.errors import NotFound, UsageError
from tern.doors.answers import KeyFate, Refusal

REFUSED = 5


@click.command()
@click.argument("key")
@json_option
def enqueued(key: str, *, as_json: bool) -> int:
    """Say what became of an idempotency key: the apply that it made, and what was refused under it.

    Ends with 0 where there is an apply, with 5 where there are refusals alone, with 3 where nothing was seen.
    """
    if not is_usable_key(key):
        what = "that is no key under which anything can be asked for"
        raise UsageError(what)
    fate = reach.paging().fate_of_key(key)
    if fate.apply_id is None and not fate.refusals:
        what = f"nothing was asked for under the key {key}"
        step = "A message may still be on its way, or lost: send it again, with the same key."
        raise NotFound(what, next_step=step)
    if as_json:
        write_document("enqueued", _json(key, fate))
    else:
        show(list(_picture(fate)), wraps=True)
    return 0 if fate.apply_id else REFUSED


def _json(key: str, fate: KeyFate) -> dict[str, object]:
    return {
        "key": key,
        "apply_id": fate.apply_id,
        "refusals": [
            {
                "at": each.at.isoformat(),
                "caller": each.caller,
                "reason": each.reason,
                "what": each.what,
                "why": list(each.why),
                "next": each.next_step,
            }
            for each in fate.refusals
        ],
    }


def _picture(fate: KeyFate) -> Iterator[Text]:
    if fate.apply_id:
        yield Text.assemble(("✔ ", "green"), (fate.apply_id, "bold"))
        yield Text(f"  tern watch {fate.apply_id}", "bold")
    for refusal in fate.refusals:
        yield from _refusal(refusal)


def _refusal(refusal: Refusal) -> Iterator[Text]:
    yield Text.assemble(
        ("✖ ", "red"),
        f"{one_line(refusal.what)}  ",
        (f"{refusal.at:%Y-%m-%d %H:%M:%S}  by {refusal.caller or 'nobody named'}  {refusal.reason}", "dim"),
    )
    for line in refusal.why:
        yield Text(f"    {one_line(line)}")
    if refusal.next_step:
        yield Text(f"    {one_line(refusal.next_step)}", "dim")

"""A rollout that was accepted, as lines of text."""

from rich.text import Text

from tern.cli.policy import policy_words, wave_words
from tern.cli.words import one_line, plural
from tern.domain.choice import shortened
from tern.domain.policy import Copy
from tern.ports import Enqueued

MOST_NAMED = 8


def accepted_picture(enqueued: Enqueued, same: str = "key") -> list[Text]:
    """What was accepted, in a few lines. same: what it has in common with one that was accepted before."""
    word = "accepted" if enqueued.is_new else f"accepted before, under the same {same}"
    named = list(enqueued.deployments[:MOST_NAMED])
    if len(enqueued.deployments) > MOST_NAMED:
        named.append(f"{len(enqueued.deployments) - MOST_NAMED} more")
    policy = enqueued.policy
    arrow = ", " if policy.copy is Copy.PARALLEL and not policy.waves else " → "
    lines = [
        Text.assemble(
            ("✔ ", "green"),
            (enqueued.apply_id, "bold"),
            f"  {word}: {plural(len(enqueued.deployments), 'deployment')}, {', '.join(policy_words(policy))}",
        )
    ]
    lines.append(Text("  " + arrow.join(named), "dim"))
    lines += [
        Text(f"  wave {number}: {wave_words(wave)}", "dim")
        for number, wave in enumerate(policy.waves, start=1)
    ]
    lines += [Text(f"  ! {one_line(words)}", "yellow") for words in shortened(enqueued.warnings)]
    command, what = f"tern watch {enqueued.apply_id}", "follows it; Ctrl-C leaves the rollout alone"
    if enqueued.is_over:
        command, what = f"tern get {enqueued.apply_id}", "shows how it ended"
    return [*lines, Text(), Text.assemble((f"  {command}", "bold"), (f"   {what}", "dim"))]

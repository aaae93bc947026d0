"""Draws the states of an operation from the table, as docs/architecture.md shows them.

`python -m tests.house.diagram` writes the picture into the page.
"""

from pathlib import Path

from tern.domain.states import TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs/architecture.md"
BEGIN, END = "<!-- states:begin -->", "<!-- states:end -->"


def draw() -> str:
    """A Mermaid diagram; arrows between the same two states share a line."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> pending"]
    for origin, arrows in TRANSITIONS.items():
        labels: dict[str, list[str]] = {}
        for event, state in arrows.items():
            labels.setdefault(state.value, []).append(event.value)
        lines += [f"    {origin.value} --> {state}: {', '.join(names)}" for state, names in labels.items()]
    lines += [f"    {state.value} --> [*]" for state, arrows in TRANSITIONS.items() if not arrows]
    return "\n".join([*lines, "```"])


def shown() -> str:
    """What the page shows now."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip()


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{draw()}\n{END}{rest.split(END)[1]}")

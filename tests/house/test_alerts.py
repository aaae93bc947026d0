"""Alarms and the page that says what to do: every name in them exists, and none is without its sentence."""

import re
from pathlib import Path

import grpc
import pytest

from tern.domain.control import Delivery, Verb
from tern.domain.states import ApplyState, State
from tern.metrics import COUNTERS, DISTRIBUTIONS
from tests.test_exporter import TOLD

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
RULES = dict(
    re.findall(r"- alert: (\w+)\n(?:\s+#.*\n)*\s+expr: (.+)\n", (ROOT / "docs/alerts.yml").read_text())
)
SUFFIXES = {
    **{counter.name: ("_total",) for counter in COUNTERS},
    **{each.name: ("_bucket", "_sum", "_count") for each in DISTRIBUTIONS},
}
SERIES = {name + suffix: name for name in TOLD for suffix in SUFFIXES.get(name, ("",))}
VALUES = {
    "verb": {verb.value for verb in Verb},
    "stage": {"sent", *(fate.value for fate in Delivery)},
    "code": {"NOT_SENT", *(code.name for code in grpc.StatusCode)},
    "outcome": {"rung", "failed", "won", "not_claimed", "done", "lost", "conflict"},
    "sweep": {"reconcile", "progress"},
    "work": {"dispatch", "control", "poll"},
}
STATES = {
    "tern_operations": {state.value for state in State},
    "tern_applies": {state.value for state in ApplyState},
    "tern_verdicts": {state.value for state in ApplyState},
    "tern_open_claims": {"held", "expired"},
}


def selectors(expression: str) -> list[tuple[str, dict[str, list[str]]]]:
    """Each series in an expression, with the values that it asks for of each label."""
    return [
        (name, {label: value.split("|") for label, value in re.findall(r'(\w+)=~?"([^"]*)"', inside)})
        for name, inside in re.findall(r"\b(tern_\w+)(?:\{([^}]*)\})?", expression)
    ]


def test_the_file_holds_alarms() -> None:
    assert len(RULES) >= 10
    text = (ROOT / "docs/alerts.yml").read_text()
    assert text.count("- alert:") == text.count("severity:") == text.count("summary:") == len(RULES)


@pytest.mark.parametrize("alarm", RULES)
def test_an_alarm_asks_for_what_there_is(alarm: str) -> None:
    """Series, labels, and the values of labels: a wrong one never rings."""
    found = selectors(RULES[alarm])
    assert found
    for series, labels in found:
        assert series in SERIES, series
        name = SERIES[series]
        assert set(labels) <= TOLD[name], (series, labels)
        for label, values in labels.items():
            known = STATES[name] if label == "state" else VALUES[label]
            assert set(values) <= known, (series, label, values)


@pytest.mark.parametrize("name", sorted({*RULES, *TOLD}))
def test_each_alarm_and_each_metric_has_its_sentence(name: str) -> None:
    """What it means, and what to do."""
    assert re.search(rf"^\|.*`{name}(?:_total)?`", PAGE, re.MULTILINE), name

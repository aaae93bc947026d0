"""Where a target strays from the others or from its review, and what is in the way of beginning."""

import pytest

from tern.domain.drift import Foretold, ForetoldChange, Look, compared, refuse_drift, warnings
from tern.domain.errors import Refused

ADDS = ForetoldChange("public", "orders", "metadata", "add_column")
NOTHING = ForetoldChange("public", "orders", "metadata", "nothing_to_do")
SCANS = ForetoldChange("public", "orders", "scan", "validate")
BUILDS = ForetoldChange("public", "orders", "index_build", "build_index")
CHECKS = ForetoldChange("public", "orders", "fk_scan", "validate_foreign_key")


def seen(name: str, *changes: ForetoldChange) -> Foretold:
    return Foretold(name, Look.PREVIEWED, changes=changes)


def test_targets_that_agree_do_not_drift() -> None:
    found = compared([seen("A", ADDS), seen("B", ADDS)], {"A": seen("A", ADDS)})
    assert [each.drift for each in found] == [(), ()]
    refuse_drift(found, accepted=False)
    assert warnings(found) == ()


def test_one_that_strays_from_most_is_named() -> None:
    found = compared([seen("A", ADDS), seen("B", NOTHING), seen("C", ADDS)])
    assert [bool(each.drift) for each in found] == [False, True, False]
    assert found[1].drift == ("change 1 would be nothing_to_do (metadata); elsewhere add_column (metadata)",)
    refuse_drift(found, accepted=False)
    assert warnings(found) == (f"B: {found[1].drift[0]}",)


def test_where_no_answer_is_more_usual_nobody_is_said_to_stray() -> None:
    """Two targets that differ: neither is the odd one."""
    assert [each.drift for each in compared([seen("A", ADDS), seen("B", NOTHING)])] == [(), ()]


def test_one_that_strays_from_its_review_is_told_so() -> None:
    (found,) = compared([seen("A", NOTHING)], {"A": seen("A", ADDS)})
    assert found.drift == ("change 1 was reviewed as add_column (metadata), now nothing_to_do (metadata)",)
    assert not found.is_dearer
    refuse_drift([found], accepted=False)


def test_a_dearer_change_than_was_reviewed_is_refused_unless_that_is_accepted() -> None:
    found = compared([seen("A", SCANS), seen("B", ADDS)], {"A": seen("A", ADDS)})
    with pytest.raises(Refused) as refused:
        refuse_drift(found, accepted=False)
    assert refused.value.reason == "DRIFTED"
    assert refused.value.why[0].startswith("A: change 1 was reviewed as add_column")
    refuse_drift(found, accepted=True)


@pytest.mark.parametrize("now", [ADDS, BUILDS, CHECKS])
def test_one_that_costs_no_more_is_told_and_goes(now: ForetoldChange) -> None:
    """Cheaper, or done otherwise at the same price: it reads every row, as the reviewed one would have."""
    found = compared([seen("A", now)], {"A": seen("A", SCANS)})
    assert not found[0].is_dearer
    refuse_drift(found, accepted=False)
    assert len(warnings(found)) == 1


@pytest.mark.parametrize(
    ("look", "reason"), [(Look.REFUSED, "PREVIEW_REFUSED"), (Look.UNREACHABLE, "ENGINE_UNREACHABLE")]
)
def test_a_refusal_or_a_silence_is_in_the_way(look: Look, reason: str) -> None:
    found = compared([seen("A", ADDS), Foretold("B", look, "asleep")])
    with pytest.raises(Refused) as refused:
        refuse_drift(found, accepted=False)
    assert (refused.value.reason, refused.value.why) == (reason, ("B: asleep",))
    assert "--accept-drift" in refused.value.next_step
    refuse_drift(found, accepted=True)
    assert "asleep" in warnings(found)[0]


def test_what_was_not_asked_is_said_and_never_guessed() -> None:
    found = compared([seen("A", ADDS), Foretold("B", Look.NOT_OFFERED), Foretold("C", Look.NOT_ASKED)])
    refuse_drift(found, accepted=False)
    assert [each.drift for each in found] == [(), (), ()]
    assert [line[:1] for line in warnings(found)] == ["B", "C"]

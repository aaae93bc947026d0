"""What was reviewed as one digest, and every way in which a request differs from it."""

from dataclasses import replace

import pytest

from tern.domain.errors import Refused
from tern.domain.identity import PlanId
from tern.domain.model import Action, Deployment, Plan, PlannedChange, ReviewedTarget
from tern.domain.policy import Copy, Cutover, Policy
from tern.domain.review import (
    changes_digest,
    check_reviewed,
    operation_digest,
    plan_digest,
    sent_options,
    strays,
)

CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD note text", Action.ALTER)
A, B = (Deployment(name, "test", "shop", f"grpc://{name}:1", f"t-{name}") for name in "AB")
TARGETS = tuple(ReviewedTarget(each.name, each.address, each.target) for each in (A, B))


def plan(targets: tuple[ReviewedTarget, ...] = TARGETS, policy: Policy | None = None) -> Plan:
    how = None if policy is None else policy.as_json()
    digest = plan_digest("postgres", (CHANGE,), targets, how)
    return Plan(PlanId("pln-1"), "test", "shop", "postgres", digest, (CHANGE,), targets, how)


def test_what_was_reviewed_is_no_difference() -> None:
    assert strays(plan(policy=Policy()), (A, B), Policy()) == ()
    check_reviewed(plan(), (A, B), Policy(copy=Copy.PARALLEL), plan().digest[:12].upper())


def test_a_plan_for_which_nobody_chose_bears_any_target_and_policy() -> None:
    assert strays(plan(()), (B,), Policy(copy=Copy.PARALLEL)) == ()


@pytest.mark.parametrize(
    ("targets", "word"),
    [
        ((A,), "B was reviewed and is left out"),
        ((A, B, replace(B, name="C")), "C was not reviewed"),
        ((B, A), "the order is B, A; reviewed was A, B"),
        ((A, replace(B, address="grpc://elsewhere:1")), "the engine of B is grpc://elsewhere:1"),
        ((A, replace(B, target="t-other")), "the target of B is t-other"),
    ],
)
def test_another_set_of_targets_is_told_in_words(targets: tuple[Deployment, ...], word: str) -> None:
    (told,) = strays(plan(), targets, Policy())
    assert told.startswith(word)


def test_every_difference_is_told_at_once() -> None:
    """Policy, targets and digest together."""
    reviewed = plan(policy=Policy())
    with pytest.raises(Refused) as refused:
        check_reviewed(reviewed, (B,), Policy(copy=Copy.PARALLEL, max_failures=2), "0" * 64)
    why = "\n".join(refused.value.why)
    for word in (
        "the digest of pln-1",
        "A was reviewed",
        "policy copy: 'parallel'",
        "policy max_failures: 2",
    ):
        assert word in why
    assert refused.value.reason == "PLAN_DIFFERS"


@pytest.mark.parametrize("digest", ["abc", plan().digest[:11], plan().digest[1:], "x" * 12])
def test_a_digest_that_is_too_short_or_another_is_refused(digest: str) -> None:
    with pytest.raises(Refused, match="the digest of"):
        check_reviewed(plan(), (A, B), Policy(), digest)


def test_a_plan_whose_content_is_not_its_digest_is_refused() -> None:
    """Somebody who wrote past the guards."""
    changed = replace(plan(), changes=(replace(CHANGE, ddl="DROP TABLE orders"),))
    assert strays(changed, (A, B), Policy())[0] == "the plan's own content is not what its digest says"


def test_each_part_of_what_is_sent_changes_its_digest() -> None:
    """G7, D14: environment, database, type, target, consent, cutover, and each word of each change in its order."""
    given = {
        "environment": "test",
        "database": "shop",
        "database_type": "postgres",
        "target": "t",
        "changes": changes_digest([("public", "orders", "A", "alter"), ("public", "orders", "B", "alter")]),
    }
    options = sent_options(Policy(), allow_unsafe=False)
    digests = {operation_digest(**given, options=options)}
    digests |= {operation_digest(**{**given, name: "x"}, options=options) for name in given}
    for policy, consent in (
        (Policy(), True),
        (Policy(cutover=Cutover.MANUAL), False),
        (Policy(enable_revert=True), False),
    ):
        digests.add(operation_digest(**given, options=sent_options(policy, allow_unsafe=consent)))
    for changes in (
        [("public", "orders", "B", "alter"), ("public", "orders", "A", "alter")],
        [("public", "orders", "A", "alter")],
        [("other", "orders", "A", "alter"), ("public", "orders", "B", "alter")],
    ):
        digests.add(operation_digest(**{**given, "changes": changes_digest(changes)}, options=options))
    assert len(digests) == 1 + 5 + 3 + 3

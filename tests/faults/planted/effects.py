"""Planted bugs in what is known of single statements, and in carrying on what is left."""

from tests.faults.planted.mutant import FLOWS, S_START, S_UNCALLED, mutant

EFFECT, REST, HALF = f"{FLOWS}effect.py", f"{FLOWS}rest.py", f"{FLOWS}half_done.py"
D_REST, S_REST, D_EFFECT = "tern/domain/rest.py", "tern/store/rest.py", "tern/domain/effect.py"

MUTANTS = (
    mutant(
        "G10",
        "what nobody spoke of shares the end of its operation",
        # The database keeps what flows write of it to what is known, as it does for the version before.
        f"tests/domain/test_effect.py {EFFECT}",
        D_EFFECT,
        "return NEVER_BEGUN if nothing_began else UNKNOWN",
        "return operation.value",
    ),
    mutant(
        "G10",
        "a statement left in the middle is what its engine said last",
        EFFECT,
        D_EFFECT,
        "return NEVER_BEGUN if word == PENDING else UNKNOWN",
        "return word",
    ),
    mutant(
        "G4",
        "a late retry revives what is carried on, one by one",
        REST,
        S_START,
        "if (by := carried_on(tx, [held.operation_id]).get(held.operation_id)) is not None:",
        "if (by := None) is not None:",
    ),
    mutant(
        "G4",
        "a late retry revives what is carried on, all at once",
        REST,
        S_UNCALLED,
        "if row.id not in blocked and row.id not in carried",
        "if row.id not in blocked",
    ),
    mutant(
        "G4",
        "a follow-up takes what a retry is about to run",
        REST,
        D_REST,
        "if (revived := next((link for link in chain.links if link.revival), None)) is not None:",
        "if (revived := next((link for link in chain.links if False), None)) is not None:",
    ),
    mutant(
        "G10",
        "a statement of unknown effect is carried on",
        REST,
        D_REST,
        "each.effect in {Effect.UNKNOWN, Effect.UNDER_WAY}]",
        "each.effect in {Effect.UNDER_WAY}]",
    ),
    mutant(
        "G15",
        "consent to the first apply is consent to its rest",
        REST,
        S_REST,
        "if group.consent and not new.allow_unsafe:",
        "if False:",
    ),
    mutant(
        "G13",
        "a rest is accepted on rows as they were before the locks",
        REST,
        S_REST,
        "            lock_family(tx, new.apply_id)\n",
        "",
    ),
    mutant(
        "G15",
        "a new rollout begins over what was left half done",
        HALF,
        "tern/store/apply.py",
        "if not new.accept_drift:\n                refuse_half_done(left)",
        "if False:\n                refuse_half_done(left)",
    ),
)

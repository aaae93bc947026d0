"""Planted bugs in what is known of single statements, and in carrying on what is left."""

from tests.faults.planted.mutant import FLOWS, S_START, S_UNCALLED, mutant

EFFECT, REST, HALF = f"{FLOWS}effect.py", f"{FLOWS}rest.py", f"{FLOWS}half_done.py"
FAMILY, FAMILY_RULES = f"{FLOWS}rest_family.py", "migrations/versions/0012_family.py"
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
        "if (words := kept_from_running_again(tx, [held.operation_id]).get(held.operation_id)) is not None:",
        "if (words := None) is not None:",
    ),
    mutant(
        "G4",
        "a late retry revives what is carried on, all at once",
        REST,
        S_UNCALLED,
        "if row.id not in blocked and row.id not in kept",
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
        "effect_of(word) in {Effect.UNKNOWN, Effect.UNDER_WAY}",
        "effect_of(word) in {Effect.UNDER_WAY}",
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
    mutant(
        "G4",
        "of two follow-ups the refused one runs again what the other has done",
        FAMILY,
        FAMILY_RULES,
        "        SELECT a.id FROM above a WHERE a.up IS NULL\n        UNION\n",
        "        SELECT CAST($1 AS bigint)\n        UNION\n",
    ),
    mutant(
        "G4",
        "a retry runs a statement that a person has seen done",
        FAMILY,
        "tern/domain/admission.py",
        "        case _ if facts.is_partly_done:\n",
        "        case _ if False:\n",
    ),
    mutant(
        "G4",
        "a late retry runs a statement that a person has seen done",
        FAMILY,
        "tern/store/carried.py",
        "    kept = {row.id: words for row in tx.execute(_PARTLY_DONE, given)}\n",
        "    kept: dict[int, str] = {}\n",
    ),
    mutant(
        "G7",
        "the last change at a target is the rollout that was accepted last",
        FAMILY,
        "tern/store/half_done.py",
        "ORDER BY f.completed_at DESC, f.id DESC LIMIT 1) f",
        "ORDER BY f.id DESC LIMIT 1) f",
    ),
    mutant(
        "G13",
        "a name of a target that moves is none any more",
        f"{FAMILY} -k moved_name",
        FAMILY_RULES,
        "        AND (finding = 'two' OR NEW.engine_identity <> OLD.engine_identity);\n    UPDATE",
        "        AND true;\n    UPDATE",
    ),
    mutant(
        "G7",
        "what is half done is forgotten with its deployment's name",
        f"{HALF} -k forgotten",
        "tern/store/half_done.py",
        "where='f.engine_number = d.engine_number AND f.target = d.target'",
        "where='f.id = 0'",
    ),
    mutant(
        "G7",
        "all targets of an engine are one",
        f"{HALF} -k another_target",
        "tern/store/half_done.py",
        "where='f.engine_number = d.engine_number AND f.target = d.target'",
        "where='f.engine_number = d.engine_number'",
    ),
)

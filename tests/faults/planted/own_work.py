"""Planted bugs in whose work a look is about, and in what is sent while that is in doubt (G2, G10)."""

from tests.faults.planted.mutant import D_CONTROL, FLOWS, S_SEEN, mutant

OWN_WORK, RESOLVE, SERVER = "tern/domain/own_work.py", "tern/store/resolve.py", "tern/engine/server.py"
OF_LOOKS = f"{FLOWS}own_work.py"
D_LOOKS = "tests/domain/test_own_work.py"

MUTANTS = (
    mutant(
        "G2",
        "what an engine says of an id is believed whatever it is about",
        OF_LOOKS,
        S_SEEN,
        "    return judge.weigh(tx, row, look.outcome.value) if look and isinstance(look.outcome, Ok) else Evidence()",
        "    return Evidence()",
    ),
    mutant(
        "G2",
        "a start believes the look before it whatever it is about",
        OF_LOOKS,
        "tern/flows/control.py",
        "        case Ok(sample) if why := ports.store.refuting(claim, sample):\n",
        '        case Ok(sample) if (why := ""):\n',
    ),
    mutant(
        "G2",
        "the id of finished work is new work's without a sign of it",
        OF_LOOKS,
        OWN_WORK,
        "    if kept.earlier_started_at is not None and not seen.names_statements:",
        "    if False:",
    ),
    mutant(
        "G2",
        "a stop leaves with an id in doubt",
        OF_LOOKS,
        D_CONTROL,
        "    if facts.has_remote_id and is_held(",
        "    if not verb.is_halting and facts.has_remote_id and is_held(",
    ),
    mutant(
        "G10",
        "a look that shows nothing ends a doubt",
        f"{OF_LOOKS} {D_LOOKS}",
        OWN_WORK,
        "(self.confirms or not kept.is_in_doubt)",
        "True",
    ),
    mutant(
        "G2",
        "another database is no matter",
        f"{OF_LOOKS} {D_LOOKS}",
        OWN_WORK,
        "if kept.identity and sample.identity and kept.identity != sample.identity:",
        "if False:",
    ),
    mutant(
        "G2",
        "another beginning is no matter",
        f"{OF_LOOKS} {D_LOOKS}",
        OWN_WORK,
        "        confirms = is_same_moment(kept.started_at, sample.started_at)",
        "        confirms = True",
    ),
    mutant(
        "G2",
        "a refuted first look is what the later ones are compared with",
        OF_LOOKS,
        S_SEEN,
        '"identity": sample.identity if sample is not None and applied else None,',
        '"identity": sample.identity if sample is not None else None,',
    ),
    mutant(
        "G2",
        "a driver keeps its claim when its operation comes into doubt",
        OF_LOOKS,
        "tern/store/foreign.py",
        '        " fence = fence + 1, claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL,"\n',
        "",
        "tern/store/dispatch.py",
        " AND o.doubt = ''",
        "",
    ),
    mutant(
        "G2",
        "a person's id is stored without a look at it",
        OF_LOOKS,
        RESOLVE,
        "                if new_id is not None:\n                    _check_sighting(",
        "                if False:\n                    _check_sighting(",
    ),
    mutant(
        "G12",
        "what happened while the engine was asked does not count",
        OF_LOOKS,
        RESOLVE,
        "    if sighting.fence != row.fence:",
        "    if False:",
    ),
    mutant(
        "G2",
        "an error does not name its database",
        "tests/engine/test_server.py",
        SERVER,
        "                if self._service.works_at:\n",
        "                if self._service.works_at and context.code() is None:\n",
    ),
)

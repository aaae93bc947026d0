"""What the catalogue says about an index that was built or dropped without a transaction, and who still builds it."""

from dataclasses import dataclass, replace

from tern.engine import job as books
from tern.engine.grammar import parse
from tern.engine.job import Job, KeptStep
from tern.engine.names import Name
from tern.engine.parse import nodes, without_positions
from tern.engine.recipes.model import Step, StepKind
from tern.engine.session import Connection, application_name, row, rows

BUILDER = "build"
WORKER = "work"
CONTROLLER = "ctl"


@dataclass(frozen=True)
class FoundIndex:
    """An index as it stands."""

    oid: int
    is_valid: bool
    definition: str


@dataclass(frozen=True)
class Build:
    """How far CREATE INDEX CONCURRENTLY is."""

    phase: str
    done: int
    total: int
    waits_for: int | None


def find_index(connection: Connection, index: Name) -> FoundIndex | None:
    """The index of that name, or None. Needs search_path without the table's namespace, see definition_key()."""
    found = row(
        connection,
        "SELECT i.indexrelid::oid AS oid, i.indisvalid AND i.indisready AND i.indislive AS is_valid,"
        "       pg_get_indexdef(i.indexrelid) AS definition"
        "  FROM pg_index AS i WHERE i.indexrelid = to_regclass(%s)::oid",
        (index.sql(),),
    )
    return None if found is None else FoundIndex(**found)


def definition_key(definition: str) -> str:
    """An index definition without its own name and without the table's namespace: equal for a table and its clone."""
    tree = parse(definition)
    statement = tree.stmts[0].stmt.index_stmt
    statement.idxname = ""
    statement.relation.schemaname = ""
    # In 18 each opclass and collation is spelled only if it isn't the default; nothing else names a namespace.
    for relation in nodes(tree, "RangeVar"):
        relation.schemaname = ""
    return str(without_positions(tree).SerializeToString(deterministic=True).hex())


def sessions(connection: Connection, job: str, role: str) -> list[int]:
    """The server processes that work for a job in a role, whoever started them."""
    found = rows(
        connection,
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()",
        (application_name(job, role),),
    )
    return [each["pid"] for each in found]


def builders(connection: Connection, job: str) -> list[int]:
    """The server processes that build or drop an index for a job at this moment, a killed engine's included."""
    found = rows(
        connection,
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()"
        "   AND state = 'active'",
        (application_name(job, BUILDER),),
    )
    return [each["pid"] for each in found]


def cancel(connection: Connection, pid: int) -> None:
    """Ends the statement that a process of ours runs."""
    connection.execute("SELECT pg_cancel_backend(%s)", (pid,))


def terminate(connection: Connection, pid: int) -> None:
    """Ends a process of ours."""
    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def build_progress(connection: Connection, pid: int) -> Build | None:
    """How far the index build of a process is; None if it isn't building."""
    found = row(
        connection,
        "SELECT phase, nullif(current_locker_pid, 0) AS waits_for, blocks_done, blocks_total,"
        "       tuples_done, tuples_total, lockers_done, lockers_total"
        "  FROM pg_stat_progress_create_index WHERE pid = %s",
        (pid,),
    )
    if found is None:
        return None
    pair = ("tuples_done", "tuples_total") if found["tuples_total"] else ("blocks_done", "blocks_total")
    return Build(found["phase"], found[pair[0]], found[pair[1]], found["waits_for"])


class TakenError(Exception):
    """An index of that name is there, and it is not the one that this step is to build."""


def settle_index(connection: Connection, job: Job, kept: KeptStep, step: Step) -> bool:
    """Notes an index step as done if the catalogue says that it is; raises if the name is somebody else's.

    Run before the first attempt, after every attempt and after a crash: an answer that was lost doesn't matter.
    """
    index = _index_of(step)
    found = find_index(connection, index)
    if step.kind is StepKind.BUILD_INDEX:
        if found is None:
            return False
        if definition_key(found.definition) != step.expect:
            message = f"an index {index} exists already, with another definition"
            raise TakenError(message)
        if not found.is_valid:
            if kept.attempts == 0:
                message = f"an index {index} exists already and is invalid; drop it first"
                raise TakenError(message)
            return False
    elif found is not None and (not step.expect or definition_key(found.definition) == step.expect):
        return False
    undone = step is not kept.step
    with books.fenced(connection, job.id, job.epoch):
        books.finish_step(connection, job.id, kept, status="undone" if undone else "done")
        if not undone:
            books.finish_change(connection, job.id, kept.change)
    return True


def next_statement(connection: Connection, step: Step) -> Step:
    """What to execute now: the step, or first the removal of what an interrupted attempt left of it."""
    index = _index_of(step)
    if step.kind is StepKind.BUILD_INDEX and find_index(connection, index) is not None:
        return replace(step, kind=StepKind.DROP_INDEX, sql=f"DROP INDEX CONCURRENTLY {index.sql()}")
    return step


def _index_of(step: Step) -> Name:
    if step.index is None:
        message = f"a step without its index: {step.kind}"
        raise ValueError(message)
    return step.index

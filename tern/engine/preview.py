"""What a plan would do here: the one judgement behind Preview and Apply, so that they never disagree."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import psycopg

from tern.engine import catalog, failure, oracle, unsafe
from tern.engine.errors import EngineError, Reason
from tern.engine.job import KeptStep
from tern.engine.judge import Judge
from tern.engine.names import Name
from tern.engine.order import after_cutover
from tern.engine.parse import RefusedError, read
from tern.engine.recipes.model import NOTHING_TO_DO, ChangeClass, LockMode, Step, StepKind
from tern.engine.scope import Target, aim, refuse_mismatch
from tern.engine.session import Connection
from tern.engine.trial import Trial
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours

CLASSES = {
    ChangeClass.METADATA: ours.CHANGE_CLASS_METADATA,
    ChangeClass.SCAN: ours.CHANGE_CLASS_SCAN,
    ChangeClass.INDEX_BUILD: ours.CHANGE_CLASS_INDEX_BUILD,
    ChangeClass.FK_SCAN: ours.CHANGE_CLASS_FK_SCAN,
    ChangeClass.REWRITE: ours.CHANGE_CLASS_REWRITE,
}
# What one core does in a second on a cached table; good for an order of magnitude.
ROWS_PER_SECOND = {
    ChangeClass.SCAN: 800_000,
    ChangeClass.INDEX_BUILD: 400_000,
    ChangeClass.FK_SCAN: 500_000,
    ChangeClass.REWRITE: 150_000,
}


@dataclass(frozen=True)
class Asked:
    """One change as it was declared."""

    namespace: str
    table: str
    ddl: str
    change_type: int = 0

    @property
    def name(self) -> Name:
        """What the change was declared to be about."""
        return Name(self.namespace, self.table)


@dataclass(frozen=True)
class Verdict:
    """What would become of one change."""

    asked: Asked
    change_class: ChangeClass = ChangeClass.METADATA
    recipe: str = ""
    # Each with the number of its atom.
    steps: tuple[tuple[int, Step], ...] = ()
    unsafe: tuple[str, ...] = ()
    refused: RefusedError | None = None
    estimated_rows: int = 0
    # What nobody else may change meanwhile.
    tables: frozenset[Name] = field(default_factory=frozenset)

    @property
    def is_instant(self) -> bool:
        """Whether no row is read."""
        return self.change_class is ChangeClass.METADATA

    @property
    def words(self) -> str:
        """Which change this is, for a message."""
        return f"change on {self.asked.name}"

    @property
    def locks(self) -> dict[Name, LockMode]:
        """The strongest lock on each relation that any step takes."""
        strongest: dict[Name, LockMode] = {}
        for _, step in self.steps:
            for lock in step.locks:
                strongest[lock.relation] = max(lock.mode, strongest.get(lock.relation, lock.mode))
        return strongest

    def message(self, after_cutover_s: float = 0.0) -> ours.ChangePreview:
        """The verdict as the contract tells it. after_cutover_s: how much of it can't be done before the cutover."""
        refused = self.refused
        is_known = refused is None or refused.reason is Reason.REWRITE_REFUSED
        speed = ROWS_PER_SECOND.get(self.change_class)
        return ours.ChangePreview(
            namespace=self.asked.namespace,
            table=self.asked.table,
            change_class=CLASSES[self.change_class] if is_known else ours.CHANGE_CLASS_UNSPECIFIED,
            recipe=self.recipe,
            locks=[
                ours.PreviewLock(relation=str(relation), mode=mode.catalog_name)
                for relation, mode in sorted(self.locks.items())
            ],
            is_unsafe=bool(self.unsafe),
            unsafe_reason="; ".join(self.unsafe),
            refused=refused is not None,
            refused_reason="" if refused is None else f"{refused.reason}: {refused.words}",
            estimated_rows=self.estimated_rows,
            estimated_seconds=0.0 if speed is None else self.estimated_rows / speed,
            seconds_after_cutover=after_cutover_s,
        )


def judge(connection: Connection, asked: Sequence[Asked]) -> list[Verdict]:
    """Judges the changes of a plan in their order, each on the ground that the earlier ones prepared."""
    try:
        with oracle.consult(connection) as consulted:
            return [_judge_one(consulted, each) for each in asked]
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"the engine's role can't try statements here: {failure.words(error)}"
        raise EngineError(grpc.StatusCode.FAILED_PRECONDITION, Reason.NOT_PREVIEWED, message) from error


def told(verdicts: Sequence[Verdict]) -> ours.PreviewResponse:
    """The answer to a Preview: each verdict, and how long what takes long lasts that has to follow the cutover."""
    kept: list[KeptStep] = []
    for change, verdict in enumerate(verdicts):
        for atom, step in verdict.steps:
            kept.append(KeptStep(len(kept), change, atom, "pending", 0, step))
    seconds = [0.0] * len(verdicts)
    for each in after_cutover(kept):
        verdict = verdicts[each.change]
        is_build = each.step.kind is StepKind.BUILD_INDEX
        speed = ROWS_PER_SECOND[ChangeClass.INDEX_BUILD if is_build else ChangeClass.SCAN]
        seconds[each.change] += verdict.estimated_rows / speed
    return ours.PreviewResponse(
        changes=[verdict.message(each) for verdict, each in zip(verdicts, seconds, strict=True)]
    )


def refusal(verdict: Verdict) -> EngineError:
    """The refusal of an Apply that holds a refused change."""
    refused = verdict.refused
    if refused is None:
        message = "only a refused change has a refusal"
        raise ValueError(message)
    is_unreadable = refused.reason is Reason.DDL_INVALID and refused.position
    code = grpc.StatusCode.INVALID_ARGUMENT if is_unreadable else grpc.StatusCode.FAILED_PRECONDITION
    return EngineError(code, refused.reason, f"{verdict.words}: {refused.words}")


def _judge_one(consulted: oracle.Oracle, asked: Asked) -> Verdict:
    connection = consulted.connection
    rows = 0
    unsafe_words: tuple[str, ...] = ()
    try:
        parsed, target = aim(read(asked.ddl), asked.namespace)
        table = _table_of(connection, target, consulted)
        refuse_mismatch(target, asked.name, index_table=table if table != target.name else None)
        rows = catalog.estimated_rows(connection, table)
        unsafe_words = unsafe.reasons(parsed)
        judged = Judge(Trial(consulted)).recipe(parsed, target)
    except RefusedError as refused:
        rewrite = refused.reason is Reason.REWRITE_REFUSED
        change_class = ChangeClass.REWRITE if rewrite else ChangeClass.METADATA
        return Verdict(asked, change_class, unsafe=unsafe_words, refused=refused, estimated_rows=rows)
    names = dict.fromkeys(recipe.name for recipe in judged.recipes if recipe.name != NOTHING_TO_DO)
    return Verdict(
        asked,
        judged.change_class,
        "+".join(names) or NOTHING_TO_DO,
        tuple((atom, step) for atom, recipe in enumerate(judged.recipes) for step in recipe.steps),
        unsafe_words,
        estimated_rows=rows,
        tables=frozenset({table}),
    )


def _table_of(connection: Connection, target: Target, consulted: oracle.Oracle) -> Name:
    """The table that a statement is about: for an index, the one that it belongs to."""
    if target.object_type != "OBJECT_INDEX":
        return target.name
    place = catalog.index_table(connection, consulted.clones.place(target.name))
    return catalog.index_table(connection, target.name) or (
        (consulted.clones.original(place) if place else None) or target.name
    )

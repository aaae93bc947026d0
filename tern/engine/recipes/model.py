"""What a recipe is made of: steps, the locks they need, and how one that can't be finished is undone."""

from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any

from tern.engine.names import Name


class LockMode(IntEnum):
    """PostgreSQL's table locks, the weakest first, so that the strongest of several is their max()."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def catalog_name(self) -> str:
        """As pg_locks spells it."""
        return "".join(word.capitalize() for word in self.name.split("_")) + "Lock"

    @property
    def sql(self) -> str:
        """As LOCK TABLE spells it."""
        return self.name.replace("_", " ")

    @classmethod
    def of_catalog_name(cls, name: str) -> "LockMode | None":
        """The mode that pg_locks spells so; None for locks of other kinds."""
        return next((mode for mode in cls if mode.catalog_name == name), None)


# Which granted modes make a request wait.
CONFLICTS: dict[LockMode, frozenset[LockMode]] = {
    LockMode.ACCESS_SHARE: frozenset({LockMode.ACCESS_EXCLUSIVE}),
    LockMode.ROW_SHARE: frozenset({LockMode.EXCLUSIVE, LockMode.ACCESS_EXCLUSIVE}),
    LockMode.ROW_EXCLUSIVE: frozenset(mode for mode in LockMode if mode >= LockMode.SHARE),
    LockMode.SHARE_UPDATE_EXCLUSIVE: frozenset(
        mode for mode in LockMode if mode >= LockMode.SHARE_UPDATE_EXCLUSIVE
    ),
    LockMode.SHARE: frozenset(
        mode for mode in LockMode if mode >= LockMode.ROW_EXCLUSIVE and mode is not LockMode.SHARE
    ),
    LockMode.SHARE_ROW_EXCLUSIVE: frozenset(mode for mode in LockMode if mode >= LockMode.ROW_EXCLUSIVE),
    LockMode.EXCLUSIVE: frozenset(mode for mode in LockMode if mode >= LockMode.ROW_SHARE),
    LockMode.ACCESS_EXCLUSIVE: frozenset(LockMode),
}


class ChangeClass(StrEnum):
    """What the plain statement would do to the rows, the cheapest first."""

    METADATA = "metadata"
    SCAN = "scan"
    INDEX_BUILD = "index_build"
    FK_SCAN = "fk_scan"
    REWRITE = "rewrite"

    @property
    def weight(self) -> int:
        """For max(): a statement is as expensive as its most expensive part."""
        return list(ChangeClass).index(self)


class StepKind(StrEnum):
    """How a step is executed."""

    # One short transaction under bounded locks, committed together with the note that it is done.
    DIRECT = "direct"
    # One transaction that reads the whole table under a lock that stops no reader and no writer.
    VALIDATE = "validate"
    # CREATE INDEX CONCURRENTLY: no transaction; the catalogue tells afterwards whether it succeeded.
    BUILD_INDEX = "build_index"
    # DROP INDEX CONCURRENTLY: likewise.
    DROP_INDEX = "drop_index"


@dataclass(frozen=True)
class TableLock:
    """One lock that a step takes."""

    relation: Name
    mode: LockMode


@dataclass(frozen=True)
class Step:
    """One thing that is done at once or not at all."""

    kind: StepKind
    sql: str
    # The namespace in which unqualified names (types, functions, other tables) are looked up.
    namespace: str
    locks: tuple[TableLock, ...] = ()
    # The table on whose owner's behalf the step runs; None for new objects, which belong to the engine's role.
    owned_by: Name | None = None
    # BUILD_INDEX and DROP_INDEX: the index, and its definition without the table's namespace.
    index: Name | None = None
    expect: str = ""
    # BUILD_INDEX: something had its name when it was judged, which a step before it removes.
    takes_name: bool = False
    # What removes the traces if the atom can't be finished.
    undo: "Step | None" = None
    # Relations that exist only because an earlier step of the same job made them: nobody uses them yet.
    fresh: bool = False

    @property
    def is_seen_by_application(self) -> bool:
        """Whether the application could notice: it needs ACCESS EXCLUSIVE on a table that is in use."""
        return not self.fresh and any(lock.mode is LockMode.ACCESS_EXCLUSIVE for lock in self.locks)

    def to_json(self) -> dict[str, Any]:
        """The step as it is kept in _tern.step."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Step":
        """The step that to_json() wrote."""
        return cls(
            kind=StepKind(body["kind"]),
            sql=body["sql"],
            namespace=body["namespace"],
            locks=tuple(
                TableLock(Name(**lock["relation"]), LockMode(lock["mode"])) for lock in body["locks"]
            ),
            owned_by=None if body["owned_by"] is None else Name(**body["owned_by"]),
            index=None if body["index"] is None else Name(**body["index"]),
            expect=body["expect"],
            # Steps of an engine of the version before have none.
            takes_name=body.get("takes_name", False),
            undo=None if body["undo"] is None else cls.from_json(body["undo"]),
            fresh=body["fresh"],
        )


@dataclass(frozen=True)
class Recipe:
    """The steps of one atom: a part of a statement that is finished or undone as a whole."""

    name: str
    steps: tuple[Step, ...]


# Of a statement whose effect is already there.
NOTHING_TO_DO = "nothing_to_do"

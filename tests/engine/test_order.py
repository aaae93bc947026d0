"""What takes long goes before a deferred cutover, wherever it depends on nothing that waits for it."""

import pytest

from tern.engine.job import KeptStep
from tern.engine.names import Name
from tern.engine.order import after_cutover, next_before_cutover
from tern.engine.recipes.model import LockMode, Step, StepKind, TableLock
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import Database, Driver

DEFER = {"defer_cutover": "true", "allow_unsafe": "true"}


def step(kind: StepKind, sql: str, *tables: str, mode: LockMode = LockMode.SHARE_UPDATE_EXCLUSIVE) -> Step:
    return Step(kind, sql, "public", tuple(TableLock(Name("public", each), mode) for each in tables))


def seen(sql: str, *tables: str) -> Step:
    return step(StepKind.DIRECT, sql, *tables, mode=LockMode.ACCESS_EXCLUSIVE)


def build(sql: str, table: str) -> Step:
    return step(StepKind.BUILD_INDEX, sql, table)


ADD_K = seen("ALTER TABLE public.t ADD COLUMN k int", "t")
ON_A = build("CREATE INDEX CONCURRENTLY t_a ON public.t USING btree (a)", "t")
ON_K = build("CREATE INDEX CONCURRENTLY t_k ON public.t USING btree (k)", "t")
ON_U = build("CREATE INDEX CONCURRENTLY u_a ON public.u USING btree (a)", "u")
RENAME = seen("ALTER TABLE public.t RENAME TO u", "t")
KEY = seen("ALTER TABLE public.u ADD CONSTRAINT u_a UNIQUE USING INDEX u_a", "u")
REFERS = step(
    StepKind.DIRECT,
    "ALTER TABLE public.v ADD CONSTRAINT v_a FOREIGN KEY (a) REFERENCES public.u (a) NOT VALID",
    *("v", "u"),
    mode=LockMode.SHARE_ROW_EXCLUSIVE,
)
CREATE = step(StepKind.DIRECT, "CREATE FUNCTION public.f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'")
ON_F = build("CREATE INDEX CONCURRENTLY w_f ON public.w USING btree (public.f(a))", "w")
VALID = step(StepKind.VALIDATE, "ALTER TABLE public.t VALIDATE CONSTRAINT small", "t")
VALID_K = step(StepKind.VALIDATE, "ALTER TABLE public.t VALIDATE CONSTRAINT k", "t")
DROP_INDEX = step(StepKind.DROP_INDEX, "DROP INDEX CONCURRENTLY public.w_b", "w")


def kept(*steps: Step) -> list[KeptStep]:
    return [KeptStep(number, number, 0, "pending", 0, each) for number, each in enumerate(steps)]


@pytest.mark.parametrize(
    ("steps", "goes"),
    [
        ((ON_A, ADD_K), 0),
        ((ADD_K, ON_A), 1),
        ((ADD_K, ON_U), 1),
        ((ADD_K, ON_K), None),
        ((ADD_K, ON_K, ON_U), 2),
        ((RENAME, ON_U), None),
        ((KEY, REFERS), None),
        ((ADD_K, CREATE, ON_F), None),
        ((CREATE, ADD_K, ON_F), 0),
        ((ADD_K, VALID), 1),
        ((ADD_K, VALID_K), None),
        ((ADD_K, DROP_INDEX), None),
        ((ADD_K,), None),
        ((), None),
    ],
)
def test_what_is_next_before_a_cutover(steps: tuple[Step, ...], goes: int | None) -> None:
    found = next_before_cutover(kept(*steps))
    assert (None if found is None else found.n) == goes


def test_within_one_atom_nothing_is_overtaken() -> None:
    """Its steps prepare each other."""
    both = [KeptStep(0, 0, 0, "pending", 0, ADD_K), KeptStep(1, 0, 0, "pending", 0, ON_U)]
    assert next_before_cutover(both) is None


def test_what_follows_the_cutover_is_all_that_could_not_go_before() -> None:
    assert [each.n for each in after_cutover(kept(ADD_K, ON_A, ON_K, ON_U, VALID_K))] == [2, 4]


def test_a_build_on_another_table_is_done_while_the_job_waits(
    db: Database, driver: Driver, table: str
) -> None:
    """The cutover that somebody waits for is short then."""
    db.execute("CREATE TABLE u (id int, a int)")
    db.execute("INSERT INTO u SELECT g, g FROM generate_series(1, 1000) AS g")
    changes = [
        contract.TableChange(table_name="t", ddl="ALTER TABLE t ADD COLUMN k int"),
        contract.TableChange(table_name="u", ddl="CREATE INDEX u_a ON u (a)"),
        contract.TableChange(table_name="t", ddl="CREATE INDEX t_a ON t (a)"),
        contract.TableChange(table_name="t", ddl="CREATE INDEX t_k ON t (k)"),
    ]
    request = contract.ApplyRequest(ddl_changes=changes, options=DEFER, idempotency_key="order")
    job = driver.service.apply(request, driver.context).apply_id
    waiting = driver.wait(job, "WAITING_FOR_CUTOVER")
    assert [each.status for each in waiting.tables] == ["pending", "completed", "completed", "pending"]
    names = {each[0] for each in db.execute("SELECT relname FROM pg_class WHERE relname ~ '^[tu]_[ak]$'")}
    assert names == {"u_a", "t_a"}
    # After a stop in between as well.
    driver.stop(job)
    driver.wait(job, "STOPPED")
    driver.start(job)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    assert driver.cutover(job).accepted
    done = driver.wait(job, "COMPLETED")
    assert [each.status for each in done.tables] == ["completed"] * 4


def cut_over(driver: Driver, *statements: tuple[str, str]) -> None:
    """All of it, with the cutover said once it waits for it."""
    changes = [contract.TableChange(table_name=table, ddl=ddl) for table, ddl in statements]
    request = contract.ApplyRequest(ddl_changes=changes, options=DEFER)
    job = driver.service.apply(request, driver.context).apply_id
    driver.wait(job, "WAITING_FOR_CUTOVER")
    assert driver.cutover(job).accepted
    driver.wait(job, "COMPLETED")


def definition(db: Database, index: str) -> str:
    (found,) = db.execute("SELECT pg_get_indexdef(to_regclass(%s))", (index,)).fetchall()
    return str(found[0])


def test_an_index_on_a_column_called_as_its_table_is_on_the_one_that_has_the_name_by_then(
    db: Database, driver: Driver
) -> None:
    """Built before the columns change their names, it would be on the old one, and nobody would be told."""
    db.execute("CREATE TABLE status (status text, new_status int)")
    cut_over(
        driver,
        ("status", "ALTER TABLE status RENAME COLUMN status TO old_status"),
        ("status", "ALTER TABLE status RENAME COLUMN new_status TO status"),
        ("status", "CREATE UNIQUE INDEX status_i ON status (status)"),
    )
    assert definition(db, "status_i").endswith("(status)")


def test_a_column_may_be_called_as_a_namespace(db: Database, driver: Driver) -> None:
    db.execute("CREATE TABLE p (is_public bool)")
    cut_over(
        driver,
        ("p", "ALTER TABLE p RENAME COLUMN is_public TO public"),
        ("p", "CREATE INDEX p_public ON p (public)"),
    )
    assert definition(db, "p_public").endswith("(public)")


@pytest.mark.parametrize("goes", ["ALTER TABLE q DROP COLUMN a", "DROP TABLE q"])
def test_an_index_waits_for_its_name_to_become_free(goes: str, db: Database, driver: Driver) -> None:
    """What takes the name's holder along doesn't name it."""
    db.execute("CREATE TABLE p (b int)")
    db.execute("CREATE TABLE q (a int, b int)")
    db.execute("CREATE INDEX the_i ON q (a, b)")
    on = "q" if "COLUMN" in goes else "p"
    cut_over(driver, ("q", goes), (on, f"CREATE INDEX the_i ON {on} (b)"))
    assert definition(db, "the_i").endswith("(b)")


def test_a_unique_constraint_waits_for_its_name_too(db: Database, driver: Driver) -> None:
    db.execute("CREATE TABLE q (a int, b int)")
    db.execute("CREATE INDEX q_key ON q (a, b)")
    cut_over(
        driver,
        ("q", "ALTER TABLE q DROP COLUMN a"),
        ("q", "ALTER TABLE q ADD CONSTRAINT q_key UNIQUE (b)"),
    )
    assert definition(db, "q_key").endswith("(b)")


def test_a_constraint_is_proven_after_the_function_that_it_leads_to(db: Database, driver: Driver) -> None:
    """VALIDATE says the constraint's name alone."""
    db.execute("CREATE TABLE p (a int)")
    db.execute("CREATE TABLE q (a int)")
    db.execute("INSERT INTO p VALUES (5)")
    function = "FUNCTION ok(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 < {}'"
    db.execute(f"CREATE {function.format(3)}")
    db.execute("ALTER TABLE p ADD CONSTRAINT c CHECK (ok(a)) NOT VALID")
    cut_over(
        driver,
        ("q", "ALTER TABLE q ADD COLUMN k int"),
        ("ok", f"CREATE OR REPLACE {function.format(9)}"),
        ("p", "ALTER TABLE p VALIDATE CONSTRAINT c"),
    )


def test_a_primary_key_s_index_is_built_before_the_wait(db: Database, driver: Driver) -> None:
    db.execute("CREATE TABLE p (a int)")
    db.execute("INSERT INTO p SELECT generate_series(1, 1000)")
    job = driver.apply("ALTER TABLE p ADD PRIMARY KEY (a)", table="p", options=DEFER)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    assert db.execute("SELECT indisvalid FROM pg_index WHERE indrelid = 'p'::regclass").fetchall() == [
        (True,)
    ]
    driver.cutover(job)
    driver.wait(job, "COMPLETED")
    assert db.execute("SELECT indisprimary FROM pg_index WHERE indrelid = 'p'::regclass").fetchall() == [
        (True,)
    ]


def test_a_preview_says_how_long_the_cutover_takes(db: Database, driver: Driver) -> None:
    db.execute("CREATE TABLE big (a int, b int)")
    db.execute("UPDATE pg_class SET reltuples = 8000000, relpages = 100000 WHERE oid = 'big'::regclass")
    add, on_b, on_k, check = driver.preview(
        "ALTER TABLE big ADD COLUMN k int",
        "CREATE INDEX ON big (b)",
        "CREATE INDEX ON big (k)",
        "ALTER TABLE big ADD CONSTRAINT small CHECK (a < 9)",
        table="big",
    )
    assert (add.seconds_after_cutover, on_b.seconds_after_cutover) == (0, 0)
    assert on_b.estimated_seconds > 0
    assert on_k.seconds_after_cutover == on_k.estimated_seconds
    # What a check finds wrong from then on can be noticed, so its proof follows.
    assert check.seconds_after_cutover == check.estimated_seconds > 0

"""Whose work a look is about: what refutes it, what only seems to, and what leads out of a doubt (G2, G10)."""

import pytest

from tern.domain.answer import fitting
from tern.domain.control import Delivery, DriveFacts, Step, Verb, next_step
from tern.domain.doubt import Doubt, held_words, is_held
from tern.domain.identity import RemoteId
from tern.domain.own_work import Kept, Work, is_same_moment, weigh
from tern.domain.samples import Sample, TableSample
from tern.domain.states import State
from tern.domain.work import Resolved
from tern.doors.fingerprint import STATEMENTS

ADD = "ALTER TABLE orders ADD COLUMN note text"
SERVER, OTHER_SERVER = "7401/16384", "7402/16384"
BEGAN = "2026-05-04T01:02:03.456789+00:00"


def work(*changes: tuple[str, str, str]) -> Work:
    return Work.of(changes or [("public", "orders", ADD)], STATEMENTS.read, "public")


def look(*tables: tuple[str, str, str], identity: str = "", started_at: str = "") -> Sample:
    return Sample(
        RemoteId("R"),
        State.RUNNING,
        "running",
        tables=tuple(TableSample(namespace, table, ddl, "running") for namespace, table, ddl in tables),
        identity=identity,
        started_at=started_at,
    )


def against(seen: Sample, ours: Work | None = None, kept: Kept | None = None) -> tuple[str, ...]:
    return weigh(kept or Kept(), ours or work(), seen, STATEMENTS.read).against


OWN = ("public", "orders", ADD)
FOREIGN = ("public", "invoices", "ALTER TABLE invoices DROP COLUMN vat")


def test_tables_of_others_refute_and_the_words_name_both() -> None:
    (why,) = against(look(("public", "invoices", "")))
    assert "public.invoices" in why
    assert "public.orders" in why


def test_a_statement_that_is_none_of_ours_refutes_though_its_table_is_ours() -> None:
    (why,) = against(look(("public", "orders", "ALTER TABLE orders DROP COLUMN note")))
    assert "DROP COLUMN note" in why


def test_no_tables_are_no_evidence() -> None:
    assert against(look()) == ()
    assert against(look(("", "", ""))) == ()


@pytest.mark.parametrize(
    "seen",
    [
        OWN,
        ("", "orders", ADD),
        ("public", "orders", ""),
        ("public", "orders", f"{ADD};"),
        ("public", "orders", "alter table public.orders add note TEXT"),
        ("public", "orders", "copying in the engine's own words"),
        ("public", "orders", "ALTER TABLE `orders` ADD COLUMN note text"),
        ("public", "orders", "x" * 1_000_000),
    ],
)
def test_what_is_ours_in_other_words_refutes_nothing(seen: tuple[str, str, str]) -> None:
    assert against(look(seen)) == ()


def test_one_table_of_ours_among_others_is_enough() -> None:
    assert against(look(("public", "invoices", ""), ("public", "orders", ""))) == ()


def test_another_namespace_is_another_table() -> None:
    assert against(look(("archive", "orders", "")))
    assert against(look(("archive", "orders", ADD))), "the same text is about another table there"
    assert against(look(("public", "orders", "ALTER TABLE archive.orders ADD COLUMN note text")))


def test_an_entry_may_merge_our_statements_or_hold_a_part_of_one() -> None:
    ours = work(OWN, ("public", "orders", "ALTER TABLE orders ADD a int, ADD b int"))
    for ddl in (
        "ALTER TABLE orders ADD COLUMN note text, ADD a int, ADD b int",
        f"{ADD}; ALTER TABLE orders ADD b int",
        "ALTER TABLE orders ADD b int",
    ):
        assert against(look(("public", "orders", ddl)), ours) == (), ddl
    assert against(look(("public", "orders", "ALTER TABLE orders ADD a int, DROP b")), ours)


def test_the_old_and_the_new_name_of_a_rename_are_the_same() -> None:
    ours = work(("public", "orders", "ALTER TABLE orders RENAME TO sales"))
    assert against(look(("public", "sales", "")), ours) == ()
    assert against(look(("public", "orders", "")), ours) == ()
    assert against(look(("public", "invoices", "")), ours)
    moved = work(("public", "orders", "ALTER TABLE orders SET SCHEMA archive"))
    assert against(look(("archive", "orders", "")), moved) == ()


def test_an_index_and_its_table_are_the_same() -> None:
    ours = work(("public", "orders", "CREATE INDEX by_note ON orders (note)"))
    assert against(look(("public", "by_note", "")), ours) == ()
    assert (
        against(
            look(("public", "x", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_note ON orders (note)")), ours
        )
        == ()
    )
    assert against(look(("public", "invoices", "")), ours)
    # Whose index it is, the text does not say: the engine may name its table.
    dropped = work(("public", "by_note", "DROP INDEX by_note"))
    assert against(look(("public", "orders", "")), dropped) == ()
    assert against(look(("public", "orders", "DROP INDEX by_name")), dropped)


def test_where_ours_cant_be_read_a_strange_statement_refutes_nothing_and_a_strange_table_does() -> None:
    ours = work(("shop", "orders", "RENAME TABLE `orders` TO `sales`"))
    assert against(look(("shop", "orders", "ALTER TABLE orders ADD COLUMN note text")), ours) == ()
    assert against(look(("shop", "sales", "")), ours) == ()
    assert against(look(("shop", "invoices", "")), ours)


def test_another_database_and_another_beginning_refute() -> None:
    kept = Kept(SERVER, BEGAN)
    assert against(look(OWN, identity=SERVER, started_at=BEGAN), kept=kept) == ()
    assert len(against(look(OWN, identity=OTHER_SERVER, started_at=BEGAN), kept=kept)) == 1
    assert len(against(look(OWN, identity=SERVER, started_at="2026-05-04T01:02:04+00:00"), kept=kept)) == 1
    assert len(against(look(FOREIGN, identity=OTHER_SERVER, started_at="yesterday"), kept=kept)) == 4
    # What is not said is left out.
    assert against(look(OWN), kept=kept) == ()
    assert against(look(OWN, identity=SERVER, started_at=BEGAN)) == ()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("soon", "soon", True),
        ("soon", "later", False),
        ("2026-05-04T01:02:03Z", "2026-05-04T03:02:03+02:00", True),
        ("2026-05-04T01:02:03.456789123Z", "2026-05-04T01:02:03.456Z", True),
        ("2026-05-04T01:02:03.456Z", "2026-05-04T01:02:03.457Z", False),
        ("2026-05-04T01:02:03Z", "2026-05-04T01:02:03.999Z", True),
        ("2026-05-04T01:02:03Z", "2026-05-04T01:02:04Z", False),
        ("2026-05-04 01:02:03", "2026-05-04T01:02:03", True),
        ("2026-05-04T01:02:03", "2026-05-04T01:02:03Z", True),
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", False),
        ("2026-05-04T01:02:03Z", "", False),
    ],
)
def test_the_same_moment_may_be_written_in_other_words(one: str, other: str, same: bool) -> None:  # noqa: FBT001
    assert is_same_moment(one, other) is same
    assert is_same_moment(other, one) is same


def test_a_finished_holders_id_counts_only_with_our_statements_or_a_new_beginning() -> None:
    again = Kept(earlier_started_at=BEGAN)
    assert against(look(("public", "orders", ""), started_at=BEGAN), kept=again)
    assert against(look(), kept=again)
    assert against(look(OWN, started_at=BEGAN), kept=again) == ()
    assert against(look(("public", "orders", ""), started_at="2026-06-01T00:00:00Z"), kept=again) == ()
    unknown = Kept(earlier_started_at="")
    assert against(look(("public", "orders", ""), started_at=BEGAN), kept=unknown), (
        "nobody knows when that began"
    )


def test_a_persons_word_outweighs_tables_but_not_a_later_change() -> None:
    vouched = Kept(is_vouched_for=True)
    assert weigh(vouched, work(), look(FOREIGN, identity=SERVER), STATEMENTS.read).counts(vouched)
    seen = Kept(SERVER, BEGAN, is_vouched_for=True)
    assert against(look(FOREIGN, identity=SERVER, started_at=BEGAN), kept=seen) == ()
    assert against(look(FOREIGN, identity=OTHER_SERVER, started_at=BEGAN), kept=seen)


def test_out_of_a_doubt_leads_only_what_has_something_to_show() -> None:
    """A foreign job that is through names no tables any more, and must not pass for ours by that."""
    doubted = Kept(SERVER, BEGAN, is_in_doubt=True)

    def counts(seen: Sample) -> bool:
        return weigh(doubted, work(), seen, STATEMENTS.read).counts(doubted)

    assert not counts(look())
    assert not counts(look(identity=SERVER)), "equal identifiers prove nothing"
    assert counts(look(started_at=BEGAN))
    assert counts(look(("public", "orders", "")))
    assert not counts(look(FOREIGN))
    assert weigh(Kept(), work(), look(), STATEMENTS.read).counts(Kept())


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb not in {Verb.RETRY, Verb.SKIP, Verb.RELEASE}])
@pytest.mark.parametrize("doubt", [Doubt.FOREIGN, Doubt.TAKEN])
def test_nothing_is_sent_with_an_id_in_doubt(verb: Verb, doubt: Doubt) -> None:
    """But a foreign job is halted for who names it; of an id given out twice nobody knows whom it would hit."""

    def step(*, named: bool) -> Step:
        return next_step(
            verb,
            DriveFacts(
                state=State.UNCERTAIN,
                has_remote_id=True,
                has_intent=True,
                key_is_dead=False,
                may_be_resolved=True,
                delivery=Delivery.PENDING,
                doubt=doubt,
                names_foreign=named,
            ),
        )

    assert step(named=False) is Step.HOLD
    goes = verb.is_halting and doubt is Doubt.FOREIGN
    assert step(named=True) is (Step.SEND if goes else Step.HOLD)
    assert is_held(doubt, may_halt_all_the_same=True) is (doubt is Doubt.TAKEN)


def test_the_words_name_the_id_and_the_ways_out_that_work() -> None:
    foreign = held_words(Doubt.FOREIGN, "apl-1/eu", "R")
    assert "tern resolve apl-1/eu --as same-work" in foreign
    assert "tern stop apl-1/eu --although-foreign=R" in foreign
    assert "--although-foreign" not in held_words(Doubt.TAKEN, "apl-1/eu", "R")
    assert held_words(Doubt.NONE, "apl-1/eu", "R") == ""


def test_the_answers_that_fit() -> None:
    """An id that stands is never replaced; that it is the same work answers a doubt, and nothing else."""
    for doubt in Doubt:
        without_one = fitting(has_remote_id=False, doubt=doubt)
        assert Resolved.SAME_WORK not in without_one
        assert {Resolved.ENDED, Resolved.COMPLETED} <= {*without_one}
        with_an_id = fitting(has_remote_id=True, doubt=doubt)
        assert {Resolved.ENDED, Resolved.COMPLETED} <= {*with_an_id}
        assert not {Resolved.NOT_STARTED, Resolved.REMOTE_ID, Resolved.REPEAT_APPLY} & {*with_an_id}
        assert (Resolved.SAME_WORK in with_an_id) is (doubt is not Doubt.NONE)

"""How far, how fast, how long: what is not known is never made up."""

from tern.domain.whole import Share, Weight, whole


def test_rows_weigh_where_they_are_known_and_else_operations() -> None:
    large = Share(50, rows_copied=450, rows_total=900)
    small = Share(100, is_done=True, rows_copied=100, rows_total=100)
    both = whole([large, small])
    assert (both.percent, both.percent_by, both.rows_known_for) == (55, Weight.ROWS, 2)
    assert (both.rows_copied, both.rows_total) == (550, 1_000)
    neither = whole([Share(50), Share(100, is_done=True)])
    assert (neither.percent, neither.percent_by, neither.rows_total) == (75, Weight.OPERATIONS, None)


def test_one_whose_rows_nobody_has_counted_weighs_what_the_others_do() -> None:
    """Else a rollout would be nearly done whenever its first deployments are."""
    counted = [Share(100, is_done=True, rows_copied=1_000, rows_total=1_000)] * 2
    found = whole([*counted, *[Share(0)] * 8])
    assert (found.percent, found.rows_known_for, found.operations) == (20, 2, 10)


def test_a_hundred_is_said_when_all_is_done() -> None:
    huge = Share(100, is_done=True, rows_copied=10**9, rows_total=10**9)
    assert whole([huge, Share(0, rows_copied=0, rows_total=1)]).percent == 99
    assert whole([huge, huge]).percent == 100
    assert whole([]).percent == 0


def test_without_enough_that_is_done_there_is_no_rate_and_no_end() -> None:
    done = Share(100, is_done=True, begun_s_ago=60.0, done_s_ago=30.0)
    waits = Share(0, goes_on=True)
    few = whole([done, done, waits])
    assert (few.done_per_minute, few.eta_s, few.rows_per_s) == (None, None, None)
    some = whole([done, done, done, waits])
    assert (some.done_per_minute, some.eta_s) == (3.0, (20.0, 20.0))


def test_the_end_is_a_range_between_the_last_minutes_and_all_the_time() -> None:
    early = [Share(100, is_done=True, begun_s_ago=6_000.0, done_s_ago=3_000.0)] * 94
    late = [Share(100, is_done=True, begun_s_ago=700.0, done_s_ago=60.0)] * 6
    found = whole([*early, *late, *[Share(0, goes_on=True)] * 10])
    assert found.done_per_minute == 0.6
    assert found.eta_s == (600.0, 1_000.0)
    assert whole([*early, *late, Share(0, goes_on=True)], bakes_s=90.0).eta_s == (150.0, 190.0)


def test_where_nobody_is_still_to_begin_the_slowest_decides() -> None:
    copies = [Share(10, goes_on=True, is_under_way=True, eta_s=each) for each in (50.0, 900.0)]
    assert whole(copies).eta_s == (900.0, 900.0)
    assert whole([*copies, Share(0, goes_on=True)]).eta_s is None


def test_what_only_a_person_moves_is_no_part_of_the_end() -> None:
    done = [Share(100, is_done=True, begun_s_ago=60.0, done_s_ago=10.0)] * 3
    assert whole([*done, Share(10)]).eta_s is None
    assert whole([*done, Share(0, goes_on=True)], moves=False).eta_s is None
    assert whole([*done, Share(0, goes_on=True), Share(10)]).eta_s == (20.0, 20.0)


def test_rows_a_second_are_those_that_the_engines_foretell() -> None:
    one = Share(50, goes_on=True, is_under_way=True, rows_copied=400, rows_total=1_000, eta_s=60.0)
    silent = Share(50, goes_on=True, is_under_way=True, rows_copied=400, rows_total=1_000)
    assert whole([one, one, silent]).rows_per_s == 20.0
    assert whole([silent]).rows_per_s is None

"""The picture: within 80 columns, exceptions first, nothing that a colour alone would say."""

import io
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from tern.cli.picture import harmless
from tern.cli.screen import DETAILED_UP_TO, LINES, picture
from tern.domain.policy import Cutover, Policy, Wave
from tern.domain.states import ApplyState, State
from tern.view import apply_view
from tests.test_view import facts, record, table


def rendered(lines: list[Text], width: int = 80) -> list[str]:
    stream = io.StringIO()
    out = Console(file=stream, width=width, no_color=True)
    for line in lines:
        out.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    return stream.getvalue().splitlines()


def test_a_small_rollout_is_shown_in_its_order_with_its_statements() -> None:
    tables = (
        table("completed", 100),
        table("building_index", 40, rows_copied=400_000, rows_total=1_000_000, detail="loading tuples"),
    )
    view = apply_view(
        facts(
            record("us-east", State.COMPLETED),
            record("eu-west", State.RUNNING, tables=tables),
            record("ap-south"),
        )
    )
    assert rendered(picture(view)) == [
        "◐ apl-1  running, 1 of 3 completed  1 min 00 s",
        "  shop in test, rolling, halt on failure  ·  ann: because",
        "  [###########---------]  56 % by known rows, end not known",
        "",
        "  ✔ us-east   completed  took 4 s",
        "  ◐ eu-west   running    70 % (2 s ago)  400 k of about 1 M rows",
        "      ✔ completed            ALTER TABLE orders ADD x int",
        "      ◐ building index 40 %  ALTER TABLE orders ADD x int",
        "        loading tuples",
        "  ◷ ap-south  waiting    eu-west (running) comes before it in the order",
        "",
        "  tern watch apl-1               follows it; Ctrl-C leaves the rollout alone",
        "  tern stop apl-1 --reason '…'   halts it; it can be resumed",
    ]


def test_what_needs_a_person_comes_first_with_command_and_consequence() -> None:
    view = apply_view(facts(record("a", State.WAITING_FOR_CUTOVER), policy=Policy(cutover=Cutover.MANUAL)))
    lines = rendered(picture(view))
    assert lines[3:7] == [
        "  Needs you",
        "  ! a  ready to cut over",
        "    tern cutover apl-1/a --reason '…'",
        "    lets the application see the change there",
    ]


def test_many_deployments_are_folded_behind_what_is_wrong_and_what_is_slow() -> None:
    operations = [record(f"done{n}", State.COMPLETED) for n in range(30)]
    operations += [record(f"moving{n}", State.RUNNING, tables=(table("running", n),)) for n in range(20)]
    operations += [record("broken", State.FAILED, error_message="disk full")]
    operations += [record(f"later{n}") for n in range(9_000)]
    lines = rendered(picture(apply_view(facts(*operations, state=ApplyState.RUNNING_DEGRADED))))
    assert len(operations) > DETAILED_UP_TO
    assert len(lines) <= LINES
    assert "✖ broken" in lines[4]
    assert "disk full" in lines[4]
    assert "moving0" in lines[5]
    assert "… 12 more under way" in lines[-5]
    assert "✔ 30 completed" in lines[-5]
    assert "◷ 9,000 waiting" in lines[-5]
    assert "tern get apl-1 --all" in lines[-1]


def test_lost_contact_shows_what_was_seen_last_and_when() -> None:
    view = apply_view(
        facts(record("a", State.RUNNING, poll_failures=12, poll_error="refused", sampled_age_s=90.0))
    )
    line = next(line for line in rendered(picture(view)) if line.startswith("  ? a"))
    assert "lost contact  last seen running 0 % (1 min 30 s ago)" in line


def test_no_line_is_wider_than_the_terminal() -> None:
    long = record("d" * 60, State.FAILED, error_message="because " * 60)
    view = apply_view(replace(facts(long), reason="why " * 60, error_message="x" * 300))
    for width in (80, 40):
        assert max(len(line) for line in rendered(picture(view), width)) <= width


def test_waves_stand_above_their_deployments_and_say_how_far_they_are() -> None:
    """§6: with what is left of a bake."""
    waves = (Wave({"tier": "canary"}, bake_s=600.0), Wave())
    done = record("lab", State.COMPLETED, wave=1, ended_s_ago=100.0)
    view = apply_view(facts(done, record("east", wave=2), record("west", wave=2), policy=Policy(waves=waves)))
    assert rendered(picture(view))[1:9] == [
        "  shop in test, rolling, halt on failure, 2 waves  ·  ann: because",
        "  [######--------------]  33 % by operations, end not known",
        "",
        "  wave 1  tier=canary: 1 of 1 through, bakes for another 8 min 20 s",
        "  ✔ lab   completed  took 4 s",
        "  wave 2  *: 0 of 2 through",
        "  ◷ east  waiting    the wave before it is through and bakes",
        "  ◷ west  waiting    the wave before it is through and bakes (and 1 more)",
    ]


def test_many_waves_take_no_more_lines_than_a_few() -> None:
    """The same height for 3 and for 10,000."""
    waves = tuple(Wave(deployments=(f"d{n}",)) for n in range(90))
    many = [record(f"d{n}", State.COMPLETED if n < 3 else State.PENDING, wave=n + 1) for n in range(90)]
    lines = rendered(picture(apply_view(facts(*many, policy=Policy(waves=waves)))))
    assert [line.split(":")[0].strip() for line in lines if "through" in line] == [
        f"wave {n}  d{n - 1}" for n in range(4, 8)
    ]


def test_a_line_that_holds_what_a_terminal_obeys_keeps_its_width_and_its_styles() -> None:
    line = Text.assemble(("name\x1b[2J", "bold"), "\u202e\n", ("said", "red"))
    kept = harmless(line.copy())
    assert kept.plain == "name [2J  said"
    assert kept.spans == line.spans


def test_an_explanation_leaves_nothing_out_that_it_would_send_one_back_to_itself_for() -> None:
    def told(number: int, *, explains: bool) -> str:
        operations = [
            record(f"d{n}", State.UNCERTAIN, error_message=f"{'abcdefghijklmnopqrstuvwxyz'[n]} is lost")
            for n in range(number)
        ]
        return "\n".join(rendered(picture(apply_view(facts(*operations)), explains=explains)))

    assert "and 3 more causes, 3 deployments: tern explain apl-1" in told(10, explains=False)
    assert all(f"! d{n} " in told(10, explains=True) for n in range(10))
    assert "more cause" not in told(10, explains=True)
    assert "and 4 more causes, 4 deployments: --json has all of them" in told(24, explains=True)


def test_at_eighty_columns_the_key_of_a_duplicate_is_seen() -> None:
    """What matters of a failure stands where the line is not cut."""
    words = (
        'could not create unique index "customers_email_address_key". Key (email)=(x@y) is duplicated [23505]'
    )
    failed = facts(record("us-east", State.FAILED, error_message=words), state=ApplyState.FAILED)
    view = apply_view(replace(failed, error_message=f"us-east: {words}"))
    assert sum("Key (email)=(x@y) is duplicated" in line for line in rendered(picture(view))) == 2

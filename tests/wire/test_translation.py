"""States, numbers and gaps, without a server."""

import pytest

from tern.domain.identity import RemoteId
from tern.domain.outcome import Ok, Unknown
from tern.domain.states import State
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.looking import STATES, sample
from tern.wire.outcomes import About
from tern.wire.translation import code_name, read_progress
from tests.wire.conftest import NAME, call_for

RUNNING_WORDS = (
    "PENDING",
    "RUNNING",
    "PREPARING_BRANCH",
    "APPLYING_BRANCH_CHANGES",
    "CREATING_DEPLOY_REQUEST",
    "WAITING_FOR_DEPLOY",
    "VALIDATING_DEPLOY_REQUEST",
    "VALIDATING_BRANCH",
    "RECOVERING",
    "CATCHING_UP",
    "CHECKSUMMING",
    "POST_CHECKSUM",
    "FAILED_RETRYABLE",
)


def look(**fields: object) -> tern_v1.ProgressResponse:
    return tern_v1.ProgressResponse(apply_id="R1", tables=[tern_v1.TableProgress(**fields)])  # type: ignore[arg-type]


@pytest.mark.parametrize("word", RUNNING_WORDS)
def test_all_the_ways_of_being_under_way_are_running(word: str) -> None:
    assert STATES[tern_v1.State.Value(f"STATE_{word}")] is State.RUNNING


@pytest.mark.parametrize(
    "state",
    [
        State.WAITING_FOR_CUTOVER,
        State.CUTTING_OVER,
        State.REVERT_WINDOW,
        State.REVERTING,
        State.COMPLETED,
        State.FAILED,
        State.STOPPED,
        State.REVERTED,
        State.CANCELLED,
    ],
)
def test_the_others_are_one_to_one(state: State) -> None:
    assert STATES[tern_v1.State.Value(f"STATE_{state.upper()}")] is state


def test_only_no_active_change_is_without_meaning() -> None:
    assert set(tern_v1.State.values()) - set(STATES) == {tern_v1.STATE_NO_ACTIVE_CHANGE}


def test_omitted_totals_are_not_zero() -> None:
    (table,) = sample(RemoteId("R1"), look(table_name="orders")).tables
    assert (table.rows_copied, table.rows_total, table.percent, table.eta_s) == (None, None, None, None)
    assert (table.checksum_rows_checked, table.checksum_rows_total) == (None, None)


def test_with_a_total_zero_is_a_measurement() -> None:
    (table,) = sample(RemoteId("R1"), look(rows_total=10, checksum_rows_total=5)).tables
    assert (table.rows_copied, table.percent, table.checksum_rows_checked) == (0, 0, 0)


def test_nonsense_numbers_are_bounded() -> None:
    fields = {"percent_complete": 250, "rows_total": -5, "rows_copied": -1, "eta_seconds": -9}
    (table,) = sample(RemoteId("R1"), look(**fields)).tables
    assert (table.percent, table.rows_total, table.rows_copied, table.eta_s) == (100, None, None, None)


def test_text_that_a_database_cannot_hold_is_replaced() -> None:
    answer = tern_v1.ProgressResponse(apply_id="R1", summary="a\x00b", error_message="\x00")
    seen = sample(RemoteId("R1"), answer)
    assert "\x00" not in seen.summary + seen.error_message


def test_codes_have_the_names_of_grpc() -> None:
    assert [code_name(number) for number in (5, 9, 14, 16, 17, -1)] == [
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "UNAVAILABLE",
        "UNAUTHENTICATED",
        "CODE_17",
        "CODE_-1",
    ]


def test_an_answer_for_another_operation_is_nobodys() -> None:
    """G2. What an engine calls its own operations is its own matter."""
    about = About("Progress", "us-east", NAME, RemoteId("R1"))

    def read(operation: str) -> object:
        answer = tern_v1.ProgressResponse(
            apply_id="R1", state=tern_v1.STATE_RUNNING, apply_operation_id=operation
        )
        return read_progress(about, call_for("R1"), answer)

    assert isinstance(read("apl-one/eu"), Unknown)
    assert all(isinstance(read(operation), Ok) for operation in ("", str(NAME), "operation-17"))


def test_the_word_of_an_engine_from_before_is_still_read() -> None:
    """It called itself 100."""
    answer = tern_v1.ProgressResponse.FromString(b"\x0a\x02R1\x10\x02\x18\x64")
    assert sample(RemoteId("R1"), answer).state is State.RUNNING

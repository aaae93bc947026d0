"""Log lines: one object each, and never a secret in them."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from tern.observe import REMOVED, configure, logger, remove_secrets


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A place for lines; logging is what it was before afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_are_one_object_each_from_both_kinds_of_logger(stream: io.StringIO) -> None:
    configure("json", "INFO", stream)
    logger("tern.test", apply="apl-1").info("driven", deployment="eu", remote_id="job-1")
    logging.getLogger("library").warning("took %s s", 3)
    first, second = lines(stream)
    assert (first["message"], first["apply"], first["deployment"], first["level"]) == (
        "driven",
        "apl-1",
        "eu",
        "info",
    )
    assert str(first["at"]).endswith("Z")
    assert second["message"] == "took 3 s"


def test_what_is_bound_to_the_context_is_in_every_line(stream: io.StringIO) -> None:
    configure("json", "INFO", stream)
    with structlog.contextvars.bound_contextvars(scope="apl-1/eu"):
        logging.getLogger("library").warning("hm")
    assert lines(stream)[0]["scope"] == "apl-1/eu"


def test_ddl_and_secrets_are_taken_out_wherever_they_stand() -> None:
    cleaned = remove_secrets(
        None,
        "info",
        {
            "event": "connecting to postgresql://ann:hunter2@h/t",
            "ddl": "ALTER TABLE secret",
            "nested": {"token": "hunter2", "list": ["redis://:hunter2@h", 3]},
        },
    )
    assert "hunter2" not in str(cleaned)
    assert cleaned["ddl"] == REMOVED
    assert cleaned["nested"]["list"][1] == 3


def test_an_exception_is_part_of_its_one_line(stream: io.StringIO) -> None:
    configure("json", "INFO", stream)
    error = ValueError("postgresql://ann:hunter2@h/t is gone")
    logger("tern.test").error("failed", exc_info=error)
    (line,) = lines(stream)
    assert "ValueError" in str(line["exception"])
    assert "hunter2" not in str(line)


def test_console_lines_have_no_colour_where_there_is_no_terminal(stream: io.StringIO) -> None:
    configure("console", "INFO", stream)
    logger("tern.test").info("hello", scope="apl-1/eu")
    assert "\x1b" not in stream.getvalue()
    assert "scope=apl-1/eu" in stream.getvalue()


def test_configuring_twice_writes_each_line_once(stream: io.StringIO) -> None:
    configure("json", "INFO", stream)
    configure("json", "WARNING", stream)
    logger("tern.test").info("unimportant")
    logger("tern.test").warning("important")
    assert [line["message"] for line in lines(stream)] == ["important"]


DDL = "ALTER TABLE orders ADD COLUMN canary text DEFAULT 'canary-4711'"
MORE_DDL = (
    "create unique index concurrently canary on orders (\n  canary\n)",
    "CREATE OR REPLACE VIEW v AS SELECT 'canary'",
    "drop table canary",
    "GRANT SELECT ON canary TO eve",
    "comment on column orders.note is 'canary'",
    "UPDATE orders SET note = 'canary'",
    "TRUNCATE TABLE canary",
    "reindex index concurrently canary",
    "REFRESH MATERIALIZED VIEW canary",
    "INSERT INTO canary VALUES (1)",
    "DELETE FROM canary",
    "REVOKE ALL ON canary FROM eve",
)


@pytest.mark.parametrize("ddl", [DDL, *MORE_DDL])
def test_a_statement_that_somebody_repeats_is_taken_out(ddl: str, stream: io.StringIO) -> None:
    """An engine says what it could not do, a library shows where in the statement it stopped."""
    configure("json", "INFO", stream)
    logger("tern.test").warning("refused", why=f"syntax error in {ddl}", nested={"said": [ddl]})
    logging.getLogger("library").error("LINE 1: %s", ddl)
    try:
        raise ValueError(f"syntax error\nLINE 1: {ddl.splitlines()[0]}\n            ^")  # noqa: TRY301
    except ValueError as error:
        logger("tern.test").error("failed", exc_info=error)
    assert "canary" not in stream.getvalue()
    first, _, third = lines(stream)
    assert first["why"] == f"syntax error in {REMOVED}"
    # What a traceback is for is still there.
    assert "test_observe.py" in str(third["exception"])


@pytest.mark.parametrize("words", ["it is created already", "an update of the index", "dropped by a person"])
def test_ordinary_words_stay(words: str, stream: io.StringIO) -> None:
    configure("json", "INFO", stream)
    logger("tern.test").info("x", why=words)
    assert lines(stream)[0]["why"] == words


def test_a_line_that_only_says_it_in_words_is_given_its_fields(stream: io.StringIO) -> None:
    """Whoever logs: a flow that failed, a task that Celery reports, a call that names its scope."""
    configure("json", "INFO", stream)
    scope = "apl-0123456789abcdef/us-east"
    logging.getLogger("tern.direct").warning("dispatch of %s: no", scope)
    logging.getLogger("library").warning(
        "Stop for %s at deployment us-east (remote id job-7) was refused", scope
    )
    data = {"kwargs": f"{{'scope': '{scope}', 'operation_id': '7'}}"}
    logging.getLogger("celery.app.trace").error("Task raised unexpected", extra={"data": data})
    logger("tern.test").info("bound", apply="apl-1", why=scope)
    logger("tern.test").info("about nothing")
    found = [(line.get("apply"), line.get("deployment"), line.get("remote_id")) for line in lines(stream)]
    assert found == [
        ("apl-0123456789abcdef", "us-east", None),
        ("apl-0123456789abcdef", "us-east", "job-7"),
        ("apl-0123456789abcdef", "us-east", None),
        ("apl-1", None, None),
        (None, None, None),
    ]


TAKEN_OVER = """
import logging, sys, threading, warnings
from tern.observe import take_over
take_over("json")
"""

STRAY = {
    "a warning of Python's": "warnings.warn('old\\nnews', UserWarning)",
    "what a thread does not catch": "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "what nobody catches": "raise ValueError('postgresql://ann:hunter2@h/t\\nis gone')",
    "what can't be raised": "class A:\n    def __del__(self): raise ValueError('x')\nA()",
    "a line with too few arguments": "logging.getLogger('library').error('took %s of %s', 3)",
    "a logger that is cut off": (
        "cut = logging.getLogger('multiprocessing'); cut.propagate = False; cut.warning('a\\nb')"
    ),
}


@pytest.mark.parametrize("program", STRAY.values(), ids=STRAY)
def test_what_python_would_print_is_a_line_too(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_OVER + program], capture_output=True, text=True, check=False, timeout=60
    )
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"message", "level", "logger", "at"} <= set(line)
    assert "hunter2" not in done.stderr
    assert done.stdout == ""
    if "raise" in program or "thread" in program or "%s" in program:
        assert "Traceback" in line["exception"]

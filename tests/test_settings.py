"""What the environment may say, and how it is told that it is wrong."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tern.domain.errors import Misconfigured
from tern.local.discovery import RunningProcess, Servers, publish, this_process
from tern.settings import Settings, caller, load, misspelt
from tern.store.store import PostgresStore
from tern.wiring import Silent, close_ports, open_ports


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("TERN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERN_HOME", str(tmp_path))


def publish_servers(home: Path, process: RunningProcess) -> None:
    publish(
        Servers(home, "postgresql://found:secret@h:1/tern", "redis://h:2/0", 1, 2, process, process, process)
    )


def test_without_urls_the_running_embedded_servers_are_found(tmp_path: Path) -> None:
    publish_servers(tmp_path, this_process())
    settings = load()
    assert settings.require_database_url() == "postgresql://found:secret@h:1/tern"
    assert settings.require_broker_url() == "redis://h:2/0"


def test_servers_that_are_gone_are_not_found(tmp_path: Path) -> None:
    publish_servers(tmp_path, RunningProcess(2**22, "never"))
    with pytest.raises(Misconfigured, match="nobody said where Tern's PostgreSQL is") as refused:
        load().require_database_url()
    assert "tern up" in refused.value.next_step
    with pytest.raises(Misconfigured, match="broker"):
        load().require_broker_url()


def test_one_url_is_enough_to_leave_the_embedded_servers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_servers(tmp_path, this_process())
    monkeypatch.setenv("TERN_DATABASE_URL", "postgresql://mine@h/t")
    assert load().database_url == "postgresql://mine@h/t"
    assert load().broker_url == ""
    with pytest.raises(Misconfigured) as refused:
        load().require_broker_url()
    assert refused.value.why == (
        "TERN_BROKER_URL is not set; and as TERN_DATABASE_URL is, embedded servers are not looked for",
    )


@pytest.mark.parametrize("host", ["ho\u2100st", "[", "[x]"])
def test_a_broker_s_address_that_can_t_be_read_is_refused_without_quoting_it(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_BROKER_URL", f"redis://:hunter2@{host}/0")
    with pytest.raises(Misconfigured) as refused:
        load()
    assert refused.value.why == ("TERN_BROKER_URL: it is written redis://:password@host:port/0",)


@pytest.mark.parametrize("database", ["notadb", "0/1", "-1", "1_0"])
def test_a_broker_s_database_is_a_number(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it is found out by whoever sends the first message, in a driver's words."""
    monkeypatch.setenv("TERN_BROKER_URL", f"redis://h:6379/{database}")
    with pytest.raises(Misconfigured) as refused:
        load()
    assert "number of a database" in refused.value.why[0]
    for right in (
        "redis://h:6379",
        "redis://h:6379/",
        "rediss://h/15?ssl_cert_reqs=none",
        "redis+socket:///run/v",
    ):
        monkeypatch.setenv("TERN_BROKER_URL", right)
        assert load().broker_url == right


@pytest.mark.parametrize("variable", ["TERN_POOL_SIZE", "TERN_LEASE_SECONDS"])
def test_a_number_is_written_without_underscores(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "6_0")
    with pytest.raises(Misconfigured):
        load()


def test_a_slip_in_a_name_is_found_and_a_token_s_name_is_none() -> None:
    said = {"TERN_LEASE_SECOND": "1", "TERN_LEASE_SECONDS": "1", "TERN_TOKEN": "t", "HOME": "/"}
    assert misspelt(said) == {"TERN_LEASE_SECOND": "TERN_LEASE_SECONDS"}
    of_others = ("ENGINE_DSN", "ENGINE_DATABASE", "SERVE_CERT", "CONTROL_TOKEN", "ENGINE_ENVIRONMENT")
    assert misspelt({f"TERN_{each}": "" for each in of_others}) == {}


def test_every_wrong_variable_is_named_at_once_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_BROKER_URL", "amqp://user:hunter2@h")
    monkeypatch.setenv("TERN_WORKER_CONCURRENCY", "many")
    monkeypatch.setenv("TERN_LOG_FORMAT", "xml")
    monkeypatch.setenv("TERN_RPC_DEADLINE_SECONDS", "30")
    with pytest.raises(Misconfigured) as refused:
        load()
    words = "\n".join(refused.value.why)
    for name in (
        "TERN_BROKER_URL",
        "TERN_WORKER_CONCURRENCY",
        "TERN_LOG_FORMAT",
        "TERN_RPC_DEADLINE_SECONDS",
    ):
        assert name in words
    assert "hunter2" not in words
    assert "many" not in words


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_LEASE_SECONDS", "")
    assert load().lease_seconds == 30


def test_urls_are_not_shown_where_settings_are_printed() -> None:
    settings = Settings(database_url="postgresql://u:hunter2@h/t", broker_url="redis://:hunter2@h")
    assert "hunter2" not in repr(settings)


def test_the_pace_of_polling_is_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_POLL_STEADY_SECONDS", "7")
    pace = load().pace
    assert (pace.eager_s, pace.steady_s, pace.slow_s) == (0.5, 7, 30)


def test_the_caller_is_the_account_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "@" in caller(load())
    monkeypatch.setenv("TERN_CALLER", "deploys")
    assert caller(load()) == "deploys"
    monkeypatch.delenv("TERN_CALLER")
    monkeypatch.setattr("getpass.getuser", _no_name)
    assert caller(load()).startswith("uid ")


def _no_name() -> str:
    raise KeyError(json.dumps("getpwuid(): uid not found"))


SOURCES = {
    str(path): path.read_text()
    for folder in ("tern", "tasks")
    for path in (Path(__file__).parents[1] / folder).rglob("*.py")
}


def test_every_setting_is_read_by_somebody() -> None:
    """One that changes nothing is worse than none: whoever set it believes in it."""
    # One is read by settings.py's own function, and three are read together, as the pace.
    names = {each.name for each in fields(Settings)} - {"database_url"}
    names -= {f"poll_{pace}_seconds" for pace in ("eager", "steady", "slow")}
    elsewhere = "\n".join(text for path, text in SOURCES.items() if not path.endswith("tern/settings.py"))
    for name in (*names, "pace", "require_database_url()"):
        assert re.search(rf"\b(settings|found)(\(\))?\.{re.escape(name)}", elsewhere), name


def test_the_deadline_of_a_call_has_one_source() -> None:
    """What decides about calls under way goes by the setting; the number it has by default stands where it is handed
    in, and nowhere else.
    """
    defaults = (
        "tern/settings.py",
        "tern/domain/timing.py",
        "tern/ports.py",
        "tern/store/step.py",
        "tern/store/reading.py",
    )
    assert [p for p, text in SOURCES.items() if "RPC_DEADLINE_S" in text and not p.endswith(defaults)] == []


def test_the_deadline_that_is_set_reaches_those_who_decide_by_it(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stays the same where a command would rather ask an engine for a moment only."""
    monkeypatch.setenv("TERN_DATABASE_URL", migrated_url)
    monkeypatch.setenv("TERN_RPC_DEADLINE_SECONDS", "17")
    opened = open_ports(load(), Silent(), run_local_jobs=False, asks_for_s=1.0)
    try:
        assert isinstance(opened.store, PostgresStore)
        assert (opened.deadline_s, opened.store.deadline_s) == (17, 17)
    finally:
        close_ports(opened)


def test_a_deadline_ends_before_what_it_leaves_open_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_LEASE_SECONDS", "300")
    monkeypatch.setenv("TERN_RPC_DEADLINE_SECONDS", "60")
    with pytest.raises(Misconfigured) as refused:
        load()
    assert refused.value.why == ("TERN_RPC_DEADLINE_SECONDS: must be shorter than 60",)


def test_what_nobody_said_opens_nothing_and_shows_nothing() -> None:
    """Who can reach a port, what is logged, what is written to a terminal: the careful answer is the one by default."""
    given = Settings()
    assert (given.metrics_port, given.metrics_address) == (0, "127.0.0.1")
    assert (given.log_level, given.debug) == ("INFO", False)
    assert (given.database_url, given.broker_url, given.caller) == ("", "", "")

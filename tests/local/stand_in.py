"""A stand-in for Tern's command line: just enough of each command to let the demo's own story be tested.

It changes the targets by itself, at once. `STAND_IN_FAILS` names a process that dies soon after its start.
"""

import http.server
import json
import os
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

DEPLOYMENTS = {"us-east": "us_east", "eu-west": "eu_west", "ap-south": "ap_south"}


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def target(name: str) -> str:
    return urlunsplit(urlsplit(os.environ["TERN_DATABASE_URL"])._replace(path=f"/{DEPLOYMENTS[name]}"))


def change_everything(script: str) -> None:
    import psycopg  # noqa: PLC0415 - the other commands start faster without it

    for name in DEPLOYMENTS:
        with psycopg.connect(target(name), autocommit=True) as connection:
            for statement in script.split(";\n"):
                if statement:
                    connection.execute(statement.encode())


def answer(data: object) -> None:
    print(json.dumps({"schema": "tern.cli/v1", "data": data}))  # noqa: T201


def main(*arguments: str) -> None:
    if os.environ.get("STAND_IN_FAILS") == arguments[0]:
        sys.exit("the stand-in was told to fail")
    match arguments:
        case ["engine", "serve", *rest]:
            port = int(rest[rest.index("--listen") + 1].rpartition(":")[2])
            with socket.create_server(("127.0.0.1", port)) as server:
                while True:
                    server.accept()[0].close()
        case ["worker"] | ["beat"]:
            time.sleep(300)
        case ["flower"]:
            port = int(os.environ["FLOWER_PORT"])
            http.server.HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
        case ["ls", *_]:
            answer({"applies": []})
        case ["apply", *_]:
            change_everything(Path(arguments[arguments.index("--ddl") + 1]).read_text())
            answer({"apply_id": "apl-1"})
        case ["watch", *_]:
            time.sleep(float(os.environ.get("STAND_IN_WATCHES", "0")))
            sys.exit(int(os.environ.get("STAND_IN_OUTCOME", "0")))
        case ["get", *_]:
            operations = [
                {"deployment": name, "state": "completed", "remote_id": f"r-{name}"} for name in DEPLOYMENTS
            ]
            answer({"state": "completed", "operations": operations})
        case _:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])

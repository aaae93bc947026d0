"""`tern serve`: Tern's door for other services, in this process until it is told to end."""

from pathlib import Path

import click

from tern.cli import reach
from tern.cli.address import SAY_HOW_TO_LISTEN
from tern.cli.envelope import announce
from tern.domain.errors import Misconfigured, UsageError

ANONYMOUS = "anonymous"
DEFAULT_LISTEN = "127.0.0.1:7430"


@click.command()
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    envvar="TERN_SERVE_LISTEN",
    metavar="HOST:PORT",
    help="Port 0 takes a free one; see --port-file.",
)
@click.option(
    "--tokens",
    default="",
    envvar="TERN_SERVE_TOKENS",
    metavar="REF",
    help="Who may call, by reference (env:NAME or file:/path): lines of CALLER read|act TOKEN-or-sha256:HASH.",
)
@click.option(
    "--without-tokens",
    is_flag=True,
    help=f"Let everybody on this machine act, as {ANONYMOUS!r}; for a loopback address only.",
)
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="This server's certificate.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its key.")
@click.option(
    "--client-ca", type=click.Path(exists=True, dir_okay=False), help="Who signs our clients: mutual TLS."
)
@click.option(
    "--max-watchers",
    type=click.IntRange(1, 10_000),
    default=128,
    show_default=True,
    help="So many may watch at the same time.",
)
@click.option(
    "--port-file", type=click.Path(dir_okay=False, path_type=Path), help="Gets the port, once it listens."
)
def serve(
    *,
    listen: str,
    tokens: str,
    without_tokens: bool,
    tls_cert: str | None,
    tls_key: str | None,
    client_ca: str | None,
    max_watchers: int,
    port_file: Path | None,
) -> None:
    """Answer other services: tern.control.v1.ControlService, and tern.v1.Tern for Tern's own applies.

    Ends with SIGTERM or Ctrl-C: calls under way are answered, watches are told to come back.
    """
    if bool(tokens) == without_tokens:
        what = "who may call has to be said"
        step = "Say --tokens env:NAME or file:/path; on this machine alone, --without-tokens."
        raise UsageError(what, next_step=step)
    from tern import wiring  # noqa: PLC0415
    from tern.observe import take_over  # noqa: PLC0415
    from tern.settings import load  # noqa: PLC0415
    from tern.wire.control.server import ControlServer  # noqa: PLC0415 - gRPC comes with it
    from tern.wire.control.tokens import Gate, OpenGate, TokenGate  # noqa: PLC0415
    from tern.wire.listening import is_loopback, run, server_credentials  # noqa: PLC0415

    if without_tokens and not is_loopback(listen):
        what = f"{listen} is no loopback address, and other machines need tokens"
        raise UsageError(what, next_step="Say --tokens env:NAME or file:/path.")
    found = load()
    take_over(found.log_format, found.log_level)
    gate: Gate = OpenGate(ANONYMOUS) if without_tokens else TokenGate(tokens)
    bells = reach.lasting_bells() if found.broker_url else wiring.Silent()
    desk = wiring.open_desk(found, bells, most_watchers=max_watchers)
    exporter = wiring.open_exporter(found)
    try:
        server = ControlServer(
            desk,
            gate,
            listen,
            credentials=server_credentials(tls_cert, tls_key, client_ca),
            most_watchers=max_watchers,
        )
        host = listen.rpartition(":")[0]
        manner = "TLS" if tls_cert else "plaintext"
        run(
            server,
            lambda port: announce(f"Tern answers on {host}:{port} ({manner})", found.log_format),
            lambda: announce("Tern was told to end: what is under way is answered first", found.log_format),
            port_file=port_file,
        )
    except (ValueError, OSError) as error:
        what = "the door did not open"
        raise Misconfigured(what, why=(str(error),), unchanged="", next_step=SAY_HOW_TO_LISTEN) from None
    finally:
        desk.close()
        if exporter is not None:
            exporter.close()

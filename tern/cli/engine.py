"""`tern engine serve`: the PostgreSQL engine of one deployment, in this process until it is told to end."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from tern.cli.address import SAY_HOW_TO_LISTEN
from tern.cli.envelope import announce
from tern.domain.errors import Misconfigured, TernError, Unreachable, UsageError
from tern.domain.text import is_name

if TYPE_CHECKING:
    from tern.engine.tokens import FileTokens

DSN_VARIABLE = "TERN_ENGINE_DSN"


@click.group()
def engine() -> None:
    """The PostgreSQL engine of one deployment."""


@engine.command()
@click.option("--dsn", default="", help=f"The target database; {DSN_VARIABLE} where it holds a password.")
@click.option(
    "--listen", required=True, metavar="HOST:PORT", help="Port 0 takes a free one; see --port-file."
)
@click.option("--environment", "-e", required=True, help="Work for any other is refused.")
@click.option("--database", "-d", required=True, help="Work for any other is refused.")
@click.option("--target", "-t", required=True, help="Work for any other is refused.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="This engine's certificate.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its key.")
@click.option(
    "--client-ca", type=click.Path(exists=True, dir_okay=False), help="Who signs our clients: mutual TLS."
)
@click.option(
    "--token-ref", default="", metavar="REF", help="Bearer token of our clients: env:NAME or file:/path."
)
@click.option("--insecure-plaintext", is_flag=True, help="Listen without TLS to other machines.")
@click.option(
    "--port-file", type=click.Path(dir_okay=False, path_type=Path), help="Gets the port, once it listens."
)
def serve(
    *,
    dsn: str,
    listen: str,
    environment: str,
    database: str,
    target: str,
    tls_cert: str | None,
    tls_key: str | None,
    client_ca: str | None,
    token_ref: str,
    insecure_plaintext: bool,
    port_file: Path | None,
) -> None:
    """Execute changes on one PostgreSQL database, told who it is, until SIGTERM or Ctrl-C.

    A job that is under way when it ends is resumed by the next one.
    """
    from tern.observe import take_over  # noqa: PLC0415
    from tern.settings import load  # noqa: PLC0415

    found = load()
    take_over(found.log_format, found.log_level)
    nameless = [
        f"--{option}"
        for option, value in (("environment", environment), ("database", database), ("target", target))
        if not is_name(value)
    ]
    if nameless:
        what = f"{' and '.join(nameless)} is empty or unprintable"
        raise UsageError(what, next_step="Say what deployments are registered with.")
    where = _dsn(dsn, found.log_format)
    from tern.engine.errors import EngineError, Reason  # noqa: PLC0415 - gRPC comes with it
    from tern.engine.identity import EngineIdentity  # noqa: PLC0415
    from tern.engine.server import EngineServer  # noqa: PLC0415
    from tern.wire.listening import run  # noqa: PLC0415

    try:
        server = EngineServer(
            where,
            listen,
            EngineIdentity(environment=environment, database=database, target=target),
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=client_ca,
            token=_token(token_ref) if token_ref else None,
            insecure_plaintext=insecure_plaintext,
        )
        run(
            server,
            lambda port: announce(f"engine listens on port {port}", found.log_format),
            lambda: announce("engine was told to end: its work is resumed by the next one", found.log_format),
            port_file=port_file,
        )
    except EngineError as error:
        what = "the engine can't work on its database"
        if error.reason == Reason.TRANSACTION_POOLER:
            step = "Give --dsn (or TERN_ENGINE_DSN) another address."
            raise Misconfigured(
                what, why=(error.message,), unchanged="Nothing was set there.", next_step=step
            ) from None
        raise Unreachable(what, why=(error.message,), reason=error.reason) from None
    except (ValueError, OSError) as error:
        what = "the engine did not start"
        raise Misconfigured(what, why=(str(error),), unchanged="", next_step=SAY_HOW_TO_LISTEN) from None


def _dsn(given: str, log_format: str) -> str:
    dsn = given or os.environ.get(DSN_VARIABLE, "")
    if not dsn:
        what = "the engine was not told which database is its own"
        raise UsageError(what, next_step=f"Say --dsn, or set {DSN_VARIABLE}.")
    try:
        parts = urlsplit(dsn)
        password = parts.password if parts.scheme else None
    except ValueError:
        parts, password = None, None
    if parts is not None and parts.scheme and parts.scheme not in {"postgresql", "postgres"}:
        what = f"--dsn names {parts.scheme}, and this engine is PostgreSQL's"
        raise UsageError(what, next_step="Write it as postgresql://user@host:port/database.")
    _check_readable(dsn, "--dsn" if given else DSN_VARIABLE)
    if given and password:
        announce(
            f"warning: everybody on this machine can read the password in --dsn; use {DSN_VARIABLE} or PGPASSWORD",
            log_format,
        )
    return dsn


def _check_readable(dsn: str, said_in: str) -> None:
    """Raises UsageError, and quotes nothing of it."""
    from tern.engine.session import is_readable  # noqa: PLC0415 - psycopg comes with it

    if not is_readable(dsn):
        what = f"{said_in} is not a database address"
        step = "Write it as postgresql://user@host:port/database; in a password @ is %40, / is %2F, % is %25."
        raise UsageError(what, next_step=step)


def _token(reference: str) -> "str | FileTokens":
    """What a reference stands for; a file is read again when it changes. Raises UsageError and Misconfigured, and never
    quotes it.
    """
    from tern.engine.tokens import FileTokens  # noqa: PLC0415

    kind, _, place = reference.partition(":")
    trouble: TernError | None = None
    value = ""
    if kind == "env" and place:
        value = os.environ.get(place, "")
    elif kind == "file" and place.startswith("/"):
        try:
            return FileTokens(Path(place))
        except (OSError, ValueError) as error:
            word = getattr(error, "strerror", None) or str(error)
            trouble = Misconfigured(f"the token's file {place} can't be read", why=(word,))
    else:
        trouble = UsageError("--token-ref is no reference", why=("it is written env:NAME or file:/path",))
    if trouble is None and not value:
        trouble = Misconfigured(f"the token is not set in {reference}")
    if trouble is not None:
        raise trouble
    return value

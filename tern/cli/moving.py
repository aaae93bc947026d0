"""`tern deployments set`: mending what the register says of a deployment while it is used."""

from collections.abc import Sequence

import click

from tern.cli import reach
from tern.cli.address import HIGHEST_POSITION, check_address, read_credentials, read_labels
from tern.cli.envelope import json_option, write_document
from tern.cli.words import plural
from tern.domain.errors import UsageError
from tern.domain.moving import DeploymentChange
from tern.moving import change_deployment

MOST_NAMED = 5


@click.command(name="set")
@click.argument("name")
@click.option("--address", help="Where its engine is by now. It must be the same engine: a key proves it.")
@click.option(
    "--token", "--token-ref", metavar="REF", help="Bearer token: env:NAME or file:/path; '' for none."
)
@click.option("--tls-ca", metavar="REF", help="Who signed the engine's certificate.")
@click.option("--tls-cert", metavar="REF", help="Our certificate, for mutual TLS.")
@click.option("--tls-key", metavar="REF", help="Its key.")
@click.option("--password", metavar="REF", help="PostgreSQL's password, for local: addresses.")
@click.option(
    "--insecure-plaintext/--no-insecure-plaintext",
    default=None,
    help="Plain grpc:// to another machine is intended.",
)
@click.option("--label", "-l", "labels", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option(
    "--no-label", "unlabels", multiple=True, metavar="KEY", help="Take this label away. Repeatable."
)
@click.option(
    "--position",
    type=click.IntRange(-HIGHEST_POSITION, HIGHEST_POSITION),
    help="Its place in the order of the rollouts to come.",
)
@click.option(
    "--deduplicates",
    type=click.Choice(["yes", "no"]),
    help="Whether an Apply that is repeated with its key runs only once. A new address makes it no, unless said again.",
)
@click.option(
    "--same-engine",
    is_flag=True,
    help="You know that the same engine is at the new address, where no key can prove it.",
)
@click.option(
    "--new-identity",
    is_flag=True,
    help="Another database is there by intention (restored, upgraded); nothing may be known at the old one.",
)
@click.option("--reason", required=True, help="Why. Stands in the record of each apply that works there.")
@json_option
def set_(
    name: str,
    *,
    address: str | None,
    labels: Sequence[str],
    unlabels: Sequence[str],
    position: int | None,
    deduplicates: str | None,
    same_engine: bool,
    new_identity: bool,
    reason: str,
    as_json: bool,
    **references: str | bool | None,
) -> None:
    """Change what the register says of NAME, also while applies work there. Never its environment, database or target.

    A new address ends every claim there; what works goes on, and is followed at the new address. What the engine there
    does not know is uncertain.
    """
    if address is not None:
        check_address(address)
    given = {field: value for field, value in references.items() if value is not None}
    read_credentials(**given)
    wanted: dict[str, str | None] = dict(read_labels(labels))
    if both := sorted(wanted.keys() & set(unlabels)):
        what = f"the label {both[0]} is set and taken away"
        raise UsageError(what)
    change = DeploymentChange(
        name=name,
        caller=reach.caller(),
        reason=reason,
        address=address,
        credentials=given,
        labels={**wanted, **dict.fromkeys(unlabels)},
        position=position,
        deduplicates=None if deduplicates is None else deduplicates == "yes",
        same_engine=same_engine,
        new_identity=new_identity,
    )
    ports = reach.ports()
    after, concerned = change_deployment(change, ports)
    if as_json:
        data = {
            "name": after.name,
            "address": after.address,
            "labels": dict(after.labels),
            "position": after.position,
            "deduplicates": after.idempotent_dispatch,
            "identity": after.engine_identity or None,
            "operations": list(concerned),
        }
        write_document("deployment_set", data)
        return
    click.echo(f"✔ {name}: changed")
    if concerned:
        more = f" and {len(concerned) - MOST_NAMED:,} more" if len(concerned) > MOST_NAMED else ""
        named = ", ".join(concerned[:MOST_NAMED])
        click.echo(f"  in the record of {plural(len(concerned), 'operation')}: {named}{more}")

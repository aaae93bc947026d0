"""`tern deployments`: the register of places that a change can go. One engine is asked before one is added."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tern.cli import reach
from tern.cli.address import HIGHEST_POSITION, check_address, check_name, read_credentials, read_labels
from tern.cli.compared import compared_with_others
from tern.cli.envelope import json_option, write_document
from tern.cli.importing import import_entries
from tern.cli.moving import set_
from tern.cli.picture import show
from tern.cli.register import REFUSED, Line, distinct, tell
from tern.cli.register_picture import FOLDED_ABOVE, Listed, listing, offers, whole
from tern.cli.settling import settle
from tern.cli.words import one_line
from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.hint import Cause, cause_of, hint_of
from tern.domain.model import Capabilities, Deployment
from tern.domain.outcome import Ok, Outcome, Unknown
from tern.domain.outcome import Refused as Declined
from tern.domain.plaintext import refuse_exposed
from tern.domain.register import differences
from tern.domain.silence import Silence
from tern.domain.text import is_name
from tern.ports import Ports, StorageUnavailable, Store
from tern.probing import offered, probe

if TYPE_CHECKING:
    from tern.store.store import PostgresStore

UNREACHABLE = 69
MOST_NAMED = 4
_EVENTS = {"drained": "deployment_drained", "open": "deployment_opened", "removed": "deployment_removed"}

_reason_option = click.option(
    "--reason", default="", help="Why. Stands in the record of each apply that works there, or did so last."
)


@click.group()
def deployments() -> None:
    """The places that a change can go: each a name, an engine's address and the target behind it."""


deployments.add_command(set_)
deployments.add_command(settle)


@deployments.command()
@click.argument("name")
@click.option("--environment", "-e", required=True, help="For example production.")
@click.option("--database", "-d", required=True, help="The logical database, the same name everywhere.")
@click.option("--address", required=True, help="grpc://HOST:PORT, grpcs://HOST:PORT or local:postgresql://…")
@click.option("--target", required=True, help="What the engine calls this database.")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="KEY=VALUE", help="For selecting. Repeatable."
)
@click.option(
    "--position",
    type=click.IntRange(-HIGHEST_POSITION, HIGHEST_POSITION),
    default=0,
    show_default=True,
    help="Its place in the order of a rollout.",
)
@click.option("--token", default="", metavar="REF", help="Bearer token: env:NAME or file:/path.")
@click.option("--tls-ca", default="", metavar="REF", help="Who signed the engine's certificate.")
@click.option("--tls-cert", default="", metavar="REF", help="Our certificate, for mutual TLS.")
@click.option("--tls-key", default="", metavar="REF", help="Its key.")
@click.option("--password", default="", metavar="REF", help="PostgreSQL's password, for local: addresses.")
@click.option("--insecure-plaintext", is_flag=True, help="Plain grpc:// to another machine is intended.")
@click.option(
    "--deduplicates",
    type=click.Choice(["yes", "no"]),
    help="Whether an engine without Resolve runs an Apply that is repeated with its key only once.",
)
@click.option("--no-probe", is_flag=True, help="Don't ask the engine now; needs --deduplicates.")
@click.option("--replace", "replaces", is_flag=True, help="Take the place of the one that has this name.")
@json_option
def add(
    name: str,
    *,
    environment: str,
    database: str,
    address: str,
    target: str,
    labels: Sequence[str],
    position: int,
    deduplicates: str | None,
    no_probe: bool,
    replaces: bool,
    as_json: bool,
    **references: str | bool,
) -> None:
    """Make a deployment known under NAME, after its engine has said that it serves this target."""
    wanted = Deployment(
        name=check_name(name),
        environment=_filled("environment", environment),
        database=_filled("database", database),
        address=address,
        target=_filled("target", target),
        labels=read_labels(labels),
        position=position,
        credentials=read_credentials(**references),
    )
    check_address(address)
    refuse_exposed(wanted, "added")
    if no_probe and deduplicates is None:
        what = "an engine that is not asked must be described"
        raise UsageError(what, next_step="Add --deduplicates yes or --deduplicates no.")
    ports = reach.ports()
    answer: Outcome[Capabilities] = Ok(Capabilities())
    if not no_probe:
        (answer,) = probe(ports.engines, [wanted])
    described = _described(wanted, answer, deduplicates)
    outcome = _save(ports, described, deduplicates, replaces=replaces)
    warnings = compared_with_others([name], ports)
    if as_json:
        write_document("deployment", {**_json(described), "outcome": outcome}, warnings=warnings)
        return
    click.echo(f"✔ {name}: {outcome}; {offers(described)}")
    for warning in warnings:
        click.echo(f"! {one_line(warning)}")


@deployments.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.option("--no-probe", is_flag=True, help="No engine is asked anyway; kept for older scripts.")
@click.option("--replace", "replaces", is_flag=True, help="Take the place of those that have the same names.")
@json_option
def import_(file: Any, *, no_probe: bool, replaces: bool, as_json: bool) -> int:
    """Make many deployments known from a JSON FILE (`-` for stdin): a list of objects with the fields of `add`.

    All of them or none: every reason against an entry is told at once. No engine is asked; `tern deployments check`
    does that.
    """
    del no_probe
    judged = import_entries(file, reach.store, replaces=replaces)
    lines = [Line(each.deployment.name, each.outcome, offers(each.deployment)) for each in judged]
    return tell("deployments_imported", lines, as_json=as_json, failure=REFUSED)


@deployments.command()
@click.option("--environment", "-e", default="", help="Only those of this environment.")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="KEY=VALUE", help="Only those with this label."
)
@json_option
def ls(*, environment: str, labels: Sequence[str], as_json: bool) -> None:
    """List deployments, with what their engines offer and which apply holds their target."""
    wanted = read_labels(labels)
    store = reach.store()
    found = [
        each
        for each in store.load_deployments()
        if environment in {"", each.environment} and wanted.items() <= dict(each.labels).items()
    ]
    listed = _known(store, found)
    if as_json:
        write_document("deployments", {"deployments": [_listed_json(each) for each in listed]})
    elif listed:
        show(listing(listed), wraps=len(listed) <= FOLDED_ABOVE)
    elif environment or labels:
        click.echo("No deployment is like that. Next: tern deployments ls")
    else:
        click.echo("There are no deployments yet. Next: tern deployments add --help")


@deployments.command(name="show")
@click.argument("name")
@json_option
def show_one(name: str, *, as_json: bool) -> None:
    """Say all that is known of the deployment NAME. No engine is asked; `tern deployments check` does that."""
    store = reach.store()
    (listed,) = _known(store, store.load_deployments([name]))
    if as_json:
        write_document("deployment_known", _listed_json(listed))
        return
    show(whole(listed), wraps=True)


def _known(store: "PostgresStore", found: Sequence[Deployment]) -> list[Listed]:
    """Each with what holds it, who is heard there, and what was left there."""
    from tern.store.contact import contacts, drains  # noqa: PLC0415 - as SQL itself, only where it is asked

    held = {
        (each.environment, each.database, each.deployment): each for each in reach.reading().held_targets()
    }
    silent: dict[str, list[Silence]] = {}
    for quiet in store.silences():
        silent.setdefault(quiet.deployment, []).append(quiet)
    heard, drained, compared = contacts(store.engine), drains(store.engine), store.findings()
    outstanding = store.outstanding_before([each.name for each in found])
    return [
        Listed(
            each,
            held.get((each.environment, each.database, each.name)),
            heard.get(each.name),
            silent.get(each.name, ()),
            drained.get(each.name),
            outstanding.get(each.name),
            compared.get(each.name),
        )
        for each in found
    ]


def _listed_json(each: Listed) -> dict[str, object]:
    contact, drain = each.contact, each.drain
    return {
        **_json(each.deployment),
        "drained_by": drain.by or None if drain is not None else None,
        "drained_reason": drain.reason or None if drain is not None else None,
        "drained_age_s": None if drain is None or drain.age_s is None else round(drain.age_s, 1),
        "held_by": each.held.apply_id if each.held else None,
        "held_by_operation": each.held.scope if each.held else None,
        "lost_contact": each.lost_contact,
        "unheard_tries": 0 if contact is None else contact.tries,
        "unheard_for_s": None if contact is None or contact.for_s is None else round(contact.for_s, 1),
        "unanswered": {quiet.kind.value: quiet.in_a_row for quiet in each.silences},
        "outstanding": each.outstanding.as_json() if each.outstanding is not None else None,
        "same_targets": [
            {"deployment": other, "finding": finding.value} for other, finding in (each.others or {}).items()
        ],
    }


@deployments.command()
@click.argument("names", nargs=-1)
@json_option
def check(names: Sequence[str], *, as_json: bool) -> int:
    """Ask the engines of NAMES (all, if none is given) whether they answer, and what they offer."""
    ports = reach.ports()
    found = ports.store.load_deployments(distinct(names) or None)
    lines = []
    answers = probe(ports.engines, found)
    for deployment, answer in zip(found, answers, strict=True):
        if not isinstance(answer, Ok):
            lines.append(Line(deployment.name, "failed", one_line(answer.message)))
            continue
        described = replace(deployment, capabilities=answer.value, probe_is_old=False)
        lines.append(Line(deployment.name, "answers", offers(described)))
    # What a person declared stays as it is: an engine's answer is a finding and never a declaration.
    ports.store.record_probes(offered(found, answers))
    warnings = compared_with_others([each.name for each in found], ports)
    return tell("deployments_checked", lines, as_json=as_json, failure=UNREACHABLE, warnings=warnings)


@deployments.command()
@click.argument("names", nargs=-1, required=True)
@_reason_option
@json_option
def drain(names: Sequence[str], *, reason: str, as_json: bool) -> int:
    """Let no new work start at NAMES. What runs there goes on."""
    return _each(names, "drained", reason, as_json=as_json, drained=True)


@deployments.command()
@click.argument("names", nargs=-1, required=True)
@_reason_option
@json_option
def undrain(names: Sequence[str], *, reason: str, as_json: bool) -> int:
    """Let work start at NAMES again."""
    return _each(names, "open", reason, as_json=as_json, drained=False)


@deployments.command()
@click.argument("names", nargs=-1, required=True)
@_reason_option
@json_option
def rm(names: Sequence[str], *, reason: str, as_json: bool) -> int:
    """Forget NAMES; refused while an apply needs them. Nothing is changed at their targets."""
    return _each(names, "removed", reason, as_json=as_json, drained=None)


def _each(names: Sequence[str], outcome: str, reason: str, *, as_json: bool, drained: bool | None) -> int:
    store = reach.store()
    # A name that is not there refuses all: half of a typing mistake is not carried out.
    store.load_deployments(distinct(names))
    lines = []
    for name in distinct(names):
        try:
            if drained is None:
                store.remove_deployment(name)
            else:
                store.set_drained(name, drained=drained, caller=reach.caller(), reason=reason)
            lines.append(Line(name, outcome, _recorded(store, name, outcome, reason)))
        except (Refused, NotFound) as error:
            lines.append(Line(name, "refused", str(error)))
    return tell("deployments_changed", lines, as_json=as_json, failure=REFUSED)


def _recorded(store: Store, name: str, outcome: str, reason: str) -> str:
    """Where it was written down who did so and why; it is done whether that can be written or not."""
    try:
        concerned = store.record_register(name, _EVENTS[outcome], reach.caller(), reason)
    except StorageUnavailable as error:
        return f"not written down for whom it concerns, say it again: {error}"
    more = f" and {len(concerned) - MOST_NAMED:,} more" if len(concerned) > MOST_NAMED else ""
    return f"in the record of {', '.join(concerned[:MOST_NAMED])}{more}" if concerned else ""


def _to_mend(answer: Declined | Unknown, name: str) -> str:
    """What helps whoever could not add a deployment, by why its engine gave no answer."""
    unseen = "add it unseen with --no-probe --deduplicates yes (or no)"
    match cause_of(answer.message, code=answer.code, reason=answer.reason):
        case Cause.REFUSED | Cause.ANOTHER:
            return "Compare --environment, --database and --target with what the engine was started with."
        case Cause.CREDENTIALS | Cause.RIGHTS:
            return "Name with --token-ref the token that its engine expects."
        case Cause.CERTIFICATE:
            return "Name with --tls-ca whom we trust; with --tls-cert and --tls-key what we show, where it wants that."
        case Cause.SILENCE | Cause.NOBODY_LISTENS | Cause.TIME:
            return f"Start the engine, or {unseen}."
        case cause:
            words = hint_of(cause, name).what
            return f"{words[:1].upper()}{words[1:]}. Mend that, or {unseen}."


def _described(wanted: Deployment, answer: Outcome[Capabilities], declared: str | None) -> Deployment:
    """The deployment with what its engine offers; raises Refused where it must not be added."""
    if not isinstance(answer, Ok):
        what = f"{wanted.name} was not added: its engine does not serve it"
        why, reason = (one_line(answer.message),), answer.reason or "NO_ANSWER"
        raise Refused(what, why=why, next_step=_to_mend(answer, wanted.name), reason=reason)
    found = answer.value
    if not found.resolve and declared is None:
        what = f"{wanted.name} was not added: its engine can't say what became of a lost dispatch"
        why = ("it offers no Resolve, so a person must say whether a repeated Apply runs only once",)
        step = (
            "Add --deduplicates yes or --deduplicates no (with no, a lost answer waits for `tern resolve`)."
        )
        raise Refused(what, why=why, next_step=step, reason="DEDUPLICATION_UNKNOWN")
    return replace(wanted, capabilities=found, idempotent_dispatch=declared == "yes")


def _save(ports: Ports, wanted: Deployment, declared: str | None, *, replaces: bool) -> str:
    """Writes it down unless it stands there already; raises Refused where something else has its name."""
    known = {each.name: each for each in ports.store.load_deployments()}.get(wanted.name)
    if known is None:
        ports.store.save_deployment(wanted)
        return "added"
    different = differences(known, wanted)
    if not different:
        if wanted.capabilities.resolve is not None:
            ports.store.record_probes({wanted.name: wanted.capabilities})
        if declared is not None:
            ports.store.declare(wanted.name, deduplicates=wanted.idempotent_dispatch)
        return "known already"
    if not replaces:
        what = f"another deployment is named {wanted.name}"
        step = "Choose another name, or say --replace."
        raise Refused(what, why=different, next_step=step, reason="NAME_TAKEN")
    ports.store.replace_deployment(wanted)
    return "replaced"


def _json(deployment: Deployment) -> dict[str, object]:
    return {
        "name": deployment.name,
        "environment": deployment.environment,
        "database": deployment.database,
        "address": deployment.address,
        "target": deployment.target,
        "labels": dict(deployment.labels),
        "position": deployment.position,
        "capabilities": deployment.capabilities.as_json(),
        "probe_is_old": deployment.probe_is_old,
        "deduplicates": deployment.idempotent_dispatch,
        "drained": deployment.drained,
        "identity": deployment.engine_identity or None,
    }


def _filled(option: str, value: str) -> str:
    if not is_name(value):
        what = f"--{option} is {'unprintable' if value.strip() else 'empty'}"
        raise UsageError(what)
    return value

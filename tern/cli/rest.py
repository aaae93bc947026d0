"""`tern apply --rest-of`: what is left of an apply, shown in groups; with a digest, one of them is carried on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from rich.text import Text

from tern.cli import reach
from tern.cli.accepted import accepted_picture
from tern.cli.address import read_labels
from tern.cli.envelope import write_document
from tern.cli.picture import show
from tern.cli.policy import policy_words
from tern.cli.words import one_line, plural
from tern.domain.ending import NONE_DONE
from tern.domain.errors import UsageError
from tern.domain.policy import Policy
from tern.domain.rest import Group, Rest
from tern.domain.rest_asked import NewRest, rest_key
from tern.domain.selection import Selection
from tern.domain.states import State
from tern.domain.subject import Subject

MOST_NAMED = 8
MOST_LEFT_OUT = 20


@dataclass(frozen=True, slots=True)
class RestChoice:
    """Which deployments of which apply, as the command line says it."""

    rest_of: str
    names: str
    labels: Sequence[str]
    excepted: Sequence[str]
    everywhere: bool
    policy: str = ""
    more: str = ""
    """What else was said that is to be said again: how its engines are asked, and under which key."""

    @property
    def words(self) -> str:
        """The same, to be copied."""
        said = [self.rest_of]
        if self.names:
            said.append(f"--deployments {quote(self.names)}")
        said += [f"-l {quote(label)}" for label in self.labels]
        said += [f"--except {quote(name)}" for name in self.excepted]
        said += ["--all"] if self.everywhere else []
        return " ".join([*said, *filter(None, (self.policy, self.more))])

    def selection(self) -> Selection:
        """Raises UsageError where two ways of choosing are mixed."""
        named = Subject.read(self.rest_of)
        names = tuple(name.strip() for name in self.names.split(",") if name.strip())
        if named.deployment and (names or self.labels or self.everywhere or self.excepted):
            what = f"{named.scope} names its operation; no other selector fits"
            raise UsageError(what)
        only = (named.deployment,) if named.deployment else names
        return Selection(
            only, read_labels(self.labels), everywhere=self.everywhere, excepted=frozenset(self.excepted)
        )


def read_rest(
    choice: RestChoice,
    *,
    digest: str,
    policy: Policy | None,
    allow_unsafe: bool,
    previews: bool,
    accept_drift: bool,
    key: str | None,
    reason: str,
) -> NewRest:
    """What is asked for. Sent twice, the same digest is the same request, so it is the key where none is said."""
    return NewRest(
        Subject.read(choice.rest_of).apply_id,
        choice.selection(),
        reach.caller(),
        digest=digest,
        reason=reason,
        idempotency_key=rest_key(digest) if key is None else key,
        policy=policy,
        allow_unsafe=allow_unsafe,
        previews=previews,
        accept_drift=accept_drift,
        typed=choice.words,
    )


def carry_on(new: NewRest, choice: RestChoice, *, watches: bool, as_json: bool) -> int:
    """Shows the groups; with a digest, sends that one."""
    from tern.flows import rest as flow  # noqa: PLC0415

    if watches and (as_json or not new.digest):
        what = "--watch follows what was sent, and draws"
        raise UsageError(what, next_step="Say --digest, and no --json.")
    if new.digest:
        enqueued = flow.send(new, reach.ports(ringing=True))
        if as_json:
            write_document("apply_accepted", enqueued.as_json(), warnings=enqueued.warnings)
            return 0
        same = "digest" if new.idempotency_key == rest_key(new.digest) else "key"
        show(accepted_picture(enqueued, same), wraps=True)
        if not watches:
            return 0
        from tern.cli.watch import follow  # noqa: PLC0415

        return follow(enqueued.apply_id)
    found = flow.show(new, reach.ports(ringing=False))
    # That nothing is left is no refusal.
    code = 0 if found.groups or found.is_done else NONE_DONE
    if as_json:
        write_document("rest_of", _json(found, choice))
    else:
        show(_picture(found, choice), wraps=True)
    return code


def _json(found: Rest, choice: RestChoice) -> dict[str, object]:
    return {
        "apply_id": found.source.apply_id,
        "groups": [{**group.as_json(), "command": _command(group, choice)} for group in found.groups],
        "left_out": [each.as_json() for each in found.left_out],
    }


def _command(group: Group, choice: RestChoice) -> str:
    consent = " --allow-unsafe" if group.allow_unsafe else ""
    return f"tern apply --rest-of {choice.words}{consent} --digest {group.digest} --reason '…'"


def _picture(found: Rest, choice: RestChoice) -> Iterator[Text]:
    left = (
        "nothing is left to do"
        if found.is_done
        else f"what is left of it: {plural(len(found.groups), 'group')}"
    )
    yield Text.assemble((found.source.apply_id, "bold"), f"  {left}")
    for number, group in enumerate(found.groups, 1):
        yield Text()
        yield from _group(number, group, choice)
    if found.left_out:
        yield Text()
        yield Text("  Done" if found.is_done else "  Not carried on", "bold")
    yield from _left_out(found)
    failed = [chain for group in found.groups for chain in group.chains if chain.tip.state is State.FAILED]
    if failed:
        more = f" and {len(failed) - 1:,} more" if len(failed) > 1 else ""
        yield Text()
        told = f"  It failed at {failed[0].deployment}{more}: mend what it failed on, wherever it is sent."
        yield Text(told, "bold yellow")
        yield Text(f"      tern explain {failed[0].tip.name}", "bold")
    if found.groups:
        yield Text()
        yield Text("  Nothing was sent. The failure budget of what is carried on begins anew.", "dim")
        yield Text(
            "  Statements are numbered as in the first rollout; whoever carries them on counts from 1.", "dim"
        )


def _left_out(found: Rest) -> Iterator[Text]:
    """What somebody has to see first; of those that are done their number, where they are many."""
    undone = [each for each in found.left_out if not each.is_done]
    done = [each for each in found.left_out if each.is_done]
    for each in undone[:MOST_LEFT_OUT]:
        yield Text.assemble("  ✖ ", (each.deployment, "bold"), f"  {one_line(each.why)}")
        if each.command:
            yield Text(f"      {each.command}", "bold")
    if len(undone) > MOST_LEFT_OUT:
        yield Text(f"  … {len(undone) - MOST_LEFT_OUT:,} more; --json has all of them", "dim")
    if len(done) > MOST_NAMED:
        named = ", ".join(each.deployment for each in done[:3])
        yield Text(f"  ✔ {plural(len(done), 'deployment')} done already: {named} and {len(done) - 3:,} more")
        return
    for each in done:
        yield Text.assemble("  ✔ ", (each.deployment, "bold"), f"  {one_line(each.why)}")


def _group(number: int, group: Group, choice: RestChoice) -> Iterator[Text]:
    named = [
        f"{chain.deployment} ({chain.tip.state}{', becomes cancelled there' if chain.tip.may_act else ''})"
        for chain in group.chains[:MOST_NAMED]
    ]
    if len(group.chains) > MOST_NAMED:
        named.append(f"{len(group.chains) - MOST_NAMED:,} more")
    yield Text(f"  {number}. {plural(len(group.chains), 'deployment')}: {', '.join(named)}", "bold")
    for place, change in zip(group.numbers, group.changes, strict=True):
        yield Text(f"     statement {place}  {one_line(change.ddl)}")
    moved = [chain for chain in group.chains if chain.moved_from and chain.target is not None]
    for chain in moved[:MOST_NAMED]:
        address = "" if chain.target is None else chain.target.address
        words = f"{chain.deployment} is now at {address}; reviewed was {chain.moved_from}, the same engine"
        yield Text(f"     ! {one_line(words)}", "yellow")
    if len(moved) > MOST_NAMED:
        yield Text(
            f"     … and {len(moved) - MOST_NAMED:,} more that have moved; --json has all of them", "dim"
        )
    yield Text(f"     {', '.join(policy_words(group.policy))}", "dim")
    yield from (Text(f"     ! needs consent: {one_line(words)}", "yellow") for words in group.consent)
    yield Text(f"     {_command(group, choice)}", "bold")

"""The lines that a rollout is shown by: its headline, each operation, each statement, and the next steps.

Which of them stand on one screen is decided elsewhere (screen.py).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tern.blocking import outstanding_of
from tern.cli.policy import policy_words
from tern.cli.words import (
    APPLY_SIGNS,
    COPYING,
    LOCKED,
    LOST_CONTACT,
    SIGNS,
    UNKNOWN,
    Sign,
    ago,
    count,
    duration,
    key_first,
    one_line,
    plural,
    printable,
)
from tern.domain.control import Delivery, Verb
from tern.domain.effect import Effect
from tern.domain.holds import Hold, HoldKind
from tern.domain.states import ApplyState, State
from tern.facts import CarriedOn, OperationRecord, TableFacts
from tern.operation import OperationView
from tern.view import ApplyView
from tern.wave import WaveView
from tern.ways import may_be_stopped, ways_of_all, ways_of_stopped

MOST_FOLLOW_UPS = 3
NAME_WIDTH = 24
LONGEST_COMMAND = 70
ENDLESS = 10_000
NARROWEST = 20
_ASKED_BY = {State.SKIPPED: Verb.SKIP, State.CANCELLED: Verb.CANCEL, State.REVERTED: Verb.REVERT}
WAITS_FOR_OUTSTANDING = "it waits for what is outstanding at its target"


def console(*, stderr: bool = False) -> Console:
    """The terminal, or endless lines without colour where there is none; rich respects NO_COLOR by itself."""
    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if made.is_terminal and made.width < NARROWEST:
        # COLUMNS=0, as some serial lines have it, is no reason to show nothing.
        return Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=NARROWEST)
    if made.is_terminal:
        return made
    return Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=ENDLESS, no_color=True)


def draws_again(out: Console) -> bool:
    """A picture can be drawn over the last one: a terminal, and one that moves its cursor (TERM=dumb does not)."""
    return out.is_terminal and not out.is_dumb_terminal


def show(lines: Iterable[Text], *, wraps: bool = False) -> None:
    """Prints each line on one line of the terminal; with `wraps`, on as many as it needs, below its beginning."""
    out = console()
    for line in map(harmless, lines):
        if line.overflow == "fold":
            # A command that is cut off can't be copied: the terminal wraps it.
            out.print(line, soft_wrap=True)
            continue
        if not wraps or not line.plain.strip():
            out.print(line, no_wrap=True, overflow="ellipsis", crop=True)
            continue
        indent = len(line.plain) - len(line.plain.lstrip())
        out.print(Padding(line[indent:], (0, 0, 0, indent), expand=False))


def harmless(line: Text) -> Text:
    """The line, with its styles and its width, and nothing in it that a terminal would obey."""
    line.plain = printable(line.plain)
    return line


def sign_of(operation: OperationView) -> Sign:
    """The symbol and word of an operation as it is known."""
    if operation.lost_contact:
        return LOST_CONTACT
    if operation.state is State.RUNNING and (table := operation.under_way):
        if operation.waits_for_lock:
            return LOCKED
        if "copy" in table.detail.lower():
            return COPYING
    return SIGNS[operation.state]


def operation_line(
    operation: OperationView, name_width: int, word_width: int = 0, *, brief: bool = False
) -> Text:
    """One deployment on one line; the widths are those of the column. Brief where its statements follow."""
    sign = sign_of(operation)
    line = Text(f"  {sign.symbol} ", sign.style)
    line.append(operation.deployment[:name_width].ljust(name_width), "" if sign.style != "dim" else "dim")
    line.append(f"  {sign.word:<{word_width}}", sign.style)
    line.append(f"  {details(operation, brief=brief)}")
    line.rstrip()
    return line


def details(operation: OperationView, *, brief: bool = False) -> str:
    """What is known beside the state, what was asked for first: until it is done, that is what matters."""
    asked = [
        f"{wish.verb} asked for {ago(wish.age_s)}"
        + (f", no answer after {wish.attempts} tries" if wish.attempts > 1 and wish.engine_words else "")
        for wish in operation.record.open_wishes
    ]
    known = _known(operation, brief=brief)
    carried = operation.record.carried_on
    follows = [] if carried is None or not operation.state.is_finished else [carried.words]
    follows += [f"since then {each.words}" for each in operation.record.since_then[-1:]]
    own = ", ".join([*asked, *([known] if known else [])])
    # Apart from its own trouble, which is not the trouble of whoever came later.
    return "; ".join(filter(None, [own, *follows]))


def _known(operation: OperationView, *, brief: bool) -> str:
    record = operation.record
    if operation.lost_contact:
        last = "never" if record.sampled_age_s is None else ago(record.sampled_age_s)
        return f"last seen {operation.state.value.replace('_', ' ')} {operation.percent} % ({last})"
    match operation.state:
        case State.PENDING | State.FAILED_RETRYABLE:
            if operation.holds:
                first, more = operation.holds[0], len(operation.holds) - 1
                return one_line(hold_words(first, record)) + (f" (and {more} more)" if more else "")
            return "its turn" if operation.state is State.PENDING else one_line(record.error_words)
        case State.FAILED | State.UNCERTAIN:
            return key_first(one_line(record.error_words))
        case State.COMPLETED:
            rows = "" if operation.rows_copied is None else f"about {count(operation.rows_copied)} rows, "
            return f"{rows}took {duration(record.worked_s)}" if record.worked_s is not None else ""
        case State.SKIPPED | State.CANCELLED | State.REVERTED:
            return _set_aside(record)
        case State.WAITING_FOR_CUTOVER if record.sampled_age_s is not None:
            return f"seen {ago(record.sampled_age_s)}"
        case State.STOPPED:
            return f"at {operation.percent} %, {ago(record.state_age_s)}"
        case _:
            return _progress(operation, brief=brief)


def _set_aside(record: OperationRecord) -> str:
    """By whom and why, where it was asked for."""
    verb = _ASKED_BY[record.state]
    for wish in reversed(record.wishes):
        if wish.verb is verb and wish.fate is Delivery.ACKNOWLEDGED:
            return f"by {one_line(wish.caller)}: {one_line(wish.reason)}"
    return ""


def hold_words(hold: Hold, record: OperationRecord) -> str:
    """The reason; in short where all of it stands beside it, among what needs a person."""
    is_told = any(each.ways for each in outstanding_of(record))
    return WAITS_FOR_OUTSTANDING if hold.kind is HoldKind.OUTSTANDING and is_told else hold.detail


def table_lines(tables: Sequence[TableFacts], indent: int = 6) -> Iterator[Text]:
    """Each statement on one line, and below it what its engine says about it."""
    signs = [_table_sign(table) for table in tables]
    width = max((len(word) for _, word, _ in signs), default=0)
    # By its number a person says what became of one.
    numbers = any(table.effect is Effect.UNKNOWN for table in tables)
    for number, (table, (symbol, word, style)) in enumerate(zip(tables, signs, strict=True), 1):
        line = Text(" " * indent + f"{symbol} " + (f"{number}  " if numbers else ""), style)
        line.append(f"{word:<{width}}  ", style)
        line.append(one_line(table.ddl))
        yield line
        if said := one_line(table.error or table.detail):
            yield Text(" " * (indent + 2) + said, "red" if table.error else "dim")


def _table_sign(table: TableFacts) -> Sign:
    percent = "" if table.state in {"pending", "completed", "skipped"} else f" {table.percent} %"
    if table.effect is Effect.UNKNOWN:
        symbol, word, style = UNKNOWN
    elif table.state in set(State):
        symbol, word, style = SIGNS[State(table.state)]
    else:
        # An engine may say of a statement what no operation can be, such as waiting for a lock.
        symbol, word, style = COPYING.symbol, one_line(table.state.replace("_", " ")), COPYING.style
    return Sign(symbol, word + percent, style)


def _progress(operation: OperationView, *, brief: bool) -> str:
    record = operation.record
    if record.sampled_age_s is None:
        return "handed to its engine" if record.remote_id else f"being dispatched, attempt {record.attempt}"
    if (waiting := operation.waits_for_lock) is not None and waiting.detail and not brief:
        # Who is in the way is what matters now.
        return one_line(waiting.detail)
    words = [f"{operation.percent} % ({ago(record.sampled_age_s)})"]
    if operation.rows_total is not None:
        words.append(f"{count(operation.rows_copied or 0)} of about {count(operation.rows_total)} rows")
    if operation.eta_s is not None:
        words.append(f"{duration(operation.eta_s)} left")
    said = operation.under_way.detail if operation.under_way else record.summary
    if said and not brief:
        words.append(one_line(said))
    return "  ".join([words[0], ", ".join(words[1:])]) if len(words) > 1 else words[0]


def title(view: ApplyView) -> Text:
    """Which apply, how it stands, and for how long."""
    sign = APPLY_SIGNS[view.facts.state]
    line = Text(f"{sign.symbol} ", sign.style)
    line.append(view.facts.apply_id, "bold")
    line.append(f"  {view.headline}", sign.style)
    took = view.facts.took_s
    line.append(f"  took {duration(took)}" if took is not None else f"  {duration(view.facts.age_s)}", "dim")
    return line


def subtitle(view: ApplyView) -> Text:
    """Where, by which policy, who and why."""
    facts = view.facts
    words = [f"{facts.database} in {facts.environment}", *policy_words(facts.policy)]
    return Text(f"  {', '.join(words)}  ·  {facts.caller}: {one_line(facts.reason)}", "dim")


def wave_line(wave: WaveView) -> Text:
    """How far one wave is."""
    words = f"  wave {wave.number}  {wave.wave.selector}: {wave.through:,} of {wave.operations:,} through"
    bakes = f", bakes for another {duration(wave.bakes_for_s)}" if wave.bakes_for_s else ""
    return Text(words + bakes, "dim")


def word_width(operations: Sequence[OperationView]) -> int:
    """Of the column in which the words of their states stand."""
    return max((len(sign_of(operation).word) for operation in operations), default=0)


def step_that_lists(view: ApplyView) -> tuple[str, str]:
    """The command for all of those that have no line of their own."""
    return f"tern get {view.facts.apply_id} --all", "every deployment; --state, --wave, -l, --by choose"


def next_steps(view: ApplyView, *, lists: bool) -> list[Text]:
    """What to do next. lists: with what shows each deployment."""
    apply_id = view.facts.apply_id
    steps: list[tuple[str, str]] = []
    match view.facts.state:
        case ApplyState.COMPLETED:
            steps.append((f"tern logs {apply_id}", "what happened, and when"))
        case ApplyState.FAILED:
            steps.append((f"tern explain {apply_id}", "what failed, and what can be done"))
            steps += ways_of_all(view)
        case ApplyState.STOPPED:
            steps += ways_of_stopped(view)
        case ApplyState.CANCELLED | ApplyState.REVERTED:
            steps.append((f"tern logs {apply_id}", "what happened, and when"))
            steps += ways_of_all(view)
        case _ if view.exit_code is None:
            steps.append((f"tern watch {apply_id}", "follows it; Ctrl-C leaves the rollout alone"))
            if may_be_stopped(view):
                steps.append((f"tern stop {apply_id} --reason '…'", "halts it; it can be resumed"))
        case _:
            steps.append((f"tern explain {apply_id}", "all reasons at once"))
    if lists:
        steps.append(step_that_lists(view))
    steps += _follow_ups(view)
    width = min(LONGEST_COMMAND, max((len(command) for command, _ in steps), default=0))
    return [step_line(command, what, width) for command, what in steps]


def step_line(command: str, what: str, width: int) -> Text:
    """A command, and what it does; one that leaves no room for words stands alone, on as many lines as it needs."""
    if len(command) > LONGEST_COMMAND:
        return Text(f"  {command}", "bold", overflow="fold")
    return Text.assemble("  ", (command.ljust(width), "bold"), (f"   {what}", "dim"))


def _follow_ups(view: ApplyView) -> Iterator[tuple[str, str]]:
    """The applies that carry on what was left, or were to, each once, the first few."""
    found: dict[str, list[CarriedOn]] = {}
    for each in view.operations:
        if (carried := each.record.carried_on) is not None and each.state.is_finished:
            found.setdefault(carried.by.split("/")[0], []).append(carried)
    for name, parts in list(found.items())[:MOST_FOLLOW_UPS]:
        yield f"tern get {name}", _said_of_follow_up(parts)
    since = [each.record.since_then[-1] for each in view.operations if each.record.since_then]
    for name, times in Counter(each.scope.split("/")[0] for each in since).most_common(MOST_FOLLOW_UPS):
        yield f"tern get {name}", f"came later, at {plural(times, 'target')} of these"


def _said_of_follow_up(parts: Sequence[CarriedOn]) -> str:
    if not all(each.state.is_finished for each in parts):
        return "carries on what was left"
    if any(each.leaves_more for each in parts):
        return "was to carry on what was left, and has ended without doing all of it"
    return "has carried on what was left"


def outcome_words(view: ApplyView) -> str:
    """The last line of a watch: what it came to, in one sentence."""
    name = view.facts.apply_id
    match view.facts.state:
        case ApplyState.COMPLETED:
            return f"{name} is completed on {plural(len(view.operations), 'deployment')}."
        case state if state.is_settled:
            return f"{name} is {state.value}."
        case _:
            return f"{name} needs you: {plural(len(view.needs), 'thing')} to decide."

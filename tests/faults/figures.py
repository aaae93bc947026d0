"""What a run of the chaos took, counted from its history: for the report, never for a verdict on a single moment."""

from collections import Counter
from collections.abc import Iterable, Mapping

from tests.faults.history import History


def claims_s(history: History) -> list[float]:
    """How long each claim stood until it was given back or taken over."""
    since: dict[int, float] = {}
    found: list[float] = []
    for change in history.writes("apply_operations"):
        before, after = change.old.get("claim_token"), change.new.get("claim_token")
        if before != after and change.row in since:
            found.append(change.at - since.pop(change.row))
        if after and before != after:
            since[change.row] = change.at
    return found


def stops_s(history: History) -> list[float]:
    """From the commit of each stop to the Stop call, or to the end of the wish where none was needed."""
    scopes = {operation.id: operation.scope for operation in history.operations}
    calls = [call for call in history.calls if call.method == "Stop"]
    begun: dict[int, float] = {}
    found: list[float] = []
    for change in history.writes("control_deliveries"):
        if change.new["verb"] != "stop":
            continue
        if not change.old:
            begun[change.row] = change.at
        elif change.new["state"] not in {"pending", "sent"} and change.row in begun:
            since, scope = begun.pop(change.row), scopes[change.new["operation_id"]]
            sent = [call.at for call in calls if call.operation == scope and since <= call.at <= change.at]
            found.append(min([*sent, change.at]) - since)
    return found


def rescues_s(history: History, deaths: Iterable[tuple[float, int]]) -> list[float]:
    """From the death of a driver, at a time and by its process id, until another had its operation."""
    found: list[float] = []
    for at, pid in deaths:
        held: set[int] = set()
        for change in history.writes("apply_operations"):
            owner = str(change.new.get("claim_owner") or "")
            if change.at <= at:
                held.discard(change.row)
                if change.new.get("claim_token") and owner.endswith(f":{pid}"):
                    held.add(change.row)
            elif change.row in held and change.new.get("claim_token") != change.old.get("claim_token"):
                held.discard(change.row)
                found.append(change.at - at)
    return found


def middle_and_worst(seconds: list[float], unit_s: float = 1.0) -> str:
    """Of a list, in units."""
    ordered = sorted(seconds) or [0.0]
    middle, worst = ordered[len(ordered) // 2] / unit_s, ordered[-1] / unit_s
    return f"{middle:.2f}, {worst:.2f} (of {len(seconds)})"


def counts(history: History) -> Mapping[str, object]:
    """How much there was of everything."""
    applied = [one for one in history.effects if one.kind == "apply"]
    return {
        "applies, operations": f"{len(history.applies)}, {len(history.operations)}",
        "calls to engines": len(history.calls),
        "Apply calls": sum(call.method == "Apply" for call in history.calls),
        "jobs started": sum(not one.is_duplicate for one in applied),
        "jobs at each engine": ", ".join(
            f"{name} {count}" for name, count in sorted(Counter(one.engine for one in applied).items())
        ),
        "repeated Apply absorbed by its key": sum(one.is_duplicate for one in applied),
        "events": len(history.events),
    }

"""Asking engines whether two deployments are one target: each forbids a random key, and the others are asked for it."""

import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.parse import urlsplit

from tern.domain.identity import DispatchKey
from tern.domain.model import Deployment
from tern.domain.targets import Finding, Found, Pair, finding, is_known_there, proof_key
from tern.ports import Engines
from tern.probing import AT_ONCE, LONGEST_LOOK_S, at_once
from tern.register_port import TargetStore

_DEFAULT_PORT = 5432
LONGEST_LOOKUP_S = 3.0
MOST_LOOKED_UP = 64
"""Names of hosts; for a warning about a whole fleet nobody waits."""


def prove_targets(names: Sequence[str], engines: Engines, kept: TargetStore) -> tuple[Found, ...]:
    """Finds out, and writes down, which of these deployments are the same target as another one in the register."""
    pairs = kept.unproven_pairs(names)
    if not pairs:
        return ()
    found = prove(engines, pairs)
    kept.record_findings(found)
    for each in found:
        # One database gives its ids once, by however many names it is reached.
        numbers = (each.pair.one.engine_number, each.pair.other.engine_number)
        if each.finding is Finding.SAME and None not in numbers and len(set(numbers)) > 1:
            kept.unite_engines(*sorted(filter(None, numbers)))
    return found


def prove(engines: Engines, pairs: Sequence[Pair]) -> tuple[Found, ...]:
    """What each pair is. One key for each deployment, however many it is compared with."""
    places = _places(side for pair in pairs for side in (pair.one, pair.other))
    ends_at = time.monotonic() + LONGEST_LOOK_S
    keys: dict[int, DispatchKey] = {}

    def forbid(place: int) -> None:
        key = proof_key(secrets.token_hex(16))
        answer = engines.of(places[place]).ask_key(key, forbid=True)
        if is_known_there(answer):
            keys[place] = key

    def asks(question: tuple[int, int]) -> bool | None:
        """Whether the second one knows the first one's key; None where that can't be told."""
        of, at = question
        if of not in keys or time.monotonic() > ends_at:
            return None
        return is_known_there(engines.of(places[at]).ask_key(keys[of], forbid=False))

    at_once(forbid, range(len(places)))
    numbered = [(places.index(pair.one), places.index(pair.other)) for pair in pairs]
    questions = [question for one, other in numbered for question in ((one, other), (other, one))]
    answers = dict(zip(questions, at_once(asks, questions), strict=True))
    return tuple(
        Found(
            pair, finding(answers[one, other], answers[other, one]), answers[one, other], answers[other, one]
        )
        for pair, (one, other) in zip(pairs, numbered, strict=True)
    )


def same_places(asked: Sequence[Deployment], register: Sequence[Deployment]) -> tuple[str, ...]:
    """Of engines that name no database: a warning for each of these whose host and port is another one's in other
    words. It proves nothing, and who can't be looked up in time is left out.
    """
    chosen = [each for each in asked if not each.engine_identity]
    names = {each.name for each in chosen}
    ports = {_endpoint(each.address)[1] for each in chosen}
    rest = [each for each in register if not each.engine_identity and each.name not in names]
    others = [each for each in (*chosen, *rest) if _endpoint(each.address)[1] in ports]
    hosts = dict.fromkeys(_endpoint(each.address)[0] for each in others)
    if not 1 < len(hosts) <= MOST_LOOKED_UP:
        return ()
    found = _addresses(list(hosts))
    warnings = []
    seen: set[frozenset[str]] = set()
    for each in chosen:
        host, port = _endpoint(each.address)
        for other in others:
            there, at = _endpoint(other.address)
            if (
                other.name == each.name
                or at != port
                or there == host
                or frozenset({each.name, other.name}) in seen
            ):
                continue
            if found.get(host, frozenset()) & found.get(there, frozenset()):
                seen.add(frozenset({each.name, other.name}))
                warnings.append(
                    f"{each.name} ({each.address}) and {other.name} ({other.address}) lead to the same host and port:"
                    " if that is one target, Tern can't tell, and would let two changes run there"
                )
    return tuple(warnings)


def _places(sides: Iterable[Deployment]) -> list[Deployment]:
    """Each once: as it is reached, because one that moves is asked at both of its addresses."""
    places: list[Deployment] = []
    for side in sides:
        if side not in places:
            places.append(side)
    return places


def _endpoint(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address.removeprefix("local:"))
        return (parts.hostname or "").lower(), parts.port or _DEFAULT_PORT
    except ValueError:
        return "", 0


def _addresses(hosts: Sequence[str]) -> dict[str, frozenset[str]]:
    """The addresses of each host; a name server that is silent costs a few seconds and no more."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tern-lookup")
    lookups = {host: pool.submit(_look_up, host) for host in hosts if host}
    wait(lookups.values(), timeout=LONGEST_LOOKUP_S)
    pool.shutdown(wait=False, cancel_futures=True)
    return {
        host: lookup.result() for host, lookup in lookups.items() if lookup.done() and not lookup.cancelled()
    }


def _look_up(host: str) -> frozenset[str]:
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None))
    except OSError:
        return frozenset()

"""Every kind of secret in every way in which a line is made: none of them is in what comes out.

test_canaries.py looks at a whole session from outside; here each cell of the table is tried by itself, so that what is
lost is named.
"""

import io
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping

import pytest
import structlog

from tern import observe
from tern.cli import failure
from tern.domain.errors import Refused, TernError
from tern.ports import StorageUnavailable

CANARY = "Zq9canary4711"
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n{CANARY}\n-----END PRIVATE KEY-----"

# How each is written where somebody else's message repeats it.
SECRETS = {
    "a database's password": f"postgresql://ann:{CANARY}@db:5432/shop",
    "a password with an @ in it": f"postgresql://ann:p@{CANARY}@db/shop",
    "a password with a slash in it": f"postgresql://ann:{CANARY}/x@db/shop",
    "a password with a colon in it": f"postgresql://ann:a:{CANARY}@db/shop",
    "a broker's password without a user": f"redis://:{CANARY}@broker:6379/0",
    "a broker's password with a user": f"rediss://teller:{CANARY}@broker/0",
    "a password in an address of Tern's": f"local:postgresql://ann:{CANARY}@db/shop",
    "a token in front of a host": f"grpcs://{CANARY}@engine:443",
    "a password as a parameter": f"postgresql://db/shop?sslmode=require&password={CANARY}",
    "a password as libpq writes it": f"host=db user=ann password={CANARY} dbname=shop",
    "a password in quotes": f"host=db password='{CANARY} {CANARY}' dbname=shop",
    "a key's password": f"host=db sslpassword={CANARY}",
    "a header": f"authorization: Bearer {CANARY}",
    "a header as a pair": f"('authorization', 'Bearer {CANARY}')",
    "a token as a parameter": f"https://flower/?token={CANARY}",
    "a private key": f"can't read {PEM}",
    "a statement": f"ALTER TABLE orders ADD COLUMN {CANARY} text",
    "a statement over lines": f"create index\n  {CANARY}\non orders (a)".replace("index\n  ", "index "),
    # Each name by itself: none may be found only because another one stands beside it.
    **{
        f"what is named {name}": f"can't log in with {name}={CANARY}"
        for name in (
            "password",
            "passwd",
            "passfile",
            "pwd",
            "token",
            "secret",
            "api_key",
            "api-key",
            "APIKEY",
            "Pwd",
        )
    },
}
# What stays to be seen of each, or nobody would know what a line is about.
STILL_SEEN = {
    "a database's password": "postgresql://ann:",
    "a broker's password without a user": "broker:6379/0",
    "a password as libpq writes it": "user=ann",
    "a private key": "can't read",
}


def _raised(words: str) -> Exception:
    try:
        try:
            raise ValueError(words)  # noqa: TRY301
        except ValueError as error:
            raise RuntimeError("while connecting") from error
    except RuntimeError as error:
        return error


WAYS: dict[str, Callable[[str], object]] = {
    "the library's message": lambda words: logging.getLogger("library").warning(words),
    "an argument of it": lambda words: logging.getLogger("library").warning("lost: %s", words),
    "an object as an argument": lambda words: logging.getLogger("library").warning(
        "lost: %r", ValueError(words)
    ),
    "fields of a line": lambda words: logging.getLogger("tern.x").warning(
        "x", extra={"fields": {"why": words}}
    ),
    "our logger's event": lambda words: observe.logger("tern.x").warning(words),
    "our logger's field": lambda words: observe.logger("tern.x").warning("x", why=words),
    "what is nested": lambda words: observe.logger("tern.x").warning(
        "x", seen={"all": [words, (words, {"deep": words})]}
    ),
    "what is bound": lambda words: observe.logger("tern.x", place=words).warning("x"),
    "an exception and its cause": lambda words: logging.getLogger("library").error(
        "x", exc_info=_raised(words)
    ),
    "our logger's exception": lambda words: observe.logger("tern.x").error("x", exc_info=_raised(words)),
    "an exception as a field": lambda words: observe.logger("tern.x").warning("x", error=ValueError(words)),
    "a task that Celery reports": lambda words: logging.getLogger("celery.app.trace").error(
        "Task %(name)s raised: %(exc)s", {"name": "tern.sweep", "exc": words}
    ),
}


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("how", ["json", "console"])
def test_no_secret_is_in_a_line_however_it_came_there(how: str, stream: io.StringIO) -> None:
    observe.configure(how, "DEBUG", stream)
    leaks = []
    for (kind, words), (way, log) in itertools.product(SECRETS.items(), WAYS.items()):
        stream.seek(0)
        stream.truncate()
        log(words)
        line = stream.getvalue()
        assert line, way
        if CANARY in line:
            leaks.append(f"{kind} in {way}: {line.strip()[-160:]}")
    assert leaks == [], "\n".join(leaks)


def test_what_is_no_secret_stays(stream: io.StringIO) -> None:
    """The control run: a line that says nothing helps nobody."""
    observe.configure("json", "DEBUG", stream)
    for kind, seen in STILL_SEEN.items():
        logging.getLogger("library").warning("lost: %s", SECRETS[kind])
        assert seen in stream.getvalue()
    for words in (
        "the token is taken from env:ENGINE_TOKEN", "token=env:ENGINE_TOKEN", "grpc://engine:443 is away",
        "postgresql://ann@db/shop", "password: file:/run/secrets/x", "no bearer token came with the call",
        "mail to ann@example.org, see https://example.org:80/x", "claim_token=abc",
    ):  # fmt: skip
        logging.getLogger("library").warning("%s", words)
        assert json.loads(stream.getvalue().splitlines()[-1])["message"] == words


ERRORS: Mapping[str, Callable[[str], Exception]] = {
    "of the database": StorageUnavailable,
    "that nobody thought of": _raised,
    "of Tern's": lambda words: TernError(words, why=(words,), unchanged=words, next_step=words),
    "a refusal": lambda words: Refused(words, why=(words,)),
}


@pytest.mark.parametrize("debugging", ["", "1"])
def test_no_secret_is_told_by_a_command_that_fails(
    debugging: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, in the document, and in the traceback of whoever wants to see one. A statement is whose it is."""
    monkeypatch.setenv("TERN_DEBUG", debugging)
    leaks = []
    for (kind, words), (what, made) in itertools.product(SECRETS.items(), ERRORS.items()):
        if "statement" in kind:
            continue
        failure.tell(made(words), as_json=True)
        told = capsys.readouterr()
        leaks += [
            f"{kind}, an error {what}: {text[-200:]}" for text in (told.out, told.err) if CANARY in text
        ]
    assert leaks == [], "\n".join(leaks)

"""Taking secrets out of text that somebody else has put together: an exception's words, a library's line, an address.

Statements are no secret of ours and are taken out of logs only (observe.py). What is taken for a secret by mistake
costs a word, what is not costs the password: in doubt it goes.
"""

import re

REMOVED = "[removed]"

# Up to the last @ without a space before it: a password may hold every other sign, whatever it should have been.
_USER_AND_PASSWORD = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s\"'<>]+(?=@)", re.IGNORECASE
)
# A name alone is a user of a database; elsewhere it is a token.
_TOKEN_BEFORE_HOST = re.compile(
    r"(?P<before>\b(?!postgres)[a-z][a-z0-9+.-]*://)[^\s/:@\[\]\"'<>]+(?=@)", re.IGNORECASE
)
_NAMED = re.compile(
    r"""(?P<before>(?<![\w-])(?:ssl)?(?:password|passwd|passfile|pwd|token|secret|api[_-]?key)\s*[=:]\s*)"""
    # A reference says where a secret is, and is none.
    r"""(?!env:|file:)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;&'")\]}]+)""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<before>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_KEPT_BEFORE = rf"\g<before>{REMOVED}"


def without_secrets(text: str) -> str:
    """The text without passwords in addresses, named secrets, headers' credentials and private keys."""
    # Looked at cheaply first: nearly no text has any, and every log line passes here.
    lower = text.lower()
    if "@" in text and "://" in text:
        text = _TOKEN_BEFORE_HOST.sub(_KEPT_BEFORE, _USER_AND_PASSWORD.sub(_KEPT_BEFORE, text))
    if "pass" in lower or "pwd" in lower or "token" in lower or "secret" in lower or "api" in lower:
        text = _NAMED.sub(_KEPT_BEFORE, text)
    if "bearer " in lower or "basic " in lower:
        text = _BEARER.sub(_KEPT_BEFORE, text)
    if "private key" in lower:
        text = _KEY.sub(REMOVED, text)
    return text

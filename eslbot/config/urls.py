"""URLs that hold secrets: how they are masked, and which secrets they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus, urlsplit

MASK = "********"

#: Parameters of a database's URL that are secrets (libpq, "Parameter Key Words"); names of files are none.
_SECRET = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
#: A parameter of a bot's URL whose value is a secret by itself, wherever it stands.
_TELLING = re.compile(r"key|token|secret|pass|auth|sig|credential", re.IGNORECASE)
#: A value so long is one, too, whatever it is called.
_LONG = 16
#: User, password and the rest of a database's URL. A password may hold an ``@``, where somebody forgot to
#: escape it: it reaches to the last one before the path.
_LOGIN = re.compile(r"(?P<before>[^:]*://[^:/@]*:)(?P<password>[^@]*(?:@[^@/?]*)*)(?P<behind>@.*)", re.DOTALL)


def shown(url: str) -> str:
    """A bot's ``url`` for people: what stands behind ``?`` is often a key."""
    base, mark, _ = url.partition("?")
    return base + (f"?{MASK}" if mark else "")


def query_secrets(url: str) -> Iterator[str]:
    """The query of a bot's ``url``, and those of its values that tell something without their names."""
    query = url.partition("?")[2]
    yield query
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if _TELLING.search(name) or len(value) >= _LONG:
            yield value


def database_shown(url: str) -> str:
    """A database's ``url`` for people, its passwords masked."""
    base, query = _parts(url)
    if login := _LOGIN.fullmatch(base):
        base = f"{login['before']}{MASK}{login['behind']}"
    if query is None:
        return base
    shown = (f"{name}{mark}{MASK if _is_secret(name) else value}" for name, mark, value in _parameters(query))
    return f"{base}?{'&'.join(shown)}"


def database_secrets(url: str) -> Iterator[str]:
    """The passwords in a database's ``url``, as they stand there and as they are sent."""
    base, query = _parts(url)
    if login := _LOGIN.fullmatch(base):
        yield login["password"]
        yield unquote(login["password"])
    for name, _, value in _parameters(query or ""):
        if _is_secret(name):
            yield value
            yield unquote_plus(value)


def login_secrets(url: str) -> Iterator[str]:
    """The password in a proxy's ``url``, as it stands there and as it is sent."""
    if (password := urlsplit(url).password) is not None:
        yield password
        yield unquote(password)


def _parts(url: str) -> tuple[str, str | None]:
    """What stands before the query, and the query; a ``?`` in a password begins none."""
    login = _LOGIN.fullmatch(url)
    start = login.start("behind") if login else 0
    base, mark, query = url[start:].partition("?")
    return url[:start] + base, query if mark else None


def _parameters(query: str) -> Iterator[tuple[str, str, str]]:
    for part in query.split("&"):
        yield part.partition("=")


def _is_secret(name: str) -> bool:
    return unquote_plus(name).lower() in _SECRET

"""Every secret text of a configuration: what no output may hold."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from eslbot.config.model import Ameyo, Bot, Config, Ledger, Secret
from eslbot.config.urls import database_secrets, login_secrets, query_secrets

#: A shorter text is found in too many places that are not it.
SHORTEST_SECRET = 6


def secrets_of(config: Config) -> frozenset[str]:
    """The texts of all tokens, passwords and bot headers, those of fewer than 6 characters left out."""
    return frozenset(text for text in _within(config) if len(text) >= SHORTEST_SECRET)


def texts_in(secret: Secret) -> Iterator[str]:
    """What must not be quoted of ``secret``: all of it, and the credentials behind a scheme's name."""
    text = secret.reveal()
    yield text
    scheme, _, credentials = text.rpartition(" ")  # "Bearer <token>"
    yield credentials
    if scheme.lower() == "basic":
        try:
            login = b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return  # it is not what it says, and nobody will read a password in it
        yield login
        yield login.partition(":")[2]


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield from texts_in(value)
    elif isinstance(value, Ledger):  # only the passwords of its URL are
        yield from database_secrets(value.url.reveal())
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _within(one)
    elif isinstance(value, tuple):
        for one in value:
            yield from _within(one)
    elif is_dataclass(value):
        if isinstance(value, Bot):
            for url in value.urls:
                yield from query_secrets(url)
        if isinstance(value, Bot | Ameyo) and value.proxy is not None:
            yield from login_secrets(value.proxy.reveal())
        for field in fields(value):
            yield from _within(getattr(value, field.name))

"""Every secret text of a configuration: what no output may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any
from urllib.parse import unquote

from eslbot.config.model import Config, Ledger, Secret

#: A shorter text is found in too many places that are not it.
SHORTEST = 6


def secrets_of(config: Config) -> frozenset[str]:
    """The texts of all tokens, passwords and bot headers, those of fewer than 6 characters left out."""
    found = set(_within(config))
    for workspace in config.workspaces.values():
        found |= {url.partition("?")[2] for url in workspace.bot.urls}  # what stands there is often a key
    return frozenset(text for text in found if len(text) >= SHORTEST)


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        text = value.reveal()
        yield text
        yield text.rpartition(" ")[2]  # "Bearer <token>" may be told without its first word
    elif isinstance(value, Ledger):  # only the password of its URL is one
        login, at, _ = value.url.reveal().rpartition("@")
        password = login.partition("://")[2].partition(":")[2] if at else ""
        yield password
        yield unquote(password)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _within(one)
    elif isinstance(value, tuple):
        for one in value:
            yield from _within(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _within(getattr(value, field.name))

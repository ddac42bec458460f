"""The page's application alone, over a stand-in's ledger."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from flask import Flask

from eslbot.config import load
from eslbot.health.model import Health
from eslbot.web.app import create_app
from eslbot.web.services import PageServices
from eslbot.web.sessions import Access
from tests.support.fake_ledger import FakeLedger
from tests.support.page import TOKENS, page_tree, recordings_of


@dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Clock:
    """The access's time, and what a wrong token waits on."""

    offset: float = 0.0
    pauses: list[float] = field(default_factory=list)
    pause_by: Callable[[float], object] = lambda seconds: None

    def now(self) -> float:
        return time.time() + self.offset

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.pause_by(seconds)


@dataclass
class Looks:
    """What the last round of looks at the service has found, if there was one."""

    found: Health | None = None

    def __call__(self) -> Health | None:
        return self.found


@dataclass
class Page:
    """The application of one page process."""

    services: PageServices
    app: Flask
    clock: Clock
    health: Looks

    def open(self, path: str, method: str = "GET", body: bytes = b"", **environ: Any) -> tuple[Got, Parts]:
        """The answer's head, and its body as WSGI gives it."""
        path, _, query = path.partition("?")
        heads: list[Any] = []
        given = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "eslbot.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "eslbot.example",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            **({"CONTENT_LENGTH": str(len(body))} if body else {}),
            **environ,
        }
        parts = self.app(given, lambda status, headers, exc=None: heads.append((status, headers)))
        ((status, headers),) = heads
        return Got(int(status.split()[0]), dict(headers), b""), Parts(parts)

    def get(self, path: str, token: str | None = None, **environ: Any) -> Got:
        """The whole answer; ``token`` is the name of one."""
        if token is not None:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {TOKENS[token]}"
        got, parts = self.open(path, **environ)
        got.body = parts.all()
        return got

    def post(self, path: str, body: bytes, **environ: Any) -> Got:
        form = {"CONTENT_TYPE": "application/x-www-form-urlencoded", **environ}
        got, parts = self.open(path, "POST", body, **form)
        got.body = parts.all()
        return got


class Parts:
    """A body, as a WSGI server takes and closes it."""

    def __init__(self, body: Any) -> None:
        self._body, self._parts = body, iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._parts)

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()

    def all(self) -> bytes:
        try:
            return b"".join(self._parts)
        finally:
            self.close()


def make_page(tree: dict[str, Any], ledger: FakeLedger | None) -> Page:
    """Of a configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(tomli_w.dumps(tree))
        file.flush()
        config = load(Path(file.name))
    health = Looks()
    services = (
        PageServices(config, health=health)
        if ledger is None
        else PageServices(config, ledger, ledger.projection, health=health)
    )
    clock = Clock()
    return Page(services, create_app(services, Access(config, clock.now, clock.pause)), clock, health)


@pytest.fixture
def ledger() -> Iterator[FakeLedger]:
    ledger = FakeLedger()
    yield ledger
    ledger.projection.close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the configuration says that it is."""
    return tmp_path / "journal"


@pytest.fixture
def directory(journal: Path) -> Path:
    """Where recordings are."""
    return recordings_of(journal)


@pytest.fixture
def page(journal: Path, ledger: FakeLedger) -> Page:
    return make_page(page_tree(journal), ledger)

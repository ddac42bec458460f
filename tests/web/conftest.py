"""The WSGI application alone, over a stand-in's ledger."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w

from eslbot.config import load
from eslbot.web.app import WebApp
from tests.support.fake_keeper import FakeKeeper
from tests.support.page import TOKENS, page_tree, short_folder


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
class Site:
    """The application of one worker."""

    app: WebApp
    controller: Any
    cookies: dict[str, str] = field(default_factory=dict)

    def open(self, path: str, method: str = "GET", body: bytes = b"", **environ: Any) -> tuple[Got, Any]:
        """The answer's head, and its body as WSGI gives it."""
        path, _, query = path.partition("?")
        heads: list[Any] = []
        given = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "eslbot.example",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            **({"CONTENT_LENGTH": str(len(body))} if body else {}),
            **environ,
        }
        parts = self.app(given, lambda status, headers: heads.append((status, headers)))
        ((status, headers),) = heads
        return Got(int(status.split()[0]), dict(headers), b""), parts

    def get(self, path: str, token: str | None = None, **environ: Any) -> Got:
        """The whole answer; ``token`` is the name of one."""
        if token is not None:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {TOKENS[token]}"
        got, parts = self.open(path, **environ)
        got.body = b"".join(parts)
        return got

    def post(self, path: str, body: bytes, **environ: Any) -> Got:
        form = {"CONTENT_TYPE": "application/x-www-form-urlencoded", **environ}
        got, parts = self.open(path, "POST", body, **form)
        got.body = b"".join(parts)
        return got


def make_site(tree: dict[str, Any]) -> Site:
    """Of a configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(tomli_w.dumps(tree))
        file.flush()
        controller = SimpleNamespace(config=load(Path(file.name)), draining=False)
    return Site(WebApp(controller), controller)  # type: ignore[arg-type]


@pytest.fixture
def keeper() -> Iterator[FakeKeeper]:
    with short_folder() as folder, FakeKeeper(folder / "journal", period=0.01) as keeper:
        yield keeper


@pytest.fixture
def site(keeper: FakeKeeper) -> Site:
    return make_site(page_tree(Path(keeper.journal)))

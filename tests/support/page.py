"""A call page as the page process serves it, its ledger a stand-in's, and a browser to look at it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import tomli_w

from eslbot.config import load
from eslbot.health.model import Colour, Component, Finding, Health, State, Subject
from eslbot.recovery.state import Recoveries
from eslbot.web.app import create_app
from eslbot.web.server import PageServer
from eslbot.web.services import PageServices
from tests.support.fake_ledger import ACME, WORKSPACES, ZENITH, FakeLedger
from tests.support.processes import tree

TOKENS = {
    "operator": "operator-token-0123456789",
    "acme": "acme-token-0123456789abcdef",
    "seer": "seer-token-0123456789abcdef",
    "hearer": "hearer-token-0123456789abcdef",
    "zenith-hearer": "zenith-hearer-token-0123456789",
}
CHROMIUM = shutil.which("chromium")


class PageService:
    """The page's server in this process, for a configuration and a ledger, on a port of its own."""

    def __init__(self, folder: Path, tree: dict[str, Any], ledger: FakeLedger | None) -> None:
        self.journal = folder / "journal"
        self._file = folder / "page.toml"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.web_port: int = self._listener.getsockname()[1]
        self.tree, self.ledger = tree, ledger
        #: What the last round of looks has found; None where there was none.
        self.health: Health | None = well()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._listener.close()

    def start(self) -> None:
        """As the arbiter starts a page process; its port is there all the time."""
        self._file.write_text(tomli_w.dumps(self.tree))
        config = load(self._file)
        if self.ledger is None:
            self.services = PageServices(config, health=self._health)
        else:
            self.ledger.begin_anew()
            projection = self.ledger.projection
            self.services = PageServices(config, self.ledger, projection, health=self._health)
        listener = self._listener.dup()
        listener.setblocking(False)
        self._server = PageServer(create_app(self.services), listener)
        threading.Thread(target=self._server.serve, daemon=True).start()

    def take_little(self) -> None:
        """From now on connections have small buffers: what a browser does not take waits in the process."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def _health(self) -> Health | None:
        return self.health

    def stop(self) -> None:
        """As it ends."""
        self.services.projection.close()
        self._server.stop()


def well(**colours: str) -> Health:
    """All of a service of two tenants, green but for the ``colours`` of some components."""
    now = time.time()
    states = []
    for component in Component:
        tenants = (ACME, ZENITH) if component in (Component.BOT, Component.AMEYO) else (None,)
        for workspace_id in tenants:
            colour = Colour(colours.get(component, "green"))
            wrong = colour is not Colour.GREEN
            finding = Finding(
                colour, f"{component} is {colour}" if wrong else "", f"mend {component}" if wrong else ""
            )
            name = WORKSPACES[workspace_id] if workspace_id else None
            states.append(State(Subject(component, workspace_id), finding, now - 30, name))
    return Health(now, tuple(states))


def page_tree(journal: Path) -> dict[str, Any]:
    """Two tenants, and who looks: at everything masked, at one tenant, at everything with numbers.

    And who hears: all recordings, and one tenant's.
    """
    configuration = tree()
    configuration["workspaces"][ZENITH] = {**configuration["workspaces"][ACME], "name": "zenith"}
    configuration["ledger"] = {"journal": str(journal), "url": f"sqlite:///{journal}/calls.db"}
    configuration.setdefault("freeswitch", {})["recovery_file"] = str(journal.parent / "freeswitch.json")
    configuration["web"] = {
        "tokens": {
            "operator": {"token": TOKENS["operator"]},
            "acme": {"token": TOKENS["acme"], "workspaces": ["acme"]},
            "seer": {"token": TOKENS["seer"], "numbers": True},
            "hearer": {"token": TOKENS["hearer"], "recordings": True},
            "zenith-hearer": {
                "token": TOKENS["zenith-hearer"],
                "workspaces": ["zenith"],
                "recordings": True,
            },
        }
    }
    configuration["recording"] = {"directory": str(recordings_of(journal))}
    return configuration


def recordings_of(journal: Path) -> Path:
    """Where recordings of :func:`page_tree` are."""
    return journal.parent / "recordings"


def recoveries(journal: Path, **known: Any) -> None:
    """What ``eslbot recovery`` has left for the page of :func:`page_tree`."""
    (journal.parent / "freeswitch.json").write_text(json.dumps(asdict(Recoveries(**known))))


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium, through Playwright."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield chromium
        finally:
            chromium.close()


def sign_in(page: Any, service: PageService, token: str = "operator", view: str = "live") -> None:
    """As people do, and go to a view."""
    page.goto(f"http://127.0.0.1:{service.web_port}/")
    page.get_by_label("Token").fill(TOKENS[token])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    if view != "overview":
        page.get_by_role("link", name=view.capitalize(), exact=True).click()

"""A service with a call page, its ledger a stand-in's, and a browser to look at it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eslbot.recovery import Recoveries
from eslbot.sim.processes import children, keeps_ledger
from tests.support.fake_keeper import ACME, ZENITH
from tests.support.processes import EslbotService, tree

TOKENS = {
    "operator": "operator-token-0123456789",
    "acme": "acme-token-0123456789abcdef",
    "seer": "seer-token-0123456789abcdef",
}
CHROMIUM = shutil.which("chromium")


class PageService(EslbotService):
    """A service beside whose workers a keeper waits for the stand-in's end."""

    def children(self) -> list[int]:
        """The workers."""
        return [pid for pid in children(self.process.pid) if not keeps_ledger(pid)]

    def pids(self) -> list[int]:
        return [self.process.pid, *children(self.process.pid)]


def page_tree(journal: Path, workers: int = 2) -> dict[str, Any]:
    """Two tenants, and three who look: at everything masked, at one tenant, at everything with numbers."""
    configuration = tree(workers=workers)
    configuration["workspaces"][ZENITH] = {**configuration["workspaces"][ACME], "name": "zenith"}
    configuration["ledger"] = {"journal": str(journal), "url": f"sqlite:///{journal}/calls.db"}
    configuration.setdefault("freeswitch", {})["recovery_file"] = str(journal.parent / "freeswitch.json")
    configuration["web"] = {
        "tokens": {
            "operator": {"token": TOKENS["operator"]},
            "acme": {"token": TOKENS["acme"], "workspaces": ["acme"]},
            "seer": {"token": TOKENS["seer"], "numbers": True},
        }
    }
    return configuration


def recoveries(journal: Path, **known: Any) -> None:
    """What ``eslbot recovery`` has left for the page of :func:`page_tree`."""
    (journal.parent / "freeswitch.json").write_text(json.dumps(asdict(Recoveries(**known))))


@contextmanager
def short_folder() -> Iterator[Path]:
    """For a journal: a Unix socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="eslbot-") as folder:
        yield Path(folder)


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


def sign_in(page: Any, service: EslbotService, token: str = "operator") -> None:
    """As people do."""
    page.goto(f"http://127.0.0.1:{service.web_port}/")
    page.get_by_label("Token").fill(TOKENS[token])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()

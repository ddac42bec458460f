"""Makes the pictures of docs/page.md: ``scripts/screenshots``."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eslbot.health.model import CallInNeed, Colour, Component, Finding, Need
from tests.support.calls import rich_call, tenants
from tests.support.fake_ledger import FakeLedger, many, row
from tests.support.page import CHROMIUM, PageService, browser, page_tree, sign_in, well
from tests.support.processes import ROOT

#: Bytes of one picture.
MOST = 200_000


def main(folder: Path) -> None:
    """Four pictures into ``folder``."""
    if CHROMIUM is None:
        raise SystemExit("chromium is needed; Debian's package is chromium")
    ledger = FakeLedger()
    ledger.put(*many(500))
    call_id = rich_call(ledger, time.time() - 100)
    ledger.rows_of_tenants = tenants(time.time())
    with TemporaryDirectory(prefix="eslbot-") as run:
        tree = page_tree(Path(run) / "journal")
        with PageService(Path(run), tree, ledger) as service, browser() as chromium:
            overview(chromium, service, folder / "page-overview.png")
            wide = _page(chromium, service, viewport={"width": 1280, "height": 760})
            _save(wide, folder / "page-live.png")
            wide.evaluate("place => { location.hash = place; }", f"#/call/{call_id}")
            wide.locator(".timeline").wait_for()
            _save(wide, folder / "page-call.png", full_page=True)
            phone = _page(
                chromium,
                service,
                viewport={"width": 375, "height": 667},
                color_scheme="dark",
                device_scale_factor=2,
            )
            _save(phone, folder / "page-phone-dark.png")


def overview(chromium: Any, service: PageService, file: Path) -> None:
    """The first view on a bad night: one tenant's token is wrong, and another one's bot has died."""
    now = time.time()
    said = "Ameyo answers 401: invalid token"
    remedy = "Ameyo does not take the token: put the right one into the workspace's ameyo.token, and reload"
    red = {
        (Component.AMEYO, "acme"): Finding(
            Colour.RED, f"3 customers wait for it: {said} (4 attempts)", remedy
        ),
        (Component.BOT, "zenith"): Finding(
            Colour.AMBER,
            "2 of 31 calls failed: the bot's connection breaks off (closed with 1011)",
            "eslbot doctor calls it; see the bot's own log. The customers went to agents",
        ),
    }
    states = tuple(
        replace(state, finding=red[key], since=now - 41)
        if (key := (state.place.component, state.workspace)) in red
        else state
        for state in well().states
    )
    calls = tuple(
        CallInNeed(
            row(number)["call_id"],
            Need.HAND_OFF_FAILING,
            now - 41 + 7 * number,
            f"{said} ({4 - number} attempts)",
            remedy,
            workspace="acme",
            crt_object_id=row(number)["crt_object_id"],
        )
        for number in range(3)
    )
    service.health = replace(well(), states=states, calls=calls)
    page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
    sign_in(page, service, view="overview")
    page.locator("#needs li").first.wait_for()
    page.wait_for_function("() => document.getElementById('figure-live').textContent !== '–'")
    _save(page, file, full_page=True)
    page.context.close()
    service.health = well()


def _page(chromium: Any, service: PageService, **options: Any) -> Any:
    page = chromium.new_context(**options).new_page()
    sign_in(page, service)
    page.wait_for_function("() => document.querySelectorAll('#live-rows tr').length >= 500")
    return page


def _save(page: Any, file: Path, **options: Any) -> None:
    page.screenshot(path=str(file), **options)
    size = file.stat().st_size
    print(f"{file.relative_to(ROOT)}: {size} bytes")
    if size > MOST:
        sys.exit(f"{file.name} is larger than {MOST} bytes")


if __name__ == "__main__":
    main(ROOT / "docs" / "images")

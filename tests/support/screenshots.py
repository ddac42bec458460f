"""Makes the pictures of docs/page.md: ``scripts/screenshots``."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eslbot.health.model import CallInNeed, Colour, Component, Finding, Need
from eslbot.recording.writer import CallInfo
from tests.support.calls import a_day, rich_call, rich_sound, tenants
from tests.support.fake_ledger import ACME, FakeLedger, many, row
from tests.support.page import CHROMIUM, PageService, browser, page_tree, recordings_of, sign_in, well
from tests.support.processes import ROOT
from tests.support.recordings import write

#: Bytes of one picture.
MOST = 280_000


def main(folder: Path) -> None:
    """The pictures into ``folder``."""
    if CHROMIUM is None:
        raise SystemExit("chromium is needed; Debian's package is chromium")
    ledger = FakeLedger()
    ledger.put(*many(500), *a_day(time.time()))
    began = time.time() - 100
    call_id = rich_call(ledger, began)
    ledger.rows_of_tenants = tenants(time.time())
    with TemporaryDirectory(prefix="eslbot-") as run:
        tree = page_tree(Path(run) / "journal")
        with PageService(Path(run), tree, ledger) as service, browser() as chromium:
            overview(chromium, service, folder / "page-overview.png")
            wide = _page(chromium, service, viewport={"width": 1280, "height": 760})
            _save(wide, folder / "page-live.png")
            _go(wide, "#/calls?since=24h&workspace=zenith&outcome=bot_failed")
            wide.locator("#calls-rows tr").nth(20).wait_for()
            _save(wide, folder / "page-calls.png")
            _go(wide, "#/charts")
            wide.locator(".chart").nth(7).wait_for()
            _save(wide, folder / "page-charts.png", full_page=True)
            _record(service, call_id, began)
            call(chromium, service, call_id, folder / "page-call.png")
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
        if (key := (state.subject.component, state.workspace)) in red
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


def call(chromium: Any, service: PageService, call_id: str, file: Path) -> None:
    """One call with its recording, heard up to the third turn, and its turns as a table."""
    page = chromium.new_context(viewport={"width": 1280, "height": 760}).new_page()
    sign_in(page, service, "hearer", "live")
    _go(page, f"#/call/{call_id}")
    page.locator(".wave path").first.wait_for()
    page.locator("summary[data-keep=turns]").click()
    slider = page.get_by_role("slider")
    slider.click(position={"x": slider.bounding_box()["width"] * 16.4 / 70, "y": 10})
    page.wait_for_function("() => document.querySelector('audio').readyState >= 2")
    page.evaluate("() => document.activeElement.blur()")
    page.mouse.move(0, 0)
    _save(page, file, full_page=True)
    page.context.close()


def _record(service: PageService, call_id: str, began: float) -> None:
    """As a relay has written it, up to the bot's end."""
    about = CallInfo(call_id, ACME, "acme", "crt-1", None)
    sound = rich_sound(0.35, 48.7)
    write(recordings_of(service.journal), about, *sound, began_at=began + 0.35)


def _go(page: Any, place: str) -> None:
    page.evaluate("place => { location.hash = place; }", place)


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

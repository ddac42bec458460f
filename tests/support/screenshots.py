"""Makes the pictures of docs/page.md: ``scripts/screenshots``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.calls import rich_call, tenants
from tests.support.fake_ledger import FakeLedger, many
from tests.support.page import CHROMIUM, PageService, browser, page_tree, sign_in
from tests.support.processes import ROOT

#: Bytes of one picture.
MOST = 200_000


def main(folder: Path) -> None:
    """Three pictures into ``folder``."""
    if CHROMIUM is None:
        raise SystemExit("chromium is needed; Debian's package is chromium")
    ledger = FakeLedger()
    ledger.put(*many(500))
    call_id = rich_call(ledger, time.time() - 100)
    ledger.rows_of_tenants = tenants(time.time())
    with TemporaryDirectory(prefix="eslbot-") as run:
        tree = page_tree(Path(run) / "journal")
        with PageService(Path(run), tree, ledger) as service, browser() as chromium:
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


def _page(chromium: Any, service: PageService, **options: Any) -> Any:
    page = chromium.new_context(**options).new_page()
    sign_in(page, service)
    page.wait_for_function("() => document.getElementById('live-rows').childElementCount >= 500")
    return page


def _save(page: Any, file: Path, **options: Any) -> None:
    page.screenshot(path=str(file), **options)
    size = file.stat().st_size
    print(f"{file.relative_to(ROOT)}: {size} bytes")
    if size > MOST:
        sys.exit(f"{file.name} is larger than {MOST} bytes")


if __name__ == "__main__":
    main(ROOT / "docs" / "images")

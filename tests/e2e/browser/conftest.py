"""Chromium, the page's server, and a ledger the tests play."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.calls import EVIL, rich_call, tenants
from tests.support.fake_ledger import FakeLedger, row
from tests.support.page import CHROMIUM, PageService, browser, page_tree


@pytest.fixture(scope="module")  # Playwright's event loop must not run on into other tests' asyncio.run
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; Debian's package is chromium")
    pytest.importorskip("playwright.sync_api", reason="the test extra is not installed")
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def ledger() -> FakeLedger:
    ledger = FakeLedger()
    rich_call(ledger, time.time() - 100, reason=EVIL)
    ledger.put(*(row(number) for number in range(3)))
    ledger.rows_of_tenants = tenants(time.time())
    return ledger


@pytest.fixture(scope="module")
def service(
    ledger: FakeLedger, chromium: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageService]:
    folder = tmp_path_factory.mktemp("page")
    with capture_logs() as logs, PageService(folder, page_tree(folder / "journal"), ledger) as service:
        yield service
    assert [line for line in logs if line["log_level"] == "error"] == []


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Any]:
    """Makes pages; fails where one of them has complained."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def make(**options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Policy" in said.text else None)
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []

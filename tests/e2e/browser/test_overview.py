"""The first view: how the service is, who waits, and a page whose service is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from eslbot.health.model import CallInNeed, Need
from tests.e2e.browser.test_page import RICH, contrast, go
from tests.support.fake_ledger import ACME, FakeLedger, row
from tests.support.page import PageService, sign_in, well

SERVICE = ("FreeSWITCH", "Event socket", "Workers", "Relays", "Ledger")


@pytest.fixture
def health(service: PageService) -> Iterator[PageService]:
    """All is well before and behind each test, and looked at all the time."""
    service.health = well()
    yield service
    service.health = well()


def needs(number: int, need: Need, **values: Any) -> CallInNeed:
    why = {"why": "Ameyo answers 401: invalid token (4 attempts)", "remedy": "put the right token"}
    one = CallInNeed(row(number)["call_id"], need, time.time() - 65, **why, workspace_id=ACME)
    return replace(one, workspace="acme", crt_object_id=f"crt-{number}", **values)


def lamps(page: Any, within: str = "#health") -> list[str]:
    return [text.replace("\n", " ") for text in page.locator(f"{within} .lamp").all_inner_texts()]


def test_it_is_the_first_view_and_all_is_well(new_page: Any, health: PageService) -> None:
    page = new_page()
    sign_in(page, health, view="overview")
    page.locator("#health .lamp").first.wait_for()
    assert page.get_by_role("link", name="Overview").get_attribute("aria-current") == "page"
    assert lamps(page) == [f"{name} well" for name in SERVICE]
    assert lamps(page, "#health-tenants") == ["Bot well", "Ameyo well"] * 2
    assert page.get_by_text("No call needs anybody.").is_visible()
    assert page.locator("#stale").is_hidden()
    page.locator("#figure-live", has_text="3").wait_for()
    page.wait_for_function("() => Number(document.getElementById('figure-ended').textContent) > 0")
    zone = page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    assert zone in page.locator("#zone").inner_text()


def test_what_is_red_says_since_when_why_and_what_to_do(new_page: Any, health: PageService) -> None:
    page = new_page()
    sign_in(page, health, view="overview")
    page.locator("#health .lamp").first.wait_for()
    health.health = well(freeswitch="red", ameyo="amber", ledger="unknown")
    line = page.locator("#health-wrong li").first
    line.get_by_text("freeswitch is red").wait_for()
    assert "FreeSWITCH failing" in lamps(page)
    assert line.locator(".remedy").inner_text() == "mend freeswitch"
    assert "since" in line.inner_text()
    first = line.locator("[data-since]").inner_text()
    page.wait_for_function(
        "was => document.querySelector('#health-wrong [data-since]').textContent !== was", arg=first
    )
    colours = page.locator("#health-wrong li").evaluate_all("lines => lines.map(line => line.dataset.colour)")
    assert colours == ["red", "amber", "amber", "unknown"]
    assert contrast(page, "#health-wrong b") >= 4.5
    health.health = well()
    page.locator("#health-wrong li").first.wait_for(state="detached")


def test_calls_that_need_somebody_come_first_and_lead_to_the_call_by_keyboard(
    new_page: Any, health: PageService
) -> None:
    told = well(ameyo="red")
    failing = replace(needs(1, Need.HAND_OFF_FAILING), call_id=RICH, crt_object_id="crt-rich")
    health.health = replace(told, calls=(failing, needs(2, Need.BYE_OVERDUE)))
    page = new_page()
    sign_in(page, health, view="overview")
    first = page.locator("#needs li").first
    first.get_by_text("Hand-off failing").wait_for()
    assert "Ameyo answers 401: invalid token (4 attempts)" in first.inner_text()
    assert "acme" in first.inner_text()
    assert page.locator("#needs-count").inner_text() == "2"
    tops = [page.locator(place).bounding_box()["y"] for place in ("#health", "#needs", ".figures")]
    assert tops == sorted(tops)
    link = page.get_by_role("link", name="crt-rich")
    link.focus()
    health.health = replace(told, calls=(failing,))  # it is drawn anew under the focus
    page.locator("#needs-count", has_text="1").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "crt-rich"
    page.keyboard.press("Enter")
    page.locator(".timeline").wait_for()


@pytest.mark.timed
def test_a_service_that_is_gone_looks_gone_and_comes_back(
    new_page: Any, health: PageService, ledger: FakeLedger
) -> None:
    page = new_page()
    sign_in(page, health, view="overview")
    page.locator("#health .lamp").first.wait_for()
    page.context.set_offline(True)
    began = time.monotonic()
    banner = page.get_by_role("alert").filter(has_text="No word of the service's health")
    banner.wait_for(timeout=15000)
    assert time.monotonic() - began < 12
    assert "What is shown is old" in banner.inner_text()
    assert lamps(page) == [f"{name} no word" for name in SERVICE]
    assert page.evaluate("getComputedStyle(document.querySelector('main')).filter") == "grayscale(1)"
    page.context.set_offline(False)
    banner.wait_for(state="hidden", timeout=15000)
    assert lamps(page)[0] == "FreeSWITCH well"


def test_a_service_that_does_not_know_how_it_is_looks_old(new_page: Any, health: PageService) -> None:
    page = new_page()
    sign_in(page, health, view="overview")
    page.locator("#health .lamp").first.wait_for()
    health.health = None
    page.locator("#stale", has_text="How the service is is not known yet.").wait_for(timeout=15000)


def test_a_tenants_token_sees_its_own_lamps(new_page: Any, health: PageService) -> None:
    page = new_page()
    health.health = well(freeswitch="red", ameyo="red")
    sign_in(page, health, "acme", view="overview")
    page.locator("#health-tenants .lamp").first.wait_for()
    text = page.locator("#overview").inner_text()
    assert "zenith" not in text
    assert "freeswitch is red" not in text
    assert "FreeSWITCH failing" in lamps(page)


def test_a_tenant_whose_ameyo_is_red_is_not_well(new_page: Any, health: PageService) -> None:
    """No call of its has ended yet: that was `acme well, not handed off 0`."""
    health.health = well(ameyo="red")
    page = new_page()
    sign_in(page, health, view="tenants")
    acme = page.locator(".card", has_text="acme")
    acme.get_by_text("Ameyo failing: ameyo is red").wait_for()
    assert acme.get_by_text("look here").count() == 1


def test_a_call_says_why_it_ended_how_it_sounded_and_where_it_is_found(
    new_page: Any, health: PageService, ledger: FakeLedger
) -> None:
    now = time.time()
    short = row(91, invited_at=now - 5, answered_at=None, bot_connected_at=None, stage="refused")
    short |= {"ended_at": now - 5 + 0.002, "refusal_status": 403, "refusal": "foreign_source", "reason": None}
    ledger.put(short | {"sip_call_id": "abc-def@203.0.113.10"})
    refused = {"at": now - 5, "what": "refused", "facts": {"detail": None, "status": 403}}
    ledger.timelines[short["call_id"]] = [refused]
    talked = row(92, invited_at=now - 60, answered_at=now - 59, bot_connected_at=now - 58, stage="held")
    talked |= {"bot_ended_at": now - 20, "ended_at": now - 1, "outcome": "bot_failed", "fault": "bot"}
    talked |= {"media": {"packets_in": 900, "skipped_in": 100, "mos": 3.0, "codec": "PCMU"}}
    ledger.put(talked)
    ledger.timelines[talked["call_id"]] = [
        {"at": now - 50, "what": "speech_began", "facts": {}},
        {"at": now - 20, "what": "bot_ended", "facts": {"outcome": "bot_failed", "reason": None}},
        {"at": now - 1, "what": "ended", "facts": {}},
    ]
    page = new_page()
    sign_in(page, health)
    go(page, f"#/call/{short['call_id']}")
    page.locator("#call-why", has_text="Refused with 403").wait_for()
    text = page.locator("#call").inner_text()
    assert "abc-def@203.0.113.10" in text
    assert "refused, 2 ms" in text
    assert "1.00 s" not in text
    page.locator("summary[data-keep=events]").click()
    assert "null" not in page.locator("#call").inner_text()
    go(page, f"#/call/{talked['call_id']}")
    page.locator("#call-why", has_text="The bot's connection broke off").wait_for()
    facts = page.locator(".facts").inner_text()
    assert "bad: MOS 3.0, 100 of 1,000 packets missing (10.0 %), PCMU" in facts
    assert "Talking 38.0 s" in facts
    bot = page.locator(".bar.bot")
    end = bot.evaluate("bar => parseFloat(bar.style.left) + parseFloat(bar.style.width)")
    assert end == pytest.approx(100 * 40 / 59, abs=0.5)  # it does not outlive the bot


def test_the_live_list_says_how_long_a_call_is_in_its_stage(
    new_page: Any, health: PageService, ledger: FakeLedger
) -> None:
    now = time.time()
    one = row(93, invited_at=now - 200, stage="handing_off", notified_at=now - 12, attempts=4)
    ledger.put(one | {"attempt_verdict": "rejected", "attempt_status": 401})
    page = new_page()
    sign_in(page, health)
    line = page.locator(f'#live-rows tr[data-call="{one["call_id"]}"]')
    line.get_by_text("Ameyo: 401, attempt 4").wait_for()
    assert line.locator(".c-time").inner_text().startswith("0:1")
    assert " of 3:2" in line.locator(".c-time").inner_text()
    assert line.get_attribute("data-need") == ""
    ledger.end(one["call_id"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_that_axe_knows_is_wrong(new_page: Any, health: PageService, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the test extra is missing")
    health.health = replace(
        well(freeswitch="red", relays="amber", ledger="unknown"), calls=(needs(1, Need.NOT_VERIFIED),)
    )
    page = new_page(color_scheme=scheme)
    sign_in(page, health, view="overview")
    page.locator("#needs li").first.wait_for()
    for place in ("#/", "#/live", "#/recent", "#/tenants", f"#/call/{RICH}"):
        go(page, place)
        page.locator("main > section:not([hidden])").wait_for()
        found = axe.Axe().run(page)
        assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in found.response["violations"]] == []
    health.health = None
    page.locator("#stale").wait_for(timeout=15000)
    assert contrast(page, "#stale") >= 4.5

"""The call page as an operator has it before their eyes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.calls import EVIL, rich_call
from tests.support.fake_ledger import ZENITH, FakeLedger, row
from tests.support.page import PageService, recoveries, sign_in

RICH = f"6e7cd1a1-0b1a-4ad5-8a2c-{4711:012d}"


def line(page: Any, number: int) -> Any:
    return page.locator(f'#live-rows tr[data-call$="-{number:012d}"]')


def go(page: Any, place: str) -> None:
    page.evaluate("place => { location.hash = place; }", place)


def test_signing_in_with_a_wrong_token_and_a_right_one(new_page: Any, service: PageService) -> None:
    page = new_page()
    page.goto(f"http://127.0.0.1:{service.web_port}/")
    page.get_by_label("Token").fill("not-a-token-at-all")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("none of the tokens").wait_for()
    sign_in(page, service)
    page.locator("#viewer", has_text="operator").wait_for()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token").wait_for()


def test_live_calls_change_in_place(new_page: Any, service: PageService, ledger: FakeLedger) -> None:
    page = new_page()
    sign_in(page, service)
    first = line(page, 1)
    first.get_by_text("Talking").wait_for()
    assert "0091••••••••01" in first.inner_text()
    page.evaluate("row => { row.kept = true; }", first.element_handle())
    ledger.change(row(1)["call_id"], stage="handing_off", attempts=2)
    first.get_by_text("Handing off").wait_for()
    assert "attempt 2" in first.inner_text()
    assert first.evaluate("row => row.kept") is True
    ledger.put(row(77, ZENITH))
    line(page, 77).get_by_text("zenith").wait_for()
    assert page.locator("#live-rows tr").first.get_attribute("data-call").endswith("77")
    ledger.end(row(77)["call_id"])
    line(page, 77).wait_for(state="detached")
    assert page.locator("#live-count").inner_text() == "3"


def test_a_tenants_token_shows_its_own_calls_only(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    ledger.put(row(88, ZENITH))
    page = new_page()
    sign_in(page, service, "acme")
    line(page, 2).wait_for()
    assert "zenith" not in page.locator("body").inner_text()
    ledger.end(row(88)["call_id"])


def test_one_calls_timeline_is_drawn_and_told(new_page: Any, service: PageService) -> None:
    page = new_page()
    sign_in(page, service)
    go(page, f"#/call/{RICH}")
    page.locator(".timeline").wait_for()
    stages = page.locator(".stage-bar").evaluate_all("bars => bars.map(bar => bar.dataset.stage)")
    assert stages == ["admitted", "answered", "connecting", "talking", "ended", "handing_off", "held"]
    counts = {name: page.locator(f".track .{name}").count() for name in ("bar.bot", "bar.caller", "attempt")}
    assert counts == {"bar.bot": 7, "bar.caller": 6, "attempt": 3}
    kinds = page.locator(".point").evaluate_all("points => points.map(point => point.dataset.kind)")
    assert sorted(set(kinds)) == ["cleared", "key", "left", "mark", "recording_begun", "taken_over"]
    held = page.locator('.stage-bar[data-stage="held"]')
    assert float(held.evaluate("bar => parseFloat(bar.style.left)")) == pytest.approx(
        100 * 52.4 / 70, abs=0.1
    )
    assert float(held.evaluate("bar => parseFloat(bar.style.width)")) == pytest.approx(
        100 * 17.6 / 70, abs=0.1
    )
    answers = page.locator(".plain-table", has_text="ConnectTimeout").inner_text()
    assert [word in answers for word in ("ConnectTimeout", "502", "accepted", "310 ms")] == [True] * 4
    # By keyboard: zoom, and everything as a table.
    page.get_by_role("button", name="Zoom in").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.keep") == "in"
    assert page.locator(".scroll").evaluate("box => box.scrollWidth > 1.5 * box.clientWidth")
    page.locator("summary[data-keep=events]").focus()
    page.keyboard.press("Enter")
    page.get_by_role("cell", name="taken over").wait_for()


def test_a_script_in_a_bots_reason_is_only_text(new_page: Any, service: PageService) -> None:
    page = new_page()
    sign_in(page, service)
    go(page, f"#/call/{RICH}")
    assert page.locator(".reason q").inner_text() == EVIL
    page.locator("summary[data-keep=events]").click()
    assert page.get_by_text(EVIL).count() >= 2
    assert page.locator("#call script, #call img").count() == 0
    assert page.title() == "Calls · eslbot"


def test_a_call_that_freeswitch_died_under_is_marked_and_the_page_says_so(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    page = new_page()
    sign_in(page, service)
    line(page, 1).wait_for()
    assert page.locator("#switch").is_hidden()
    now = time.time()
    one = row(55, invited_at=now - 60, restarts=2, restarted_at=now - 20, restart_gap=1.7)
    call_id = one["call_id"]
    ledger.timelines[call_id] = [
        {"at": now - 60, "what": "admitted", "facts": {}},
        {"at": now - 40, "what": "switch_restarted", "facts": {"restarts": 1, "gap": 1.7}},
        {"at": now - 20, "what": "switch_restarted", "facts": {"restarts": 2}},
    ]
    ledger.put(one)
    line(page, 55).get_by_text("↻ recovered 2×").wait_for()
    page.reload()
    notice = page.locator("#switch")
    notice.get_by_text("FreeSWITCH restarted in the last hour, last at").wait_for()
    assert "1 call recovered, 1.70 s without it at most." in notice.inner_text()
    assert contrast(page, "#switch p") >= 4.5
    go(page, f"#/call/{call_id}")
    page.locator(".timeline").wait_for()
    away = page.locator(".bar.away")
    assert away.count() == 1  # of the second it is not known how long
    assert away.get_attribute("title") == "Without FreeSWITCH, +18.3 s, for 1.70 s"
    assert page.locator('.point[data-kind="switch_restarted"]').count() == 2
    assert "FreeSWITCH restarted 2 times" in page.locator(".lanes").get_attribute("aria-label")
    assert "FreeSWITCH restarted 2×, up to 1.70 s without it" in page.locator(".facts").inner_text()
    ledger.end(call_id, outcome="switch_lost", fault="eslbot", restarted_at=now - 4000)
    page.locator("#call-ending", has_text="FreeSWITCH lost").wait_for()
    notice.wait_for(state="hidden", timeout=15000)  # it looks every ten seconds


def test_turns_are_a_lane_and_a_table(new_page: Any, service: PageService, ledger: FakeLedger) -> None:
    call_id = rich_call(ledger, time.time() - 100)
    page = new_page()
    sign_in(page, service)
    go(page, f"#/call/{call_id}")
    page.locator(".lane-turns").wait_for()
    assert page.locator(".lane-turns .bar").count() == 6
    title = page.locator(".lane-turns .bar.answer").first.get_attribute("title")
    assert title == "The bot answers, of it the bot 680 ms, +6.90 s, for 700 ms"
    assert page.locator(".lane-turns .bar.barge_in").count() == 1
    assert "5: half within 810 ms, 95 % within 1.74 s" in page.locator(".facts").inner_text()
    page.get_by_text("Turns (6)").click()
    rows = page.locator("details[open] tbody tr")
    assert rows.count() == 6
    assert "The caller breaks in, the bot falls silent" in page.locator("details[open] tbody").inner_text()


def test_what_a_call_does_not_have_is_not_shown(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    ledger.put(one := row(66))  # no notification yet
    page = new_page()
    sign_in(page, service)
    go(page, f"#/call/{one['call_id']}")
    page.locator(".timeline").wait_for()
    assert "null" not in page.locator("#call").inner_text()
    ledger.end(one["call_id"])


def test_calls_that_freeswitch_could_not_bring_back_are_told(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    now = time.time()
    recoveries(service.journal, restarts=3, calls=60, flushes=1, dropped=20, last_flush=now - 80_000)
    page = new_page()
    sign_in(page, service)
    page.locator("#switch").get_by_text("20 calls dropped since this host's boot.").wait_for()
    page.emulate_media(color_scheme="dark")
    assert contrast(page, "#switch p") >= 4.5
    # A day later only what else there is.
    recoveries(service.journal, restarts=3, calls=60, flushes=1, dropped=20, last_flush=now - 90_000)
    ledger.put(row(56, ended_at=now - 5, outcome="bot_ended", restarts=1, restarted_at=now - 10))
    page.reload()
    page.locator("#switch").get_by_text("1 call recovered.").wait_for()
    assert "dropped" not in page.locator("#switch").inner_text()
    ledger.change(row(56)["call_id"], restarted_at=None)


def test_tenants_health(new_page: Any, service: PageService) -> None:
    page = new_page()
    sign_in(page, service)
    page.get_by_role("link", name="Tenants").click()
    bad = page.locator(".card", has_text="zenith")
    bad.get_by_text("12 calls went wrong: the bot").wait_for()
    assert bad.get_by_text("look here").count() == 1
    assert page.locator(".card", has_text="acme").get_by_text("well").count() == 1


def contrast(page: Any, selector: str) -> float:
    """Of a text to what is behind it (WCAG 2, 1.4.3)."""
    ratio = page.locator(selector).first.evaluate(
        """node => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[0-9.]+/g).map((part) => part / 255)
              .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          let behind = node;
          const ground = () => getComputedStyle(behind).backgroundColor;
          while (ground() === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
          const pair = [light(getComputedStyle(node).color), light(ground())];
          return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        }"""
    )
    return float(ratio)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_in_the_light_and_in_the_dark(new_page: Any, service: PageService, scheme: str) -> None:
    page = new_page(viewport={"width": 375, "height": 667}, color_scheme=scheme, has_touch=True)
    sign_in(page, service)
    line(page, 2).wait_for()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 24)"
    assert dark is (scheme == "dark")
    shown = ["#live-count", ".c-stage .stage", ".c-time", ".c-did", ".calls a", "nav a", ".link", "#viewer"]
    assert {selector for selector in shown if contrast(page, f"{selector}:visible") < 4.5} == set()
    line(page, 2).tap(position={"x": 300, "y": 50})  # anywhere on it
    page.locator(".timeline").wait_for()
    inside = [".stage-bar span", ".lane-name", ".tick", ".facts dt", "figcaption"]
    assert {selector for selector in inside if contrast(page, f"{selector}:visible") < 4.5} == set()
    places = ("#/", "#/live", f"#/call/{RICH}", "#/calls?prefix=d444&since=24h", "#/charts", "#/tenants")
    for place in places:
        go(page, place)
        page.locator("main > section:visible").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 375, place


def test_the_page_comes_back_after_its_process_went_away(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    page = new_page()
    sign_in(page, service)
    line(page, 2).get_by_text("Talking").wait_for()
    service.stop()
    page.locator("#link", has_text="connecting again").wait_for()
    service.start()
    ledger.change(row(2)["call_id"], stage="held")
    line(page, 2).get_by_text("On hold").wait_for()
    assert page.locator("#link").inner_text() == "live"


def test_a_ledger_that_went_away_is_told(new_page: Any, service: PageService, ledger: FakeLedger) -> None:
    page = new_page()
    sign_in(page, service)
    line(page, 1).wait_for()
    ledger.say(up=False)
    page.locator("#notice").get_by_text("ledger").wait_for()
    assert page.locator("#link").inner_text() == "no ledger"
    assert page.locator("#live-rows tr").count() > 0  # what was known last
    ledger.say(up=True)
    page.locator("#notice").wait_for(state="hidden")
    assert page.locator("#link").inner_text() == "live"


def test_without_a_ledger_the_page_says_what_to_add(new_page: Any, service: PageService) -> None:
    page = new_page()
    remedy = {"error": "no_ledger", "problem": "Calls are not recorded.", "remedy": "[ledger]"}
    session = {"name": "operator", "workspaces": [], "outcomes": [], "faults": [], "ledger": False}
    page.route("**/api/session", lambda route: route.fulfill(json=session))
    page.route("**/api/tenants", lambda route: route.fulfill(status=503, json=remedy))
    sign_in(page, service)
    page.locator("#notice").get_by_text("Calls are not recorded.").wait_for()
    assert page.locator("#notice pre").inner_text() == "[ledger]"
    assert not page.locator("#link").is_visible()

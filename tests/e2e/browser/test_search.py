"""Searching for calls, and the charts, in a browser: with the mouse, and without."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.e2e.browser.test_page import contrast, go
from tests.support.fake_ledger import ACME, ZENITH, FakeLedger, row
from tests.support.page import PageService, page_tree, sign_in

#: Seconds since the calls of these tests.
AGO = 3 * 3600


@pytest.fixture(scope="module")
def calls(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageService]:
    """130 calls of three hours ago that went well, and some that did not."""
    ledger, now = FakeLedger(), time.time() - AGO
    for number in range(130):
        at = now - number
        ledger.put(
            row(
                number,
                (ACME, ZENITH)[number % 2],
                invited_at=at,
                answered_at=at + 0.1,
                first_audio_at=at + 0.9,
                bot_ended_at=at + 40,
                handed_off_at=at + 40.5,
                ended_at=at + 60,
                stage="held",
                outcome=("bot_ended", "bot_failed")[number == 7],
                fault=("none", "bot")[number == 7],
                take_overs=int(number == 9),
            )
        )
    for number, cause in enumerate(("worker_full", "foreign_source", "worker_full")):
        ledger.put(
            row(
                900 + number, invited_at=now, ended_at=now, stage="refused", refusal=cause, refusal_status=503
            )
        )
    folder = tmp_path_factory.mktemp("page")
    with PageService(folder, page_tree(folder / "journal"), ledger) as service:
        yield service


def found(page: Any) -> list[str]:
    names: list[str] = page.locator("#calls-rows tr").evaluate_all(
        "rows => rows.map(row => row.dataset.call.slice(-3))"
    )
    return names


def search(page: Any, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")


def query_of(page: Any) -> dict[str, list[str]]:
    return parse_qs(page.evaluate("location.hash").partition("?")[2])


def test_what_is_looked_for_stands_in_the_address(new_page: Any, calls: PageService) -> None:
    page = new_page()
    sign_in(page, calls)
    search(page, "d444-6a1c8f2e-vce-12")
    page.get_by_role("heading", name="Calls that begin with “d444-6a1c8f2e-vce-12”").wait_for()
    page.locator("#calls-rows tr").nth(10).wait_for()
    assert found(page) == ["012", *(f"{number:03d}" for number in range(120, 130))]
    page.locator("#calls").get_by_label("Tenant").select_option("zenith")
    page.locator("#calls").get_by_label("When").select_option("24h")
    page.locator("#calls-rows tr").nth(5).wait_for(state="detached")
    assert found(page) == ["121", "123", "125", "127", "129"]
    assert query_of(page) == {"prefix": ["d444-6a1c8f2e-vce-12"], "workspace": ["zenith"], "since": ["24h"]}
    # The same in another browser, by the address alone; and back to where one was.
    other = new_page()
    sign_in(other, calls)
    other.goto(page.url)
    other.reload()
    other.locator("#calls-rows tr").nth(4).wait_for()
    assert found(other) == found(page)
    assert other.locator("#calls").get_by_label("When").input_value() == "24h"
    assert other.get_by_role("searchbox").input_value() == "d444-6a1c8f2e-vce-12"
    page.locator("#calls-rows").get_by_role("link").first.click()
    page.get_by_role("link", name="← Back").click()
    page.locator("#calls-rows tr").nth(4).wait_for()
    assert found(page) == found(other)
    search(page, "nobody")
    page.get_by_text("No such call.").wait_for()
    assert found(page) == []


def test_searching_before_the_script_is_there(new_page: Any, calls: PageService) -> None:
    """The browser sends the form itself then."""
    page = new_page()
    sign_in(page, calls)
    page.goto(f"http://127.0.0.1:{calls.web_port}/?prefix=00919990000011")
    page.get_by_role("heading", name="Calls that begin with “00919990000011”").wait_for()
    page.locator("#calls-rows tr").first.wait_for()
    assert found(page) == ["011"]  # by the whole number, also where it is masked
    search(page, "0091999000001")
    page.get_by_text("No such call.").wait_for()
    assert "by the whole number only" in page.locator("#masked").inner_text()


def test_pages_filters_and_what_needs_attention(new_page: Any, calls: PageService) -> None:
    page = new_page()
    sign_in(page, calls)
    go(page, "#/calls")
    page.locator("#calls-rows tr").nth(49).wait_for()
    for count in (99, 132):
        page.get_by_role("button", name="Older calls").click()
        page.locator("#calls-rows tr").nth(count).wait_for()
    assert len(set(found(page))) == 133
    assert page.get_by_role("button", name="Older calls").is_hidden()
    page.locator("#calls").get_by_label("needs attention").check()
    page.locator("#calls-rows tr").nth(1).wait_for(state="detached")
    assert found(page) == ["007"]
    go(page, "#/calls?outcome=bot_failed")
    page.locator("#calls-rows").get_by_text("Bot failed").wait_for()
    assert page.locator("#calls").get_by_label("Outcome").input_value() == "bot_failed"
    assert not page.locator("#calls").get_by_label("needs attention").is_checked()


def test_from_and_to_in_ones_own_time_zone(new_page: Any, calls: PageService) -> None:
    page = new_page(timezone_id="Asia/Kolkata")
    sign_in(page, calls)
    go(page, "#/calls")
    assert "Times are those of Asia/Calcutta (GMT+05:30)." in page.locator("#zone").inner_text().replace(
        "Kolkata", "Calcutta"
    )
    page.locator("#calls").get_by_label("When").select_option("between")
    page.locator("#calls").get_by_label("From", exact=True).fill("2026-11-01T10:15")
    page.locator("#calls").get_by_label("To", exact=True).fill("2026-11-02T00:00")
    page.get_by_text("No such call.").wait_for()
    assert query_of(page) == {"since": ["2026-11-01T04:45Z"], "until": ["2026-11-01T18:30Z"]}
    elsewhere = new_page(timezone_id="America/New_York")
    sign_in(elsewhere, calls)
    elsewhere.goto(page.url)
    elsewhere.reload()
    elsewhere.get_by_text("No such call.").wait_for()
    assert elsewhere.locator("#calls").get_by_label("From", exact=True).input_value() == "2026-11-01T00:45"


def test_an_error_stands_beside_its_field(new_page: Any, calls: PageService) -> None:
    page = new_page()
    sign_in(page, calls)
    go(page, "#/calls?since=soon&outcome=great&fault=bot")
    problem = page.locator("#error-since")
    problem.wait_for()
    assert problem.inner_text().endswith("got 'soon'")
    assert "got 'great'" in page.locator("#error-outcome").inner_text()
    assert page.locator("#error-fault").is_hidden()
    assert page.locator("#calls").get_by_label("From", exact=True).get_attribute("aria-invalid") == "true"
    assert (
        page.locator("#calls").get_by_label("From", exact=True).get_attribute("aria-describedby")
        == "error-since"
    )
    assert contrast(page, "#error-since") >= 4.5
    assert page.locator("#notice").is_hidden()
    go(page, "#/calls?fault=bot")
    problem.wait_for(state="hidden")
    assert page.locator("#calls").get_by_label("From", exact=True).get_attribute("aria-invalid") is None
    search(page, "x" * 128 + "\u202e")  # the field itself takes no more than 128
    page.get_by_text("No such call.").wait_for()
    go(page, "#/calls?prefix=%E2%80%AE")
    page.locator("#error-prefix").wait_for()
    assert page.get_by_role("searchbox").get_attribute("aria-invalid") == "true"


def test_what_is_found_is_saved_as_a_file(new_page: Any, calls: PageService) -> None:
    page = new_page(accept_downloads=True)
    sign_in(page, calls)
    go(page, "#/calls?prefix=d444-6a1c8f2e-vce-12&workspace=zenith&since=24h")
    page.locator("#calls-rows tr").nth(4).wait_for()
    for name, end in (("CSV", ".csv"), ("JSON lines", ".jsonl")):
        with page.expect_download() as coming:
            page.get_by_role("link", name=name).click()
        assert coming.value.suggested_filename.startswith("eslbot-calls-20")
        assert coming.value.suggested_filename.endswith(end)
        text = Path(coming.value.path()).read_text()
    assert [json.loads(line)["call_id"][-3:] for line in text.splitlines()] == found(page)


# -- charts -------------------------------------------------------------------------------------------------

SHOWN = ["calls", "success", "refused", "set_up", "first_audio", "turn", "hand_off", "take_overs"]


def charts(new_page: Any, calls: PageService, place: str = "#/charts", **options: Any) -> Any:
    page = new_page(**options)
    sign_in(page, calls)
    go(page, place)
    page.locator(".chart").nth(len(SHOWN) - 1).wait_for()
    return page


def test_charts_by_keyboard(new_page: Any, calls: PageService) -> None:
    page = charts(new_page, calls)
    assert page.locator(".chart").evaluate_all("all => all.map(one => one.dataset.chart)") == SHOWN
    picture = page.get_by_role("slider", name="Set-up, INVITE to 200")
    picture.focus()
    assert picture.get_attribute("aria-valuenow") == "95"
    assert picture.get_attribute("aria-valuetext").endswith(": p50 –, p95 –")
    page.keyboard.press("Home")
    assert picture.get_attribute("aria-valuenow") == "0"
    page.keyboard.press("ArrowLeft")
    assert picture.get_attribute("aria-valuenow") == "0"
    for _ in range(95):
        page.keyboard.press("ArrowRight")
        if "ms" in picture.get_attribute("aria-valuetext"):
            break
    said = picture.get_attribute("aria-valuetext")
    assert said.endswith((": p50 106 ms, p95 106 ms", ": p50 94 ms, p95 94 ms"))
    figure = page.locator('[data-chart="set_up"]')
    assert figure.locator(".said").inner_text() == said
    before = float(figure.locator(".chosen").get_attribute("x"))
    page.keyboard.press("End")
    assert float(figure.locator(".chosen").get_attribute("x")) > before
    # From one chart to the next, and to its table, by Tab.
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    rows = figure.locator("tbody tr")
    rows.first.wait_for()
    assert 1 <= rows.count() <= 2
    assert rows.first.get_by_role("cell").first.inner_text() in ("106 ms", "94.4 ms", "94 ms")


def test_charts_say_what_the_ledger_says(new_page: Any, calls: PageService) -> None:
    page = charts(new_page, calls)

    def said(chart: str) -> str:
        return str(page.locator(f'[data-chart="{chart}"] figcaption p').inner_text())

    assert said("calls") == "In all: taken 130, refused 3."
    assert said("success") == "In all: of those that ended 99.2 %."
    assert said("refused") == "In all: worker full 2, foreign source 1."
    assert said("take_overs") == "In all: take-overs 1."
    assert "p50 473 ms" in said("hand_off")
    page.locator("#charts").get_by_label("Tenant").select_option("zenith")
    page.get_by_text("In all: taken 65, refused 0.").wait_for()
    assert said("refused") == "Nothing of it in this time."
    assert said("take_overs") == "In all: take-overs 1."
    page.locator('#charts select[name="span"]').select_option("7d")
    page.wait_for_function("() => location.hash === '#/charts?span=7d&workspace=zenith'")
    page.locator('[data-chart="calls"] [aria-valuemax="167"]').wait_for()
    page.reload()
    page.get_by_text("In all: taken 65, refused 0.").wait_for()
    assert page.locator("#charts").get_by_label("Tenant").input_value() == "zenith"


def test_a_tenants_token_sees_its_own_charts(new_page: Any, calls: PageService) -> None:
    page = new_page()
    sign_in(page, calls, "acme")
    go(page, "#/charts?workspace=zenith")
    page.get_by_text("In all: taken 65, refused 3.").wait_for()
    assert "zenith" not in page.locator("#charts").inner_text()


def test_the_mouse_chooses_a_point_and_drawing_again_keeps_it(new_page: Any, calls: PageService) -> None:
    page = charts(new_page, calls)
    picture = page.get_by_role("slider", name="Calls", exact=True)
    box = picture.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    chosen = int(picture.get_attribute("aria-valuenow"))
    assert 35 < chosen < 60
    picture.focus()
    page.locator('[data-chart="calls"] summary').click()
    picture.focus()
    page.evaluate("document.querySelector('#charts form').dispatchEvent(new Event('change'))")
    page.wait_for_function("() => location.hash === '#/charts?span=24h'")
    page.wait_for_function("() => document.activeElement.classList.contains('picture')")
    assert picture.get_attribute("aria-valuenow") == str(chosen)
    assert page.locator('[data-chart="calls"] details').get_attribute("open") is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_that_axe_knows_is_wrong(new_page: Any, calls: PageService, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the test extra is missing")
    page = charts(new_page, calls, color_scheme=scheme)
    for summary in page.locator(".chart summary").all():
        summary.click()
    wrong: list[Any] = []
    for place in ("#/charts", "#/calls", "#/calls?since=soon&outcome=great"):
        go(page, place)
        page.locator("#charts:visible, #calls-rows tr:visible, #error-since:visible").first.wait_for()
        told = axe.Axe().run(page).response["violations"]
        wrong += [(place, one["id"], [node["html"][:200] for node in one["nodes"]]) for one in told]
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_bars_stand_out(new_page: Any, calls: PageService, scheme: str) -> None:
    """Of a picture's parts WCAG 2 (1.4.11) wants a contrast of 3."""
    page = charts(new_page, calls, color_scheme=scheme)
    ratios = page.locator(".bar-part, .line-part").evaluate_all(
        """nodes => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[0-9.]+/g).map((part) => part / 255)
              .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = light(getComputedStyle(document.querySelector(".chart")).backgroundColor);
          return nodes.map((node) => {
            const style = getComputedStyle(node);
            const own = light(node.classList.contains("line-part") ? style.stroke : style.fill);
            return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
          });
        }"""
    )
    assert min(ratios) >= 3
    assert contrast(page, ".said") >= 4.5

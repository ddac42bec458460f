"""Recordings on a call's page: heard, seen on the timeline's axis, told where there is nothing to hear."""

from __future__ import annotations

import time
from typing import Any

import pytest

from eslbot.recording.writer import CallInfo
from tests.e2e.browser.test_page import contrast, go
from tests.support.calls import rich_call, rich_sound
from tests.support.fake_ledger import ACME, FakeLedger, row
from tests.support.page import PageService, recordings_of, sign_in
from tests.support.recordings import KEY, begin, write

RICH = f"6e7cd1a1-0b1a-4ad5-8a2c-{4711:012d}"
BEGAN = time.time() - 100


def record(
    service: PageService, call_id: str, began: float, *parts: tuple[float, float], key: str = ""
) -> None:
    """Parts of the rich call's sound, from and to its seconds."""
    about = CallInfo(call_id, ACME, "acme", "crt-1", bytes.fromhex(key) or None)
    for begins, ends in parts:
        sound = rich_sound(begins, ends)
        write(recordings_of(service.journal), about, *sound, began_at=began + begins)


def call(ledger: FakeLedger, number: int, *facts: dict[str, Any]) -> tuple[str, float]:
    """One of 10 s that was recorded, and when it began."""
    one = row(number, invited_at=BEGAN, bot_ended_at=BEGAN + 8, ended_at=BEGAN + 10, outcome="bot_ended")
    ledger.timelines[one["call_id"]] = [
        {"at": BEGAN, "what": "admitted", "facts": {}},
        {"at": BEGAN + 0.3, "what": "recording_begun", "facts": {}},
        *facts,
    ]
    ledger.put(one)
    return str(one["call_id"]), BEGAN


@pytest.fixture(scope="module")
def rich(service: PageService, ledger: FakeLedger) -> str:
    """The rich call, recorded up to the bot's end."""
    rich_call(ledger, BEGAN)
    record(service, RICH, BEGAN, (0.35, 48.7))
    return RICH


def player(new_page: Any, service: PageService, call_id: str, **options: Any) -> Any:
    page = new_page(**options)
    sign_in(page, service, "hearer")
    go(page, f"#/call/{call_id}")
    page.locator(".player").wait_for()
    return page


def sound(page: Any, expression: str) -> Any:
    """Of the first part's audio."""
    return page.evaluate(f"() => {{ const audio = document.querySelector('audio'); return {expression}; }}")


def wait(page: Any, condition: str) -> None:
    page.wait_for_function(f"() => {{ const audio = document.querySelector('audio'); return {condition}; }}")


def test_the_waveform_stands_under_the_timeline_on_its_axis(
    new_page: Any, service: PageService, rich: str
) -> None:
    page = player(new_page, service, rich)
    wait(page, "audio.readyState >= 1")
    assert sound(page, "audio.duration") == pytest.approx(48.35, abs=0.01)
    waves = page.locator(".sound .wave path")
    assert waves.count() == 2
    track = page.locator(".lane-bot .track").bounding_box()
    for zoom in range(2):
        if zoom:
            page.get_by_role("button", name="Zoom in").click()
            track = page.locator(".lane-bot .track").bounding_box()
        for side in ("caller", "bot"):
            wave = page.locator(f".sound .wave.{side}").bounding_box()
            assert wave["x"] == pytest.approx(track["x"] + track["width"] * 0.35 / 70, abs=1)
            assert wave["width"] == pytest.approx(track["width"] * 48.35 / 70, abs=2)
        cursor = page.locator(".cursor").bounding_box()
        assert cursor["x"] == pytest.approx(track["x"] + track["width"] * 0.35 / 70, abs=2)
        strip = page.locator(".strip").bounding_box()
        assert cursor["height"] == pytest.approx(strip["height"], abs=1)
    # What is loud is drawn where somebody speaks: the bot in its first turns, not between them.
    loud = page.evaluate(
        """() => {
          const steps = document.querySelector(".wave.bot path").getAttribute("d").match(/V[0-9.]+H[0-9]+/g);
          const height = (at) => 1 - Number(steps[Math.round((at - 0.35) * 10)].slice(1).split("H")[0]);
          return [2, 3, 6, 6.5, 10].map(height);
        }"""
    )
    assert [one > 0.2 for one in loud] == [True, True, False, False, True]


def test_it_is_played_and_sought_by_keyboard(
    new_page: Any, service: PageService, ledger: FakeLedger, rich: str
) -> None:
    page = player(new_page, service, rich)
    page.locator(".scroll").focus()
    page.keyboard.press("Tab")
    slider = page.get_by_role("slider", name="Place in the recording")
    assert page.evaluate("document.activeElement.dataset.keep") == "slider"
    assert slider.get_attribute("aria-valuemin") == "0.35"
    for key, at in (("ArrowRight", 1.35), ("PageUp", 11.35), ("ArrowLeft", 10.35), ("PageDown", 0.35)):
        page.keyboard.press(key)
        assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(at, abs=0.06)
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax") == "48.7"
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("PageUp")
    wait(page, "Math.abs(audio.currentTime - 30) < 0.01 && !audio.seeking && audio.readyState >= 2")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    wait(page, "audio.currentTime > 30.2")
    # The call changes meanwhile: what is heard goes on, and the focus stays.
    ledger.change(rich, attempts=4)
    page.locator(".call-head", has_text="4 attempts").wait_for()
    at = sound(page, "audio.currentTime")
    wait(page, f"audio.currentTime > {at} + 0.2 && !audio.paused")
    assert page.evaluate("document.activeElement.dataset.keep") == "slider"
    now = page.locator(".player-where").inner_text()
    assert now.startswith("at +0:3") and now.endswith("recorded from +0:00 to +0:48")
    assert float(slider.get_attribute("aria-valuenow")) > 30.5
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Play").wait_for()
    assert sound(page, "audio.paused") is True
    # Who leaves hears nothing any more.
    page.get_by_role("button", name="Play").press("Enter")
    wait(page, "!audio.paused")
    element = page.query_selector("audio")
    go(page, "#/live")
    page.wait_for_function("audio => audio.paused", arg=element)


def test_it_is_sought_by_a_click_and_a_drag(new_page: Any, service: PageService, rich: str) -> None:
    page = player(new_page, service, rich)
    slider = page.get_by_role("slider")
    box = slider.bounding_box()
    place = {"x": box["width"] * 20 / 70, "y": 10}
    slider.click(position=place)
    wait(page, "Math.abs(audio.currentTime - 19.65) < 0.2 && !audio.seeking")
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 5)
    assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(35, abs=0.3)
    page.mouse.up()
    wait(page, "Math.abs(audio.currentTime - 34.65) < 0.2 && !audio.seeking")
    slider.click(position={"x": box["width"] * 69 / 70, "y": 10})  # where there is nothing: its end
    assert slider.get_attribute("aria-valuenow") == "48.7"


def test_parts_are_heard_one_behind_the_other_with_their_gap(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    call_id, began = call(ledger, 301)
    record(service, call_id, began, (1.0, 1.6), (2.0, 2.6))
    page = player(new_page, service, call_id)
    page.evaluate(
        """() => {
          window.heard = [];
          for (const audio of document.querySelectorAll("audio")) {
            for (const what of ["play", "ended"]) {
              audio.addEventListener(what, () => heard.push([what, audio.dataset.part, performance.now()]));
            }
          }
        }"""
    )
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.wait_for_function("() => heard.length === 4")
    page.get_by_role("button", name="Play").wait_for()
    heard = page.evaluate("heard")
    order = [(what, part) for what, part, _ in heard]
    assert order == [("play", "1"), ("ended", "1"), ("play", "2"), ("ended", "2")]
    ended, begun = heard[1][2], heard[2][2]
    assert begun - ended >= 350  # 400 ms of silence, less a tick
    assert page.get_by_role("slider").get_attribute("aria-valuenow") == "2.6"
    assert "2 parts" in page.locator(".player-where").inner_text()
    # Between the two, by keyboard.
    page.get_by_role("slider").press("Home")
    page.get_by_role("slider").press("ArrowRight")
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "2.00 s after the INVITE, part 2"


def test_who_may_not_hear_it_is_not_offered_it(new_page: Any, service: PageService, rich: str) -> None:
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sign_in(page, service, "operator")
    go(page, f"#/call/{rich}")
    page.locator(".timeline").wait_for()
    page.locator("summary[data-keep=events]").click()
    page.get_by_role("cell", name="The call is recorded from here on.").wait_for()
    assert page.locator(".player, audio, .wave").count() == 0
    assert [url for url in asked if "recording" in url] == []


def test_a_sealed_one_without_its_key_says_what_is_missing(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    call_id, began = call(ledger, 302)
    record(service, call_id, began, (1.0, 2.0), key=KEY)
    page = player(new_page, service, call_id)
    told = page.locator(".player-refused").inner_text()
    assert told.startswith("It is sealed with a key that the page process does not have.")
    assert "old_keys" in told
    assert page.get_by_role("button", name="Play").is_disabled()
    assert page.locator(".wave[data-silent] path").count() == 2  # when somebody spoke is not sealed
    assert page.locator("audio").count() == 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert contrast(page, ".player-refused li") >= 4.5


def test_one_that_is_gone_or_broken_is_told(new_page: Any, service: PageService, ledger: FakeLedger) -> None:
    failed = {"at": BEGAN + 5, "what": "recording_failed", "facts": {"why": "full"}}
    call_id, began = call(ledger, 303, failed)
    page = new_page()
    sign_in(page, service, "hearer")
    go(page, f"#/call/{call_id}")
    problem = page.locator("#recording-problem")
    problem.get_by_text("There is no recording of this call, or not any more.").wait_for()
    point = page.locator('.point[data-kind="recording_failed"]')
    sentence = "The recording ends here, since the disk is full; the call goes on."
    assert point.get_attribute("title") == f"{sentence}, +5.00 s"
    page.locator("summary[data-keep=events]").click()
    page.get_by_role("cell", name=sentence).wait_for()
    # A file that is no sound.
    call_id, began = call(ledger, 304)
    record(service, call_id, began, (1.0, 2.0))
    next(recordings_of(service.journal).rglob(f"{call_id}.1.flac")).write_bytes(b"x" * 1000)
    go(page, f"#/call/{call_id}")
    page.locator(".player-says", has_text="The sound of part 1 cannot be had, or not be played").wait_for()
    assert contrast(page, ".player-says") >= 4.5


def test_one_that_is_still_made_comes_by_itself(
    new_page: Any, service: PageService, ledger: FakeLedger
) -> None:
    call_id, began = call(ledger, 305)
    about = CallInfo(call_id, ACME, "acme", "crt-1", None)
    writer, track = begin(recordings_of(service.journal), about, *rich_sound(1.0, 2.0), began_at=began + 1)
    page = player(new_page, service, call_id)
    page.get_by_text("It is still being recorded.").wait_for()
    assert page.get_by_role("button", name="Play").is_disabled()
    track.end()
    assert writer.close(20)
    page.wait_for_function("() => !document.querySelector('[data-keep=\"play\"]').disabled")
    assert page.locator(".wave path").count() == 2
    assert page.get_by_text("It is still being recorded.").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_that_axe_knows_is_wrong_and_a_phone_shows_it(
    new_page: Any, service: PageService, rich: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the test extra is missing")
    page = player(new_page, service, rich, color_scheme=scheme)
    page.locator("summary[data-keep=turns]").click()
    found = axe.Axe().run(page)
    assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in found.response["violations"]] == []
    page.set_viewport_size({"width": 375, "height": 667})
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    track, wave = (page.locator(one).bounding_box() for one in (".lane-bot .track", ".sound .wave.bot"))
    assert wave["x"] == pytest.approx(track["x"] + track["width"] * 0.35 / 70, abs=1)
    assert page.get_by_role("slider").bounding_box()["width"] == pytest.approx(track["width"], abs=1)

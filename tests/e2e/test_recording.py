"""A recorded call: what is in the file is what was said and heard, when it was, whoever dies meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, select

from eslbot.config import load
from eslbot.ledger.schema import timeline
from eslbot.recording.announcement import TONE
from eslbot.recording.store import Entry, Store
from eslbot.sim.audio import heard, heard_at, tone
from eslbot.sim.bot import GOODBYE, GREETING, BotCall
from eslbot.sim.lab import Lab
from eslbot.sim.pbx import PbxCall
from eslbot.sim.pbx.media import CALLER_TONE, _linear
from tests.e2e.test_call import call, ended_by_pbx, handed_off
from tests.e2e.test_speech import mark_of
from tests.e2e.test_switch_dies import crash, tracked

Sides = tuple[np.ndarray, np.ndarray]


def store_of(lab: Lab) -> Store:
    os.environ.update(lab._tokens())
    return Store(load(lab.config), None)


def recording(lab: Lab, call_id: str, state: str = "whole") -> tuple[Store, Entry]:
    """Once it is so; another process writes it."""
    deadline = time.monotonic() + 20
    while True:
        store = store_of(lab)
        entry = store.named(call_id)
        if entry is not None and entry.state(time.time()) == state:
            return store, entry
        assert time.monotonic() < deadline, entry and entry.state(time.time())
        time.sleep(0.05)


def sides(store: Store, entry: Entry) -> Sides:
    assert store.check(entry) == []
    samples = np.concatenate(list(store.sound(entry)))
    return samples[:, 0], samples[:, 1]


def seconds(side: np.ndarray, frequency: float) -> float:
    return heard(side.astype("<i2").tobytes(), frequency)


def talking(lab: Lab, tenant: str, crt: str, **options: object) -> tuple[PbxCall, BotCall]:
    pbx_call = call(lab, tenant, crt, **options)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    pbx_call.wait_heard(GREETING, 0.4)
    return pbx_call, bot


def over(lab: Lab, crt: str, pbx_call: PbxCall, bot: BotCall) -> None:
    bot.end()
    assert pbx_call.wait().completed
    ended_by_pbx(lab, crt, "bot_ended")


def said(bot: BotCall, frequency: float, length: float, name: str) -> None:
    bot.say(tone(frequency, length), real_time=False)
    bot.mark(name)
    mark_of(bot, name)


def test_both_sides_are_in_it(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "recorded", crt)
    said(bot, 1000, 0.5, "said")
    over(lab, crt, pbx_call, bot)
    store, entry = recording(lab, bot.headers["X-Call-ID"])
    caller, line = sides(store, entry)
    for frequency, least in ((GREETING, 0.54), (1000, 0.46)):
        assert seconds(line, frequency) >= least
        assert abs(seconds(line, frequency) - pbx_call.recording.heard(frequency)) <= 0.04
        assert seconds(caller, frequency) == 0
    assert seconds(line, CALLER_TONE) == 0
    assert seconds(caller, CALLER_TONE) >= len(caller) / 8000 - 0.3, "unbroken, but for its beginning"
    assert seconds(caller, CALLER_TONE) >= heard(bot.audio(), CALLER_TONE) - 0.04, (
        "all that the bot has heard"
    )
    assert entry.recording is not None and entry.recording.workspace_id == lab.tenants["recorded"].id


def test_what_is_taken_back_is_not_in_it(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "recorded", crt)
    bot.say(tone(700, 5.0), real_time=False)
    pbx_call.wait_heard(700, 0.4)
    bot.clear()
    bot.wait_for_message("cleared")
    said(bot, 1000, 0.4, "behind")
    over(lab, crt, pbx_call, bot)
    _, line = sides(*recording(lab, bot.headers["X-Call-ID"]))
    assert 0.4 <= pbx_call.recording.heard(700) < 2
    assert abs(seconds(line, 700) - pbx_call.recording.heard(700)) <= 0.04
    assert seconds(line, 1000) >= 0.36


def pulses(count: int) -> bytes:
    """A second of the caller's, over and over: silence, and at its end a short tone."""
    return bytes(16000 - 2 * 160 * 5) + tone(600, 0.1)


def begins(linear: bytes, frequency: float) -> list[float]:
    """Where each tone begins that is 0.5 s behind another."""
    at = list(heard_at(linear, frequency))
    return [one for number, one in enumerate(at) if not number or one - at[number - 1] > 0.5]


def onset(side: np.ndarray, near: float) -> float:
    """The first loud sample around a time, in seconds."""
    first = max(0, round((near - 0.03) * 8000))
    return (first + int(np.argmax(np.abs(side[first : first + 800].astype(int)) > 1000))) / 8000


def test_the_sides_stand_as_they_were_on_the_wire(lab: Lab, crt: str) -> None:
    """The caller's tone and the bot's, by RTP; a machine under load may be a frame later."""
    pbx_call, bot = talking(lab, "recorded", crt, caller_tone=pulses(1))
    for number in range(4):
        bot.say(tone(1000, 0.1), real_time=False)
        bot.mark(f"pulse-{number}")
        mark_of(bot, f"pulse-{number}")
        pbx_call.wait_heard(1000, 0.08 * (number + 1))
        time.sleep(0.6)  # the pulses' own distance
    over(lab, crt, pbx_call, bot)
    caller, line = sides(*recording(lab, bot.headers["X-Call-ID"]))
    session = pbx_call._session
    assert session is not None
    epoch = time.time() - time.monotonic()
    first = session._started + epoch
    packets = [(a.at, _linear(a.packet)) for a in pbx_call.recording.arrivals]
    loud = [at for at, linear in packets if linear and heard(linear, 1000)]
    heard_on_wire = [at for number, at in enumerate(loud) if not number or at - loud[number - 1] > 0.5]
    right = [onset(line, at) for at in begins(line.astype("<i2").tobytes(), 1000)]
    left = [onset(caller, at) for at in begins(caller.astype("<i2").tobytes(), 600)]
    assert len(heard_on_wire) == len(right) == 4 and len(left) >= 3
    # A packet is sent when the last of its sound was said, and heard from when it comes.
    zero_right = [at - place for at, place in zip(heard_on_wire, right, strict=True)]
    said_at = [first + 0.9 + number for number in range(60)]
    zero_left = [min((abs(at - place - zero_right[0]), at - place) for at in said_at)[1] for place in left]
    off = [one - zero_right[0] for one in zero_left]
    print(f"{lab.switch_name}: the caller's side is off by {[round(1000 * one, 1) for one in off]} ms")
    assert max(map(abs, off)) <= 0.04
    assert max(zero_right) - min(zero_right) <= 0.03


@pytest.mark.parametrize("dies", ["the relay", "the switch"])
def test_it_goes_on_in_another_part(lab: Lab, crt: str, dies: str) -> None:
    pbx_call, bot = talking(lab, "recorded", crt)
    tracked(lab, pbx_call, bot)
    said(bot, 700, 0.5, "before")
    time.sleep(3.0)  # what a relay has in its hands dies with it: a second and a block
    if dies == "the switch":
        crash(lab, pbx_call)
        then = bot
    else:
        lab.kill_relay()
        then = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt and c is not bot)
        then.wait_for_message("start")
    said(then, 1000, 0.5, "behind")
    over(lab, crt, pbx_call, then)
    state = "recording" if dies == "the relay" else "whole"
    store, entry = recording(lab, bot.headers["X-Call-ID"], state)
    assert entry.recording is not None
    assert [part.file[-7:] for part in entry.recording.parts] == [".1.flac", ".2.flac"]
    caller, line = sides(store, entry)
    for frequency in (700, 1000):
        assert seconds(line, frequency) >= 0.44, frequency
    assert seconds(caller, CALLER_TONE) >= 3.0


def test_the_caller_is_told_first_and_only_the_key_opens_it(lab: Lab, crt: str) -> None:
    result = handed_off(lab, "announced", crt)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    packets = [_linear(arrival.packet) for arrival in result.recording.arrivals]
    spoken = [
        frequency for linear in packets for frequency in (TONE, GREETING, GOODBYE) if heard(linear, frequency)
    ]
    assert spoken[0] == TONE and spoken == sorted(spoken, key=[TONE, GREETING, GOODBYE].index)
    assert result.recording.heard(TONE) >= 0.3
    assert result.recording.heard(GREETING) >= 0.54 and result.recording.heard(GOODBYE) >= 0.36
    store, entry = recording(lab, bot.headers["X-Call-ID"])
    assert entry.sealed
    _, line = sides(store, entry)
    assert seconds(line, TONE) >= 0.3 and seconds(line, GREETING) >= 0.54
    (file,) = entry.found.folder.glob("*.enc")
    assert b"fLaC" not in file.read_bytes()
    assert told(lab, bot.headers["X-Call-ID"], lambda whats: "ended" in whats) == ["recording_begun"]


def told(lab: Lab, call_id: str, done: Callable[[list[str]], bool]) -> list[str]:
    """What the ledger says of a call's recording."""
    engine = create_engine(f"sqlite:///{lab.folder}/eslbot.db")
    deadline = time.monotonic() + 20
    try:
        while True:
            with engine.connect() as connection:
                asked = select(timeline.c.what).where(timeline.c.call_id == call_id).order_by(timeline.c.at)
                whats = list(connection.execute(asked).scalars())
            if done(whats):
                return [what for what in whats if what.startswith("recording")]
            assert time.monotonic() < deadline, whats
            time.sleep(0.1)  # the keeper is another process
    finally:
        engine.dispose()


def test_a_recording_that_cannot_be_made_is_told_and_the_call_goes_on(lab: Lab, crt: str) -> None:
    folder = lab.recordings / time.strftime("%Y-%m-%d", time.gmtime()) / lab.tenants["recorded"].id
    aside = folder.with_name("aside")
    if folder.exists():
        folder.rename(aside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()
    try:
        pbx_call, bot = talking(lab, "recorded", crt)
        time.sleep(1.5)  # the relay looks once a second
        over(lab, crt, pbx_call, bot)
    finally:
        _back(folder, aside)
    call_id = bot.headers["X-Call-ID"]
    assert told(lab, call_id, lambda whats: "ended" in whats) == ["recording_begun", "recording_failed"]
    assert pbx_call.recording.heard(GREETING) >= 0.54
    assert store_of(lab).named(call_id) is None


def _back(folder: Path, aside: Path) -> None:
    folder.unlink()
    if aside.exists():
        aside.rename(folder)


def test_a_tenant_that_is_not_recorded_leaves_no_file(lab: Lab, crt: str) -> None:
    handed_off(lab, "talk", crt)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    assert store_of(lab).named(bot.headers["X-Call-ID"]) is None

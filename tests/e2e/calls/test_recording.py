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
from eslbot.recording.store import Entry, RecordingStore
from eslbot.sim.audio import heard, heard_at, tone
from eslbot.sim.bot import GOODBYE, GREETING, BotCall
from eslbot.sim.pbx import PbxCall
from eslbot.sim.pbx.media import CALLER_TONE, RtpSession, _linear
from eslbot.sim.rtp import RtpPacket
from tests.e2e.calls.conftest import Labs, one_kind
from tests.e2e.calls.test_call import call, ended_by_pbx, handed_off
from tests.e2e.calls.test_speech import mark_of
from tests.e2e.calls.test_switch_dies import crash, tracked
from tests.support.lab import Lab

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

Sides = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=one_kind())
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs.of(request.param)


def store_of(lab: Lab) -> RecordingStore:
    os.environ.update(lab.tokens)
    return RecordingStore(load(lab.config), None)


def recording(lab: Lab, call_id: str, *states: str) -> tuple[RecordingStore, Entry]:
    """Once its parts, one that is whole without more, are so; another process writes it."""
    deadline = time.monotonic() + 20
    while True:
        store = store_of(lab)
        entry = store.get(call_id)
        parts = [] if entry is None or entry.recording is None else entry.recording.parts
        if entry is not None and [part.state for part in parts] == list(states or ["whole"]):
            return store, entry
        assert time.monotonic() < deadline, parts
        time.sleep(0.05)


def sides(store: RecordingStore, entry: Entry) -> Sides:
    assert store.check(entry) == []
    samples = np.concatenate(list(store.audio(entry)))
    return samples[:, 0], samples[:, 1]


def seconds(side: np.ndarray, frequency: float) -> float:
    """How long a tone is heard; the sides stand half a frame apart, so a side's frames may begin at 80."""
    return max(heard(side[begin:].astype("<i2").tobytes(), frequency) for begin in (0, 80))


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


#: What the caller says, a second over and over: silence, and at its end a short tone.
PULSES = bytes(16000 - 2 * 800) + tone(600, 0.1)
#: Seconds by which the sides may be off on a machine on which each process may be late: the caller is, where
#: FreeSWITCH was. How exact they are on a quiet one says `python -m benchmarks.recording`.
OFF = 0.4


def first_of_each(times: list[float]) -> list[float]:
    """Of times, those that are half a second behind the one before."""
    return [at for number, at in enumerate(times) if not number or at - times[number - 1] > 0.5]


def onsets(side: np.ndarray, frequency: float) -> list[float]:
    """Where a tone begins, to the sample, in seconds."""
    found = []
    for near in first_of_each(list(heard_at(side.astype("<i2").tobytes(), frequency))):
        first = max(0, round((near - 0.03) * 8000))
        found.append((first + int(np.argmax(np.abs(side[first : first + 800].astype(int)) > 1000))) / 8000)
    return found


def test_the_sides_are_as_they_were_on_the_wire(lab: Lab, crt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's tone and the bot's, by RTP."""
    sent: list[tuple[float, bytes]] = []
    transmit = RtpSession._transmit

    def noted(session: RtpSession, packet: RtpPacket) -> None:
        if pbx_call is None or session is pbx_call.session:
            sent.append((time.time(), _linear(packet)))
        transmit(session, packet)

    pbx_call: PbxCall | None = None
    monkeypatch.setattr(RtpSession, "_transmit", noted)
    pbx_call, bot = talking(lab, "recorded", crt, caller_tone=PULSES)
    for number in range(4):
        bot.say(tone(1000, 0.1), real_time=False)
        bot.mark(f"pulse-{number}")
        mark_of(bot, f"pulse-{number}")
        time.sleep(0.7)  # the pulses' own distance
    over(lab, crt, pbx_call, bot)
    caller, line = sides(*recording(lab, bot.headers["X-Call-ID"]))
    came = [(arrival.at, _linear(arrival.packet)) for arrival in pbx_call.recording.arrivals]
    right = onsets(line, 1000)
    left = onsets(caller, 600)
    on_wire = first_of_each([at for at, linear in came if heard(linear, 1000)])
    said_at = first_of_each([at for at, linear in sent if heard(linear, 600)])
    assert len(on_wire) == len(right) == 4 and len(left) >= 3
    zero = sorted(at - place for at, place in zip(on_wire, right, strict=True))[1]
    off = [min((place + zero - at for at in said_at), key=abs) for place in left]
    print(f"{lab.switch_name}: the caller's side is off by {[round(1000 * one, 1) for one in off]} ms")
    assert max(map(abs, off)) <= OFF
    assert max(abs(at - place - zero) for at, place in zip(on_wire, right, strict=True)) <= OFF


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
    # A relay that is killed ends none of its parts.
    states = ["recording", "whole"] if dies == "the relay" else ["whole", "whole"]
    store, entry = recording(lab, bot.headers["X-Call-ID"], *states)
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
    (file,) = entry.files.folder.glob("*.enc")
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
    assert store_of(lab).get(call_id) is None


def _back(folder: Path, aside: Path) -> None:
    folder.unlink()
    if aside.exists():
        aside.rename(folder)


def test_a_tenant_that_is_not_recorded_leaves_no_file(lab: Lab, crt: str) -> None:
    handed_off(lab, "talk", crt)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    assert store_of(lab).get(bot.headers["X-Call-ID"]) is None

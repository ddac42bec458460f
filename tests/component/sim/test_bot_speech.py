"""How the bot's stand-in speaks and listens: binary, at other rates, by a pace, on hold, when spoken to."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from random import Random

import pytest
from websockets.sync.client import ClientConnection

from eslbot.sim import bot as stand_in
from eslbot.sim.audio import heard, silence, tone
from eslbot.sim.bot import BEHAVIOURS, GOODBYE, GREETING, Bot
from eslbot.sim.bot.pace import Pace
from tests.component.sim.bot_client import join, until

FRAME, QUIET = tone(350, 0.02), silence(0.02)


@pytest.fixture
def bot() -> Iterator[Bot]:
    with Bot() as bot:
        yield bot


def binary(ws: ClientConnection) -> tuple[list[bytes], dict]:
    """The binary messages up to the first text, and that."""
    chunks: list[bytes] = []
    while isinstance(message := ws.recv(timeout=5), bytes):
        chunks.append(message)
    return chunks, json.loads(message)


@pytest.mark.parametrize("name", [*BEHAVIOURS, "reject"])
def test_every_behaviour_is_told_about(name: str) -> None:
    assert f"``/{name}``" in (stand_in.__doc__ or "")


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_binary_speech_has_the_rate_of_the_callers(bot: Bot, rate: int) -> None:
    with join(bot, "one-breath?format=binary&chunk_ms=250", X_Audio_Rate=str(rate)) as ws:
        chunks, end = binary(ws)
    assert end["type"] == "end" and [len(chunk) for chunk in chunks] == [rate // 2] * 4
    said = b"".join(chunks)
    assert heard(said, GREETING, rate) == pytest.approx(0.7)
    assert heard(said, GOODBYE, rate) == pytest.approx(0.3)


def test_the_callers_rate_is_that_of_start_where_no_header_says_it(bot: Bot) -> None:
    with join(bot, "silent") as ws:
        ws.send(json.dumps({"type": "start", "audio": {"sample_rate": 16000}}))
        ws.send(bytes(640))
        call = bot.wait_for_call()
        call.wait(lambda call: call.audio_frames == 1)
        assert call.audio_rate == 16000 and call.audio_seconds == pytest.approx(0.02)


@pytest.mark.parametrize(("chunk", "count"), [(1000, 2), (200, 10), (20, 100)])
def test_bursts(bot: Bot, chunk: int, count: int) -> None:
    with join(bot, f"hold?format=binary&burst=1&greeting_ms=2000&chunk_ms={chunk}") as ws:
        begun = time.monotonic()
        chunks = [ws.recv(timeout=5) for _ in range(count)]
        assert time.monotonic() - begun < 1.5
    assert [len(each) for each in chunks] == [16 * chunk] * count


# -- the pace ----------------------------------------------------------------------------------------------


def dues(pace: Pace, count: int) -> list[float]:
    return list(itertools.islice(pace.dues(), count))


def test_a_pace_is_kept_against_the_beginning() -> None:
    assert dues(Pace(40), 4) == pytest.approx([0, 0.04, 0.08, 0.12])
    assert dues(Pace(40, ahead=0.1), 5) == pytest.approx([0, 0, 0, 0.02, 0.06])
    assert dues(Pace(40, burst=True), 3) == [0, 0, 0]
    assert Pace(40).size(24000) == 1920
    with pytest.raises(ValueError, match="0 ms"):
        Pace(0)


def test_jitter_is_bounded_the_same_for_a_seed_and_overtakes_nothing() -> None:
    def once(seed: int) -> list[float]:
        return dues(Pace(20, jitter=0.030, random=Random(seed)), 500)

    found = once(1)
    assert found == once(1) != once(2)
    assert found == sorted(found) and found[0] >= 0
    late = [due - number * 0.02 for number, due in enumerate(found)]
    assert max(late) <= 0.030 + 1e-9 and min(late) >= -0.030 - 1e-9
    assert max(late) > 0.025 and min(late) < 0, "both ways"


def test_the_querys_jitter_is_the_paces(bot: Bot) -> None:
    with join(bot, "hold?greeting_ms=0&chunk_ms=60&jitter_ms=30&seed=7&ahead_ms=20"):
        call = bot.wait_for_call()
    want = Pace(60, 0.02, 0.03, random=Random(7))
    assert dues(call.pace(), 20) == dues(want, 20)


# -- listening ---------------------------------------------------------------------------------------------


def send(ws: ClientConnection, frame: bytes, count: int) -> None:
    for _ in range(count):
        ws.send(frame)


def test_a_patient_bot_never_speaks_first(bot: Bot) -> None:
    with join(bot, "patient?greeting_ms=40&listen_ms=0&goodbye_ms=40") as ws:
        call = bot.wait_for_call()
        send(ws, QUIET, 50)
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.2)  # silence is nobody who speaks
        send(ws, FRAME, 10)
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.2)  # the caller may not have finished
        deadline = time.monotonic() + 5
        while call.caller_speaks and time.monotonic() < deadline:
            ws.send(QUIET)
            time.sleep(0.02)  # the pace of a caller: a pause is told by the clock
        said, _ = until(ws, "end")
    assert heard(said, GREETING) == heard(said, GOODBYE) == pytest.approx(0.04)
    assert call.onset_count == len(call.onsets) == 1


def test_a_patient_bot_whose_caller_goes(bot: Bot) -> None:
    with join(bot, "patient"):
        call = bot.wait_for_call()
    call.wait_closed()
    assert call.error is None and not call.said


def test_a_reflex_answers_the_frame_with_which_the_caller_begins(bot: Bot) -> None:
    with join(bot, "reflex?format=binary&speak_ms=60&turns=1") as ws:
        call = bot.wait_for_call()
        send(ws, QUIET, 10)
        ws.send(FRAME)
        chunks, end = binary(ws)
        assert len(chunks) == 3 and heard(b"".join(chunks), GREETING) == pytest.approx(0.06)
        assert end["type"] == "end"
        assert call.audio_frames == 11, "no more was needed"
        assert 0 <= call.said[0].at - call.onsets[0] < 1


def test_a_caller_on_hold_is_not_spoken_to(bot: Bot) -> None:
    with join(bot, "drone?format=binary&chunk_ms=20&seconds=1&heeds_hold=1") as ws:
        call = bot.wait_for_call()
        ws.recv(timeout=5)
        ws.send(json.dumps({"type": "hold", "on": True}))
        call.wait(lambda call: call.held)
        with pytest.raises(TimeoutError):
            while True:  # at most what was under way
                ws.recv(timeout=0.3)
        begun = time.monotonic()
        ws.send(json.dumps({"type": "hold", "on": False}))
        chunks, end = binary(ws)
        assert end["type"] == "end" and not call.held
        # It goes on where it was, at its pace: what was held back does not come in one burst.
        assert time.monotonic() - begun > len(chunks) * 0.02 - 0.1
    assert call.said[0].seconds == 1.0


def test_a_bot_that_heeds_no_hold_goes_on(bot: Bot) -> None:
    with join(bot, "drone?format=binary&chunk_ms=20&seconds=1") as ws:
        ws.send(json.dumps({"type": "hold", "on": True}))
        chunks, end = binary(ws)
    assert len(chunks) == 50 and end["type"] == "end"
    assert bot.calls[0].held

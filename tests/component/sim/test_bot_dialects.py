"""The bot's stand-in in telephony providers' protocols, spoken to as their documentation has it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from eslbot.audio import g711
from eslbot.sim.audio import heard, tone
from eslbot.sim.bot import GOODBYE, GREETING, Bot
from eslbot.sim.bot.wires import Exotel, Plivo, Telephony, Twilio, WireError
from tests.component.sim.bot_client import join

FRAME = tone(350, 0.02)


@pytest.fixture
def bot() -> Iterator[Bot]:
    with Bot() as bot:
        yield bot


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


OPENINGS: dict[str, list[dict[str, Any]]] = {
    "twilio": [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": "MZ1",
            "start": {
                "streamSid": "MZ1",
                "accountSid": "AC1",
                "callSid": "CA1",
                "tracks": ["inbound"],
                "customParameters": {},
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        },
    ],
    "exotel": [
        {"event": "connected"},
        {
            "event": "start",
            "sequence_number": 1,
            "stream_sid": "MZ1",
            "start": {
                "stream_sid": "MZ1",
                "call_sid": "CA1",
                "account_sid": "AC1",
                "from": "1",
                "to": "2",
                "custom_parameters": {},
                "media_format": {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"},
            },
        },
    ],
    "plivo": [
        {
            "event": "start",
            "sequenceNumber": 0,
            "start": {
                "callId": "CA1",
                "streamId": "MZ1",
                "accountId": "AC1",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
            },
            "extra_headers": "{}",
        },
    ],
}

MEDIA: dict[str, dict[str, Any]] = {
    "twilio": {"event": "media", "streamSid": "MZ1", "media": {"track": "inbound", "payload": ""}},
    "exotel": {"event": "media", "stream_sid": "MZ1", "media": {"chunk": 2, "payload": ""}},
    "plivo": {"event": "media", "streamId": "MZ1", "media": {"track": "inbound", "payload": ""}},
}


def media(name: str, l16: bytes) -> str:
    payload = base64_of(l16 if name == "exotel" else g711.encode("PCMU", l16))
    return json.dumps({**MEDIA[name], "media": {**MEDIA[name]["media"], "payload": payload}})


def mark(name: str, of: str | None) -> str:
    if name == "plivo":
        return json.dumps({"event": "playedStream", "streamId": "MZ1", "name": of or ""})
    return json.dumps({"event": "mark", "mark": {"name": of or ""}})


def speech(name: str, message: dict[str, Any]) -> bytes:
    assert message["event"] == ("playAudio" if name == "plivo" else "media")
    payload = base64.b64decode(message["media"]["payload"])
    return payload if name == "exotel" else g711.decode("PCMU", payload)


def receive(ws: ClientConnection) -> dict[str, Any]:
    text = ws.recv(timeout=5)
    assert isinstance(text, str), "a provider is sent texts"
    return dict(json.loads(text))


@pytest.mark.parametrize("name", OPENINGS)
def test_a_whole_call(bot: Bot, name: str) -> None:
    with join(bot, f"{name}?listen_ms=100") as ws:
        for message in OPENINGS[name]:
            ws.send(json.dumps(message))
        greeting, first = receive(ws), receive(ws)
        assert heard(speech(name, greeting), GREETING) == pytest.approx(0.6), "in one message"
        # The first mark has no name at all.
        assert (
            first
            == {
                "twilio": {"event": "mark", "streamSid": "MZ1", "mark": {}},
                "exotel": {"event": "mark", "stream_sid": "MZ1", "mark": {}},
                "plivo": {"event": "checkpoint", "streamId": "MZ1"},
            }[name]
        )
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.1)
        ws.send(mark(name, None))
        assert len(speech(name, receive(ws))) == 5 * 16000
        assert "never heard" in json.dumps(receive(ws))
        for _ in range(5):
            ws.send(media(name, FRAME))
        assert (
            receive(ws)
            == {
                "twilio": {"event": "clear", "streamSid": "MZ1"},
                "exotel": {"event": "clear", "stream_sid": "MZ1"},
                "plivo": {"event": "clearAudio", "streamId": "MZ1"},
            }[name]
        )
        assert heard(speech(name, receive(ws)), GOODBYE) == pytest.approx(0.4)
        assert "good-bye" in json.dumps(receive(ws))
        ws.send(mark(name, "good-bye"))
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
        assert ws.close_code == 1000
    (call,) = bot.calls
    call.wait_closed()
    assert call.finished and call.closed_by == "bot" and call.error is None
    assert heard(call.audio(), 350) == pytest.approx(0.1)
    assert [each.type for each in call.messages_of("start")] == ["start"]


@pytest.mark.parametrize("name", OPENINGS)
def test_any_behaviour_in_any_dialect(bot: Bot, name: str) -> None:
    with join(bot, f"talk?dialect={name}&greeting_ms=100&goodbye_ms=100&listen_ms=20&burst=1") as ws:
        for message in OPENINGS[name]:
            ws.send(json.dumps(message))
        assert heard(speech(name, receive(ws)), GREETING) == pytest.approx(0.1)
        ws.send(media(name, FRAME))
        assert heard(speech(name, receive(ws)), GOODBYE) == pytest.approx(0.1)
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
        assert ws.close_code == 1000


@pytest.mark.parametrize("name", OPENINGS)
def test_a_binary_message_kills_it_as_it_kills_pipecat(bot: Bot, name: str) -> None:
    with join(bot, name) as ws:
        ws.send(FRAME)
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
        assert ws.close_code == 1006
    (call,) = bot.calls
    call.wait_closed()
    assert isinstance(call.error, WireError) and "binary" in str(call.error)


WIRES: list[tuple[type[Telephony], str]] = [(Twilio, "twilio"), (Exotel, "exotel"), (Plivo, "plivo")]


@pytest.mark.parametrize(("kind", "name"), WIRES)
@pytest.mark.parametrize("hostile", [None, [], {}, {"event": 7}, {"event": "media"}, {"event": "stop"}])
def test_what_may_not_come_first(kind: type[Telephony], name: str, hostile: object) -> None:
    with pytest.raises(WireError):
        kind().caller(hostile)


@pytest.mark.parametrize(("kind", "name"), WIRES)
def test_a_start_that_is_not_as_documented(kind: type[Telephony], name: str) -> None:
    start = OPENINGS[name][-1]
    for key in start["start"]:
        if key in ("streamSid", "callSid", "mediaFormat", "stream_sid", "call_sid", "media_format", "callId"):
            wire = kind()
            for before in OPENINGS[name][:-1]:
                wire.caller(before)
            without = {**start, "start": {k: v for k, v in start["start"].items() if k != key}}
            with pytest.raises(WireError, match="start"):
                wire.caller(without)


def test_exotels_audio_comes_and_goes_in_its_units() -> None:
    wire = Exotel()
    for message in OPENINGS["exotel"]:
        wire.caller(message)
    said = json.loads(wire.speech(bytes(322), 8000, "raw"))
    assert len(base64.b64decode(said["media"]["payload"])) == 640
    with pytest.raises(WireError, match="320"):
        wire.caller({**MEDIA["exotel"], "media": {"payload": base64_of(bytes(300))}})


def test_plivo_at_16_khz() -> None:
    wire = Plivo()
    start = json.loads(json.dumps(OPENINGS["plivo"][0]))
    start["start"]["mediaFormat"] = {"encoding": "audio/x-l16", "sampleRate": 16000}
    assert wire.caller(start) is None and wire.audio_rate == 16000
    said = json.loads(wire.speech(tone(440, 0.02, 16000), 16000, "raw"))
    assert said["media"]["contentType"] == "audio/x-l16" and said["media"]["sampleRate"] == 16000
    with pytest.raises(ValueError, match="16000 Hz"):
        wire.speech(FRAME, 8000, "raw")


def test_twilio_has_one_rate() -> None:
    with pytest.raises(ValueError, match="16000"):
        Twilio().speech(FRAME, 16000, "raw")

"""Twilio's, Exotel's and Plivo's protocols, by what their owners publish and what bots look for."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest

from eslbot.audio import g711
from eslbot.audio.decoder import Decoder
from eslbot.relay.protocols.base import BadMessage, Clear, End, Mark, Message, Protocol, Speech
from eslbot.relay.protocols.plivo import Plivo
from eslbot.sim.audio import tone
from tests.support.protocols import INVITE, TRACE, bot_of, speak

DIALECTS = ["twilio", "exotel", "plivo"]
HEX = "6e7cd1a10b1a4ad58a2c1d1b3b3b3b3b"
IDENTITY = {
    "call_id": INVITE.call_id,
    "workspace_id": INVITE.workspace_id,
    "did": INVITE.did,
    "crt_object_id": INVITE.crt_object_id,
    "from": "0401234567",
    "to": "bot",
    "from_number": "0401234567",
    "to_number": INVITE.did,
}


def documents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    assert all(isinstance(message, str) and message.isascii() for message in messages)
    return [json.loads(message) for message in messages]


def document(messages: Sequence[Message] | Message) -> dict[str, Any]:
    (one,) = documents([messages] if isinstance(messages, str | bytes) else messages)
    return one


def sid(text: str, prefix: str) -> bool:
    return text[:2] == prefix and len(text) == 34 and set(text[2:]) <= set("0123456789abcdef")


# -- Twilio -----------------------------------------------------------------------------------------------


def test_twilio_begins_with_connected_and_start() -> None:
    connected, start = documents(speak("twilio").start(resumed=False))
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    stream = start["streamSid"]
    assert sid(stream, "MZ")
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": stream,
        "start": {
            "accountSid": "AC2b37ba177b204b3eb1381161e351d5c5",
            "callSid": f"CA{HEX}",
            "streamSid": stream,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": IDENTITY,
        },
    }


def test_twilio_numbers_the_callers_audio_and_times_it_by_the_clock() -> None:
    protocol, linear = speak("twilio"), tone(1000, 0.02)
    start = documents(protocol.start(resumed=False))[1]
    media = [document(protocol.audio(linear, at)) for at in (0.0, 0.02, 1.2345)]
    assert media[2] == {
        "event": "media",
        "sequenceNumber": "4",
        "streamSid": start["streamSid"],
        "media": {
            "track": "inbound",
            "chunk": "3",
            "timestamp": "1234",
            "payload": base64.b64encode(g711.encode("PCMU", linear)).decode(),
        },
    }
    assert [it["media"]["timestamp"] for it in media] == ["0", "20", "1234"]
    key = document(protocol.key("#", 120))
    assert key["sequenceNumber"] == "5"
    assert key["dtmf"] == {"track": "inbound_track", "digit": "#"}


def test_twilio_says_what_was_heard_and_that_it_is_over() -> None:
    protocol = speak("twilio")
    stream = documents(protocol.start(resumed=False))[1]["streamSid"]
    for cleared in (False, True):
        mark = document(protocol.mark("a", cleared=cleared))
        assert mark == {
            "event": "mark",
            "sequenceNumber": mark["sequenceNumber"],
            "streamSid": stream,
            "mark": {"name": "a"},
        }
    stop = document(protocol.stop("ended"))
    assert stop["stop"] == {"accountSid": "AC2b37ba177b204b3eb1381161e351d5c5", "callSid": f"CA{HEX}"}
    assert protocol.cleared() == protocol.hold(True) == protocol.error("queue_full", "x") == ()


def test_pipecat_takes_it_for_twilio() -> None:
    """By the rules of ``pipecat.runner.utils``: the second message decides, and has what is needed."""
    start = documents(speak("twilio").start(resumed=True))[1]
    assert start["event"] == "start"
    assert {"streamSid", "callSid"} <= set(start["start"])
    assert start["start"]["customParameters"]["from_number"] == "0401234567"
    assert start["start"]["customParameters"]["resumed"] == "true"


# -- Exotel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_exotel_begins_with_connected_and_start(rate: int) -> None:
    connected, start = documents(speak("exotel", rate).start(resumed=False))
    assert connected == {"event": "connected"}
    stream = start["stream_sid"]
    assert sid(stream, "MZ")
    assert start == {
        "event": "start",
        "sequence_number": "1",
        "stream_sid": stream,
        "start": {
            "stream_sid": stream,
            "call_sid": f"CA{HEX}",
            "account_sid": "AC2b37ba177b204b3eb1381161e351d5c5",
            "from": "0401234567",
            "to": INVITE.did,
            "custom_parameters": IDENTITY,
            "media_format": {"encoding": "audio/x-raw", "sample_rate": str(rate), "bit_rate": "16"},
        },
    }


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_exotel_hears_l16_in_multiples_of_320(rate: int) -> None:
    protocol, linear = speak("exotel", rate), tone(1000, 0.02, rate)
    assert len(linear) % 320 == 0
    start = documents(protocol.start(resumed=False))[1]
    assert document(protocol.audio(linear, 0.1)) == {
        "event": "media",
        "sequence_number": "2",
        "stream_sid": start["stream_sid"],
        "media": {"chunk": "1", "timestamp": "100", "payload": base64.b64encode(linear).decode()},
    }
    (speech,) = protocol.read(json.dumps({"event": "media", "media": {"payload": "AAAA"}}))
    assert speech == Speech(bytes(3), "raw", rate)
    assert document(protocol.key("5", 100))["dtmf"] == {"digit": "5", "duration": "100"}


@pytest.mark.parametrize(
    ("reason", "told"), [("caller_hangup", "callended"), ("ended", "stopped"), ("max_duration", "stopped")]
)
def test_exotel_says_who_has_ended_it(reason: str, told: str) -> None:
    stop = document(speak("exotel").stop(reason))
    assert stop["stop"]["reason"] == told
    assert stop["stop"]["call_sid"] == f"CA{HEX}"


def test_pipecat_takes_it_for_exotel_and_for_nothing_else() -> None:
    start = documents(speak("exotel").start(resumed=False))[1]
    assert {"stream_sid", "call_sid", "account_sid"} <= set(start["start"])
    assert "stream_id" not in start and "streamId" not in start["start"]


# -- Plivo ------------------------------------------------------------------------------------------------


def plivo(rate: int = 8000) -> Plivo:
    return Plivo(INVITE, bot_of("plivo", rate), TRACE, now=lambda: 1_700_000_000.5)


@pytest.mark.parametrize(("rate", "encoding"), [(8000, "audio/x-mulaw"), (16000, "audio/x-l16")])
def test_plivo_begins_with_start(rate: int, encoding: str) -> None:
    start = document(plivo(rate).start(resumed=False))
    stream = start["start"]["streamId"]
    assert str(UUID(stream)) == stream
    headers = start.pop("extra_headers")
    assert start == {
        "event": "start",
        "sequenceNumber": 1,
        "start": {
            "callId": INVITE.call_id,
            "streamId": stream,
            "accountId": INVITE.workspace_id,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": encoding, "sampleRate": rate},
        },
    }
    assert dict(parse_qsl(headers, separator=";", strict_parsing=True)) == IDENTITY


def test_plivo_hears_the_caller() -> None:
    protocol, linear = plivo(), tone(1000, 0.02)
    start = document(protocol.start(resumed=False))
    assert document(protocol.audio(linear, 1.25)) == {
        "event": "media",
        "sequenceNumber": 2,
        "streamId": start["start"]["streamId"],
        "media": {
            "track": "inbound",
            "timestamp": "1700000001750",
            "chunk": 1,
            "payload": base64.b64encode(g711.encode("PCMU", linear)).decode(),
        },
        "extra_headers": start["extra_headers"],
    }
    key = document(protocol.key("5", 100))
    assert key["dtmf"] == {"track": "inbound", "digit": "5", "timestamp": "1700000001750"}
    wide = tone(1000, 0.02, 16000)
    media = document(plivo(16000).audio(wide, 0.0))["media"]
    assert base64.b64decode(media["payload"]) == wide


def test_a_hostile_caller_cannot_write_into_plivos_messages() -> None:
    protocol = Plivo(replace(INVITE, caller='";did=1"\\\n%3B'), bot_of("plivo"), TRACE)
    start = document(protocol.start(resumed=False))
    headers = dict(parse_qsl(start["extra_headers"], separator=";"))
    assert headers["did"] == INVITE.did and headers["from"] == '";did=1"\\\n%3B'
    assert document(protocol.audio(bytes(320), 0.0))["extra_headers"] == start["extra_headers"]


@pytest.mark.parametrize(
    ("media", "speech"),
    [
        ({"contentType": "audio/x-mulaw", "sampleRate": 8000}, Speech(bytes(3), "pcmu", 8000)),
        ({"contentType": "audio/x-mulaw;rate=8000", "sampleRate": "8000"}, Speech(bytes(3), "pcmu", 8000)),
        ({"contentType": "audio/x-l16", "sampleRate": 16000}, Speech(bytes(3), "raw", 16000)),
        ({"contentType": "Audio/X-L16"}, Speech(bytes(3), "raw", 8000)),
        ({"contentType": "raw", "sampleRate": 24000}, Speech(bytes(3), "raw", 24000)),
        ({"contentType": "wav"}, Speech(bytes(3), "wav", 8000)),
        ({"contentType": "audio/mpeg", "sampleRate": 8000}, Speech(bytes(3), "audio/mpeg", 8000)),
        ({"contentType": None, "sampleRate": 8000}, Speech(bytes(3), "None", 8000)),
        ({"contentType": "raw", "sampleRate": "fast"}, Speech(bytes(3), "raw", 0)),
        ({"contentType": "raw", "sampleRate": 10**400}, Speech(bytes(3), "raw", 0)),
        ({"contentType": "raw", "sampleRate": [8000]}, Speech(bytes(3), "raw", 0)),
    ],
)
def test_plivo_says_what_its_audio_is(media: dict[str, Any], speech: Speech) -> None:
    text = json.dumps({"event": "playAudio", "media": {**media, "payload": "AAAA"}})
    assert plivo().read(text) == (speech,)


def test_a_checkpoint_that_was_cleared_has_no_answer_and_one_of_a_hold_has() -> None:
    protocol = plivo()
    assert protocol.mark("went by on hold", cleared=True)
    protocol.read('{"event":"clearAudio","streamId":"x"}')
    assert protocol.mark("dropped", cleared=True) == ()
    assert document(protocol.cleared())["event"] == "clearedAudio"
    played = document(protocol.mark("a", cleared=False))
    assert played["event"] == "playedStream" and played["name"] == "a" and "streamId" in played
    assert protocol.mark("went by on hold", cleared=True)


# -- all of them ------------------------------------------------------------------------------------------


def wants(protocol: Protocol, **message: Any) -> list[Any]:
    return list(protocol.read(json.dumps(message)))


@pytest.mark.parametrize("name", DIALECTS)
def test_a_close_without_a_code_and_a_stop_are_the_end(name: str) -> None:
    protocol = speak(name)
    assert [code for code in (0, 1000, 1001, 1005, 1006, 1011, 1012, 4000) if protocol.ends_with(code)] == [
        1000,
        1005,
    ]
    assert wants(protocol, event="stop", streamSid="MZ1") == [End(closed=True)]


@pytest.mark.parametrize("name", DIALECTS)
def test_another_connection_is_another_stream(name: str) -> None:
    first, second = (json.dumps(documents(speak(name).start(resumed=False))) for _ in range(2))
    assert first != second


@pytest.mark.parametrize("name", ["twilio", "exotel"])
@pytest.mark.parametrize(
    ("message", "wish"),
    [
        ({"event": "mark", "mark": {"name": "a"}}, Mark("a")),
        ({"event": "mark", "mark": {}}, Mark("")),
        ({"event": "mark"}, Mark("")),
        ({"event": "clear"}, Clear()),
    ],
)
def test_marks_may_have_no_name(name: str, message: dict[str, Any], wish: Any) -> None:
    protocol = speak(name)
    assert wants(protocol, **message) == [wish]
    if isinstance(wish, Mark):
        assert document(protocol.mark(wish.name, cleared=False))["mark"] == {"name": wish.name}


def test_checkpoints_may_have_no_name() -> None:
    assert wants(plivo(), event="checkpoint", name="a") == [Mark("a")]
    assert wants(plivo(), event="checkpoint") == [Mark("")]


_STRANGE: list[tuple[Message, str]] = [
    (b"\0\0", "binary"),
    ('{"label":"rtvi-ai","type":"bot-ready"}', "unknown_type"),
    ('{"event":["media"]}', "unknown_type"),
    ('{"event":"connected"}', "unknown_type"),
]
_STRANGE_MEDIA: list[tuple[Message, str]] = [
    ('{"event":"media","media":"x"}', "unusable_audio"),
    ('{"event":"media","media":{"payload":"A"}}', "unusable_audio"),
    ('{"event":"mark","mark":{"name":7}}', "bad_mark"),
    ('{"event":"mark","mark":{"name":"' + "x" * 1025 + '"}}', "bad_mark"),
    ('{"event":"playAudio","media":{"payload":"AAAA"}}', "unknown_type"),
]
_STRANGE_PLAY: list[tuple[Message, str]] = [
    ('{"event":"playAudio"}', "unusable_audio"),
    ('{"event":"playAudio","media":{"contentType":"raw"}}', "unusable_audio"),
    ('{"event":"checkpoint","name":{}}', "bad_mark"),
    ('{"event":"media","media":{"payload":"AAAA"}}', "unknown_type"),
]


@pytest.mark.parametrize(
    ("name", "message", "word"),
    [
        (name, *strange)
        for name, own in [("twilio", _STRANGE_MEDIA), ("exotel", _STRANGE_MEDIA), ("plivo", _STRANGE_PLAY)]
        for strange in _STRANGE + own
    ],
)
def test_what_is_not_understood_is_counted_by_a_fixed_word(name: str, message: Message, word: str) -> None:
    with pytest.raises(BadMessage) as caught:
        speak(name).read(message)
    assert caught.value.args[0] == word


def test_twilios_speech_is_mulaw() -> None:
    codes = bytes(range(256))
    (speech,) = wants(speak("twilio"), event="media", media={"payload": base64.b64encode(codes).decode()})
    assert Decoder().decode(speech) == g711.decode("PCMU", codes)

"""Whatever a bot sends, in any protocol: bounded time, and nothing comes of it but wishes or BadMessage."""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.botcheck.checks import messages
from eslbot.cli.bot import check
from eslbot.config.model import SAMPLE_RATES
from eslbot.relay.protocols import PROTOCOLS, texts
from eslbot.relay.protocols.base import BadMessage, Clear, End, Mark, Message, Speech
from tests.support.protocols import speak

NAMES = sorted(PROTOCOLS)
BOTS = (Path(__file__).parents[2] / "docs" / "bots.md").read_text(encoding="utf-8")
WORDS = {
    "oversized",
    "bad_json",
    "not_an_object",
    "unknown_type",
    "bad_mark",
    "bad_caller_speech",
    "unusable_audio",
    "binary",
}


def speech_text(protocol: str, audio: bytes | str, **more: Any) -> str:
    """A bot's message with speech, where ``audio`` is already base64 if it is a text."""
    payload = audio if isinstance(audio, str) else base64.b64encode(audio).decode()
    if protocol == "eslbot":
        data = {"audioDataType": "raw", "sampleRate": 8000, "audioData": payload, **more}
        return json.dumps({"type": "streamAudio", "data": data})
    if protocol == "plivo":
        media = {"contentType": "audio/x-l16", "sampleRate": 8000, "payload": payload, **more}
        return json.dumps({"event": "playAudio", "media": media})
    return json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": payload, **more}})


def test_a_protocol_is_known_wherever_its_name_stands() -> None:
    """CONTRIBUTING.md, "Extend", has the same places."""
    (option,) = (option for option in check.params if option.name == "protocol")
    assert isinstance(option.type, click.Choice)
    for place, names in {
        "eslbot.config.model.SAMPLE_RATES": SAMPLE_RATES,
        "eslbot.cli.bot, --protocol": option.type.choices,
        "eslbot.botcheck.checks.messages.WORDS": messages.WORDS,
        "docs/bots.md": re.findall(r"^\| `(\w+)` \| (?:eslbot:|\[)", BOTS, re.MULTILINE),
    }.items():
        assert set(names) == set(PROTOCOLS), place


# -- anything ---------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "payload", "audioData", "data", "media", "mark", "sampleRate"])
            | st.text(max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_typed = st.builds(
    lambda own, kind, key: {**own, key: kind},
    st.dictionaries(
        st.sampled_from(["data", "media", "mark", "name", "properties", "reason", "speaking"]),
        _json,
        max_size=4,
    ),
    st.sampled_from(
        ["streamAudio", "media", "playAudio", "mark", "checkpoint", "clear", "end", "stop", "caller_speech"]
    ),
    st.sampled_from(["type", "event"]),
)


@pytest.mark.parametrize("name", NAMES)
@given(
    message=st.binary(max_size=100)
    | st.text(max_size=300)
    | _json.map(json.dumps)
    | _typed.map(json.dumps)
    | st.text(alphabet='{}[]",:\\0aeu"payload"audioData ', max_size=60)
)
def test_nothing_a_bot_sends_is_fatal(name: str, message: Message) -> None:
    protocol = speak(name)
    try:
        wishes = protocol.read(message)
    except BadMessage as error:
        word, text = error.args
        assert word in WORDS
        assert text and len(text) <= 200 and text.isprintable()
    else:
        for wish in wishes:
            if isinstance(wish, Mark):  # and what it asks for can be answered
                assert all(json.loads(answer) for answer in protocol.mark(wish.name, cleared=False))
            if isinstance(wish, Speech):
                assert isinstance(wish.rate, int) and isinstance(wish.kind, str)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32), noise=st.text(max_size=3))
def test_nothing_in_a_long_message_is_fatal(name: str, seed: int, noise: str) -> None:
    text = speech_text(name, bytes(texts.LONG))
    at = seed % len(text)
    with contextlib.suppress(BadMessage):
        speak(name).read(text[:at] + noise + text[at + seed % 3 :])


# -- long speech ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 320, texts.LONG, texts.LONG + 1, 100_000, texts.MAX_AUDIO_BYTES])
def test_speech_of_any_length_is_taken_as_it_is(name: str, size: int) -> None:
    audio = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (speech,) = speak(name).read(speech_text(name, audio))
    assert isinstance(speech, Speech)
    assert speech.audio == audio


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [300, 30_000])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", "\n : \t")])
def test_json_may_be_written_in_many_ways(name: str, size: int, separators: tuple[str, str]) -> None:
    audio = bytes([251, 239, 190, 255]) * size
    document = json.loads(speech_text(name, audio))
    text = json.dumps(document, separators=separators)
    (speech,) = speak(name).read(text.replace("/", "\\/"))  # as PHP writes it
    assert isinstance(speech, Speech)
    assert speech.audio == audio


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_long_speech_is_what_it_is(name: str) -> None:
    key = "audioData" if name == "eslbot" else "payload"
    long = "A" * 40_000
    for text in (
        json.dumps({"type": "end", "event": "stop", "reason": key, "more": long}),
        json.dumps({"type": "end", "event": "stop", "reason": f'"{key}":"{long}"'}),
        json.dumps({key: "AAAA", "type": "end", "event": "stop", "more": long}),
    ):
        (wish,) = speak(name).read(text)
        assert isinstance(wish, End)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("audio", "more", "word"),
    [
        ("A" * (texts.MAX_MESSAGE_BYTES + 4), {}, "oversized"),
        ("A" * 40_000, {"x": "y" * texts.MAX_AROUND}, "oversized"),
        ("A" * 40_001, {}, "unusable_audio"),
        ("A" * 40_000 + "\\u0041AAA", {}, "unusable_audio"),
        ("Ä" * 40_000, {}, "unusable_audio"),
    ],
)
def test_long_speech_that_is_none(name: str, audio: str, more: dict[str, str], word: str) -> None:
    text = speech_text(name, "@", **more).replace("@", audio)
    with pytest.raises(BadMessage) as caught:
        speak(name).read(text)
    assert caught.value.args[0] == word


# -- bounds -----------------------------------------------------------------------------------------------

_MOST = texts.MAX_OTHER
HOSTILE = {
    "numbers": "[%s1]" % ("1e308," * (_MOST // 6 - 1)),
    "lists": "[%s1]" % ("[]," * (_MOST // 3 - 1)),
    "objects": "[%s1]" % ("{}," * (_MOST // 3 - 1)),
    "keys": "{" + ",".join(f'"{number}":1' for number in range(26_000)) + "}",
    "digits": "[%s1]" % (("9" * 4290 + ",") * 60),
    "depth": "[" * _MOST,
    "escapes": '"%s"' % ("\\u1234" * (_MOST // 6 - 1)),
    "a kind of speech": '{"type":"streamAudio","data":{"audioData":"","audioDataType":[%s1]}}'
    % ("[]," * 80_000),
    "an end": '{"type":"end","properties":{"a":[%s1]},"reason":[1]}' % ("1," * 120_000),
    "an event": '{"event":[%s1]}' % ("[]," * 80_000),
    "speech": '{"event":"media","media":{"payload":"%s"}}' % ("A" * 4 * 1024 * 1024),
    "our speech": '{"type":"streamAudio","data":{"audioDataType":"raw","audioData":"%s"}}'
    % ("A" * 4 * 1024 * 1024),
    "bad speech": '{"event":"media","media":{"payload":"%s"}}' % ("\\/" * 2 * 1024 * 1024),
    "megabytes": "[%s1]" % ("[]," * 1_500_000),
    "keys of speech": '"payload"' * 500_000,
}


@pytest.mark.parametrize("name", ["eslbot", "plivo"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_message_keeps_the_loop_for_long(text: str, name: str) -> None:
    times = []
    for _ in range(3):
        began = time.thread_time()  # the work itself, whatever else this machine does
        with contextlib.suppress(BadMessage):
            speak(name).read(text)
        times.append(time.thread_time() - began)
    assert min(times) < 0.05


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled: bool) -> None:
    try:
        (gc.enable if enabled else gc.disable)()
        with contextlib.suppress(BadMessage):
            texts.read(HOSTILE["lists"], "payload")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


@pytest.mark.parametrize("value", [["x"] * 20_000, {"x": 1}, "x" * 50_000, 1e308, None, "a\nb\x1b[31m"])
def test_what_a_person_is_shown_is_short(value: Any) -> None:
    shown = texts.shown(value)
    assert 0 < len(shown) <= 30 and shown.isprintable()


def test_a_clear_is_a_clear() -> None:
    assert speak("eslbot").read('{"type":"clear"}') == (Clear(),)
    assert speak("plivo").read('{"event":"clearAudio"}') == (Clear(),)

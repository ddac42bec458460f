"""``docs/bot-protocol.md`` and the JSON Schema say what the code does, in both directions."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from eslbot.ameyo.properties import MAX_VALUE_BYTES
from eslbot.audio import UnusableAudio, decoder, levels
from eslbot.calls.bot import leg, link
from eslbot.outcome import Outcome
from eslbot.relay import bot_part, budgets, dialler, playout, playout_delay
from eslbot.relay.line import predecessor
from eslbot.relay.protocols import headers, speak, texts
from eslbot.relay.protocols.base import (
    BadMessage,
    CallerSpeech,
    Clear,
    End,
    Mark,
    Message,
    Protocol,
    Speech,
    Wish,
)
from eslbot.relay.protocols.eslbot import MAX_MARK_NAME, MAX_PROPERTIES, MAX_REASON, VERSION
from eslbot.sim.bot.wavfiles import wav
from eslbot.telemetry.trace_context import traceparent
from tests.support.protocols import INVITE, TRACE, bot_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "bot-protocol.md").read_text()
SCHEMA = json.loads(resources.files("eslbot.relay.protocols").joinpath("protocol.schema.json").read_text())
KEYS = "0123456789*#ABCD"


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


TO_BOT, FROM_BOT = validator("toBot"), validator("fromBot")


def protocol(rate: int = 8000) -> Protocol:
    return speak(INVITE, bot_of("eslbot", rate), TRACE)


def read(message: Any) -> list[Wish]:
    return list(protocol().read(json.dumps(message)))


def why(message: Message) -> str:
    with pytest.raises(BadMessage) as caught:
        protocol().read(message)
    word, text = caught.value.args
    assert text and len(text) <= 200
    return str(word)


def told(messages: Any) -> Any:
    (message,) = messages
    return json.loads(message)


def section(number: int) -> str:
    (text,) = re.findall(rf"^## {number}\. .*?(?=^## |\Z)", DOCUMENT, re.S | re.M)
    return str(text)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def examples(number: int) -> list[dict[str, Any]]:
    return [json.loads(block) for block in blocks(section(number), "json")]


# -- the schema -------------------------------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("validator", "number"),
    [(TO_BOT, 2), (FROM_BOT, 3), (TO_BOT, 5)],
    ids=["to the bot", "from it", "resumed"],
)
def test_every_example_is_valid(validator: Draft202012Validator, number: int) -> None:
    found = examples(number)
    assert found
    for message in found:
        validator.validate(message)


def test_every_example_is_in_a_section_that_is_tested_and_every_message_has_one() -> None:
    assert len(blocks(DOCUMENT, "json")) == sum(len(examples(number)) for number in (2, 3, 5))
    for name, number in ("toBot", 2), ("fromBot", 3):
        names = {option["$ref"].rpartition("/")[2] for option in SCHEMA["$defs"][name]["oneOf"]}
        types = {SCHEMA["$defs"][name]["properties"]["type"]["const"] for name in names}
        told = {message["type"] for message in examples(number)}
        assert told == types


def test_what_a_bot_may_say_in_the_document_is_understood() -> None:
    kinds: dict[str, type] = {
        "end": End,
        "clear": Clear,
        "mark": Mark,
        "caller_speech": CallerSpeech,
        "streamAudio": Speech,
    }
    for message in examples(3):
        wishes = read(message)
        if message["type"] == "resumed":
            assert wishes == []
        else:
            assert [type(wish) for wish in wishes] == [kinds[message["type"]]]


# -- what we say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        protocol().start(resumed=False),
        protocol(24000).start(resumed=True),
        protocol().stop("ended"),
        protocol().stop("caller_hangup"),
        protocol().stop("max_duration"),
        protocol().key("#", 0),
        protocol().mark("x" * MAX_MARK_NAME, cleared=True),
        protocol().cleared(),
        protocol().hold(True),
        protocol().hold(False),
        protocol().error("unusable_audio", "why"),
        protocol().error("property_dropped", "agent_group"),
    ],
)
def test_what_we_say_is_valid(messages: list[Message]) -> None:
    TO_BOT.validate(told(messages))


def test_start_says_who_is_calling() -> None:
    start = {
        "type": "start",
        "version": "1",
        "call_id": INVITE.call_id,
        "workspace_id": INVITE.workspace_id,
        "did": INVITE.did,
        "crt_object_id": INVITE.crt_object_id,
        "from": "0401234567",
        "to": "bot",
        "audio": {"encoding": "l16", "sample_rate": 16000, "channels": 1},
        "traceparent": TRACE,
    }
    assert told(protocol(16000).start(resumed=False)) == start
    assert told(protocol(16000).start(resumed=True)) == {**start, "resumed": True}


@given(st.text(min_size=1, max_size=MAX_MARK_NAME), st.booleans())
def test_every_mark_that_is_taken_can_be_given_back(name: str, cleared: bool) -> None:
    asked = {"type": "mark", "name": name}
    assert FROM_BOT.is_valid(asked)
    assert read(asked) == [Mark(name)]
    answer = told(protocol().mark(name, cleared=cleared))
    TO_BOT.validate(answer)
    assert answer == {**asked, **({"cleared": True} if cleared else {})}


@pytest.mark.parametrize("digit", KEYS)
def test_every_key_is_valid(digit: str) -> None:
    TO_BOT.validate(told(protocol().key(digit, 100)))


def test_the_caller_is_binary_and_so_may_the_bot_be() -> None:
    frame = bytes(range(256)) * 2
    assert protocol().audio(frame, 1.0) == frame
    assert protocol(24000).read(frame) == (Speech(frame, "raw", 24000),)
    assert why(bytes(texts.MAX_AUDIO_BYTES + 1)) == "oversized"


def test_only_1000_means_the_same_as_end() -> None:
    assert protocol().ends_with(1000)
    assert not any(protocol().ends_with(code) for code in (0, 1001, 1005, 1006, 1011, 4000))


# -- who is calling, on the upgrade -----------------------------------------------------------------------


def test_the_headers_are_the_documents() -> None:
    told = headers(INVITE, bot_of("eslbot", 16000), TRACE)
    assert told == {
        "X-Call-ID": INVITE.call_id,
        "X-Workspace-ID": INVITE.workspace_id,
        "X-DID": INVITE.did,
        "X-CRT-Object-ID": INVITE.crt_object_id,
        "X-From": "0401234567",
        "X-Audio-Rate": "16000",
        "traceparent": TRACE,
    }
    assert set(told) == set(re.findall(r"^\| `(X-[A-Za-z-]+|traceparent)` \|", section(1), re.M))


def test_the_trace_of_the_documents_call_is_right() -> None:
    (start,) = (message for message in examples(2) if message["type"] == "start")
    assert start["traceparent"] == traceparent(start["call_id"], 1.0)


@given(st.text(max_size=128))
def test_a_header_is_printable_ascii_and_can_be_undone(caller: str) -> None:
    value = headers(replace(INVITE, caller=caller), bot_of("eslbot"), TRACE).get("X-From", "")
    assert all("!" <= character <= "~" for character in value)
    assert unquote(value) == caller.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("caller", "value"),
    [
        ("+919990152080", "+919990152080"),
        ("a\r\nAuthorization: x", "a%0D%0AAuthorization:%20x"),
        ("Zoë", "Zo%C3%AB"),
        ("100%", "100%"),
        ("%41", "%2541"),
        ("\ud800", "?"),
    ],
)
def test_what_a_header_makes_of_hostile_callers(caller: str, value: str) -> None:
    assert headers(replace(INVITE, caller=caller), bot_of("twilio"), TRACE)["X-From"] == value


def test_a_caller_that_nobody_knows_has_no_header() -> None:
    assert "X-From" not in headers(replace(INVITE, caller=""), bot_of("eslbot"), TRACE)


# -- what a bot says --------------------------------------------------------------------------------------

_value = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50)
_extra = st.dictionaries(st.text(min_size=1).filter(lambda key: key[:1] == "x"), _value, max_size=2)
_valid = (
    st.builds(lambda extra, kind: {**extra, "type": kind}, _extra, st.sampled_from(["clear", "resumed"]))
    | st.builds(
        lambda extra, name: {**extra, "type": "mark", "name": name}, _extra, st.text(min_size=1, max_size=128)
    )
    | st.fixed_dictionaries(
        {"type": st.just("end")},
        optional={
            "properties": st.dictionaries(st.text(max_size=10), _value, max_size=MAX_PROPERTIES),
            "reason": st.text(max_size=300),
        },
    )
    | st.fixed_dictionaries({"type": st.just("caller_speech"), "speaking": st.booleans()})
)


@given(_valid)
def test_what_is_valid_is_taken_as_it_was_meant(message: dict[str, Any]) -> None:
    FROM_BOT.validate(message)
    match read(message):
        case [End(properties=properties, reason=reason, closed=closed)]:
            assert properties == message.get("properties", {})
            assert len(reason) == min(len(message.get("reason", "")), MAX_REASON)
            assert not closed
        case [Mark(name=name)]:
            assert name == message["name"]
        case [CallerSpeech(speaking=speaking)]:
            assert speaking is message["speaking"]
        case wishes:
            assert wishes == ([Clear()] if message["type"] == "clear" else [])


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["end", "clear", "mark", "resumed", "caller_speech", "start", "x"])},
        optional={
            "name": _value,
            "properties": _value | st.dictionaries(st.text(), _value),
            "reason": _value,
        },
    )
)
def test_what_is_taken_though_it_is_not_valid_is_an_end_only(message: dict[str, Any]) -> None:
    try:
        wishes = read(message)
    except BadMessage:
        assert not FROM_BOT.is_valid(message)
    else:
        assert FROM_BOT.is_valid(message) or isinstance(wishes[0], End)


@pytest.mark.parametrize(
    ("message", "end"),
    [
        ({"type": "end"}, End()),
        ({"type": "end", "properties": None, "reason": None}, End()),
        ({"type": "end", "properties": [1], "reason": 7}, End()),
        ({"type": "end", "version": "9", "more": {}}, End()),
        ({"type": "end", "reason": "x" * 500}, End({}, "x" * MAX_REASON)),
        ({"type": "end", "properties": {str(n): n for n in range(MAX_PROPERTIES + 1)}}, End()),
        ({"type": "end", "reason": "a\0b\nc\ud800d\x1b[31m"}, End({}, "a b c d [31m")),
    ],
)
def test_a_bot_that_is_finished_is_finished_whatever_its_details(message: Any, end: End) -> None:
    assert read(message) == [end]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "bad_json"),
        ("end", "bad_json"),
        ('{"type":"end"', "bad_json"),
        ('\ufeff{"type":"end"}', "bad_json"),
        ("[" * 60000, "bad_json"),
        ('"end"', "not_an_object"),
        ('[{"type":"end"}]', "not_an_object"),
        ("null", "not_an_object"),
        ("{}", "unknown_type"),
        ('{"type":"End"}', "unknown_type"),
        ('{"type":["end"]}', "unknown_type"),
        ('{"type":"start"}', "unknown_type"),
        ('{"type":"caller_speech"}', "bad_caller_speech"),
        ('{"type":"caller_speech","speaking":1}', "bad_caller_speech"),
        ('{"type":"mark"}', "bad_mark"),
        ('{"type":"mark","name":""}', "bad_mark"),
        ('{"type":"mark","name":7}', "bad_mark"),
        ('{"type":"mark","name":"' + "x" * 129 + '"}', "bad_mark"),
        ('{"type":"end","reason":"' + "x" * texts.MAX_OTHER + '"}', "oversized"),
        ('{"type":"streamAudio"}', "unusable_audio"),
        ('{"type":"streamAudio","data":[]}', "unusable_audio"),
        ('{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":8000}}', "unusable_audio"),
        ('{"type":"streamAudio","data":{"audioDataType":"raw","audioData":7}}', "unusable_audio"),
        ('{"type":"streamAudio","data":{"audioDataType":"raw","audioData":"AAA"}}', "unusable_audio"),
        ('{"type":"streamAudio","data":{"audioDataType":"raw","audioData":"A A="}}', "unusable_audio"),
        ('{"type":"streamAudio","data":{"audioDataType":"raw","audioData":"ÄÄÄÄ"}}', "unusable_audio"),
        ('{"type":"streamAudio","data":{"audioDataType":["raw"],"audioData":"AAAA"}}', "unusable_audio"),
        (
            '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":"8000","audioData":"AAAA"}}',
            "unusable_audio",
        ),
        (
            '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":NaN,"audioData":"AAAA"}}',
            "unusable_audio",
        ),
    ],
)
def test_what_is_not_used_is_counted_by_a_fixed_word(text: str, word: str) -> None:
    assert why(text) == word


@pytest.mark.parametrize("kind", decoder.KINDS)
@pytest.mark.parametrize("rate", [*decoder.RATES, None, 44100, 8000.5])
def test_the_formats_of_the_schema_are_the_decoders(kind: str, rate: Any) -> None:
    l16 = wav(bytes(320), rate if rate in decoder.RATES else 8000) if kind == "wav" else bytes(320)
    data = {"audioDataType": kind, "sampleRate": rate, "audioData": base64.b64encode(l16).decode()}
    if rate is None:
        del data["sampleRate"]
    message = {"type": "streamAudio", "data": data}
    valid = FROM_BOT.is_valid(message)
    try:
        (speech,) = read(message)
        assert isinstance(speech, Speech)
        decoder.Decoder().decode(speech)
    except (UnusableAudio, BadMessage):
        assert not valid
    else:
        assert valid or (kind == "wav" and rate == 44100), "a wav file's own rate counts"


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus", "", "RAW"])
def test_other_formats_are_refused_by_both(kind: str) -> None:
    data = {"audioDataType": kind, "sampleRate": 8000, "audioData": "AAAA"}
    message = {"type": "streamAudio", "data": data}
    assert not FROM_BOT.is_valid(message)
    (speech,) = read(message)
    assert isinstance(speech, Speech)
    with pytest.raises(UnusableAudio):
        decoder.Decoder().decode(speech)


# -- the document's figures and its bot -------------------------------------------------------------------


def test_the_figures_are_the_codes() -> None:
    schema = SCHEMA["$defs"]
    assert schema["markName"]["maxLength"] == MAX_MARK_NAME
    assert schema["end"]["properties"]["properties"]["maxProperties"] == MAX_PROPERTIES
    assert schema["streamAudio"]["properties"]["data"]["properties"]["sampleRate"]["enum"] == [*decoder.RATES]
    assert schema["start"]["properties"]["audio"]["properties"]["sample_rate"]["enum"] == [*decoder.RATES]
    assert schema["start"]["properties"]["version"]["const"] == VERSION
    for said in (
        f"any other message | {texts.MAX_OTHER // 1024} KiB |",
        f"{texts.MAX_AUDIO_BYTES >> 20} MiB, before base64",
        f"1 to {MAX_MARK_NAME} characters",
        f"at most {MAX_PROPERTIES}.",
        f"the first {MAX_REASON} characters",
        f"up to {MAX_VALUE_BYTES:,} bytes",
        f"{budgets.MESSAGES} a second, and {budgets.MESSAGES_AT_ONCE:,} at once",
        f"{budgets.BYTES >> 20} MiB a second, and {budgets.BYTES_AT_ONCE >> 20} MiB at once",
        f"a sample beyond ±{levels.AUDIBLE} of 32,768",
        f"| marks that wait | {playout.MAX_MARKS:,} |",
        f"| speech waiting to be heard | {playout.MAX_QUEUED_SECONDS} s |",
        f"more than {playout.MAX_QUEUED_SECONDS} s of speech are waiting to be heard, "
        f"or {playout.MAX_MARKS:,} marks",
        f"up\nto {playout.MAX_QUEUED_SECONDS} s ahead of the caller",
        f"| last words behind `end` | {bot_part.LAST_WORDS:g} s |",
        f"What is queued is still heard, for up to {bot_part.LAST_WORDS:g} s;",
        f"(at most {playout_delay.MAX_DELAY:g} s)",
        f"no relay carries the line for {link.RELAY_DUE:g} s",
        f"leaves {dialler.MAX_UNREAD >> 20} MiB of the caller unread",
        f"answers no ping for {dialler.PING_INTERVAL:g} s",
        f"may come up to {predecessor.MAX_LATENESS:g} s late",
    ):
        assert said in DOCUMENT, said
    assert bot_part.LAST_WORDS < leg.LAST_WORDS, "a relay that tells of its cut is waited for"


def test_the_outcomes_are_the_codes() -> None:
    others = {"caller_hangup", "controller_lost", "media_timeout", "our_bye"}
    assert set(re.findall(r"hand-off.*?: `([a-z_]+)`", section(5))) == set(Outcome) - others

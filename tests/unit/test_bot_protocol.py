"""``docs/bot-protocol.md`` and the JSON Schema say what the code does, in both directions."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from eslbot.ameyo.properties import MAX_VALUE_BYTES
from eslbot.bot import audio, leg, messages, speech
from eslbot.bot.messages import MAX_MARK_NAME, MAX_MESSAGE_BYTES, MAX_PROPERTIES, MAX_REASON, BadMessage
from eslbot.outcome import Outcome
from eslbot.sim.audio import heard
from eslbot.sim.bot import wires
from tests.unit.test_bot_messages import INVITE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "bot-protocol.md").read_text()
SCHEMA = json.loads(resources.files("eslbot.bot").joinpath("protocol.schema.json").read_text())


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


TO_BOT, FROM_BOT = validator("toBot"), validator("fromBot")


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
    for message in examples(3):
        taken = messages.parse(json.dumps(message).encode())
        kind = {
            "end": messages.End,
            "clear": messages.Clear,
            "mark": messages.Mark,
            "resumed": messages.Resumed,
            "caller_speech": messages.CallerSpeech,
            "streamAudio": messages.UnusableSpeech,
        }
        assert isinstance(taken, kind[message["type"]])


# -- what we say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        messages.start(INVITE, 8000),
        messages.start(INVITE, 16000, resumed=True),
        messages.stop("ended"),
        messages.stop("max_duration"),
        messages.dtmf("#", 0),
        messages.dtmf("5", 120),
        messages.mark("x", cleared=False),
        messages.mark("x" * MAX_MARK_NAME, cleared=True),
        messages.cleared(),
        messages.resumed(),
        messages.error("unusable_audio", "why"),
    ],
)
def test_what_we_say_is_valid(text: str) -> None:
    TO_BOT.validate(json.loads(text))


@given(st.text(min_size=1, max_size=MAX_MARK_NAME), st.booleans())
def test_every_mark_that_is_taken_can_be_given_back(name: str, cleared: bool) -> None:
    asked = {"type": "mark", "name": name}
    assert FROM_BOT.is_valid(asked)
    assert messages.parse(json.dumps(asked).encode()) == messages.Mark(name)
    TO_BOT.validate(json.loads(messages.mark(name, cleared=cleared)))


@pytest.mark.parametrize("digit", sorted(leg.KEYS))
def test_every_key_is_valid(digit: str) -> None:
    TO_BOT.validate(json.loads(messages.dtmf(digit, 100)))


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
    taken = messages.parse(json.dumps(message).encode())
    match taken:
        case messages.End():
            assert taken.properties == message.get("properties", {})
            assert len(taken.reason) == min(len(message.get("reason", "")), MAX_REASON)
        case messages.Mark():
            assert taken.name == message["name"]
        case messages.CallerSpeech():
            assert taken.speaking is message["speaking"]
        case _:
            assert taken == (messages.Clear() if message["type"] == "clear" else messages.Resumed())


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
        taken = messages.parse(json.dumps(message).encode())
    except BadMessage:
        assert not FROM_BOT.is_valid(message)
    else:
        assert FROM_BOT.is_valid(message) or isinstance(taken, messages.End)


@pytest.mark.parametrize("kind", audio.KINDS)
@pytest.mark.parametrize("rate", [*audio.RATES, None, 44100, "8000"])
def test_the_formats_of_the_schema_are_the_decoders(kind: str, rate: Any) -> None:
    l16 = bytes(320)
    data = wires.stream_audio(l16, kind, rate if rate in audio.RATES else 8000)["data"]
    data |= {"sampleRate": rate}
    if rate is None:
        del data["sampleRate"]
    valid = FROM_BOT.is_valid({"type": "streamAudio", "data": data})
    try:
        number = rate if isinstance(rate, int) else 0
        audio.Decoder().decode(base64.b64decode(data["audioData"]), kind, number, "PCMU")
    except audio.UnusableAudio:
        assert not valid
    else:
        # A wav file's own rate counts; a text is no number, which pcmu and pcma do not need.
        assert valid or rate in (44100, "8000")


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus", "", "RAW"])
def test_other_formats_are_refused_by_both(kind: str) -> None:
    data = {"audioDataType": kind, "sampleRate": 8000, "audioData": "AAAA"}
    assert not FROM_BOT.is_valid({"type": "streamAudio", "data": data})
    with pytest.raises(audio.UnusableAudio):
        audio.Decoder().decode(b"\0\0\0", kind, 8000, "PCMU")


# -- the document's figures and its bot -------------------------------------------------------------------


def test_the_figures_are_the_codes() -> None:
    schema = SCHEMA["$defs"]
    assert schema["markName"]["maxLength"] == MAX_MARK_NAME
    assert schema["end"]["properties"]["properties"]["maxProperties"] == MAX_PROPERTIES
    assert schema["streamAudio"]["properties"]["data"]["properties"]["sampleRate"]["enum"] == [*audio.RATES]
    assert schema["start"]["properties"]["version"]["const"] == messages.VERSION
    for said in (
        f"{MAX_MESSAGE_BYTES // 1024} KiB",
        f"{speech.MAX_CHUNK_BYTES >> 20} MiB",
        f"1 to {MAX_MARK_NAME} characters",
        f"at most {MAX_PROPERTIES}.",
        f"the first {MAX_REASON} characters",
        f"up to {MAX_VALUE_BYTES:,} bytes",
        f"up to {speech.MAX_QUEUED:.0f} s ahead",
        f"for up to {leg.LAST_WORDS:.0f} s;",
        f"about {speech.LINE_DELAY * 1000:.0f} ms\n  later",
    ):
        assert said in DOCUMENT, said
    assert "heard about 0.1 s behind its first chunk, so later\nones may come some 70 ms late" in DOCUMENT
    assert 0.070 <= speech.START_DELAY <= 0.090


def test_the_outcomes_are_the_codes() -> None:
    others = {"caller_hangup", "controller_lost", "internal_error", "media_timeout", "our_bye"}
    assert set(re.findall(r"`(bot_[a-z]+|max_duration)`", section(5))) == set(Outcome) - others


def test_the_documents_bot_greets_and_ends() -> None:
    (program,) = blocks(DOCUMENT, "python")
    names: dict[str, Any] = {"__name__": "a_bot"}
    exec(compile(program, "docs/bot-protocol.md", "exec"), names)

    async def call(interrupt: bool) -> tuple[bytes, list[dict[str, Any]]]:
        l16, others = b"", []
        async with serve(names["bot"], "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with asyncio.timeout(5), connect(f"ws://127.0.0.1:{port}/", compression=None) as socket:
                await socket.send(bytes(320))
                await socket.send(messages.start(INVITE, 8000))
                if interrupt:
                    await socket.send(messages.dtmf("1", 120))
                while not others or others[-1]["type"] != "end":
                    message = json.loads(await socket.recv())
                    FROM_BOT.validate(message)
                    if message["type"] == "streamAudio":
                        assert message["data"]["audioDataType"] == "raw"
                        chunk = base64.b64decode(message["data"]["audioData"])
                        assert len(chunk) <= 8000
                        l16 += chunk
                        continue
                    others.append(message)
                    if message["type"] == ("clear" if interrupt else "mark"):
                        await socket.send(messages.mark("greeted", cleared=interrupt))
                await socket.send(messages.stop("ended"))
        return l16, others

    l16, (mark, end) = asyncio.run(call(interrupt=False))
    assert heard(l16, 440, 16000) == pytest.approx(1.0)
    assert mark == {"type": "mark", "name": "greeted"}
    assert end["properties"] == {"summary": "greeted"}
    _, (_, clear, end) = asyncio.run(call(interrupt=True))
    assert clear == {"type": "clear"}
    assert end["properties"] == {"summary": "interrupted"}


def test_the_documents_bot_repeats_what_may_have_been_lost() -> None:
    (program,) = blocks(DOCUMENT, "python")
    names: dict[str, Any] = {"__name__": "a_bot"}
    exec(compile(program, "docs/bot-protocol.md", "exec"), names)
    mark, clear, resumed = {"type": "mark", "name": "greeted"}, {"type": "clear"}, {"type": "resumed"}
    end = {"type": "end", "properties": {"summary": "greeted"}, "reason": "done"}

    async def call() -> None:
        async with (
            serve(names["bot"], "127.0.0.1", 0, compression=None) as server,
            asyncio.timeout(5),
            connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/") as socket,
        ):

            async def comes(*expected: dict[str, Any]) -> None:
                for one in expected:
                    while (message := json.loads(await socket.recv()))["type"] == "streamAudio":
                        pass
                    FROM_BOT.validate(message)
                    assert message == one

            await socket.send(messages.start(INVITE, 8000))
            await comes(mark)
            await socket.send(messages.resumed())
            await comes(resumed, mark)
            await socket.send(messages.dtmf("1", 120))
            await comes(clear)
            await socket.send(messages.resumed())
            await comes(resumed, clear, mark)
            await socket.send(messages.mark("unknown", cleared=False))
            await socket.send(messages.cleared())
            await socket.send(messages.mark("greeted", cleared=False))
            await comes(end)
            await socket.send(messages.mark("greeted", cleared=False))  # twice: the bot must not mind
            await socket.send(messages.resumed())
            await comes(resumed, end)

    asyncio.run(call())

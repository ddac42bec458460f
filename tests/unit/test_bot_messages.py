"""DESIGN section 4: what a bot may say, what it is told, and what of its words goes on to Ameyo."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.ameyo.notification import notification
from eslbot.ameyo.properties import MAX_VALUE_BYTES, PLACEHOLDERS, allowed, fill, unknown_placeholders
from eslbot.bot import messages, stream
from eslbot.bot.stream import body, describe
from eslbot.esl import Event
from eslbot.invite import Invite

INVITE = Invite(
    call_id="6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b",
    did="00919990152080",
    crt_object_id="d444-$\\{};'3883",
    workspace_id="2b37ba17-7b20-4b3e-b138-1161e351d5c5",
    source_ip="203.0.113.10",
    caller="0401234567",
    to="bot",
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def why(text: bytes) -> str:
    with pytest.raises(messages.BadMessage) as caught:
        messages.parse(text)
    return str(caught.value)


def test_end_with_everything() -> None:
    end = messages.parse(b'{"type":"end","properties":{"summary":"ok","n":3},"reason":"done"}')
    assert end == messages.End({"summary": "ok", "n": 3}, "done")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"type":"end"}', messages.End()),
        ('{"type":"end","properties":null,"reason":null}', messages.End()),
        ('{"type":"end","properties":[1],"reason":7}', messages.End()),
        ('{"type":"end","version":"9","more":{}}', messages.End()),
        (json.dumps({"type": "end", "reason": "x" * 500}), messages.End({}, "x" * 200)),
        (json.dumps({"type": "end", "properties": {str(n): n for n in range(65)}}), messages.End()),
        ('{"type":"end","reason":"a\\u0000b\\nc\\ud800d\\u001b[31m"}', messages.End({}, "a b c d [31m")),
    ],
)
def test_a_bot_that_is_finished_is_finished_whatever_its_details(text: str, end: messages.End) -> None:
    assert messages.parse(text.encode()) == end


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "bad_json"),
        (b"end", "bad_json"),
        (b'{"type":"end"', "bad_json"),
        (b'\xff{"type":"end"}', "bad_json"),
        (b"[" * 60000, "bad_json"),
        (b'"end"', "not_an_object"),
        (b'[{"type":"end"}]', "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "unknown_type"),
        (b'{"type":"End"}', "unknown_type"),
        (b'{"type":["end"]}', "unknown_type"),
        (b'{"type":"start"}', "unknown_type"),
        (b'{"type":"caller_speech"}', "bad_caller_speech"),
        (b'{"type":"caller_speech","speaking":1}', "bad_caller_speech"),
        (b'{"type":"mark"}', "bad_mark"),
        (b'{"type":"mark","name":""}', "bad_mark"),
        (b'{"type":"mark","name":7}', "bad_mark"),
        (b'{"type":"mark","name":"' + b"x" * 129 + b'"}', "bad_mark"),
        (b'{"type":"end","reason":"' + b"x" * messages.MAX_MESSAGE_BYTES + b'"}', "oversized"),
    ],
)
def test_what_is_not_used_is_counted_by_a_fixed_word(text: bytes, reason: str) -> None:
    assert why(text) == reason


@given(st.binary(max_size=300) | _json.map(lambda value: json.dumps(value).encode()))
def test_nothing_a_bot_sends_is_fatal(text: bytes) -> None:
    try:
        end = messages.parse(text)
    except messages.BadMessage as error:
        assert str(error) in {
            "oversized",
            "bad_json",
            "not_an_object",
            "unknown_type",
            "bad_mark",
            "bad_caller_speech",
        }
    else:
        assert json.loads(text)["type"] in ("end", "clear", "mark", "resumed", "streamAudio")
        assert not isinstance(end, messages.End) or len(end.reason) <= messages.MAX_REASON


@pytest.mark.parametrize("text", ['{"type":"resumed"}', '{"type":"resumed","version":"9","marks":[]}'])
def test_the_answer_to_resumed_is_taken_whatever_else_is_in_it(text: str) -> None:
    assert messages.parse(text.encode()) == messages.Resumed()


def test_resumed_says_nothing_else() -> None:
    assert json.loads(messages.resumed()) == {"type": "resumed"}


@given(_json, _json)
def test_an_end_is_an_end(properties: Any, reason: Any) -> None:
    end = messages.parse(json.dumps({"type": "end", "properties": properties, "reason": reason}).encode())
    assert isinstance(end.properties, dict)
    assert end.reason == "" or end.reason.isprintable()
    end.reason.encode()


def test_start_says_who_is_calling() -> None:
    assert json.loads(messages.start(INVITE, 16000)) == {
        "type": "start",
        "version": "1",
        "call_id": INVITE.call_id,
        "workspace_id": INVITE.workspace_id,
        "did": INVITE.did,
        "crt_object_id": INVITE.crt_object_id,
        "from": "0401234567",
        "to": "bot",
        "audio": {"encoding": "l16", "sample_rate": 16000, "channels": 1},
    }


def test_stop_says_why() -> None:
    assert json.loads(messages.stop("max_duration")) == {"type": "stop", "reason": "max_duration"}


def test_identity_headers_are_not_the_workspaces_to_change() -> None:
    own = {"Authorization": "Bearer x", "X-DID": "forged"}
    assert json.loads(messages.identity(INVITE, own)) == {
        "Authorization": "Bearer x",
        "X-Call-ID": INVITE.call_id,
        "X-Workspace-ID": INVITE.workspace_id,
        "X-DID": INVITE.did,
        "X-CRT-Object-ID": INVITE.crt_object_id,
    }


# -- events of mod_audio_stream ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "described"),
    [
        (b'{"status":"disconnected","message":{"code":1000,"reason":"done"}}', (1000, "done")),
        (b'{"status":"disconnected","message":{"code":1006,"reason":""}}', (1006, "")),
        (b'{"status":"error","message":{"code":6,"error":"Connection refused"}}', (6, "Connection refused")),
        (b'{"message":{"code":1000,"reason":"a\\u0000b"}}', (1000, "a b")),
        (b'{"message":{"code":"x","reason":7}}', (0, "7")),
        (b'{"message":"no"}', (0, "")),
        (b"{}", (0, "")),
        (b"[]", (0, "")),
        (b"", (0, "")),
        (b"nonsense", (0, "")),
    ],
)
def test_errors_and_disconnects_are_described(text: bytes, described: tuple[int, str]) -> None:
    assert describe(Event({}, text)) == described


@given(st.binary(max_size=100))
def test_any_body_is_an_object_or_nothing(text: bytes) -> None:
    assert isinstance(body(Event({}, text)), dict)


# -- properties -------------------------------------------------------------------------------------------


def test_only_listed_plain_values_go_to_ameyo() -> None:
    offered = {
        "summary": "billing",
        "score": 1.5,
        "vip": True,
        "none": None,
        "secret": "not listed",
        "list": [1],
        "table": {"a": 1},
        "long": "x" * MAX_VALUE_BYTES,
        "nan": float("nan"),
        "inf": float("-inf"),
    }
    names = [name for name in offered if name != "secret"]
    taken, dropped = allowed(offered, names)
    assert taken == {"summary": "billing", "score": 1.5, "vip": True, "none": None}
    assert dropped == ["secret", "list", "table", "long", "nan", "inf"]


@given(st.dictionaries(st.text(), _json, max_size=5))
def test_what_goes_to_ameyo_is_json_for_everyone(offered: dict[str, Any]) -> None:
    taken, dropped = allowed(offered, list(offered))
    assert sorted([*taken, *dropped]) == sorted(offered)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    document = json.loads(notification("crt", taken), parse_constant=no_constant)
    assert set(document["properties"]) == set(taken)


def test_placeholders_are_filled_once() -> None:
    values = {name: f"<{name}>" for name in PLACEHOLDERS} | {"reason": "{did}"}
    assert fill({"a": "{did}/{reason}", "b": "{", "c": "{DID}", "d": "{{did}}"}, values) == {
        "a": "<did>/{did}",
        "b": "{",
        "c": "{DID}",
        "d": "{<did>}",
    }


def test_unknown_placeholders_are_found() -> None:
    assert unknown_placeholders("{did} {nope} {also_not}") == ["nope", "also_not"]
    assert unknown_placeholders(" ".join(f"{{{name}}}" for name in PLACEHOLDERS)) == []


# -- bounds -----------------------------------------------------------------------------------------------

_MOST = messages.MAX_MESSAGE_BYTES
HOSTILE = {
    "numbers": b"[%b1]" % (b"1e308," * (_MOST // 6 - 1)),
    "lists": b"[%b1]" % (b"[]," * (_MOST // 3 - 1)),
    "objects": b"[%b1]" % (b"{}," * (_MOST // 3 - 1)),
    "keys": b"{%b}" % b",".join(b'"%d":1' % number for number in range(26_000)),
    "digits": b"[%b1]" % ((b"9" * 4290 + b",") * 60),
    "depth": b"[" * _MOST,
    "escapes": b'"%b"' % (b"\\u1234" * (_MOST // 6 - 1)),
    "a kind of speech": b'{"type":"streamAudio","data":{"audioDataType":[%b1]}}' % (b"[]," * 80_000),
    "an end": b'{"type":"end","properties":{"a":[%b1]},"reason":[1]}' % (b"1," * 120_000),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_message_keeps_the_loop_for_long(text: bytes) -> None:
    assert len(text) <= messages.MAX_MESSAGE_BYTES
    times = []
    for _ in range(3):
        began = time.thread_time()  # the work itself, whatever else this machine does
        with contextlib.suppress(messages.BadMessage):
            messages.parse(text)
        times.append(time.thread_time() - began)
    assert min(times) < 0.05


def test_what_stands_for_a_kind_of_speech_is_short() -> None:
    for kind in (["x"] * 20_000, {"x": 1}, "x" * 50_000, 1e308, None):
        text = json.dumps({"type": "streamAudio", "data": {"audioDataType": kind, "sampleRate": kind}})
        message = messages.parse(text.encode())
        assert isinstance(message, messages.UnusableSpeech)
        assert len(message.kind) <= 30 and len(message.rate) <= 30


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (b'{"type":"end"}', True),
        (b'{"type": "\\u0065nd", "x": 1}', True),
        (b'{"type":"clear"}', False),
        (b'["end"]', False),
        (b'{"type":"end"', False),
        (b'{"type":"end","x":"%b"}' % (b"x" * messages.MAX_MESSAGE_BYTES), False),
    ],
)
def test_what_is_an_end(text: bytes, is_one: bool) -> None:
    assert messages.is_end(text) is is_one


@pytest.mark.parametrize("name", [stream.DISCONNECT, stream.ERROR, stream.CONNECT, "PLAYBACK_START"])
def test_what_is_never_lost(name: str) -> None:
    assert stream.ends(Event({}, b"", name))
    assert stream.ends(Event({}, b'{"type":"end"}', stream.JSON))
    assert not stream.ends(Event({}, b'{"type":"mark","name":"x"}', stream.JSON))
    assert not stream.ends(Event({}, b'{"type":"end"}', stream.PLAY))


def test_a_body_of_the_modules_has_a_bound() -> None:
    text = json.dumps({"file": "x", "padding": "x" * messages.MAX_MESSAGE_BYTES}).encode()
    assert stream.body(Event({}, text, stream.PLAY)) == {}

"""The bot's stand-in, as a WebSocket client sees it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import wave
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from eslbot.audio import g711
from eslbot.cli import main
from eslbot.sim.audio import heard, silence, tone
from eslbot.sim.bot import GOODBYE, GREETING, PROPERTIES, Bot, Recorder, UnusableFile, WavFile
from eslbot.sim.bot.wavfiles import wav
from eslbot.sim.pbx.certificates import LoopbackAuthority
from tests.component.sim.bot_client import join, until

FRAME = tone(350, 0.02)


@pytest.fixture
def events():
    return []


@pytest.fixture
def bot(events):
    with Bot(emit=lambda event, fields: events.append((event, fields))) as bot:
        yield bot


def until_closed(ws: ClientConnection) -> list[str]:
    """What came before the connection ended other than by close 1000."""
    texts = []
    with pytest.raises(ConnectionClosedError):
        while True:
            texts.append(ws.recv(timeout=5))
    return texts


def test_talk_greets_listens_says_goodbye_and_ends(bot, events):
    with join(bot, "talk?listen_ms=200", X_Call_ID="c-1", X_DID="0091") as ws:
        begun = time.monotonic()
        greeting = b""
        while len(greeting) < 0.6 * 16000:
            data = json.loads(ws.recv(timeout=5))["data"]
            chunk = base64.b64decode(data["audioData"])
            assert data["sampleRate"] == 8000 and len(chunk) <= 1600
            greeting += chunk
        assert time.monotonic() - begun > 0.45, "the greeting was not paced"
        assert heard(greeting, GREETING) == pytest.approx(0.6)

        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.15)  # it listens, and nobody has spoken
        for _ in range(10):
            ws.send(FRAME)
        goodbye, end = until(ws, "end")
        assert heard(goodbye, GOODBYE) == pytest.approx(0.4)
        assert end == {"type": "end", "properties": PROPERTIES, "reason": "done"}
    call = bot.wait_for_call(lambda call: call.call_id == "c-1")
    call.wait_closed()
    assert (call.close_code, call.closed_by, call.error) == (1000, "peer", None)
    assert call.behaviour == "talk" and call.headers["x-did"] == "0091"
    assert call.audio_frames == 10 and call.audio_seconds == pytest.approx(0.2)
    assert heard(call.audio(), 350) == pytest.approx(0.2)
    assert call.first_audio is not None and call.started <= call.first_audio <= call.ended_at
    assert [round(said.seconds, 2) for said in call.said] == [0.6, 0.4]
    names = [name for name, fields in events if fields["call_id"] == "c-1"]
    assert sorted(names) == ["audio", "call", "closed", "end", "said", "said"]
    assert names[0] == "call" and names[-1] == "closed"


def test_hold_does_what_the_test_says(bot):
    with join(bot, "hold?greeting_ms=20") as ws:
        call = bot.wait_for_call()
        until_said = json.loads(ws.recv(timeout=5))
        assert until_said["type"] == "streamAudio"
        call.mark("here")
        call.clear()
        call.say(tone(880, 0.3), chunk_ms=50, real_time=False)
        call.end({"agent_group": "x"}, reason="test")
        assert json.loads(ws.recv(timeout=5)) == {"type": "mark", "name": "here"}
        assert json.loads(ws.recv(timeout=5)) == {"type": "clear"}
        speech, end = until(ws, "end")
        assert heard(speech, 880) == pytest.approx(0.3)
        assert end["properties"] == {"agent_group": "x"} and end["reason"] == "test"
        assert not call.closed
        call.close(1000, "bye")
        assert until_closed_ok(ws) == (1000, "bye")
    call.wait_closed()
    assert call.closed_by == "bot"


def until_closed_ok(ws: ClientConnection) -> tuple[int | None, str | None]:
    for _ in ws:
        pass
    return ws.close_code, ws.close_reason


def test_messages_and_garbage_of_the_switch_are_kept(bot):
    with join(bot, "silent") as ws:
        ws.send('{"type":"start","version":"1"}')
        ws.send("no json")
        ws.send("[]")
        ws.send('{"type":"dtmf","digit":"5"}')
        call = bot.wait_for_call()
        assert call.wait_for_message("dtmf").message["digit"] == "5"
        assert [received.type for received in call.messages] == ["start", None, None, "dtmf"]
        assert call.messages[1].text == "no json" and call.messages[1].message is None
        with pytest.raises(TimeoutError):
            call.wait_for_message("stop", timeout=0.05)


def test_one_breath_says_all_at_once_and_ends(bot):
    begun = time.monotonic()
    with join(bot, "one-breath") as ws:
        speech, end = until(ws, "end")
    assert time.monotonic() - begun < 0.9, "a second of speech was paced"
    assert heard(speech, GREETING) == pytest.approx(0.7)
    assert heard(speech, GOODBYE) == pytest.approx(0.3)
    assert end["properties"] == PROPERTIES


@pytest.mark.parametrize(("behaviour", "code"), [("close", 1000), ("error-close", 1011)])
def test_closing(bot, behaviour, code):
    with join(bot, f"{behaviour}?greeting_ms=20") as ws:
        if code == 1000:
            assert until_closed_ok(ws)[0] == code
        else:
            until_closed(ws)
        assert ws.close_code == code
    call = bot.wait_for_call()
    call.wait_closed()
    assert (call.close_code, call.closed_by) == (code, "bot")


def test_abort_drops_without_a_close_frame(bot):
    with join(bot, "abort?greeting_ms=100") as ws:
        until_closed(ws)
        assert ws.protocol.close_rcvd is None and ws.close_code == 1006
    call = bot.wait_for_call()
    call.wait_closed()
    assert (call.close_code, call.closed_by) == (1006, None)


def test_a_held_call_can_be_aborted_from_the_test(bot):
    with join(bot, "hold?greeting_ms=20") as ws:
        ws.recv(timeout=5)
        call = bot.wait_for_call()
        ws.send(FRAME)
        call.wait(lambda call: call.audio_frames == 1)
        call.abort()
        assert until_closed(ws) == []
        assert ws.protocol.close_rcvd is None
    call.wait_closed()
    assert call.close_code == 1006


def test_a_peer_that_vanishes_is_noticed(bot):
    with join(bot, "silent") as ws:
        call = bot.wait_for_call()
        ws.close_socket()
        call.wait_closed()
    assert call.close_code == 1006


def test_reject_and_unknown_paths(bot):
    for path, status in ("reject?x=1", 403), ("nonsense", 404):
        with pytest.raises(InvalidStatus) as caught, join(bot, path, X_Call_ID="r"):
            pass
        assert caught.value.response.status_code == status
    assert [upgrade.path for upgrade in bot.refused] == ["/reject?x=1", "/nonsense"]
    assert bot.refused[0].headers["x-call-id"] == "r"
    assert bot.calls == []


def test_junk_then_talk(bot):
    with join(bot, "junk?listen_ms=0&greeting_ms=100") as ws:
        texts = []
        while '"end"' not in (text := ws.recv(timeout=5)):
            texts.append(text)

    def is_json(text: str) -> bool:
        try:
            json.loads(text)
        except ValueError:
            return False
        return True

    assert [is_json(text) for text in texts[:2]] == [False, False]
    rest = [json.loads(text) for text in texts[2:]]
    assert isinstance(rest[0], list) and rest[1] is None
    assert max(map(len, texts)) > 70_000
    assert {m["data"]["audioDataType"] for m in rest if isinstance(m, dict) and "data" in m} == {
        "raw",
        "opus",
    }
    with pytest.raises(ValueError, match=r"base64|padding|characters"):
        for message in rest:
            if isinstance(message, dict) and "data" in message:
                base64.b64decode(message["data"]["audioData"], validate=True)


def test_resumed_is_answered_and_the_end_repeated(bot):
    with join(bot, "hold?greeting_ms=0") as ws:
        call = bot.wait_for_call()
        ws.send('{"type":"resumed"}')
        assert json.loads(ws.recv(timeout=5)) == {"type": "resumed"}
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.1)  # no end to repeat
        call.end({"a": "b"})
        first = json.loads(ws.recv(timeout=5))
        ws.send('{"type":"resumed"}')
        assert json.loads(ws.recv(timeout=5)) == {"type": "resumed"}
        assert json.loads(ws.recv(timeout=5)) == first


def texts_until(ws: ClientConnection, kind: str) -> list[dict]:
    """The messages that are not speech, up to the first of type ``kind``."""
    found: list[dict] = []
    while not found or found[-1]["type"] != kind:
        message = json.loads(ws.recv(timeout=5))
        if message["type"] != "streamAudio":
            found.append(message)
    return found


def send(ws: ClientConnection, **message: object) -> None:
    ws.send(json.dumps(message))


def test_marks_that_have_not_come_back_are_known(bot):
    with join(bot, "hold?greeting_ms=0") as ws:
        call = bot.wait_for_call()
        for name in "a", "b", "a", "c":
            call.mark(name)
        send(ws, type="mark", name="a", cleared=True)
        send(ws, type="mark", name="unknown")
        send(ws, type="mark", name=["c"])
        call.wait(lambda call: len(call.messages_of("mark")) == 3)
        assert call.marks_waited_for == ["b", "a", "c"]


def test_an_end_is_repeated_on_the_calls_next_connection(bot):
    end = {"type": "end", "properties": {"a": "b"}, "reason": "sold"}
    with join(bot, "hold?greeting_ms=0", X_Call_ID="c") as ws:
        bot.wait_for_call().end({"a": "b"}, reason="sold")
        assert texts_until(ws, "end") == [end]
    for number in 1, 2:  # whatever the path, and as often as it takes
        with join(bot, "talk", X_Call_ID="c") as ws:
            ws.send(FRAME)
            call = bot.wait_for_call(
                lambda call, number=number: call is bot.calls[-1] and len(bot.calls) > number
            )
            call.wait(lambda call: call.audio_frames == 1)
            with pytest.raises(TimeoutError):
                ws.recv(timeout=0.1)  # start may come behind the first audio
            send(ws, type="start", resumed=True)
            assert json.loads(ws.recv(timeout=5)) == end
        call.wait_closed()
    assert [call.resumed for call in bot.calls] == [False, True, True]


def test_a_close_is_repeated_on_the_calls_next_connection(bot):
    with join(bot, "close?greeting_ms=20", X_Call_ID="c") as ws:
        until_closed_ok(ws)
    with join(bot, "close?greeting_ms=20", X_Call_ID="c") as ws:
        send(ws, type="start", resumed=True)
        with pytest.raises(ConnectionClosedOK):
            ws.recv(timeout=5)  # no greeting
        assert ws.close_code == 1000


@pytest.mark.parametrize(
    ("path", "call_id", "start"),
    [
        ("hold?greeting_ms=20", "c", {"type": "start", "resumed": True}),  # it was not finished
        ("close?greeting_ms=20", "c", {"type": "start"}),  # another call with the same id
        ("close?greeting_ms=20", None, {"type": "start", "resumed": True}),  # nobody knows which call
    ],
)
def test_other_connections_begin_anew(bot, path, call_id, start):
    headers = {"X_Call_ID": call_id} if call_id else {}
    for number in range(2):
        with join(bot, path, **headers) as ws:
            if number:
                with contextlib.suppress(ConnectionClosedOK):  # it may have greeted and closed by now
                    ws.send(json.dumps(start))
            assert json.loads(ws.recv(timeout=5))["type"] == "streamAudio"
        bot.calls[number].wait_closed()


def speak(ws: ClientConnection) -> tuple[int, dict]:
    """Speak until the bot says something: how many frames that took, and what it says."""
    for frames in range(100):
        with contextlib.suppress(TimeoutError):
            return frames, json.loads(ws.recv(timeout=0.05))
        ws.send(FRAME)
    raise TimeoutError("the bot says nothing")


def test_converse_speaks_and_listens_in_turns(bot):
    with join(bot, "converse?turns=2&speak_ms=120&listen_ms=60&chunk_ms=40") as ws:
        message = json.loads(ws.recv(timeout=5))
        for _ in range(2):
            speech = base64.b64decode(message["data"]["audioData"])
            while len(speech) < 0.12 * 16000:
                speech += base64.b64decode(json.loads(ws.recv(timeout=5))["data"]["audioData"])
            assert heard(speech, GREETING) == pytest.approx(0.12)
            with pytest.raises(TimeoutError):
                ws.recv(timeout=0.15)  # nobody has spoken
            frames, message = speak(ws)
            assert frames >= 3
        assert message["type"] == "end"
    assert [said.seconds for said in bot.calls[0].said] == [pytest.approx(0.12)] * 2


def test_converse_goes_on_until_it_is_ended(bot):
    with join(bot, "converse?speak_ms=20&listen_ms=20") as ws:
        call = bot.wait_for_call()
        for _ in range(20):
            assert speak(ws)[1]["type"] == "streamAudio"
        call.wait(lambda call: len(call.said) >= 20)
        call.end({})
        until(ws, "end")
        ws.send(FRAME)
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.1)
    call.wait_closed()
    assert call.error is None


@pytest.mark.parametrize("rate", [8000, 24000])
def test_drone_is_one_tone_in_real_time_and_ends(bot, rate):
    begun = time.monotonic()
    with join(bot, f"drone?seconds=2&chunk_ms=30&rate={rate}") as ws:
        speech, end = until(ws, "end")
    assert time.monotonic() - begun > 1.9
    assert speech == tone(GREETING, 2.0, rate) and end["properties"] == PROPERTIES
    assert [said.seconds for said in bot.calls[0].said] == [2.0]


def test_drone_speaks_ahead_where_it_is_told_to(bot):
    begun = time.monotonic()
    with join(bot, "drone?seconds=3&ahead_ms=3000") as ws:
        speech, _ = until(ws, "end")
    assert time.monotonic() - begun < 2
    assert heard(speech, GREETING) == pytest.approx(3.0)


def test_drone_goes_on_until_it_is_ended(bot):
    with join(bot, "drone?chunk_ms=20") as ws:
        call = bot.wait_for_call()
        for _ in range(10):
            assert json.loads(ws.recv(timeout=5))["type"] == "streamAudio"
        call.end({})
        until(ws, "end")
        call.wait(lambda call: bool(call.said))
        with pytest.raises(TimeoutError):
            while True:  # at most the chunk that was on its way
                assert json.loads(ws.recv(timeout=0.2))["type"] == "streamAudio"
    assert call.said[0].seconds >= 0.2
    call.wait_closed()
    assert call.error is None


def test_a_drone_whose_listener_goes_is_over(bot):
    with join(bot, "drone?chunk_ms=20") as ws:
        ws.recv(timeout=5)
    call = bot.calls[0]
    call.wait_closed()
    assert call.end_message is None and call.error is None


def test_long_calls_stay_small(bot, monkeypatch):
    monkeypatch.setattr("eslbot.sim.bot.call.MESSAGES_KEPT", 5)
    with join(bot, "converse?speak_ms=10&listen_ms=0") as ws:
        call = bot.wait_for_call()
        for number in range(20):
            call.mark(str(number))
            send(ws, type="cleared")
        send(ws, type="dtmf", digit="1")
        call.wait_for_message("dtmf")
        call.wait(lambda call: len(call.said) == 5)
        assert call.marks_waited_for == ["15", "16", "17", "18", "19"]
        assert len(call.messages) == 5
        said = call.said[0]
        call.wait(lambda call: call.said[0] != said and len(call.said) == 5)


def test_hostile_properties(bot):
    with join(bot, "properties-hostile?greeting_ms=0") as ws:
        _, end = until(ws, "end")
    assert isinstance(end["properties"]["agent_group"], dict)
    assert len(end["properties"]["summary"]) == 100_000
    assert {"not_listed", "uniqueId", "", "line\nbreak"} < end["properties"].keys()


def test_echo_says_back_what_it_heard(bot):
    with join(bot, "echo?chunk_ms=40") as ws:
        sent = b"".join(tone(frequency, 0.02) for frequency in (350, 440, 880, 350))
        for at in range(0, len(sent), 320):
            ws.send(sent[at : at + 320])
        back = b""
        while len(back) < len(sent):
            back += base64.b64decode(json.loads(ws.recv(timeout=5))["data"]["audioData"])
        assert back == sent


@pytest.mark.parametrize("kind", ["wav", "pcmu", "pcma"])
def test_other_audio_formats(bot, kind):
    with join(bot, f"hold?format={kind}&greeting_ms=100&rate=8000") as ws:
        data = json.loads(ws.recv(timeout=5))["data"]
    audio = base64.b64decode(data["audioData"])
    assert data["audioDataType"] == kind
    if kind == "wav":
        with wave.open(io.BytesIO(audio)) as reader:
            assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (8000, 1, 2)
            l16 = reader.readframes(reader.getnframes())
    else:
        l16 = g711.decode(kind.upper(), audio)
    assert heard(l16, GREETING) == pytest.approx(0.1)


def test_sixteen_kilohertz(bot):
    with join(bot, "hold?rate=16000&greeting_ms=100", X_Audio_Rate="16000") as ws:
        data = json.loads(ws.recv(timeout=5))["data"]
        ws.send(bytes(640))
        call = bot.wait_for_call()
        call.wait(lambda call: call.audio_frames == 1)
    assert data["sampleRate"] == 16000
    assert heard(base64.b64decode(data["audioData"]), GREETING, 16000) == pytest.approx(0.1)
    assert call.audio_seconds == pytest.approx(0.02)


def test_only_the_last_caller_audio_is_kept():
    with Bot(keep_audio=0.1) as bot, join(bot, "silent") as ws:
        for _ in range(50):
            ws.send(silence(0.02))
        for _ in range(5):
            ws.send(FRAME)
        call = bot.wait_for_call()
        call.wait(lambda call: call.audio_frames == 55)
        kept = call.audio()
    assert 0.1 <= len(kept) / 16000 <= 0.2
    assert kept.endswith(FRAME * 5)
    assert call.audio_bytes == 55 * 320


def test_many_calls_are_told_apart(bot):
    with ExitStack() as stack:
        sockets = [stack.enter_context(join(bot, "silent", X_Call_ID=str(n))) for n in range(10)]
        call = bot.wait_for_call(lambda call: call.call_id == "7")
        sockets[7].send(FRAME)
        call.wait(lambda call: call.audio_frames == 1)
        assert [c.call_id for c in bot.calls if c.audio_frames] == ["7"]


def test_tls():
    authority = LoopbackAuthority()
    try:
        with (
            Bot(ssl_context=authority.server_context()) as bot,
            connect(bot.url("close?greeting_ms=0"), ssl=authority.client_context(), proxy=None) as ws,
        ):
            assert bot.url("").startswith("wss://")
            assert until_closed_ok(ws)[0] == 1000
    finally:
        authority.close()


def test_stop_drops_calls_and_frees_the_port():
    bot = Bot().start()
    behaviours = ("hold", "silent", "talk")
    with ExitStack() as stack:
        for behaviour in behaviours:
            stack.enter_context(join(bot, behaviour))
        for behaviour in behaviours:
            bot.wait_for_call(lambda call, behaviour=behaviour: call.behaviour == behaviour)
        begun = time.monotonic()
        bot.stop()
        assert time.monotonic() - begun < 3
        assert all(call.closed for call in bot.calls)
    with pytest.raises(ConnectionRefusedError), join(bot, "hold"):
        pass
    with Bot(port=bot.port) as again:
        assert again.port == bot.port


def test_it_starts_again_where_it_was_and_knows_its_calls(bot):
    url = bot.url("hold?greeting_ms=0")
    with join(bot, "hold?greeting_ms=0", X_Call_ID="c") as ws:
        call = bot.wait_for_call()
        call.end({"a": "b"})
        until(ws, "end")
        bot.stop()
        assert call.closed and call.close_code == 1006
        bot.stop()  # it is: nothing happens
    with pytest.raises(ConnectionRefusedError), join(bot, "hold"):
        pass
    for _ in range(2):
        bot.start()
        assert bot.url("hold?greeting_ms=0") == url and call in bot.calls
        with join(bot, "hold?greeting_ms=0", X_Call_ID="c") as ws:
            send(ws, type="start", resumed=True)
            assert until(ws, "end")[1]["properties"] == {"a": "b"}
            bot.stop()
    assert [call.close_code for call in bot.calls] == [1006] * 3
    bot.start()
    with join(bot, "hold?greeting_ms=20", X_Call_ID="another") as ws:
        assert json.loads(ws.recv(timeout=5))["type"] == "streamAudio"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_on_a_signal(number):
    program = (
        "import json\nfrom eslbot.sim.bot import run\n"
        "run(emit=lambda event, fields: print(json.dumps([event, fields]), flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        event, fields = json.loads(process.stdout.readline())
        assert event == "ready" and "talk" in fields["behaviours"]
        with connect(fields["url"] + "hold", proxy=None):
            os.kill(process.pid, number)
            assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# -- a file -----------------------------------------------------------------------------------------------


def wav_file(path: Path, l16: bytes, rate: int = 16000, channels: int = 1, width: int = 2) -> Path:
    path.write_bytes(wav(l16, rate, channels, width))
    return path


def read_wav(path: Path) -> tuple[bytes, int]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.readframes(file.getnframes()), file.getframerate()


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_a_file_is_spoken_in_real_time_then_it_listens_and_ends(tmp_path, rate):
    speech = tone(700, 0.35, rate)
    with (
        Bot(wav=WavFile.load(wav_file(tmp_path / "in.wav", speech, rate))) as bot,
        join(bot, "wav?listen_ms=100") as ws,
    ):
        begun = time.monotonic()
        said = b""
        while len(said) < len(speech):
            data = json.loads(ws.recv(timeout=5))["data"]
            assert (data["audioDataType"], data["sampleRate"]) == ("raw", rate)
            said += base64.b64decode(data["audioData"])
        assert time.monotonic() - begun > 0.25, "chunks of 100 ms, in real time"
        assert said == speech
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.1)
        for _ in range(5):
            ws.send(FRAME)
        end = json.loads(ws.recv(timeout=5))
    assert end == {"type": "end", "properties": {}, "reason": "done"}


def test_without_a_file_there_is_none_to_speak(bot):
    with pytest.raises(InvalidStatus) as caught, join(bot, "wav"):
        pass
    assert caught.value.response.status_code == 404
    assert b"wav," not in caught.value.response.body


@pytest.mark.parametrize("rate", [8000, 16000])
def test_callers_are_recorded_each_to_a_file(tmp_path, rate, events):
    out = tmp_path / "out.wav"
    with Bot(recorder=Recorder(out), emit=lambda event, fields: events.append((event, fields))) as bot:
        for number in range(2):
            with join(bot, "silent", X_Call_ID=str(number), X_Audio_Rate=str(rate)) as ws:
                for _ in range(10 + number):
                    ws.send(tone(350, 0.02, rate))
                call = bot.wait_for_call(lambda call, number=number: call.call_id == str(number))
                call.wait(lambda call, number=number: call.audio_frames == 10 + number)
            call.wait_closed()
    for number, path in enumerate([out, tmp_path / "out-2.wav"]):
        l16, of_file = read_wav(path)
        assert of_file == rate
        assert l16 == tone(350, 0.02, rate) * (10 + number)
    assert [fields["file"] for event, fields in events if event == "recording"] == [
        str(out),
        str(tmp_path / "out-2.wav"),
    ]


def test_the_bots_own_rate_is_not_the_callers(bot):
    with join(bot, "hold?rate=24000&greeting_ms=100") as ws:
        data = json.loads(ws.recv(timeout=5))["data"]
        ws.send(FRAME)
        call = bot.wait_for_call()
        call.wait(lambda call: call.audio_frames == 1)
    assert data["sampleRate"] == 24000
    assert heard(base64.b64decode(data["audioData"]), GREETING, 24000) == pytest.approx(0.1)
    assert call.audio_seconds == pytest.approx(0.02)


@pytest.mark.parametrize("behaviour", ["abort", "error-close"])
def test_a_failure_of_the_first_connection_only(bot, behaviour):
    with join(bot, f"{behaviour}?once=1&greeting_ms=20", X_Call_ID="c") as ws:
        until_closed(ws)
    with join(bot, f"{behaviour}?once=1&greeting_ms=20&listen_ms=0", X_Call_ID="c") as ws:
        _, end = until(ws, "end")
    assert end["properties"] == PROPERTIES
    assert [call.resumed for call in bot.calls] == [False, True]
    with join(bot, f"{behaviour}?once=1&greeting_ms=20", X_Call_ID="another") as ws:
        until_closed(ws)


def test_a_bot_that_resumes_does_not_greet_again(bot):
    path = "talk?resumes=1&greeting_ms=40&listen_ms=0&goodbye_ms=20"
    for connection, tones in enumerate([[GREETING, GOODBYE], [GOODBYE]]):
        with join(bot, path, X_Call_ID="c") as ws:
            speech, _ = until(ws, "end")
        call = bot.calls[connection]
        call.wait_closed()
        call.finished = False  # it broke off before its end
        assert [hertz for hertz in (GREETING, GOODBYE) if heard(speech, hertz) > 0.005] == tones


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b""), "is not a PCM wav file: it is cut off"),
        (lambda path: path.write_bytes(b"ID3 and so on"), "is not a PCM wav file: file does not start with"),
        (lambda path: wav_file(path, bytes(400), 44100), "1 channel(s) of 16 bits at 44100 Hz; it must be"),
        (lambda path: wav_file(path, bytes(400), 8000, 2), "2 channel(s) of 16 bits"),
        (lambda path: wav_file(path, bytes(400), 8000, 1, 1), "1 channel(s) of 8 bits"),
        (lambda path: wav_file(path, b"", 8000), "holds no sound"),
    ],
)
def test_a_file_that_cannot_be_spoken_is_told_in_words(tmp_path, make, why):
    path = tmp_path / "x.wav"
    make(path)
    with pytest.raises(UnusableFile) as caught:
        WavFile.load(path)
    assert str(caught.value).startswith(f"{path} ") and why in str(caught.value)


def test_the_command_says_what_is_wrong_with_a_file(tmp_path):
    good = wav_file(tmp_path / "good.wav", tone(440, 0.1))
    for arguments, why in [
        (["--wav", str(tmp_path / "none.wav")], "none.wav cannot be read: No such file or directory"),
        (["--wav", str(good), "--record", str(tmp_path / "no" / "out.wav")], "out.wav cannot be written"),
        (["--wav", str(good), "--record", str(good)], "--record would write over"),
    ]:
        result = CliRunner().invoke(main, ["sim", "bot", "--listen", "127.0.0.1:0", *arguments])
        assert result.exit_code == 2
        assert why in result.stderr
    assert read_wav(good)[0] == tone(440, 0.1)


def test_the_command_speaks_and_records(tmp_path):
    good = wav_file(tmp_path / "good.wav", tone(700, 0.2, 16000))
    out = tmp_path / "out.wav"
    command = [sys.executable, "-m", "eslbot", "sim", "bot", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--wav", str(good), "--record", str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert "wav" in ready["behaviours"]
        with connect(f"{ready['url']}wav?listen_ms=80", proxy=None) as ws:
            chunks = [json.loads(ws.recv(timeout=5))["data"]["audioData"] for _ in range(2)]
            time.sleep(0.05)  # what it hears while it speaks is not what it listens for
            for _ in range(4):
                ws.send(FRAME)
            until(ws, "end")
        assert b"".join(map(base64.b64decode, chunks)) == tone(700, 0.2, 16000)[: 2 * 3200]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert read_wav(out) == (FRAME * 4, 8000)


def test_frames_are_counted_by_when_they_came(bot: Bot) -> None:
    with join(bot, "silent") as ws:
        ws.send(FRAME)
        call = bot.wait_for_call()
        call.wait(lambda c: c.audio_frames == 1)
        at = time.time()
        assert call.frames_after(at) == 0
        ws.send(FRAME)
        call.wait(lambda c: c.frames_after(at) == 1)

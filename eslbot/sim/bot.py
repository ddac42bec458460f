"""The voice bot's stand-in: a WebSocket server that mod_audio_stream connects to.

It speaks the protocol of ``docs/bot-protocol.md`` and knows nothing of eslbot. What it does in a call is
chosen by the URL's path, so that one server serves every scenario; the query tunes the numbers:
``ws://127.0.0.1:PORT/talk?listen_ms=300``.

=====================  =================================================================================
``/talk``              440 Hz for 600 ms, listens until it has had ``listen_ms`` of caller audio,
                       880 Hz for 400 ms, ``end``, waits for the peer to close
``/hold``              greets, then does what the test says (:meth:`BotCall.say`, ``end``, ``close``, …)
``/deaf``              like ``/hold``, but does not know ``resumed``: it never answers it
``/converse``          440 Hz for ``speak_ms``, listens until it has had ``listen_ms`` of caller audio,
                       again and again; ``end`` after ``turns`` of them (0, the default: never)
``/drone``             440 Hz without a break, in real time, for ``seconds`` and then ``end`` (0, the
                       default: until the test ends it)
``/one-breath``        700 ms of 440 Hz, 300 ms of 880 Hz and ``end``, all at once
``/close``             greets and closes 1000
``/error-close``       greets and closes 1011
``/abort``             greets and drops the TCP connection without a close frame
``/silent``            accepts and never speaks
``/reject``            answers the upgrade with 403
``/junk``              bad JSON, unknown types, 70 kB, unusable audio; then talks
``/echo``              says back what it hears
``/wav``               speaks the file the server was given, listens for ``listen_ms``, ``end``; 404
                       without a file
``/properties-hostile`` greets, then ends with nested, huge and unlisted properties
``/half-closed``       greets, ends its own side of TCP without a close frame, and reads on
``/frozen``            greets; from then on it neither reads nor writes nor closes
``/flood``             greets, then ``count`` (3,000) texts of ``size`` bytes (2,000) as fast as it can that
                       mean nothing, and ``end``
``/oversized``         greets, then one text of ``size`` bytes (5 MiB), then goes on like ``/talk``
=====================  =================================================================================

Parameters of the query: ``greeting_ms``, ``listen_ms``, ``goodbye_ms``, ``speak_ms``, ``chunk_ms``,
``turns``, ``seconds``, ``rate`` (of the bot's speech: 8000, 16000 or 24000), ``format`` (``raw``, ``wav``,
``pcmu``, ``pcma``) and ``status`` (of ``/reject``). ``ahead_ms`` is how far ``/drone`` and ``/talk`` speak
ahead of real time, so that their own late chunks are not heard as gaps (0 by default). ``once=1`` lets
``/abort`` and ``/error-close`` fail only the first connection of a call; the next one talks. ``hears=1``
reports the caller's speech, by loudness. ``keep_tcp=1`` leaves the TCP connection open whatever was said on
it (a close frame, an answer to the peer's, a refusal), until :meth:`Bot.let_go`.

``resumed`` is answered at once, and what may have been lost is repeated: a ``clear`` without its ``cleared``,
the marks that are waited for, and ``end``. A call that was finished on an earlier connection (``end``, or a
close with 1000) is finished again on a new one whose ``start`` has ``"resumed": true``, whatever its path.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
import wave
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from eslbot import g711
from eslbot.sim.audio import tone
from eslbot.sim.events import Emit, silent

#: Hertz of the bot's two tones, so that the start and the end of a talk can be told apart.
GREETING, GOODBYE = 440, 880

#: The handing-over message's usual content.
PROPERTIES = {"agent_group": "sales", "summary": "The caller wants to buy."}

#: Seconds. A call that nobody ends must not keep a thread for ever; a peer that does not close after
#: ``end`` is closed by us.
HOLD_LIMIT, FAREWELL_LIMIT = 3600.0, 60.0

#: How many messages of one call, and how many calls, are kept.
MESSAGES_KEPT, CALLS_KEPT = 2000, 5000

#: Frames of caller audio whose arrival is kept: ten minutes of them at ptime 20.
FRAMES_KEPT = 30_000

#: Sampling rates of speech that eslbot takes.
SPEECH_RATES = (8000, 16000, 24000)

Properties = dict[str, Any]


class UnusableFile(Exception):
    """A WAV file that cannot be spoken, or a place where none can be written; the text says why."""


@dataclass(frozen=True, slots=True)
class WavFile:
    """Speech of a file: L16 at ``rate``."""

    l16: bytes
    rate: int

    @classmethod
    def load(cls, path: Path) -> WavFile:
        """A 16-bit mono PCM file of 8,000, 16,000 or 24,000 Hz. Raises :class:`UnusableFile`."""
        try:
            with wave.open(str(path), "rb") as file:
                channels, bits, rate = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
                l16 = file.readframes(file.getnframes())
        except OSError as error:
            raise UnusableFile(f"{path} cannot be read: {error.strerror}") from error
        except (wave.Error, EOFError) as error:
            raise UnusableFile(f"{path} is not a PCM wav file: {str(error) or 'it is cut off'}") from error
        if (channels, bits) != (1, 16) or rate not in SPEECH_RATES:
            rates = ", ".join(map(str, SPEECH_RATES))
            raise UnusableFile(
                f"{path} has {channels} channel(s) of {bits} bits at {rate} Hz; "
                f"it must be 16-bit mono at one of {rates} Hz"
            )
        if not l16:
            raise UnusableFile(f"{path} holds no sound")
        return cls(l16, rate)


class Recorder:
    """Writes what callers say to WAV files: the first to ``path``, the next to ``…-2.wav`` and so on.

    Raises:
        UnusableFile: nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        try:
            path.open("ab").close()
        except OSError as error:
            raise UnusableFile(f"{path} cannot be written: {error.strerror}") from error

    def open(self, rate: int) -> tuple[Path, wave.Wave_write]:
        """The next caller's file, for L16 at ``rate``."""
        number = next(self._numbers)
        path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
        file = wave.open(str(path), "wb")  # noqa: SIM115  # closed with the call
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        return path, file


@dataclass(frozen=True, slots=True)
class Received:
    """A text message from the switch, ``at`` epoch seconds; ``message`` is None where it is not JSON."""

    at: float
    text: str
    message: Any

    @property
    def type(self) -> str | None:
        """The message's ``type``, where it has one."""
        return self.message.get("type") if isinstance(self.message, dict) else None


@dataclass(frozen=True, slots=True)
class Said:
    """Speech the bot sent: the first byte ``at`` epoch seconds, the last ``until``, lasting ``seconds``."""

    at: float
    until: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A WebSocket upgrade that was refused."""

    at: float
    path: str
    headers: Headers


class LeftOpen(socket.socket):
    """A socket of the library's on a connection that somebody else keeps open: it cannot end it."""

    def shutdown(self, how: int) -> None:
        """Nothing: no FIN."""


class Frozen(socket.socket):
    """A copy of the library's socket by which nothing is read until :meth:`thaw`, and then the end."""

    def __init__(self, original: socket.socket) -> None:
        super().__init__(fileno=os.dup(original.fileno()))
        self._original = original  # on which the library waits for something to read
        self._thawed = threading.Event()

    def recv(self, *_: object) -> bytes:
        """Nothing, and not soon."""
        self._thawed.wait(HOLD_LIMIT)
        self._original.close()
        return b""

    def thaw(self) -> None:
        """Let the library see the end."""
        self._thawed.set()


class Ears:
    """Whether the caller speaks, by loudness; a pause of PAUSE seconds ends it."""

    LOUD = 1500  # of 32,767, a frame's peak
    PAUSE = 0.4

    def __init__(self) -> None:
        self.speaking = False
        self._loud_at = 0.0

    def hear(self, frame: bytes, now: float) -> bool:
        """Take a frame of L16; whether the caller has just begun or stopped."""
        loud = max(array("h", frame[: len(frame) // 2 * 2]), default=0) > self.LOUD
        if loud:
            self._loud_at = now
        before, self.speaking = self.speaking, loud or (self.speaking and now - self._loud_at < self.PAUSE)
        return before != self.speaking


class BotCall:
    """One WebSocket connection: what came, what was said, how it closed.

    Attributes:
        path: the request's target, with its query.
        behaviour: the path without slash and query.
        parameters: the query.
        headers: of the upgrade request; looking up ignores case.
        started, first_audio, last_audio, ended_at, closed_at: epoch seconds, None where it has not happened.
        rate: of the bot's own speech.
        audio_frames, audio_bytes: caller audio had so far, L16 at ``audio_rate``.
        arrivals: of each frame of it: epoch seconds and ``audio_bytes`` with it.
        said: what the bot has said, in order; the last :data:`MESSAGES_KEPT` utterances.
        end_message: the ``end`` it has sent.
        finished: whether the bot is done with the call: it has sent ``end`` or closed with 1000.
        closed, close_code, close_reason: 1006 is a connection that broke off without a close frame.
        closed_by: ``"bot"`` or ``"peer"``: who closed first; None for a connection that broke off.
        resumed: whether the same call was connected before.
        error: what went wrong in the stand-in itself.
    """

    def __init__(
        self,
        connection: ServerConnection,
        *,
        keep_audio: float,
        emit: Emit,
        wav: WavFile | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        request = connection.request
        assert request is not None  # the handler runs after the upgrade
        target = urlsplit(request.path)
        self.path = request.path
        self.behaviour = target.path.strip("/")
        self.parameters = dict(parse_qsl(target.query))
        self.headers = request.headers
        self.started = time.time()
        self.messages: deque[Received] = deque(maxlen=MESSAGES_KEPT)
        self.audio_frames = 0
        self.audio_bytes = 0
        self.arrivals: deque[tuple[float, int]] = deque(maxlen=FRAMES_KEPT)
        self.first_audio: float | None = None
        self.last_audio: float | None = None
        self.said: deque[Said] = deque(maxlen=MESSAGES_KEPT)
        self.end_message: dict[str, Any] | None = None
        self.finished = False
        self.ended_at: float | None = None
        self.closed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.closed_by: str | None = None
        self.closed_at: float | None = None
        self.error: BaseException | None = None
        self.rate = self.number("rate", 8000)
        self.audio_rate = 8000
        self.wav = wav
        self.resumed = False
        self._recorder = recorder
        self._recording: wave.Wave_write | None = None
        self._audio = bytearray()
        self._keep_audio = keep_audio
        self._connection = connection
        self._changed = threading.Condition()
        # What must be repeated is noted and sent in one step, or a take-over in between repeats it too early.
        # Never taken while holding _changed.
        self._sending = threading.Lock()
        self._resumed: deque[Received] = deque(maxlen=MESSAGES_KEPT)
        self._ears = Ears() if self.number("hears", 0) else None
        self._marks: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._clears = 0
        self._emit = emit

    # what the behaviours are tuned by

    def number(self, name: str, default: int) -> int:
        """The query's ``name`` as a number."""
        return int(self.parameters.get(name, default))

    # what came

    @property
    def call_id(self) -> str | None:
        """``X-Call-ID`` of the upgrade."""
        return self.headers.get("X-Call-ID")

    def frames_after(self, at: float) -> int:
        """How many frames of caller audio have come after ``at``, epoch seconds."""
        with self._changed:
            return sum(arrived > at for arrived, _ in self.arrivals)

    @property
    def audio_seconds(self) -> float:
        """Seconds of caller audio had so far."""
        return self.audio_bytes / 2 / self.audio_rate

    def audio(self) -> bytes:
        """The last seconds of caller audio, L16; how many is bounded by the bot's ``keep_audio``."""
        with self._changed:
            return bytes(self._audio)

    def messages_of(self, kind: str) -> list[Received]:
        """The messages of type ``kind``, in order."""
        with self._changed:
            return [received for received in self.messages if received.type == kind]

    @property
    def take_overs(self) -> list[Received]:
        """The ``resumed`` messages, in order; the last :data:`MESSAGES_KEPT` of them."""
        with self._changed:
            return list(self._resumed)

    @property
    def marks_waited_for(self) -> list[str]:
        """The marks that were sent and have not come back, in the order sent."""
        with self._changed:
            return list(self._marks)

    @property
    def clears_waited_for(self) -> int:
        """How many ``clear`` have had no ``cleared``."""
        with self._changed:
            return self._clears

    def wait(self, predicate: Callable[[BotCall], bool], timeout: float = 10.0) -> None:
        """Wait until ``predicate`` holds; it is asked whenever something has happened in the call.

        Raises:
            TimeoutError: it did not within ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                raise TimeoutError(f"{self!r}: not within {timeout} s")

    def wait_for_message(self, kind: str, timeout: float = 10.0) -> Received:
        """The first message of type ``kind``; raises TimeoutError where none comes."""
        self.wait(lambda call: bool(call.messages_of(kind)), timeout)
        return self.messages_of(kind)[0]

    def wait_closed(self, timeout: float = 10.0) -> None:
        """Wait until the connection is closed; raises TimeoutError."""
        self.wait(lambda call: call.closed, timeout)

    # what the bot does; all of these may be called from any thread

    def say(
        self,
        l16: bytes,
        chunk_ms: int = 100,
        *,
        real_time: bool = True,
        ahead: float = 0.0,
        kind: str | None = None,
        rate: int | None = None,
    ) -> None:
        """Send speech as ``streamAudio`` in chunks, at the pace of speaking or all at once.

        ``ahead`` are seconds by which each chunk is sent early; ``rate`` is the speech's, by default the
        call's.

        Raises:
            ConnectionClosed: the peer is gone.
        """
        kind = kind or self.parameters.get("format", "raw")
        rate = rate or self.rate
        size = rate * chunk_ms // 1000 * 2
        begun = time.monotonic()
        at = time.time()
        for number, start in enumerate(range(0, len(l16), size)):
            if real_time and number:
                # Against the start and not the last chunk: sleeping late must not add up.
                self._sleep(begun + number * chunk_ms / 1000 - ahead - time.monotonic())
            self.send(_stream_audio(l16[start : start + size], kind, rate))
        self._note_said(Said(at, time.time(), len(l16) / 2 / rate))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message of the protocol."""
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        """Send a text frame as it is."""
        self._connection.send(text)

    def clear(self) -> None:
        """Barge-in: stop playing."""
        with self._sending:
            with self._changed:
                self._clears += 1
            self.send({"type": "clear"})

    def mark(self, name: str) -> None:
        """Ask to be told when everything so far has been heard."""
        with self._sending:
            with self._changed:
                self._marks.append(name)
            self.send({"type": "mark", "name": name})

    def end(self, properties: Properties | None = None, reason: str = "done") -> None:
        """Say that the bot is finished; ``properties`` are for Ameyo."""
        message = {
            "type": "end",
            "properties": PROPERTIES if properties is None else properties,
            "reason": reason,
        }
        with self._sending:
            with self._changed:
                # Before it is sent: it counts, and is repeated, also where the connection is just gone.
                self.end_message, self.ended_at, self.finished = message, time.time(), True
                self._changed.notify_all()
            self.send(message)
        self._emit("end", {"call_id": self.call_id, "reason": reason})

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a close frame."""
        if code == 1000:
            with self._changed:
                self.finished = True
        self._connection.close(code, reason)

    def abort(self) -> None:
        """Drop the TCP connection without a close frame.

        With linger at zero the kernel sends RST for what is unread or unsent. Only reading is shut down
        here, which wakes the library's reader: it finds the end of the stream and closes the socket.
        """
        if isinstance(self._connection.socket, Frozen):
            self._connection.socket.thaw()
        with contextlib.suppress(OSError):  # the peer was faster
            self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connection.socket.shutdown(socket.SHUT_RD)

    # the machinery

    def read(self) -> None:
        """Take what comes until the connection ends; runs in a thread of its own."""
        try:
            for frame in self._connection:
                if isinstance(frame, bytes):
                    self._take_audio(frame)
                else:
                    self._take_message(frame)
        except ConnectionClosed:
            pass  # told apart by the close code below
        finally:
            if self._recording is not None:
                self._recording.close()
            self._note_close()

    def _take_audio(self, frame: bytes) -> None:
        now = time.time()
        with self._changed:
            first, self.first_audio = self.first_audio is None, self.first_audio or now
            if first and len(frame) >= 640:  # 20 ms; ``start`` may come later than the first of it
                self.audio_rate = 16000
            self.last_audio = now
            self.audio_frames += 1
            self.audio_bytes += len(frame)
            self.arrivals.append((now, self.audio_bytes))
            self._audio += frame
            limit = int(self._keep_audio * self.audio_rate) * 2
            if len(self._audio) > 2 * limit:  # now and then, since it moves everything
                del self._audio[: len(self._audio) - limit]
            self._changed.notify_all()
        if self._recorder is not None:
            self._record(self._recorder, frame)
        if first:
            self._emit("audio", {"call_id": self.call_id})
        if self._ears is not None and self._ears.hear(frame, now):
            self.send({"type": "caller_speech", "speaking": self._ears.speaking})

    def _record(self, recorder: Recorder, frame: bytes) -> None:
        if self._recording is None:
            path, self._recording = recorder.open(self.audio_rate)
            self._emit("recording", {"call_id": self.call_id, "file": str(path), "rate": self.audio_rate})
        self._recording.writeframes(frame)

    def _take_message(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        received = Received(time.time(), text, message)
        with self._changed:
            self.messages.append(received)
            match received.type:
                case "mark" if message.get("name") in self._marks:
                    self._marks.remove(message["name"])
                case "cleared":
                    self._clears = max(0, self._clears - 1)
                case "resumed":
                    self._resumed.append(received)
            self._changed.notify_all()
        if received.type == "resumed":
            self._emit("resumed", {"call_id": self.call_id})
            if self.behaviour != "deaf":
                self._repeat()

    def _repeat(self) -> None:
        """A new worker has the call: answer, and let it learn what the old one took with it."""
        with self._sending:
            with self._changed:
                again: list[dict[str, Any]] = [{"type": "resumed"}]
                if self._clears:
                    again.append({"type": "clear"})
                    self._clears = 1
                again += [{"type": "mark", "name": name} for name in self._marks]
                if self.end_message is not None:
                    again.append(self.end_message)
            for message in again:
                self.send(message)

    def _note_said(self, said: Said) -> None:
        with self._changed:
            self.said.append(said)
            self._changed.notify_all()
        self._emit("said", {"call_id": self.call_id, "seconds": round(said.seconds, 3)})

    def _note_close(self) -> None:
        protocol = self._connection.protocol
        with self._changed:
            self.closed = True
            self.closed_at = time.time()
            self.close_code = self._connection.close_code
            self.close_reason = self._connection.close_reason or ""
            if protocol.close_rcvd is not None and protocol.close_sent is not None:
                self.closed_by = "peer" if protocol.close_rcvd_then_sent else "bot"
            self._changed.notify_all()
        self._emit("closed", {"call_id": self.call_id, "code": self.close_code, "by": self.closed_by})

    def _sleep(self, duration: float) -> None:
        """Wait, but not for a connection that is closed; the next send then says so."""
        if duration > 0:
            with self._changed:
                self._changed.wait_for(lambda: self.closed, duration)

    def _pause(self, duration: float) -> bool:
        """Wait; False at once where the connection is closed or ``end`` was sent."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._over, max(0.0, duration))

    @property
    def _over(self) -> bool:
        return self.closed or self.end_message is not None

    def _listen(self, duration: float, limit: float = HOLD_LIMIT) -> None:
        """Until ``duration`` seconds more of caller audio have come, or the bot's part is over."""
        self._hear(self.audio_bytes + int(duration * self.audio_rate) * 2, limit)

    def _hear(self, size: int, limit: float = HOLD_LIMIT) -> None:
        """Until ``size`` bytes of caller audio have come since the beginning, or the bot's part is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self.audio_bytes >= size, limit)

    def _part(self, limit: float = FAREWELL_LIMIT) -> None:
        """Let the peer close."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, limit)

    def __repr__(self) -> str:
        state = f"closed {self.close_code}" if self.closed else "open"
        return f"<BotCall {self.path} {self.call_id} {state}, {self.audio_seconds:.2f} s heard>"


def _stream_audio(l16: bytes, kind: str, rate: int) -> dict[str, Any]:
    """One chunk of speech in mod_audio_stream's own format."""
    match kind:
        case "raw":
            data = l16
        case "wav":
            file = io.BytesIO()
            with wave.open(file, "wb") as writer:
                writer.setnchannels(1)
                writer.setsampwidth(2)
                writer.setframerate(rate)
                writer.writeframes(l16)
            data = file.getvalue()
        case "pcmu" | "pcma":
            data = g711.encode(kind.upper(), l16)
        case _:
            raise ValueError(f"format {kind!r} is none of raw, wav, pcmu, pcma")
    encoded = base64.b64encode(data).decode()
    return {
        "type": "streamAudio",
        "data": {"audioDataType": kind, "sampleRate": rate, "audioData": encoded},
    }


# What the bot does in a call, by path


def _greet(call: BotCall) -> None:
    greeting = tone(GREETING, call.number("greeting_ms", 600) / 1000, call.rate)
    call.say(greeting, call.number("chunk_ms", 100), ahead=call.number("ahead_ms", 0) / 1000)


def _talk(call: BotCall) -> None:
    _greet(call)
    call._listen(call.number("listen_ms", 500) / 1000)
    goodbye = tone(GOODBYE, call.number("goodbye_ms", 400) / 1000, call.rate)
    call.say(goodbye, call.number("chunk_ms", 100), ahead=call.number("ahead_ms", 0) / 1000)
    call.end()
    call._part()


def _hold(call: BotCall) -> None:
    _greet(call)
    call._part(HOLD_LIMIT)


def _converse(call: BotCall) -> None:
    speech = tone(GREETING, call.number("speak_ms", 600) / 1000, call.rate)
    turns = call.number("turns", 0)
    for turn in itertools.count(1):
        begun = time.monotonic()
        call.say(speech, call.number("chunk_ms", 100))
        call._pause(begun + len(speech) / 2 / call.rate - time.monotonic())  # the last chunk lasts, too
        call._listen(call.number("listen_ms", 500) / 1000)
        if call._over or turn == turns:
            break
    if not call._over:
        call.end()
    call._part()


def _drone(call: BotCall) -> None:
    chunk_ms, ahead = call.number("chunk_ms", 100), call.number("ahead_ms", 0) / 1000
    size = call.rate * chunk_ms // 1000 * 2
    if size <= 0:
        raise ValueError(f"chunk_ms is {chunk_ms}")
    total = call.number("seconds", 0) * call.rate * 2
    second = tone(GREETING, 1.0, call.rate)  # whole periods: it can be said round and round
    at, begun, sent = time.time(), time.monotonic(), 0
    while not total or sent < total:
        if not call._pause(begun + sent / 2 / call.rate - ahead - time.monotonic()):
            break
        start = sent % len(second)
        chunk = (second * (1 + (start + size) // len(second)))[start : start + size]
        chunk = chunk[: total - sent] if total else chunk
        call.send(_stream_audio(chunk, call.parameters.get("format", "raw"), call.rate))
        sent += len(chunk)
    call._note_said(Said(at, time.time(), sent / 2 / call.rate))
    if not call._over:
        call.end()
    call._part()


def _finish_again(call: BotCall, before: BotCall) -> None:
    """The new connection of a call that was finished: what the old one said last may have been lost."""
    with call._changed:
        call._changed.wait_for(lambda: call.closed or bool(call.messages_of("start")), HOLD_LIMIT)
    if call.closed:
        return
    start = call.messages_of("start")[0].message
    if start.get("resumed") is not True:
        BEHAVIOURS[call.behaviour](call)
    elif before.end_message is None:
        call.close()
    else:
        call.end(before.end_message["properties"], before.end_message["reason"])
        call._part()


def _one_breath(call: BotCall) -> None:
    breath = tone(GREETING, 0.7, call.rate) + tone(GOODBYE, 0.3, call.rate)
    call.say(breath, call.number("chunk_ms", 100), real_time=False)
    call.end()
    call._part()


def _close(call: BotCall) -> None:
    _greet(call)
    call.close(1000, "done")


def _error_close(call: BotCall) -> None:
    _greet(call)
    call.close(1011, "the model is gone")


def _abort(call: BotCall) -> None:
    _greet(call)
    call.abort()
    call._part()


def _silent(call: BotCall) -> None:
    call._part(HOLD_LIMIT)


def _junk(call: BotCall) -> None:
    good = _stream_audio(tone(GREETING, 0.1, call.rate), "raw", call.rate)
    call.send_text('{"type": "streamAudio", ')
    call.send_text("not even close")
    call.send_text("[1, 2, 3]")
    call.send_text("null")
    call.send({"no": "type"})
    call.send({"type": 7})
    call.send({"type": "weather", "sunny": True})
    call.send({"type": "weather", "report": "x" * 70_000})
    call.send({"type": "streamAudio"})
    call.send({"type": "streamAudio", "data": good["data"] | {"audioData": "%%% not base64 %%%"}})
    call.send({"type": "streamAudio", "data": good["data"] | {"audioDataType": "opus"}})
    call.send({"type": "mark", "name": {"not": "text"}})
    _talk(call)


def _echo(call: BotCall) -> None:
    chunk_ms = call.number("chunk_ms", 100)
    call._hear(1)  # then the rate of what comes is known
    rate = call.audio_rate
    size = rate * chunk_ms // 1000 * 2
    spoken = 0
    while not call._over:
        call._hear(spoken + size)
        with call._changed:
            unsaid = call._audio[max(0, len(call._audio) - (call.audio_bytes - spoken)) :]
            fresh = bytes(unsaid[:size])
        spoken += len(fresh)
        if fresh and not call._over:
            call.send(_stream_audio(fresh, "raw", rate))
    call._part()


def _wav(call: BotCall) -> None:
    assert call.wav is not None  # else the upgrade was refused
    call.say(call.wav.l16, call.number("chunk_ms", 100), rate=call.wav.rate)
    call._listen(call.number("listen_ms", 5000) / 1000)
    call.end({})
    call._part()


def _properties_hostile(call: BotCall) -> None:
    _greet(call)
    call.end(
        {
            "agent_group": {"nested": ["deep", {"deeper": None}]},
            "summary": "long " * 20_000,
            "not_listed": "must not reach Ameyo",
            "uniqueId": "somebody-else",
            "": "no name",
            "number": 1e308,
            "line\nbreak": "a\r\nb\x00c",
        },
        reason="hostile",
    )
    call._part()


def _half_closed(call: BotCall) -> None:
    _greet(call)
    call._connection.socket.shutdown(socket.SHUT_WR)
    call._part(HOLD_LIMIT)


def _frozen(call: BotCall) -> None:
    _greet(call)
    call._part(HOLD_LIMIT)


def _flood(call: BotCall) -> None:
    _greet(call)
    text = json.dumps({"type": "nonsense", "padding": "x" * call.number("size", 2000)})
    for _ in range(call.number("count", 3000)):
        call.send_text(text)
    call.end()
    call._part()


def _oversized(call: BotCall) -> None:
    _greet(call)
    call.send({"type": "nonsense", "padding": "x" * call.number("size", 5 * 1024 * 1024)})
    call._listen(call.number("listen_ms", 500) / 1000)
    call.say(tone(GOODBYE, call.number("goodbye_ms", 400) / 1000, call.rate), call.number("chunk_ms", 100))
    call.end()
    call._part()


BEHAVIOURS: dict[str, Callable[[BotCall], None]] = {
    "talk": _talk,
    "hold": _hold,
    "deaf": _hold,
    "converse": _converse,
    "drone": _drone,
    "one-breath": _one_breath,
    "close": _close,
    "error-close": _error_close,
    "abort": _abort,
    "silent": _silent,
    "junk": _junk,
    "echo": _echo,
    "wav": _wav,
    "properties-hostile": _properties_hostile,
    "half-closed": _half_closed,
    "frozen": _frozen,
    "flood": _flood,
    "oversized": _oversized,
}


class Bot:
    """The server; a context manager, or :meth:`start` and :meth:`stop`.

    Args:
        host, port: where to listen; 0 takes a free port.
        ssl_context: of a server, for ``wss://``.
        keep_audio: seconds of caller audio kept for each call.
        wav: what ``/wav`` speaks.
        recorder: writes what the callers say.
        emit: told ``call``, ``audio`` (first heard), ``said``, ``resumed``, ``end``, ``closed``, with fields.

    It can be stopped and started again: on the same port, and with the calls so far still known.
    ``refused`` holds the upgrades answered with 403 or 404.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        keep_audio: float = 30.0,
        wav: WavFile | None = None,
        recorder: Recorder | None = None,
        emit: Emit = silent,
    ) -> None:
        self.host, self.port = host, port
        self.refused: deque[Upgrade] = deque(maxlen=CALLS_KEPT)
        self._ssl = ssl_context
        self._keep_audio = keep_audio
        self._wav, self._recorder = wav, recorder
        self._emit = emit
        self._calls: deque[BotCall] = deque(maxlen=CALLS_KEPT)
        self._kept: list[socket.socket] = []
        self._changed = threading.Condition()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen; again on the same port where it was stopped. Raises OSError where the port is taken."""
        self._server = serve(
            self._handle,
            self.host,
            self.port,
            ssl=self._ssl,
            process_request=self._admit,
            compression=None,  # mod_audio_stream never offers it
            ping_interval=None,  # a slow test machine is no reason to drop a call
            open_timeout=5,
            close_timeout=2,
            server_header="eslbot-sim",
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="bot", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Drop every call and stop listening; bounded by the opening and closing time-outs."""
        if self._server is None or self._thread is None:
            return
        self.let_go()
        living = [call for call in self.calls if not call.closed]
        for call in living:
            call.abort()
        deadline = time.monotonic() + 2
        for call in living:  # or the server's own closing, with 1001, overtakes the drop
            call._part(max(0.0, deadline - time.monotonic()))
        self._server.shutdown()
        self._thread.join(10)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, behaviour: str = "talk") -> str:
        """The WebSocket URL of ``behaviour``, which may carry a query: ``talk?listen_ms=300``."""
        return f"{'wss' if self._ssl else 'ws'}://{self.host}:{self.port}/{behaviour}"

    @property
    def behaviours(self) -> list[str]:
        """The paths that are served."""
        return [name for name in BEHAVIOURS if name != "wav" or self._wav is not None]

    @property
    def calls(self) -> list[BotCall]:
        """The calls so far, oldest first."""
        with self._changed:
            return list(self._calls)

    def wait_for_call(
        self, predicate: Callable[[BotCall], bool] | None = None, timeout: float = 10.0
    ) -> BotCall:
        """The first call for which ``predicate`` holds when it connects, already there or still to come.

        Raises:
            TimeoutError: none within ``timeout`` seconds.
        """
        found: list[BotCall] = []

        def look() -> bool:
            found[:] = [call for call in self._calls if predicate is None or predicate(call)][:1]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, timeout):
                raise TimeoutError(f"no such call within {timeout} s; had {list(self._calls)}")
        return found[0]

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        target = urlsplit(request.path)
        behaviour, parameters = target.path.strip("/"), dict(parse_qsl(target.query))
        if parameters.get("keep_tcp"):
            self._keep(connection)
        elif behaviour == "frozen":
            connection.socket = Frozen(connection.socket)
        if behaviour in self.behaviours:
            return None
        with self._changed:
            self.refused.append(Upgrade(time.time(), request.path, request.headers))
            self._changed.notify_all()
        self._emit("refused", {"path": request.path})
        if behaviour == "reject":
            return connection.respond(HTTPStatus(int(parameters.get("status", 403))), "not you\n")
        return connection.respond(HTTPStatus.NOT_FOUND, f"paths: {', '.join(self.behaviours)}, reject\n")

    def _keep(self, connection: ServerConnection) -> None:
        """Have the library work on a copy, whose end is not the connection's."""
        with self._changed:
            self._kept.append(connection.socket)
        connection.socket = LeftOpen(fileno=os.dup(connection.socket.fileno()))

    def let_go(self) -> None:
        """End the connections that ``keep_tcp`` has left open."""
        with self._changed:
            kept, self._kept = self._kept, []
        for sock in kept:
            with contextlib.suppress(OSError):  # the peer was faster
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _handle(self, connection: ServerConnection) -> None:
        call = BotCall(
            connection,
            keep_audio=self._keep_audio,
            emit=self._emit,
            wav=self._wav,
            recorder=self._recorder,
        )
        with self._changed:
            # Without an id, calls are strangers to each other.
            earlier = [before for before in self._calls if call.call_id and before.call_id == call.call_id]
            call.resumed = bool(earlier)
            self._calls.append(call)
            self._changed.notify_all()
        finished = next((before for before in reversed(earlier) if before.finished), None)
        self._emit("call", {"call_id": call.call_id, "path": call.path})
        reader = threading.Thread(target=call.read, name=f"bot reads {call.path}", daemon=True)
        reader.start()
        try:
            if finished is not None:
                _finish_again(call, finished)
            else:
                once = call.resumed and call.number("once", 0)
                BEHAVIOURS["talk" if once else call.behaviour](call)
        except ConnectionClosed:
            pass  # the caller hung up, or the test closed; the reader has noted how
        except BaseException as error:
            call.error = error  # for the test to see, and the library logs it
            raise
        finally:
            connection.close()
            reader.join(5)


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    emit: Emit = silent,
    ssl_context: ssl.SSLContext | None = None,
    wav: WavFile | None = None,
    recorder: Recorder | None = None,
) -> None:
    """The stand-in by itself, until SIGINT or SIGTERM; for ``eslbot sim bot``, in the main thread."""
    done = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: done.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with Bot(
            host, port, keep_audio=1, ssl_context=ssl_context, emit=emit, wav=wav, recorder=recorder
        ) as bot:
            emit("ready", {"url": bot.url(""), "behaviours": [*bot.behaviours, "reject"]})
            done.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

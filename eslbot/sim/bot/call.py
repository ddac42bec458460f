"""One connection to the stand-in bot: what came, what the bot says, how it closed."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
import wave
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from eslbot.sim.bot.ears import Ears
from eslbot.sim.bot.pace import Pace
from eslbot.sim.bot.sockets import Frozen
from eslbot.sim.bot.wavfiles import Recorder, WavFile
from eslbot.sim.bot.wires import DIALECTS, Eslbot, Message, Properties, Wire, WireError
from eslbot.sim.events import Emit

#: The handing-over message's usual content.
PROPERTIES = {"agent_group": "sales", "summary": "The caller wants to buy."}

#: Seconds. A call that nobody ends must not keep a thread for ever; a peer that does not close after
#: ``end`` is closed by us.
HOLD_LIMIT, FAREWELL_LIMIT = 3600.0, 60.0

#: How many messages of one call are kept.
MESSAGES_KEPT = 2000

#: Frames of caller audio whose arrival is kept: ten minutes of them at ptime 20.
FRAMES_KEPT = 30_000


@dataclass(frozen=True, slots=True)
class Received:
    """A text message from the switch, ``at`` epoch seconds; ``message`` is None where it is not JSON."""

    at: float
    text: str
    message: Any

    @property
    def type(self) -> str | None:
        """The message's ``type``, or ``event`` as telephony providers call it, where it has one."""
        return self.message.get("type", self.message.get("event")) if isinstance(self.message, dict) else None


@dataclass(frozen=True, slots=True)
class Said:
    """Speech the bot sent: the first byte ``at`` epoch seconds, the last ``until``, lasting ``seconds``."""

    at: float
    until: float
    seconds: float


class BotCall:
    """One WebSocket connection: what came, what was said, how it closed.

    Attributes:
        path: the request's target, with its query.
        behaviour: the path without slash and query.
        parameters: the query.
        headers: of the upgrade request; looking up ignores case.
        started, first_audio, last_audio, ended_at, closed_at: epoch seconds, None where it has not happened.
        rate: of the bot's own speech.
        wire: the protocol.
        audio_frames, audio_bytes: caller audio had so far, L16 at ``audio_rate``.
        arrivals: of each frame of it: epoch seconds and ``audio_bytes`` with it.
        said: what the bot has said, in order; the last :data:`MESSAGES_KEPT` utterances.
        onsets: when the caller has begun to speak, by loudness, epoch seconds; the last of them.
        onset_count: how often the caller has.
        held: whether the caller is on hold.
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
        self.audio_frames = self.audio_bytes = self.onset_count = 0
        self.arrivals: deque[tuple[float, int]] = deque(maxlen=FRAMES_KEPT)
        self.first_audio: float | None = None
        self.last_audio: float | None = None
        self.said: deque[Said] = deque(maxlen=MESSAGES_KEPT)
        self.end_message: dict[str, Any] | None = None
        self.finished = self.closed = False
        self.ended_at: float | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self.closed_by: str | None = None
        self.closed_at: float | None = None
        self.error: BaseException | None = None
        self.wire = self._choose_wire()
        self.format = self.parameters.get("format", "raw")
        # Binary speech has the rate of the caller's audio, and so has a telephony provider's.
        same = self.format == "binary" or not isinstance(self.wire, Eslbot)
        self.rate = self.number("rate", self.audio_rate if same else 8000)
        self.onsets: deque[float] = deque(maxlen=MESSAGES_KEPT)
        self.held = self.resumed = False
        self.wav = wav
        self._recorder = recorder
        self._recording: wave.Wave_write | None = None
        self._audio = bytearray()
        self._keep_audio = keep_audio
        self._connection = connection
        self._changed = threading.Condition()
        self._ears = Ears()
        self._random = Random(self.number("seed", 0))
        self._marks: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._emit = emit

    # what the behaviours are tuned by

    def number(self, name: str, default: int) -> int:
        """The query's ``name`` as a number."""
        return int(self.parameters.get(name, default))

    def pace(self) -> Pace:
        """How the query wants speech to be cut and timed."""
        return Pace(
            self.number("chunk_ms", 100),
            self.number("ahead_ms", 0) / 1000,
            self.number("jitter_ms", 0) / 1000,
            bool(self.number("burst", 0)),
            self._random,
        )

    def _choose_wire(self) -> Wire:
        dialect = self.parameters.get("dialect", self.behaviour)
        if dialect in DIALECTS:
            return DIALECTS[dialect]()
        return Eslbot(int(self.headers.get("X-Audio-Rate", 8000)))

    # what came

    @property
    def audio_rate(self) -> int:
        """Hertz of the caller's audio."""
        return self.wire.audio_rate

    @property
    def caller_speaks(self) -> bool:
        """Whether the caller speaks, by loudness."""
        return self._ears.speaking

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
    def marks_waited_for(self) -> list[str]:
        """The marks that were sent and have not come back, in the order sent."""
        with self._changed:
            return list(self._marks)

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
        """Send speech in chunks, at the pace of speaking or all at once.

        ``ahead`` are seconds by which each chunk is sent early; ``rate`` is the speech's, by default the
        call's; ``kind`` is the format, by default the query's.

        Raises:
            ConnectionClosed: the peer is gone.
        """
        self.speak(l16, Pace(chunk_ms, ahead, burst=not real_time), kind=kind, rate=rate)

    def speak(
        self, l16: bytes, pace: Pace | None = None, *, kind: str | None = None, rate: int | None = None
    ) -> None:
        """Send speech at a pace, by default the query's.

        Raises:
            ConnectionClosed: the peer is gone.
        """
        pace, rate, kind = pace or self.pace(), rate or self.rate, kind or self.format
        begun, at, size = time.monotonic(), time.time(), pace.size(rate)
        for start, due in zip(range(0, len(l16), size), pace.dues(), strict=False):
            begun += self.await_unheld()
            self._sleep(begun + due - time.monotonic())
            self.send_speech(l16[start : start + size], kind=kind, rate=rate)
        self.note_said(Said(at, time.time(), len(l16) / 2 / rate))

    def send_speech(self, l16: bytes, *, kind: str | None = None, rate: int | None = None) -> None:
        """Send one chunk of speech, now."""
        self._connection.send(self.wire.speech(l16, rate or self.rate, kind or self.format))

    def await_unheld(self) -> float:
        """Where the query says ``heeds_hold=1``: wait while the caller is on hold; seconds that took."""
        if not (self.held and self.number("heeds_hold", 0)):
            return 0.0
        begun = time.monotonic()
        self.until(lambda: self.closed or not self.held)
        return time.monotonic() - begun

    def send(self, message: dict[str, Any]) -> None:
        """Send a message of the protocol."""
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        """Send a text frame as it is."""
        self._connection.send(text)

    def send_binary(self, data: bytes) -> None:
        """Send a binary frame as it is."""
        self._connection.send(data)

    def clear(self) -> None:
        """Barge-in: stop playing."""
        self.send_text(self.wire.clear())

    def mark(self, name: str | None) -> None:
        """Ask to be told when everything so far has been heard; None is a mark without a name."""
        with self._changed:
            self._marks.append(name or "")
        self.send_text(self.wire.mark(name))

    def end(self, properties: Properties | None = None, reason: str = "done") -> None:
        """Say that the bot is finished; ``properties`` are for Ameyo. A telephony provider's bot closes."""
        properties = PROPERTIES if properties is None else properties
        message = {"type": "end", "properties": properties, "reason": reason}
        text = self.wire.end(properties, reason)
        with self._changed:
            # Before it is sent: it counts, and is repeated, also where the connection is just gone.
            self.end_message, self.ended_at, self.finished = message, time.time(), True
            self._changed.notify_all()
        if text is None:
            self.close(1000, reason)
        else:
            self.send_text(text)
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

    def send_raw(self, data: bytes) -> None:
        """Put bytes on the connection that are no frame of the library's."""
        self._connection.socket.sendall(data)

    def half_close(self) -> None:
        """End the bot's side of TCP without a close frame."""
        self._connection.socket.shutdown(socket.SHUT_WR)

    # the machinery

    def read(self) -> None:
        """Take what comes until the connection ends; runs in a thread of its own."""
        try:
            for message in self._connection:
                self._take(message)
        except ConnectionClosed:
            pass  # told apart by the close code below
        except WireError as error:
            self.error = error
            self.abort()  # as Pipecat's server does where reading the first messages failed
            with contextlib.suppress(ConnectionClosed):
                for _ in self._connection:  # it is closed when the library has seen the end
                    pass
        finally:
            if self._recording is not None:
                self._recording.close()
            self._note_close()

    def _take(self, message: Message) -> None:
        if isinstance(message, bytes):
            if not isinstance(self.wire, Eslbot):
                raise WireError("a binary message")
            self._take_audio(message)
            return
        try:
            document = json.loads(message)
        except ValueError:
            document = None
        l16 = self.wire.caller(document)
        if l16 is None:
            self._take_message(Received(time.time(), message, document))
        else:
            self._take_audio(l16)

    def _take_audio(self, frame: bytes) -> None:
        now = time.time()
        turned = self._ears.hear(frame, now)
        with self._changed:
            first, self.first_audio = self.first_audio is None, self.first_audio or now
            self.last_audio = now
            self.audio_frames += 1
            self.audio_bytes += len(frame)
            self.arrivals.append((now, self.audio_bytes))
            self._audio += frame
            limit = int(self._keep_audio * self.audio_rate) * 2
            if len(self._audio) > 2 * limit:  # now and then, since it moves everything
                del self._audio[: len(self._audio) - limit]
            if turned and self._ears.speaking:
                self.onsets.append(now)
                self.onset_count += 1
            self._changed.notify_all()
        if self._recorder is not None:
            self._record(self._recorder, frame)
        if first:
            self._emit("audio", {"call_id": self.call_id})
        if turned and self.number("hears", 0):
            self.send({"type": "caller_speech", "speaking": self._ears.speaking})

    def _record(self, recorder: Recorder, frame: bytes) -> None:
        if self._recording is None:
            path, self._recording = recorder.open(self.audio_rate)
            self._emit("recording", {"call_id": self.call_id, "file": str(path), "rate": self.audio_rate})
        self._recording.writeframes(frame)

    def _take_message(self, received: Received) -> None:
        message = received.message if isinstance(received.message, dict) else {}
        with self._changed:
            self.messages.append(received)
            mark = self.wire.heard(message)
            if mark is not None and mark in self._marks:
                self._marks.remove(mark)
            elif received.type == "hold":
                self.held = message.get("on") is True
            self._changed.notify_all()
        if received.type == "resumed":
            self._emit("resumed", {"call_id": self.call_id})
            self.send({"type": "resumed"})
            if self.end_message is not None:
                self.send(self.end_message)

    def note_said(self, said: Said) -> None:
        """Keep an utterance in :attr:`said`."""
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
            self.until(lambda: self.closed, duration)

    # what behaviours wait for

    def until(self, predicate: Callable[[], bool], limit: float = HOLD_LIMIT) -> bool:
        """Wait until ``predicate`` holds, ``limit`` seconds at most; whether it does."""
        with self._changed:
            return self._changed.wait_for(predicate, max(0.0, limit))

    @property
    def over(self) -> bool:
        """Whether the bot's part is: the connection is closed or ``end`` was sent."""
        return self.closed or self.end_message is not None

    def pause(self, duration: float) -> bool:
        """Wait; False at once where the bot's part is over."""
        return not self.until(lambda: self.over, duration)

    def listen(self, duration: float, limit: float = HOLD_LIMIT) -> None:
        """Until ``duration`` seconds more of caller audio have come, or the bot's part is over."""
        self.hear_until(self.audio_bytes + int(duration * self.audio_rate) * 2, limit)

    def hear_until(self, size: int, limit: float = HOLD_LIMIT) -> None:
        """Until ``size`` bytes of caller audio have come since the beginning, or the bot's part is over."""
        self.until(lambda: self.over or self.audio_bytes >= size, limit)

    def hear_onsets(self, count: int) -> bool:
        """Until the caller has begun to speak ``count`` times; False where the bot's part is over before."""
        return self.until(lambda: self.over or self.onset_count >= count) and not self.over

    def part(self, limit: float = FAREWELL_LIMIT) -> None:
        """Let the peer close."""
        self.until(lambda: self.closed, limit)

    def audio_from(self, position: int, size: int) -> bytes:
        """``size`` bytes of caller audio from byte ``position`` of the call on, as far as they are kept."""
        with self._changed:
            return bytes(self._audio[max(0, len(self._audio) - (self.audio_bytes - position)) :][:size])

    def __repr__(self) -> str:
        state = f"closed {self.close_code}" if self.closed else "open"
        return f"<BotCall {self.path} {self.call_id} {state}, {self.audio_seconds:.2f} s heard>"

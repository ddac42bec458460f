"""``uuid_audio_stream``: the community edition of mod_audio_stream and its WebSocket client, libwsc.

Sources: ``mod_audio_stream.c``, ``audio_streamer_glue.cpp``, libwsc's ``WebSocketContext.cpp``; what they do
on a live call was measured. What the real module does now and then, this one does always: one to eight frames
of the caller overtake the start metadata. What is read uninitialised there, ``STREAM_HEART_BEAT`` and
``STREAM_MESSAGE_DEFLATE``, is off here when unset.

Texts of the server become events, binary messages become nothing. A ``streamAudio`` is a text like any other:
the real module writes a file and tells of that, which nobody asks of it any more.

What libwsc does not do is here as well: it never ends a TCP connection on which the server has sent its
close frame, and ``stop`` waits for the connection's thread (``WebSocketContext::stop``), so a server that
leaves TCP open holds it for ever. Where it is we who close, it gives up after a second.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from .audio import Upsampler
from .wire import is_true, separate

if TYPE_CHECKING:
    from .channel import Channel
    from .core import Core

#: libwsc's connection time-out in seconds, for TCP, TLS and the upgrade together.
OPEN_TIMEOUT = 1.0

#: Seconds libwsc gives the server to answer our close frame.
CLOSE_TIMEOUT = 1.0

#: Bounds, which libwsc has not: one message from the server, and the bytes for a server that does not read.
MAX_MESSAGE = 256 << 20
MAX_UNSENT = 4 << 20

# WebSocketClient::ErrorCode
IO, CONNECT_FAILED, TLS_INIT_FAILED, SSL_ERROR, TIMEOUT = 1, 6, 7, 9, 10

_USAGE = (
    "-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown ] [wss-url | path] "
    "[mono | mixed | stereo] [8000 | 16000] [metadata]\n"
)
_OK, _FAILED = "+OK Success\n", "-ERR Operation Failed\n"

# validate_ws_uri: no underscore, no IPv6, no user; whatever follows the port is not looked at
_URL = re.compile(r"wss?://[A-Za-z0-9.\-]+(:\d*)?(/.*)?$", re.S)

#: How many frames overtake the start metadata (measured).
OVERTAKING = (1, 8)


def command(core: Core, arguments: str) -> str | Coroutine[Any, Any, str]:
    """Run the API command with its ``arguments`` and return the reply; an empty one goes out as "no
    reply". ``stop`` takes as long as the connection lives."""
    argv = separate(arguments, limit=6)
    if len(argv) < 2 or (argv[1] == "start" and len(argv) < 4):
        return _USAGE
    channel = core.channels.get(argv[0])
    if channel is None:
        return _FAILED
    verb, stream, extra = argv[1].lower(), channel.stream, argv[2] if len(argv) > 2 else None
    if verb == "send_text" and extra is None:
        return ""
    if verb in ("send_text", "stop") and extra is not None and not _is_utf8(extra):
        return ""
    if verb == "start":
        if len(argv) < 4 or argv[3] not in ("mono", "mixed", "stereo"):
            return ""
        return _OK if _start(channel, argv[2:]) else _FAILED
    if stream is None:
        return _FAILED
    if verb == "stop":
        return _when_closed(channel, stream.stop(extra))
    if verb in ("pause", "resume"):
        stream.paused = verb == "pause"
    elif verb == "send_text" and extra is not None:
        stream.send_text(extra)
    else:
        return _FAILED
    return _OK


async def _when_closed(channel: Channel, closed: asyncio.Task[None]) -> str:
    """The reply to ``stop``; until then the session is in use (``switch_core_session_locate``)."""
    channel.users.add(closed)
    try:
        await asyncio.wait([closed])
    finally:
        channel.users.discard(closed)
    return _OK


def _start(channel: Channel, argv: Sequence[str]) -> bool:
    url, mix = argv[0], argv[1]
    text = argv[2] if len(argv) > 2 else "8000"
    number = re.match(r"\d{1,6}", {"8k": "8000", "16k": "16000"}.get(text, text), re.A)
    rate = int(number[0]) if number else 0
    if not _URL.match(url) or rate <= 0 or rate % 8000 or channel.stream is not None:
        return False
    channel.pre_answer()  # a bug needs media: before the answer this sends a 183
    if not channel.has_codec:
        # The module asks the codec for its rate without looking whether there is one (audio_stream.c).
        channel.core.emit("crash", {"signal": "SIGSEGV", **channel.identity()})
        signal.raise_signal(signal.SIGSEGV)
    channel.stream = AudioStream(channel, url, mix, rate, argv[3] if len(argv) > 3 else "")
    channel.media.flush()
    return True


class AudioStream:
    """One media bug with its WebSocket. It stays attached when the server closes, and removes itself on an
    error."""

    def __init__(self, channel: Channel, url: str, mix: str, rate: int, metadata: str) -> None:
        self.paused = False
        self._channel, self._url, self._mix, self._metadata = channel, url, mix, metadata
        self._upsample = Upsampler(rate)
        self._headers = _extra_headers(channel.variables.get("STREAM_EXTRA_HEADERS"))
        #: The open connection, while frames may be sent on it.
        self._open: _Wire | None = None
        self._stopped = False
        self._stop = asyncio.Event()
        #: Frames that the metadata still waits for; None where it waits for nothing.
        self._overtaking: int | None = None
        self._buffer = bytearray()
        self._packets, size = 1, channel.variables.get("STREAM_BUFFER_SIZE", "")
        if size.isascii() and size.isdigit() and int(size) >= 20 and int(size) % 20 == 0:
            self._packets = int(size) // 20
        self._buffer_size = 320 * rate // 8000 * self._packets
        self._task = channel.core.tasks.start(self._run(), f"audio stream of {channel.uuid}")

    def hear(self, linear: bytes) -> None:
        """One frame of the caller, L16 at 8,000 Hz. Only ``mono`` sends anything on a parked call."""
        if self.paused or self._open is None or self._mix != "mono":
            return
        frame = self._upsample(linear)
        if self._packets == 1:
            self._put(frame)
            self._overtake()
            return
        self._buffer += frame
        while len(self._buffer) >= self._buffer_size:
            self._put(bytes(self._buffer[: self._buffer_size]))
            self._overtake()
            del self._buffer[: self._buffer_size]

    def send_text(self, text: str) -> None:
        """Send a text message; without an open socket it is lost without a word, as in the module."""
        self._put(text)

    def stop(self, text: str | None = None) -> asyncio.Task[None]:
        """Detach: the server gets a close frame with 1000, and no event tells of it.

        What is returned ends with the connection.
        """
        if not self._stopped:
            if text is not None:
                self.send_text(text)
            self._detach()
            self._stop.set()
        return self._task

    # -- the connection ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        wire: _Wire | None = None
        try:
            wire = await self._connect()
            if wire is not None:
                await self._converse(wire)
        except (OSError, InvalidURI, _Refused, ValueError) as error:
            self._fail(*self._explain(error))
        finally:
            self._open = None
            if wire is not None:
                wire.close()

    async def _connect(self) -> _Wire | None:
        """The upgraded connection, None when it is stopped before."""
        variables = self._channel.variables
        tls = _tls(variables) if self._url.startswith("wss:") else None
        opening = asyncio.ensure_future(_Wire.open(self._url, self._headers, tls))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
            return None if self._stopped else await opening
        finally:
            stopping.cancel()
            if not opening.cancel() and self._stopped and opening.exception() is None:
                opening.result().close()

    async def _converse(self, wire: _Wire) -> None:
        """Until libwsc's loop would end."""
        self._open = wire
        if self._metadata:
            self._overtaking = random.randint(*OVERTAKING) if self._mix == "mono" else 0
            self._overtake(0)
        self._report("connected")
        self._fire("connect", {"status": "connected"})
        heart_beat = self._channel.variables.get("STREAM_HEART_BEAT", "")
        beats = heart_beat.isascii() and heart_beat.isdigit() and int(heart_beat)
        reading = asyncio.ensure_future(self._read(wire))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            while not reading.done() and not stopping.done():
                done, _ = await asyncio.wait(
                    [reading, stopping], timeout=beats or None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done and self._open is not None:
                    wire.ping()
            if not reading.done() and self._open is not None:
                self._open = None
                wire.send_close()
                self._report("closed", code=1000)
                await asyncio.wait([reading], timeout=CLOSE_TIMEOUT)
            elif not reading.done():  # the server has closed: nothing but the end of TCP ends the loop
                await asyncio.wait([reading])
            if reading.done():
                reading.result()
        finally:
            stopping.cancel()
            reading.cancel()

    async def _read(self, wire: _Wire) -> None:
        """Take what the server says until the end of TCP."""
        try:
            async for message in wire.messages():
                if self._stopped:  # libwsc reads on, and looks at nothing
                    continue
                if isinstance(message, str):
                    self._channel.fire("CUSTOM", body=message, subclass="mod_audio_stream::json")
                else:
                    self._closed(*message)
        except OSError:
            if self._open is not None:
                raise
        if self._open is not None:
            raise _Refused(IO, "Connection closed without WebSocket CLOSE (abnormal EOF)")

    def _explain(self, error: Exception) -> tuple[int, str]:
        """libwsc's code and text for a connection that failed."""
        if isinstance(error, _Refused):
            return error.code, error.text
        if self._open is not None:
            return IO, f"{error.strerror} (system error {error.errno})" if isinstance(
                error, OSError
            ) else f"{error}"
        if isinstance(error, TimeoutError):
            return TIMEOUT, "Timeout"
        if isinstance(error, FileNotFoundError):
            return TLS_INIT_FAILED, "Failed SSL context creation"
        if isinstance(error, ssl.SSLError):
            return SSL_ERROR, f"TLS error: {error}"
        if isinstance(error, ConnectionRefusedError):
            return CONNECT_FAILED, f"Connection refused (system error {error.errno})"
        if isinstance(error, OSError) and self._url.startswith("wss:") and not error.errno:
            return SSL_ERROR, f"TLS error: {error}"
        return CONNECT_FAILED, f"{error}"

    def _closed(self, code: int, reason: str) -> None:
        """The server's close frame: no frame goes out any more, and the bug stays."""
        self._open = None
        self._report("closed", code=code)
        message = {"code": code, "reason": reason}
        self._fire("disconnect", {"status": "disconnected", "message": message})

    def _fail(self, code: int, text: str) -> None:
        if self._stopped:
            return
        self._report("failed", code=code, error=text)
        self._fire("error", {"status": "error", "message": {"code": code, "error": text}})
        self._detach()

    def _detach(self) -> None:
        self._stopped = True
        if self._channel.stream is self:
            self._channel.stream = None

    def _overtake(self, frames: int = 1) -> None:
        """So many more frames were before the metadata, which goes when they are enough."""
        if self._overtaking is None:
            return
        self._overtaking -= frames
        if self._overtaking <= 0:
            self._overtaking = None
            self._put(self._metadata.encode("utf-8", "replace").decode())

    def _put(self, message: bytes | str) -> None:
        if self._open is not None and not self._open.send(message):
            self._report("frame dropped")

    def _fire(self, subclass: str, content: dict[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        self._channel.fire("CUSTOM", body=body, subclass=f"mod_audio_stream::{subclass}")

    def _report(self, state: str, **fields: Any) -> None:
        self._channel.core.emit(
            "stream", {"state": state, "url": self._url, **fields, **self._channel.identity()}
        )


class _Refused(Exception):
    """What libwsc reports as an error, with its code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class _Wire:
    """An upgraded connection, as libwsc has it: it answers a close frame, and does not end TCP itself."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ClientProtocol
    ) -> None:
        self._reader, self._writer, self._protocol = reader, writer, protocol
        self._parts: list[bytes] = []
        self._text = False

    @classmethod
    async def open(cls, url: str, headers: list[tuple[str, str]], tls: ssl.SSLContext | None) -> _Wire:
        """One attempt, no redirects. Raises TimeoutError, OSError, InvalidURI, _Refused."""
        uri = parse_uri(url)
        protocol = ClientProtocol(uri, max_size=MAX_MESSAGE)
        async with asyncio.timeout(OPEN_TIMEOUT):
            reader, writer = await asyncio.open_connection(
                uri.host, uri.port, ssl=tls, server_hostname=uri.host if tls else None, limit=1 << 20
            )
            wire = cls(reader, writer, protocol)
            try:
                request = protocol.connect()
                for name, value in headers:
                    request.headers[name] = value
                protocol.send_request(request)
                await wire._upgrade()
            except BaseException:
                wire.close()
                raise
        return wire

    async def _upgrade(self) -> None:
        self._flush()
        while True:
            data = await self._reader.read(65536)
            if not data:
                raise _Refused(CONNECT_FAILED, "Connection closed during handshake (EOF)")
            self._protocol.receive_data(data)
            if self._protocol.handshake_exc is not None:
                raise _Refused(CONNECT_FAILED, "WebSocket upgrade failed")
            if self._protocol.state is not State.CONNECTING:  # a close frame may have come with it
                return

    async def messages(self) -> AsyncIterator[str | tuple[int, str]]:
        """Texts, and the close frame as its code and reason; until the end of TCP. Raises OSError."""
        while True:
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    message = self._message(event)
                    if message is not None:
                        yield message
            self._flush()
            data = await self._reader.read(65536)
            if not data:
                return
            self._protocol.receive_data(data)

    def _message(self, frame: Frame) -> str | tuple[int, str] | None:
        if frame.opcode is Opcode.CLOSE:
            close = Close.parse(bytes(frame.data))
            return close.code, close.reason
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._parts, self._text = [], frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return None
        self._parts.append(bytes(frame.data))
        return b"".join(self._parts).decode("utf-8", "replace") if frame.fin and self._text else None

    def send(self, message: bytes | str) -> bool:
        """Whether there was room for it."""
        if self._protocol.state is not State.OPEN:
            return True  # its close is here and not noticed yet: nobody wants it any more
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            return False
        if isinstance(message, str):
            self._protocol.send_text(message.encode("utf-8", "surrogateescape"))
        else:
            self._protocol.send_binary(message)
        self._flush()
        return True

    def ping(self) -> None:
        """A heart beat, whose answer nobody looks for."""
        self._protocol.send_ping(b"ping")
        self._flush()

    def send_close(self) -> None:
        """Our close frame."""
        self._protocol.send_close(1000)
        self._flush()

    def close(self) -> None:
        """End TCP."""
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()
        else:
            self._writer.close()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._writer.is_closing():
                self._writer.write(data)


def _is_utf8(text: str) -> bool:
    """Whether what came over the event socket was UTF-8 (``is_valid_utf8``)."""
    return not any("\udc80" <= char <= "\udcff" for char in text)


def _extra_headers(text: str | None) -> list[tuple[str, str]]:
    """The string members of a JSON object; anything else counts as no headers."""
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return []
    if not isinstance(content, dict):
        return []
    return [(name, value) for name, value in content.items() if isinstance(value, str)]


def _tls(variables: Any) -> ssl.SSLContext:
    """libwsc's TLS options: a CA file, ``SYSTEM`` (also when unset) or ``NONE``, a client certificate, host
    names."""
    authority = variables.get("STREAM_TLS_CA_FILE") or "SYSTEM"
    context = ssl.create_default_context(cafile=None if authority in ("SYSTEM", "NONE") else authority)
    if authority == "NONE" or is_true(variables.get("STREAM_TLS_DISABLE_HOSTNAME_VALIDATION")):
        context.check_hostname = False
    if authority == "NONE":
        context.verify_mode = ssl.CERT_NONE
    key, certificate = variables.get("STREAM_TLS_KEY_FILE"), variables.get("STREAM_TLS_CERT_FILE")
    if key and certificate:
        context.load_cert_chain(certificate, key)
    return context

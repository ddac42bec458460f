"""``uuid_audio_stream``: the community edition of mod_audio_stream and its WebSocket client, libwsc.

Sources: ``mod_audio_stream.c``, ``audio_streamer_glue.cpp``, libwsc's ``WebSocketContext.cpp``; what they do
on a live call was measured. Two things the real module does only most of the time, this one
always does: the start metadata is the first message, and ``STREAM_HEART_BEAT`` and ``STREAM_MESSAGE_DEFLATE``
are off when unset.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from .audio import Upsampler
from .wire import is_true, separate

if TYPE_CHECKING:
    from .channel import Channel
    from .core import Core

#: libwsc's connection time-out in seconds, for TCP, TLS and the upgrade together.
OPEN_TIMEOUT = 1.0

#: Bounds: one message from the bot, and the frames waiting to be sent to a bot that does not read.
MAX_MESSAGE = 4 << 20
MAX_WAITING = 500

# WebSocketClient::ErrorCode
IO, CONNECT_FAILED, TLS_INIT_FAILED, SSL_ERROR, TIMEOUT = 1, 6, 7, 9, 10

_USAGE = (
    "-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown ] [wss-url | path] "
    "[mono | mixed | stereo] [8000 | 16000] [metadata]\n"
)
_OK, _FAILED = "+OK Success\n", "-ERR Operation Failed\n"

# validate_ws_uri: no underscore, no IPv6, no user; whatever follows the port is not looked at
_URL = re.compile(r"wss?://[A-Za-z0-9.\-]+(:\d*)?(/.*)?$", re.S)

_EXTENSIONS = {"wav": ".wav", "mp3": ".mp3", "ogg": ".ogg", "pcmu": ".pcmu", "pcma": ".pcma"}
_RATES = (8000, 16000, 24000, 32000, 48000, 64000)


def command(core: Core, arguments: str) -> str:
    """Run the API command with its ``arguments`` and return the reply; an empty one goes out as "no
    reply"."""
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
        stream.stop(extra)
    elif verb in ("pause", "resume"):
        stream.paused = verb == "pause"
    elif verb == "send_text" and extra is not None:
        stream.send_text(extra)
    else:
        return _FAILED
    return _OK


def _start(channel: Channel, argv: Sequence[str]) -> bool:
    url, mix = argv[0], argv[1]
    text = argv[2] if len(argv) > 2 else "8000"
    number = re.match(r"\d{1,6}", {"8k": "8000", "16k": "16000"}.get(text, text), re.A)
    rate = int(number[0]) if number else 0
    if not _URL.match(url) or rate <= 0 or rate % 8000 or channel.stream is not None:
        return False
    channel.pre_answer()  # a bug needs media: before the answer this sends a 183
    channel.stream = AudioStream(channel, url, mix, rate, argv[3] if len(argv) > 3 else "")
    return True


class AudioStream:
    """One media bug with its WebSocket. It stays attached when the server closes, and removes itself on an
    error."""

    def __init__(self, channel: Channel, url: str, mix: str, rate: int, metadata: str) -> None:
        self.paused = False
        self._channel, self._url, self._mix, self._metadata = channel, url, mix, metadata
        self._upsample = Upsampler(rate)
        self._headers = _extra_headers(channel.variables.get("STREAM_EXTRA_HEADERS"))
        self._socket: ClientConnection | None = None
        self._sender: asyncio.Task[None] | None = None
        self._stopped = False
        self._files: list[Path] = []
        self._count = 0
        self._waiting: asyncio.Queue[bytes | str | None] = asyncio.Queue(MAX_WAITING)
        self._buffer = bytearray()
        self._packets, size = 1, channel.variables.get("STREAM_BUFFER_SIZE", "")
        if size.isascii() and size.isdigit() and int(size) >= 20 and int(size) % 20 == 0:
            self._packets = int(size) // 20
        self._buffer_size = 320 * rate // 8000 * self._packets
        self._task = channel.core.tasks.start(self._run(), f"audio stream of {channel.uuid}")

    def hear(self, linear: bytes) -> None:
        """One frame of the caller, L16 at 8,000 Hz. Only ``mono`` sends anything on a parked call."""
        if self.paused or self._socket is None or self._mix != "mono":
            return
        frame = self._upsample(linear)
        if self._packets == 1:
            self._put(frame)
            return
        self._buffer += frame
        while len(self._buffer) >= self._buffer_size:
            self._put(bytes(self._buffer[: self._buffer_size]))
            del self._buffer[: self._buffer_size]

    def send_text(self, text: str) -> None:
        """Send a text message; without an open socket it is lost without a word, as in the module."""
        if self._socket is not None:
            self._put(text)

    def stop(self, text: str | None = None) -> None:
        """Detach: the play files go, the socket is closed with 1000, and no event tells of it."""
        if self._stopped:
            return
        if text is not None:
            self.send_text(text)
        self._detach()
        if self._socket is not None and self._sender is not None:
            self._put(None)  # the end of what is still to be sent, the final text being the last
            closing = self._close(self._socket, self._sender)
            self._channel.core.tasks.start(closing, f"closing of {self._task.get_name()}")
        else:
            self._task.cancel()

    # -- the connection ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            socket = await self._connect()
        except (OSError, InvalidHandshake, InvalidURI, EOFError, ValueError) as error:
            self._fail(*self._explain(error))
            return
        self._socket = socket
        if self._metadata:
            self._put(self._metadata.encode("utf-8", "replace").decode())
        self._report("connected")
        self._fire("connect", {"status": "connected"})
        sender = self._sender = self._channel.core.tasks.start(
            self._send(socket), f"sender of {self._task.get_name()}"
        )
        try:
            async for message in socket:
                if isinstance(message, str) and not self._stopped:
                    self._receive(message)
            self._closed(socket)
        except ConnectionClosed as error:
            self._closed(socket, error.__cause__)
        finally:
            self._socket = None
            sender.cancel()

    async def _connect(self) -> ClientConnection:
        variables = self._channel.variables
        heart_beat = variables.get("STREAM_HEART_BEAT", "")
        return await _Connect(
            self._url,
            additional_headers=self._headers,
            compression=None,
            user_agent_header=None,
            proxy=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=1,
            ping_interval=int(heart_beat)
            if heart_beat.isascii() and heart_beat.isdigit() and int(heart_beat)
            else None,
            ping_timeout=None,
            max_size=MAX_MESSAGE,
            ssl=_tls(variables) if self._url.startswith("wss:") else None,
        )

    def _explain(self, error: Exception) -> tuple[int, str]:
        """libwsc's code and text for a connection that never opened."""
        if isinstance(error, TimeoutError):
            return TIMEOUT, "Timeout"
        if isinstance(error, FileNotFoundError):
            return TLS_INIT_FAILED, "Failed SSL context creation"
        if isinstance(error, ssl.SSLError):
            return SSL_ERROR, f"TLS error: {error}"
        cause = error.__cause__ or error
        if isinstance(cause, ConnectionRefusedError):
            return CONNECT_FAILED, f"Connection refused (system error {cause.errno})"
        if isinstance(cause, EOFError):
            return CONNECT_FAILED, "Connection closed during handshake (EOF)"
        if isinstance(error, InvalidHandshake):
            return CONNECT_FAILED, "WebSocket upgrade failed"
        if isinstance(error, OSError) and self._url.startswith("wss:") and not error.errno:
            return SSL_ERROR, f"TLS error: {error}"
        return CONNECT_FAILED, f"{error}"

    def _closed(self, socket: ClientConnection, cause: BaseException | None = None) -> None:
        """The server has gone: with a close frame the bug stays, without one it is an error."""
        if self._stopped:
            return
        self._socket = None
        received = socket.protocol.close_rcvd
        if received is None:
            text = "Connection closed without WebSocket CLOSE (abnormal EOF)"
            if isinstance(cause, OSError) and cause.errno:
                text = f"{os.strerror(cause.errno)} (system error {cause.errno})"
            self._fail(IO, text)
            return
        self._report("closed", code=received.code)
        message = {"code": received.code, "reason": received.reason}
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
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files.clear()

    async def _close(self, socket: ClientConnection, sender: asyncio.Task[None]) -> None:
        await asyncio.wait([sender], timeout=1)
        await socket.close(1000)
        self._report("closed", code=1000)

    async def _send(self, socket: ClientConnection) -> None:
        try:
            while (message := await self._waiting.get()) is not None:
                await socket.send(message)
        except ConnectionClosed:
            return  # the receiving side tells

    def _put(self, message: bytes | str | None) -> None:
        if self._waiting.full():
            self._waiting.get_nowait()
            self._report("frame dropped")
        self._waiting.put_nowait(message)

    # -- what the bot says ---------------------------------------------------------------------------------

    def _receive(self, text: str) -> None:
        played = self._keep_audio(text)
        if played is None:
            self._channel.fire("CUSTOM", body=text, subclass="mod_audio_stream::json")
        else:
            self._fire("play", played)

    def _keep_audio(self, text: str) -> dict[str, Any] | None:
        """Write the audio of a ``streamAudio`` message to a file; None where it is none, or cannot be
        used."""
        try:
            message = json.loads(text)
            if not isinstance(message, dict) or message.get("type") != "streamAudio":
                return None
            data = dict(message["data"])
            sound = base64.b64decode(data.pop("audioData"), validate=True)
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
            return None
        kind, rate = data.get("audioDataType"), data.get("sampleRate", 0)
        if kind == "raw" and rate in _RATES:
            extension = f".r{int(rate) // 1000}"
        elif isinstance(kind, str) and kind in _EXTENSIONS:
            extension = _EXTENSIONS[kind]
        else:
            return None
        path = self._channel.core.temp_dir / f"{self._channel.uuid}_{self._count}.tmp{extension}"
        self._count += 1
        try:
            path.write_bytes(sound)
        except OSError as error:
            self._report("play file not written", error=str(error))
            return None
        self._files.append(path)
        return {**data, "file": str(path)}

    def _fire(self, subclass: str, content: dict[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        self._channel.fire("CUSTOM", body=body, subclass=f"mod_audio_stream::{subclass}")

    def _report(self, state: str, **fields: Any) -> None:
        self._channel.core.emit(
            "stream", {"state": state, "url": self._url, **fields, **self._channel.identity()}
        )


class _Connect(connect):
    """One attempt, no redirects: libwsc follows none."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


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

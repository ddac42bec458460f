"""The WebSocket server for mod_audio_stream: who may connect, and whose call a stream is.

The module's upgrade request carries the call's signed identity. Without one the answer is 403 and nothing
else happens. With one the call is found or made, line files and all, before the upgrade is answered: so the
controller may displace them as soon as the stream is up. A second stream of a call takes the call over from
the first; what the first still says is nobody's.

A stream ends by a close frame (1000: the channel is gone, or the controller has stopped it) or by its
connection's end (FreeSWITCH has died). We answer close frames and end TCP ourselves: the module waits for
that, and FreeSWITCH with it.

``GET /prepare`` with the same headers makes the call and dials its bot before there is a stream: a controller
asks for it while the call is being answered. The answer's body is the URL of the worker that has the call.

``GET /healthz`` is answered ``relay``, to whoever asks, and is no stream that was refused.
"""

from __future__ import annotations

import asyncio
import re
import socket
from abc import ABC, abstractmethod
from typing import Protocol

import structlog
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite
from eslbot.relay import control
from eslbot.relay.control import Part
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds for an upgrade request, which has 16 KiB and 128 headers (picows).
HANDSHAKE_TIMEOUT = 5.0
#: Connections that have not said yet who they are; the next one is closed as it comes.
MAX_STRANGERS = 256
#: Bytes that wait to be read by FreeSWITCH until its stream is broken off.
MAX_UNREAD = 1024 * 1024
#: Seconds until a stream that was closed is reset.
CLOSE_TIMEOUT = 1.0

#: Reads behind one of our texts that are acknowledged at once. Behind what it has sent the kernel holds
#: acknowledgements back (tcp(7)), and the module, which has Nagle's algorithm, its next frame: up to 40 ms.
#: Where nothing is sent it does not; and each is a system call, a seventh of all that a frame costs.
QUICK_READS = 25

#: Looked up once: the module sends fifty frames a second a call.
_BINARY, _TEXT, _CLOSE = WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CLOSE

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_PTIME = re.compile(r"[1-9]0|1[012]0")
_SWITCH = re.compile(r"[0-9A-Za-z-]{0,36}")
_RESTART = 1012


class Stream(Protocol):
    """The module's WebSocket, as a call sees it."""

    def send_text(self, text: str) -> None:
        """News for the controller. Nothing is sent once the stream is closed, or its call taken over."""

    def close(self, code: int = 1000) -> None:
        """End it; never waits. The call hears no more of it."""


class Call(ABC):
    """A call in the relay, as its stream and its worker see it: :class:`eslbot.relay.call.RelayCall`.

    It is made with an invite, its workspace and the worker's :class:`~eslbot.relay.resources.Resources`. None
    of these methods waits, and none raises.
    """

    @abstractmethod
    def prepare(self) -> None:
        """A stream is on its way: dial the bot. May come again, and behind :meth:`stream_up`."""

    @abstractmethod
    def open_line(self, ptime: int, switch: str) -> None:
        """Have the line's files, which are read every ``ptime`` milliseconds.

        By FreeSWITCH of this Core-UUID, where that is told; another one than before reads other files.
        Where they cannot be made, the call is over: the stream that comes up is told.
        """

    @abstractmethod
    def stream_up(self, stream: Stream, part: Part) -> None:
        """There is a stream, the first or another one; the one before is gone without further notice."""

    @abstractmethod
    def receive_audio(self, frame: bytes) -> None:
        """A binary frame of the module's: L16 at 8,000 Hz, 320 bytes."""

    @abstractmethod
    def receive_order(self, text: str) -> None:
        """A text of the controller's, which may be anything (:func:`eslbot.relay.control.read_order`)."""

    @abstractmethod
    def stream_gone(self, clean: bool) -> None:
        """The stream has ended; ``clean`` by a close frame with 1000."""

    @abstractmethod
    def shutdown(self) -> None:
        """The relay ends at once: tell the bot, close its socket, keep the files for the next relay."""


#: What whoever mends a refusal has to look at; of the other reasons there is nothing of ours to mend.
REMEDIES = {
    "no_identity": "where it is a call of ours, the controllers have another server.key_file than this "
    "relay: compare `eslbot key` on both hosts",
    "unknown_workspace": "this relay has another configuration than the controllers: give it theirs, HUP",
    "bad_request": "if these are controllers of ours, run relay and controllers of one version",
    "full": "raise relay.processes",
    "leaving": "nothing: the stream is started with another relay",
}


class StreamRefused(Exception):
    """A stream that gets no call. ``why`` is one of :data:`eslbot.telemetry.metrics.REFUSED_WHYS`."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Calls(Protocol):
    """The worker's calls."""

    @property
    def url(self) -> str:
        """Where this very worker is reached."""

    def find_or_make(self, invite: Invite) -> Call:
        """The call, made where there is none. Raises StreamRefused."""

    def has_stream(self, call_id: str) -> None:
        """A stream of this call is up."""


class _Accepted(socket.socket):
    """An accepted connection; until it has said who it is, its descriptor is among the strangers."""

    strangers: set[int]

    def close(self) -> None:
        self.strangers.discard(self.fileno())
        super().close()


class _Listening(socket.socket):
    """A listening socket that lets in so many strangers and no more."""

    strangers: set[int]

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection; BlockingIOError where there is none."""
        while True:
            accepted, address = super().accept()
            if len(self.strangers) < MAX_STRANGERS:
                connection = _Accepted(fileno=accepted.detach())
                connection.strangers = self.strangers
                self.strangers.add(connection.fileno())
                return connection, address
            accepted.close()
            metrics.RELAY_STRANGERS.inc()


class StreamServer:
    """Accepts streams; :meth:`open` it for each listening socket of the worker's."""

    def __init__(self, signer: Signer, calls: Calls) -> None:
        self._signer, self._calls = signer, calls
        self._strangers: set[int] = set()
        #: The stream that each call has.
        self._streams: dict[str, ModuleStream] = {}

    async def open(self, listening: socket.socket) -> asyncio.Server:
        """Accept at ``listening``, which is the server's from here on."""
        bounded = _Listening(fileno=listening.detach())
        bounded.setblocking(False)
        bounded.strangers = self._strangers
        return await ws_create_server(
            self._arrived,
            sock=bounded,
            backlog=1024,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT,
            max_frame_size=control.MAX_BYTES,
        )

    def _arrived(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
        if request.path == control.HEALTH.encode():
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(control.HEALTHY), None)
        try:
            is_prepare = request.path == b"/prepare"
            if not is_prepare and request.path != b"/":
                raise StreamRefused(404, "bad_request")
            invite = self._identity(request)
            part = Part.NEW if is_prepare else _part(request)
            ptime = int(_header(request, control.PTIME, _PTIME, "20"))
            switch = _header(request, control.SWITCH, _SWITCH, "")
            call = self._calls.find_or_make(invite)
            if not is_prepare:
                call.open_line(ptime, switch)
        except StreamRefused as refused:
            metrics.RELAY_REFUSED.labels(refused.why).inc()
            log.warning(
                "stream_refused",
                why=refused.why,
                status=refused.status,
                call_id=_claimed(request),
                remedy=REMEDIES[refused.why],
            )
            answer = WSUpgradeResponse.create_error_response(refused.status, refused.why.encode())
            return WSUpgradeResponseWithListener(answer, None)
        if is_prepare:
            call.prepare()
            answer = WSUpgradeResponse.create_ok_response(self._calls.url.encode())
            return WSUpgradeResponseWithListener(answer, None)
        return ModuleStream(self, invite.call_id, call, part)

    def _identity(self, request: WSUpgradeRequest) -> Invite:
        """Whose call it is. Raises StreamRefused."""
        calls, tokens = (request.headers.getall(name, []) for name in (control.CALL, control.IDENTITY))
        if len(calls) == len(tokens) == 1 and _CALL_ID.fullmatch(calls[0]):
            invite = self._signer.verify(calls[0], tokens[0])
            if invite is not None:
                return invite
        raise StreamRefused(403, "no_identity")

    # -- for streams --------------------------------------------------------------------------------------

    def up(self, stream: ModuleStream, call_id: str, descriptor: int) -> None:
        """It is the call's stream from here on; the one before is nobody's."""
        self._strangers.discard(descriptor)
        before = self._streams.get(call_id)
        self._streams[call_id] = stream
        if before is not None:
            log.info("stream_replaced", call_id=call_id)
            before.close(_RESTART)
        self._calls.has_stream(call_id)

    def down(self, stream: ModuleStream, call_id: str) -> None:
        """It is gone; another may long have its place."""
        if self._streams.get(call_id) is stream:
            del self._streams[call_id]


def _claimed(request: WSUpgradeRequest) -> str:
    """The call that it says it is of, which may be anybody's word."""
    call_id = request.headers.get(control.CALL, "")
    return call_id if _CALL_ID.fullmatch(call_id) else ""


def _header(request: WSUpgradeRequest, name: str, form: re.Pattern[str], default: str) -> str:
    text = request.headers.get(name, default)
    if not form.fullmatch(text):
        raise StreamRefused(400, "bad_request")
    return text


def _part(request: WSUpgradeRequest) -> Part:
    try:
        part = Part(request.headers.get(control.PART, ""))
    except ValueError:
        raise StreamRefused(400, "bad_request") from None
    heard = part is Part.UNDER_WAY and request.headers.get(control.HEARD) == "1"
    return Part.HEARD if heard else part


class ModuleStream(WSListener):
    """One stream of mod_audio_stream's (:class:`Stream`)."""

    def __init__(self, server: StreamServer, call_id: str, call: Call, part: Part) -> None:
        self._server, self._call_id, self._part = server, call_id, part
        #: None: nobody's any more.
        self._call: Call | None = call
        self._transport: WSTransport | None = None
        self._socket: socket.socket | None = None
        self._paused = False
        self._faulty = False
        self._quick = QUICK_READS

    # -- for the call -------------------------------------------------------------------------------------

    def send_text(self, text: str) -> None:
        """News for the controller; see :class:`Stream`."""
        if self._call is None or self._transport is None:
            return
        tcp = self._transport.underlying_transport
        if tcp.is_closing():
            return  # it broke in this very turn: we are told in the next, and aiofastnet logs each write
        self._transport.send(WSMsgType.TEXT, text)
        self._quick = QUICK_READS
        if self._paused and tcp.get_write_buffer_size() > MAX_UNREAD:
            log.error("stream_unread", call_id=self._call_id, bytes=MAX_UNREAD)
            self._reset()

    def close(self, code: int = 1000) -> None:
        """End it; see :class:`Stream`."""
        self._call = None
        if self._transport is not None:
            self._transport.send_close(code)  # type: ignore[arg-type]  # any number: picows' C enum is open
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._reset)

    # -- for picows ---------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is answered."""
        self._transport = transport
        self._socket = transport.underlying_transport.get_extra_info("socket")
        metrics.RELAY_STREAMS.inc()
        self._server.up(self, self._call_id, self._socket.fileno())
        try:
            if self._call is not None:
                self._call.stream_up(self, self._part)
        except Exception as error:  # noqa: BLE001  # told there
            self._fault(error)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """The caller's audio, a controller's order, or the end."""
        call, kind = self._call, frame.msg_type
        if call is not None:
            try:
                if not frame.fin:
                    self._reset()  # the module sends no fragments: this is something else
                elif kind == _BINARY:
                    call.receive_audio(frame.get_payload_as_bytes())
                elif kind == _TEXT:
                    call.receive_order(frame.get_payload_as_bytes().decode("utf-8", "replace"))
                elif kind == WSMsgType.CONTINUATION:
                    self._reset()  # nor their ends
            except Exception as error:  # noqa: BLE001  # told there
                self._fault(error)
        if kind == _CLOSE:
            self._closed(transport, frame)
        elif self._quick and frame.last_in_buffer and self._socket is not None:
            self._quick -= 1
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """TCP has ended."""
        metrics.RELAY_STREAMS.dec()
        self._socket = None
        self._server.down(self, self._call_id)
        if self._call is not None:
            metrics.RELAY_STREAMS_LOST.inc()
            self._gone(clean=False)

    def pause_writing(self) -> None:
        """More waits to be read than usual."""
        self._paused = True

    def resume_writing(self) -> None:
        """It was read."""
        self._paused = False

    # -- the end ------------------------------------------------------------------------------------------

    def _closed(self, transport: WSTransport, frame: WSFrame) -> None:
        code = int.from_bytes(frame.get_payload_as_bytes()[:2])
        transport.send_close(code or 1000)  # type: ignore[arg-type]
        transport.disconnect()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._reset)
        self._server.down(self, self._call_id)
        self._gone(clean=code == 1000)

    def _gone(self, *, clean: bool) -> None:
        call, self._call = self._call, None
        try:
            if call is not None:
                call.stream_gone(clean)
        except Exception as error:  # noqa: BLE001  # told there
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        """Of ours, in a call: count each, tell the first; a stream has fifty frames a second."""
        metrics.INTERNAL_ERRORS.inc()
        if not self._faulty:
            self._faulty = True
            log.error("relay_call_failed", call_id=self._call_id, exc_info=error)

    def _reset(self) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)

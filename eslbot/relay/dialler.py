"""Sockets to bots: who is dialled how, and what no bot can do to us.

A bot is hostile until proven otherwise. Its handshake has ``connect_timeout`` for everything (name, proxy,
TLS, upgrade) and 16 KiB; a frame or a message in fragments has :data:`MAX_MESSAGE`; what it does not read is
bounded by :data:`MAX_UNREAD`; it answers a ping within :data:`PING_INTERVAL` or is gone; and closing never
waits for it. What picows finds wrong with a frame, masks, lengths, control frames, ends the connection.

Messages a second are not counted here (:mod:`eslbot.relay.budgets`), but what is none: pings and fragments.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Protocol
from urllib.parse import quote, urlsplit

import structlog
from picows import WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect
from python_socks import ProxyError

import eslbot
from eslbot.config.model import Bot
from eslbot.config.urls import shown
from eslbot.telemetry import metrics, redaction

log = structlog.get_logger()

#: Bytes of a message: 4 MiB of audio in base64, and the JSON around it.
MAX_MESSAGE = 4 * 1024 * 1024 * 4 // 3 + 64 * 1024
#: Bytes that wait to be read by a bot until it has failed: a minute of audio at 8,000 Hz.
MAX_UNREAD = 1024 * 1024
#: Seconds between two pings; where nothing at all came meanwhile, the bot is gone.
PING_INTERVAL = 20.0
#: Pings, pongs and fragments a second beyond which a bot has failed.
MAX_CONTROL_FRAMES = 1000
#: Seconds until a connection that was closed is reset.
CLOSE_TIMEOUT = 1.0
#: The kernel's buffers. A read takes what there is, and is looked through in one go: so little may be there.
KERNEL_BUFFER = 64 * 1024
#: Characters of somebody else's text.
MAX_SHOWN = 200

#: Looked up once: there are a hundred messages a second a call.
_BINARY, _TEXT = WSMsgType.BINARY, WSMsgType.TEXT

_NOT_UTF8, _PROTOCOL_ERROR, _POLICY, _TOO_BIG, _INTERNAL = 1007, 1002, 1008, 1009, 1011
#: A close frame without a code (RFC 6455, 7.1.5).
_NO_CODE = 1005

# What goes wrong with a bot is told by whoever has dialled it, once; picows tells it again at each read.
_silent = logging.getLogger("eslbot.relay.picows")
_silent.setLevel(logging.CRITICAL + 1)


class BotUnreachable(Exception):
    """No URL of a bot's could be connected; the text says why the last could not, and holds no secret."""


class BotListener(Protocol):
    """Who talks to a bot."""

    def received(self, message: str | bytes) -> None:
        """A whole message; `str` is a text."""

    def lost(self, code: int, reason: str) -> None:
        """The connection is over, once, and never behind a close of ours.

        ``code`` is that of the bot's close frame (1005: it has none), or 0: it broke, or was broken off by us
        for what ``reason`` says.
        """


class BotSocket(WSListener):
    """One connection to a bot. Nothing in here waits."""

    def __init__(self, listener: BotListener) -> None:
        self._listener = listener
        self._transport: WSTransport | None = None
        self._socket: socket.socket | None = None
        self._over = False
        self._paused = False
        #: Of a message that comes in fragments.
        self._parts: bytearray | None = None
        self._parts_are_text = False
        #: Whether anything came since the last ping.
        self._heard = True
        self._count, self._counted_until = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None

    # -- for the call -------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it was ever there; what became of it, the listener is told."""
        return self._transport is not None

    def send(self, message: str | bytes) -> None:
        """Send a message; a bot that leaves more than :data:`MAX_UNREAD` bytes unread has failed.

        The listener is told of it in the loop's next turn: who sends is in the middle of something.
        """
        transport = self._transport
        if self._over or transport is None:
            return
        tcp = transport.underlying_transport
        if transport.is_close_frame_sent or tcp.is_closing():
            # In this very turn, perhaps; and aiofastnet logs each write until the next one.
            asyncio.get_running_loop().call_soon(self._broken, transport)
            return
        transport.send(_TEXT if isinstance(message, str) else _BINARY, message)
        if self._paused and tcp.get_write_buffer_size() > MAX_UNREAD:
            reason = f"does not read: {MAX_UNREAD} bytes wait for it"
            asyncio.get_running_loop().call_soon(self._fail, "unread", _POLICY, reason)

    def close(self, code: int = 1000) -> None:
        """Say farewell; :meth:`BotListener.lost` is not called any more."""
        if not self._over:
            self._end(code)

    def abandon(self) -> None:
        """Nobody waits for this connection any more, whether it is there or still comes."""
        self._over = True
        if self._transport is not None:
            self._reset()

    # -- for picows ---------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The bot has answered 101."""
        self._transport = transport
        if self._over:
            self._reset()
            return
        self._socket = transport.underlying_transport.get_extra_info("socket")
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER)
        self._timer = asyncio.get_running_loop().call_later(PING_INTERVAL, self._ping)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Whatever the bot sends; where it is none of what it may send, the end."""
        if self._over:
            return
        try:
            kind = frame.msg_type
            if kind == _BINARY and frame.fin and self._parts is None and not _extended(frame):
                self._heard = True
                self._listener.received(frame.get_payload_as_bytes())
            else:
                self._frame(transport, frame)
            if frame.last_in_buffer and self._socket is not None:
                # The kernel goes back to acknowledging late by itself (tcp(7)), and a bot without TCP_NODELAY
                # then sends its next message 40 ms late.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except Exception:
            metrics.INTERNAL_ERRORS.inc()
            log.exception("bot_message_failed")
            self._fail("internal", _INTERNAL, "internal error")

    def _frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._heard = True
        kind = frame.msg_type
        if _extended(frame):
            self._fail("protocol", _PROTOCOL_ERROR, "sent a frame of an extension that was not agreed on")
        elif not frame.fin or kind == WSMsgType.CONTINUATION:
            self._fragment(frame)
        elif kind in (_BINARY, _TEXT):
            if self._parts is None:
                self._message(frame.get_payload_as_bytes(), is_text=kind == _TEXT)
            else:
                self._fail("protocol", _PROTOCOL_ERROR, "began a message within another")
        elif kind == WSMsgType.CLOSE:
            self._closed(frame)
        elif self._floods() or transport.underlying_transport.is_closing():
            return
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """TCP has ended."""
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
        self._broken(transport)

    def pause_writing(self) -> None:
        """More waits to be read than usual."""
        self._paused = True

    def resume_writing(self) -> None:
        """It was read."""
        self._paused = False

    # -- what came ----------------------------------------------------------------------------------------

    def _message(self, payload: bytes, *, is_text: bool) -> None:
        message: str | bytes = payload
        if is_text:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                self._fail("text", _NOT_UTF8, "sent a text that is not UTF-8")
                return
        self._listener.received(message)

    def _fragment(self, frame: WSFrame) -> None:
        if self._floods():
            return
        if (frame.msg_type == WSMsgType.CONTINUATION) != (self._parts is not None):
            self._fail("protocol", _PROTOCOL_ERROR, "sent fragments that make no message")
            return
        if self._parts is None:
            self._parts, self._parts_are_text = bytearray(), frame.msg_type == WSMsgType.TEXT
        if len(self._parts) + frame.payload_size > MAX_MESSAGE:
            self._fail("protocol", _TOO_BIG, f"sent a message of over {MAX_MESSAGE} bytes in fragments")
            return
        self._parts += frame.get_payload_as_memoryview()
        if frame.fin:
            payload, self._parts = bytes(self._parts), None
            self._message(payload, is_text=self._parts_are_text)

    def _floods(self) -> bool:
        """Count what is no message; whether that was too much."""
        now = asyncio.get_running_loop().time()
        if now >= self._counted_until:
            self._count, self._counted_until = 0, now + 1.0
        self._count += 1
        if self._count > MAX_CONTROL_FRAMES:
            self._fail(
                "flood", _POLICY, f"sent more than {MAX_CONTROL_FRAMES} pings or fragments in a second"
            )
        return self._over

    def _closed(self, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()  # picows has looked at it: a code, and UTF-8
        code = int.from_bytes(payload[:2]) if payload else _NO_CODE
        self._end(1000 if code == _NO_CODE else code)
        self._leave_tcp()
        self._listener.lost(code, _printable(payload[2:].decode()))

    # -- the end ------------------------------------------------------------------------------------------

    def _ping(self) -> None:
        transport = self._transport
        if self._over or transport is None:
            return
        if transport.is_close_frame_sent:
            self._broken(transport)
        elif not self._heard:
            self._fail("ping", _POLICY, f"said nothing and answered no ping for {PING_INTERVAL:g} s")
        else:
            self._heard = False
            transport.send_ping()
            self._timer = asyncio.get_running_loop().call_later(PING_INTERVAL, self._ping)

    def _broken(self, transport: WSTransport) -> None:
        """The connection is gone, or picows ends it because of a frame that breaks the protocol."""
        if self._over:
            return
        wrong = transport.close_handshake.sent if transport.close_handshake else None
        self._over = True
        self._reset()
        metrics.RELAY_BOTS_LOST.labels("protocol" if wrong else "broken").inc()
        self._listener.lost(0, _printable(wrong.reason) if wrong else "the connection broke")

    def _fail(self, why: str, code: int, reason: str) -> None:
        if self._over:
            return
        metrics.RELAY_BOTS_LOST.labels(why).inc()
        self._end(code)
        self._listener.lost(0, reason)

    def _end(self, code: int) -> None:
        """Send the close frame; TCP's end is the bot's to wait for, not ours."""
        self._over = True
        self._parts = None
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.send_close(code)  # type: ignore[arg-type]  # any number: picows' C enum is open
            asyncio.get_running_loop().call_later(self._close_timeout(), self._reset)

    def _close_timeout(self) -> float:
        """Seconds that a bot has to end a connection that was closed, until it is reset."""
        return CLOSE_TIMEOUT

    def _leave_tcp(self) -> None:
        """The bot has closed, and was answered: its part of TCP's end is not waited for."""
        if self._transport is not None:
            self._transport.disconnect()

    def _reset(self) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)


def _extended(frame: WSFrame) -> bool:
    return bool(frame.rsv1 or frame.rsv2 or frame.rsv3)


async def dial(bot: Bot, headers: Mapping[str, str], listener: BotListener) -> BotSocket:
    """Try ``bot.urls`` in order, each for ``bot.connect_timeout`` seconds. Raises BotUnreachable.

    ``headers`` are the identity's; the workspace's own come on top of them.
    """
    last = "it has no URL"
    for url in bot.urls:
        connection = BotSocket(listener)
        try:
            await connect(bot, url, headers, connection)
        except BotUnreachable as error:
            last = str(error)
            log.warning("bot_unreachable", url=shown(url), error=last)
        else:
            return connection
    raise BotUnreachable(last)


async def connect(bot: Bot, url: str, headers: Mapping[str, str], connection: BotSocket) -> None:
    """Try one of the bot's URLs, once. Raises BotUnreachable; then ``connection`` is abandoned."""
    proxy = bot.proxy.reveal() if bot.proxy is not None else None
    where = urlsplit(url).netloc
    connected = False
    try:
        async with asyncio.timeout(bot.connect_timeout):
            await ws_connect(
                lambda *_: connection,
                url,
                ssl_context=tls(),
                websocket_handshake_timeout=bot.connect_timeout,  # it goes on when we do not wait any more
                logger_name=_silent,
                enable_auto_ping=False,
                enable_auto_pong=False,
                max_frame_size=MAX_MESSAGE,
                extra_headers=_headers(bot, headers),
                max_redirects=0,
                proxy=proxy,
                proxy_ssl_context=tls() if proxy is not None and proxy.startswith("https:") else None,
            )
        connected = connection.is_open  # picows says yes, too, where TCP ended in the middle of the upgrade
        if not connected:
            raise BotUnreachable(_printable(f"the connection ended before the upgrade ({where})"))
    except TimeoutError:
        raise BotUnreachable(f"no connection within {bot.connect_timeout:g} s") from None
    except WSHandshakeError as error:
        if error.response is not None and error.response.status != 101:
            raise BotUnreachable(f"HTTP status {int(error.response.status)}") from None
        raise BotUnreachable(_printable(f"is no WebSocket server ({where}): {error}")) from None
    except ssl.SSLCertVerificationError as error:
        raise BotUnreachable(_printable(f"TLS certificate: {error.verify_message} ({where})")) from None
    except ssl.SSLError as error:
        raise BotUnreachable(_printable(f"TLS: {error.reason or error} ({where})")) from None
    except ProxyError as error:
        raise BotUnreachable(_printable(f"proxy: {error}")) from None
    except OSError as error:
        known = error.errno is not None and not isinstance(error, socket.gaierror)
        text = os.strerror(error.errno) if known and error.errno is not None else error.strerror or error
        raise BotUnreachable(_printable(f"{text} ({where})")) from None
    except (WSError, UnicodeError, ValueError) as error:
        raise BotUnreachable(_printable(f"cannot be dialled ({where}): {error}")) from None
    finally:
        if not connected:
            connection.abandon()


@cache
def tls() -> ssl.SSLContext:
    """For every bot of this process: the system's authorities, or those that ``SSL_CERT_FILE`` names."""
    return ssl.create_default_context()


def _headers(bot: Bot, identity: Mapping[str, str]) -> list[tuple[str, str]]:
    """A bot's own headers last; callers' and callees' names are others' words, which may hold anything."""
    own = [(name, value.reveal()) for name, value in bot.headers.items()]
    given = {name.lower() for name, _ in own}
    ours = [("User-Agent", f"eslbot/{eslbot.__version__}"), *identity.items()]
    return [(name, _header(value)) for name, value in ours if name.lower() not in given] + own


#: Printable ASCII but for ``%``, by which the rest is escaped.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def _header(value: str) -> str:
    return value if value.isascii() and value.isprintable() else quote(value, safe=_PLAIN)


def _printable(text: str) -> str:
    """A text of others, for people: bounded, on one line, without secrets."""
    begins = redaction.beginning(text, MAX_SHOWN)
    return "".join(character if character.isprintable() else " " for character in begins).strip()

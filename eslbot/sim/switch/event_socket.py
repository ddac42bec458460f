"""The outbound event socket: FreeSWITCH's end of the connection to a controller (mod_event_socket.c).

What is the same: commands, their replies, the order of replies, subscription and filter rules, linger, both
notices; that nothing goes either way while an ``api`` has not come back, and that the connection is not let
go of, nor another controller called, before its own ``bgapi`` jobs have ended.
What is not: events go out at once, not on the next 20 ms poll; ``sendevent``, ``log`` and XML are missing.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from eslbot.sim.events import Emit

from .api import Api
from .causes import named
from .channel import Channel
from .core import Core
from .session import Command
from .wire import ENCODING, ERRORS, EVENT_NAMES, MY_EVENTS, Event, is_true, serialise

#: How long FreeSWITCH waits for the first command, in seconds.
CONNECT_WAIT = 25.0

#: Bounds: one line and one body of a command, and the bytes a controller may leave unread before it is
#: dropped.
MAX_LINE = 1 << 20
MAX_BODY = 1 << 20
MAX_UNSENT = 16 << 20

#: The reply buffer of FreeSWITCH; a longer reply (``getvar``) is cut.
MAX_REPLY = 511

_GOODBYE = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
_SHUT_DOWN = "The system is being shut down.\n"


class Listener:
    """One connection to a controller, in ``async full`` mode."""

    def __init__(
        self,
        core: Core,
        api: Api,
        channel: Channel,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connect_wait: float = CONNECT_WAIT,
    ) -> None:
        #: Set once ``connect`` has come, and once the connection has ended.
        self.connected, self.finished = asyncio.Event(), asyncio.Event()
        self._core, self._api, self._channel = core, api, channel
        self._reader, self._writer, self._connect_wait = reader, writer, connect_wait
        self._emit: Emit = core.emit
        self._enabled = self._json = self._mine = self._resume = False
        self._names: set[str] = set()
        self._subclasses: set[str] = set()
        self._filters: list[tuple[str, str]] = []
        self._linger: int | None = None  # seconds; -1 never ends
        self._down = self._closing = False
        #: What is to be sent once the ``api`` under way has come back.
        self._held: list[bytes] | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._slow: Coroutine[Any, Any, str] | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._commands: list[tuple[str, Callable[[str, dict[str, str], str], str | None]]] = [
            # In the order in which parse_command compares, each by its first letters only.
            ("exit", self._exit),
            ("...", self._exit),
            ("filter ", self._filter),
            ("resume", self._resume_command),
            ("connect", self._connect),
            ("getvar", self._getvar),
            ("myevents", self._myevents),
            ("divert_events", self._divert_events),
            ("sendmsg", self._sendmsg),
            ("api ", self._api_command),
            ("bgapi ", self._bgapi),
            ("linger", self._linger_command),
            ("nolinger", self._nolinger),
            ("event", self._event),
            ("nixevent", self._nixevent),
            ("noevents", self._noevents),
        ]

    async def run(self) -> None:
        """Serve the connection until it ends, then let the dialplan go on if it should."""
        channel = self._channel
        channel.controllers.add(self)
        self._core.sinks.add(self)
        try:
            async with asyncio.timeout(self._connect_wait):
                first = await self._read_command()
            if first is not None:
                # The reply to a first command other than `connect` is never sent.
                self._execute(first, answer=False)
                while not self._closing and (command := await self._read_command()) is not None:
                    self._execute(command)
                    if self._slow is not None:
                        await self._wait_for_api(self._slow)
        except (ConnectionError, TimeoutError, ValueError) as error:
            self._emit("controller", {"state": "failed", "error": repr(error), **channel.identity()})
        finally:
            await self._end()

    async def _wait_for_api(self, work: Coroutine[Any, Any, str]) -> None:
        """One thread does all of a connection's work: until ``work`` is done, nothing else."""
        self._held, self._slow = [], None
        try:
            content = await work
        finally:
            held, self._held = self._held, None
        self._answer_api(content)
        for data in held:
            self._send_bytes(data)
        if self._channel.down:
            self.channel_down()

    def channel_down(self) -> None:
        """The channel hung up: a notice and a while of lingering, or goodbye."""
        if self._down or self._closing or self._held is not None:
            return
        self._down = True
        if self._linger is None:
            self._close()
            return
        channel = self._channel
        self._send(
            "Content-Type: text/disconnect-notice\n"
            f"Controlled-Session-UUID: {channel.uuid}\n"
            "Content-Disposition: linger\n"
            f"Channel-Name: {channel.name}\n"
            f"Linger-Time: {self._linger}\n"
            "Content-Length: 0\n\n"
        )
        if self._linger >= 0:
            self._linger_timer = asyncio.get_running_loop().call_later(self._linger, self._close)

    def shut_down(self) -> None:
        """The switch stops (``kill_all_listeners``)."""
        self._close(_SHUT_DOWN)

    def deliver(self, event: Event) -> None:
        """Send ``event`` if it is subscribed to and passes the filters (``event_handler``)."""
        if not self._enabled or self._closing or not self._wants(event):
            return
        self._send_bytes(event.json if self._json else event.plain)

    # -- reading and writing -------------------------------------------------------------------------------

    async def _read_command(self) -> tuple[str, dict[str, str], str] | None:
        """Command, headers (names in lower case) and body, or None at the end of the connection."""
        lines: list[str] = []
        while True:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                return None
            text = line.decode(ENCODING, ERRORS).strip("\r\n")
            if text:
                lines.append(text)
                if len(lines) > 256:
                    raise ValueError("more than 256 headers in one command")
            elif lines:
                break
        headers: dict[str, str] = {}
        for header in lines[1:]:
            name, colon, value = header.partition(":")
            if colon:
                headers.setdefault(name.lower(), value.lstrip(" "))
        length = headers.get("content-length", "0").strip()
        if not re.fullmatch(r"\d{1,9}", length, re.A) or int(length) > MAX_BODY:
            raise ValueError(f"Content-Length {length!r} out of range")
        try:
            body = await self._reader.readexactly(int(length))
        except asyncio.IncompleteReadError:
            return None
        return lines[0], headers, body.decode(ENCODING, ERRORS)

    def _execute(self, command: tuple[str, dict[str, str], str], answer: bool = True) -> None:
        line, headers, body = command
        reply: str | None = "-ERR command not found"
        for prefix, action in self._commands:
            if line.lower().startswith(prefix):
                reply = action(line, headers, body)
                break
        if reply is not None and answer:
            reply = reply.encode(ENCODING, ERRORS)[:MAX_REPLY].decode(ENCODING, ERRORS)
            self._send(f"Content-Type: command/reply\nReply-Text: {reply or '-ERR command not found'}\n\n")
        if line.lower().startswith(("exit", "...")):
            self._close()

    def _send(self, text: str) -> None:
        self._send_bytes(text.encode(ENCODING, ERRORS))

    def _send_bytes(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        if self._held is not None:
            self._held.append(data)
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self._emit("controller", {"state": "too slow", **self._channel.identity()})
            self._writer.transport.abort()

    def _close(self, message: str = _GOODBYE) -> None:
        """Goodbye and close; the reading end then sees the end, too."""
        if self._closing:
            return
        self._closing = True
        self._core.sinks.discard(self)
        self._send(
            "Content-Type: text/disconnect-notice\n"
            f"Controlled-Session-UUID: {self._channel.uuid}\n"
            "Content-Disposition: disconnect\n"
            f"Content-Length: {len(message)}\n\n{message}"
        )
        self._writer.close()

    async def _end(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._core.sinks.discard(self)
        if self._jobs:
            await asyncio.wait(self._jobs)
        self._close()
        channel = self._channel
        channel.controllers.discard(self)
        if channel.resumes(self._resume):
            channel.take_over()
        self.finished.set()

    # -- events --------------------------------------------------------------------------------------------

    def _wants(self, event: Event) -> bool:
        if event.name not in self._names:
            return False
        if event.name == "CUSTOM" and "ALL" not in self._names and event.subclass not in self._subclasses:
            return False
        if self._filters and not self._passes(event):
            return False
        if self._mine:
            mine = self._channel.uuid
            return event.get("Unique-ID") == mine or event.get("Job-Owner-UUID") == mine
        return True

    def _passes(self, event: Event) -> bool:
        """Any filter that matches lets the event through; a matching one that begins with ``-`` keeps it
        out."""
        passed = False
        for name, pattern in self._filters:
            value = event.get(name)
            if value is None:
                continue
            wanted = pattern.lstrip("+- ")
            positive = "-" not in pattern[: len(pattern) - len(wanted)]
            if passed and positive:
                continue
            regular = pattern.startswith("/")
            matches = _regex(pattern, value) if regular else value.lower() == wanted.lower()
            if matches and not positive:
                return False
            passed = passed or matches
        return passed

    def _event(self, line: str, headers: dict[str, str], body: str) -> str:
        words = line.split(" ")[1:]
        if words and words[0].lower() in ("plain", "json"):
            self._json = words.pop(0).lower() == "json"
        known, custom = _names(words)
        if not known:
            return "-ERR no keywords supplied"
        self._names |= EVENT_NAMES if "ALL" in known else known
        self._subclasses |= custom
        self._enabled = True
        return f"+OK event listener enabled {'json' if self._json else 'plain'}"

    def _nixevent(self, line: str, headers: dict[str, str], body: str) -> str:
        known, custom = _names(line.split(" ")[1:])
        if not known:
            return "-ERR no keywords supplied"
        self._subclasses -= custom
        if "ALL" in known:
            self._names.clear()
        else:
            self._names -= (known - {"CUSTOM"}) | {"ALL"}
        self._enabled = True
        return "+OK events nixed"

    def _noevents(self, line: str, headers: dict[str, str], body: str) -> str:
        if not self._enabled:
            return "-ERR not listening for events"
        self._enabled = False
        self._names.clear()
        self._subclasses.clear()
        return "+OK no longer listening for events"

    def _myevents(self, line: str, headers: dict[str, str], body: str) -> str:
        if self._mine:
            return "-ERR aready enabled."  # their spelling
        self._names |= MY_EVENTS
        self._mine = self._enabled = True
        self._json = self._json or "json" in line or "JSON" in line
        return "+OK Events Enabled"

    def _filter(self, line: str, headers: dict[str, str], body: str) -> str:
        name, _, value = line[7:].lstrip(" ").partition(" ")
        if name.lower() == "delete" and value:
            name, _, value = value.partition(" ")
            if name.lower() == "all":
                self._filters.clear()
            else:
                self._filters = [
                    (known, wanted)
                    for known, wanted in self._filters
                    if known.lower() != name.lower() or (value and wanted != value)
                ]
            return f"+OK filter deleted. [{name}][{value}]"
        if name.lower() == "add" and value:
            name, _, value = value.partition(" ")
        if not value:
            return "-ERR invalid syntax"
        self._filters.append((name, value))
        return f"+OK filter added. [{name}]=[{value}]"

    # -- the other commands --------------------------------------------------------------------------------

    def _connect(self, line: str, headers: dict[str, str], body: str) -> None:
        channel = self._channel
        ours = [
            ("Content-Type", "command/reply"),
            ("Reply-Text", "+OK\n"),
            ("Socket-Mode", "async"),
            ("Control", "full"),
        ]
        event = self._core.event("CHANNEL_DATA", [*channel.profile("Channel"), *channel.headers(), *ours])
        self._send_bytes(serialise(event.headers))
        self.connected.set()

    def _exit(self, line: str, headers: dict[str, str], body: str) -> str:
        return "+OK bye"

    def _resume_command(self, line: str, headers: dict[str, str], body: str) -> str:
        self._resume = True
        self._channel.variables.set("socket_resume", "true")
        return "+OK"

    def _getvar(self, line: str, headers: dict[str, str], body: str) -> str:
        return self._channel.variables.get(line.partition(" ")[2], "")

    def _divert_events(self, line: str, headers: dict[str, str], body: str) -> str:
        value = line[13:].strip()
        if not value:
            return "-ERR missing value."
        return "+OK events diverted" if value.lower() == "on" else "+OK events not diverted"

    def _linger_command(self, line: str, headers: dict[str, str], body: str) -> str:
        if line[6:7] == " " and line[7:]:
            match = re.match(r"\s*([+-]?\d{1,9})", line[7:], re.A)
            self._linger = int(match[1]) if match else 0
        else:
            self._linger = -1
        return "+OK will linger" if self._linger == -1 else f"+OK will linger {self._linger} seconds"

    def _nolinger(self, line: str, headers: dict[str, str], body: str) -> str:
        self._linger = None
        return "+OK will not linger"

    def _sendmsg(self, line: str, headers: dict[str, str], body: str) -> str:
        identifier = line[7:].strip(" ") or headers.get("session-id", "")
        channel: Channel | None = self._channel
        if identifier and identifier != self._channel.uuid:
            channel = self._core.channels.get(identifier)
        if channel is None:
            return f"-ERR invalid session id [{identifier}]"
        command = _command(headers, body)
        if command is None:
            return "+OK"  # FreeSWITCH queues anything and finds out later that it is nothing
        return "+OK" if channel.enqueue(command) else "-ERR memory error"

    def _api_command(self, line: str, headers: dict[str, str], body: str) -> None:
        name, _, arguments = line[4:].partition(" ")
        reply = self._api.run(name, arguments)
        if isinstance(reply, str):
            self._answer_api(reply)
        else:
            self._slow = reply

    def _answer_api(self, reply: str) -> None:
        content = reply.encode(ENCODING, ERRORS) or b"-ERR no reply\n"
        head = f"Content-Type: api/response\nContent-Length: {len(content)}\n\n"
        self._send_bytes(head.encode() + content)

    def _bgapi(self, line: str, headers: dict[str, str], body: str) -> None:
        name, _, arguments = line[6:].partition(" ")
        job = headers.get("job-uuid") or str(uuid.uuid4())
        self._send(f"Content-Type: command/reply\nReply-Text: +OK Job-UUID: {job}\nJob-UUID: {job}\n\n")
        fields = [("Job-UUID", job), ("Job-Owner-UUID", self._channel.uuid)]
        task = self._core.tasks.start(self._api.job(name, arguments, fields), f"job {job}")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)


def _names(words: list[str]) -> tuple[set[str], set[str]]:
    """The event names among ``words`` and, after CUSTOM, the subclasses."""
    known: set[str] = set()
    custom: set[str] = set()
    for word in words:
        if "CUSTOM" in known:
            custom.add(word)
        elif word.upper() in EVENT_NAMES:
            known.add(word.upper())
    return known, custom


def _command(headers: dict[str, str], body: str) -> Command | None:
    """The command in a ``sendmsg`` (``switch_ivr_parse_event``)."""
    kind = headers.get("call-command", "")
    locked = is_true(headers.get("event-lock"))
    if kind == "hangup":
        return Command("hangup", cause=named(headers.get("hangup-cause")), locked=locked)
    app, argument = headers.get("execute-app-name", ""), headers.get("execute-app-arg", "")
    if kind != "execute" or not app:
        return None
    if not argument and headers.get("content-type", "").lower() == "text/plain":
        argument = body
    loops = re.match(r"-?\d{1,6}", headers.get("loops", "1"), re.A)
    identifier = headers.get("event-uuid", "")
    return Command("execute", app, argument, identifier, locked, int(loops[0]) if loops else 0)


def _regex(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern.strip("/"), value) is not None
    except re.error:
        return False  # a pattern FreeSWITCH could not compile matches nothing

"""A controller by hand, in blocking style: what the switch tells of a channel, without eslbot in between."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from urllib.parse import unquote
from uuid import uuid4

from tests.e2e.interop.pbx import PATIENCE

Headers = dict[str, str]


class Channel:
    """The event-socket connection of one call."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self._socket = connection
        self._buffer = b""
        self.events: list[Headers] = []
        self.data, _ = self._command("connect")
        self.uuid = self.data["Unique-ID"]
        self.command("linger 5")
        self.command("event plain ALL")
        self.command(f"filter Unique-ID {self.uuid}")

    def command(self, *lines: str) -> str:
        """The reply to a command: its text, or the body of an ``api``'s."""
        headers, body = self._command(*lines)
        return body or headers.get("Reply-Text", "")

    def get(self, variable: str) -> str:
        """A channel variable, empty where it is not set."""
        value = self.command(f"api uuid_getvar {self.uuid} {variable}")
        return "" if value == "_undef_" else value

    def execute(self, application: str, argument: str = "") -> Headers:
        """Execute an application and wait for its end."""
        mine = str(uuid4())
        lines = ["sendmsg", "call-command: execute", f"execute-app-name: {application}"]
        lines += [f"Event-UUID: {mine}", *([f"execute-app-arg: {argument}"] if argument else [])]
        self.command(*lines)
        return self.event("CHANNEL_EXECUTE_COMPLETE", wanted={"Application-UUID": mine})

    def event(self, name: str, seconds: float = PATIENCE, wanted: Headers | None = None) -> Headers:
        """The next event ``name``, come already or coming, which is taken away. Raises TimeoutError.

        ``wanted``: what its headers must be; of a CUSTOM event its subclass is the name.
        """
        deadline = time.monotonic() + seconds
        while True:
            for event in self.events:
                called = event.get("Event-Subclass", event["Event-Name"])
                if called == name and all(event.get(k) == v for k, v in (wanted or {}).items()):
                    self.events.remove(event)
                    return event
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no {name}; there were {[event['Event-Name'] for event in self.events]}")
            self._socket.settimeout(left)
            try:
                self._read()
            finally:
                self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _command(self, *lines: str) -> tuple[Headers, str]:
        self._socket.sendall(("\n".join(lines) + "\n\n").encode())
        while (reply := self._read()) is None:
            pass
        return reply

    def _read(self) -> tuple[Headers, str] | None:
        """The next reply, or None behind an event. What had come before a time-out is not lost."""
        while b"\n\n" not in self._buffer:
            self._more()
        head, _, rest = self._buffer.partition(b"\n\n")
        headers = _fields(head.decode("utf-8", "replace").splitlines())
        length = int(headers.get("Content-Length", 0))
        while len(rest) < length:
            self._more()
            rest = self._buffer[len(head) + 2 :]
        self._buffer = rest[length:]
        body = rest[:length].decode("utf-8", "replace")
        match headers["Content-Type"]:
            case "text/event-plain":
                fields, _, content = body.partition("\n\n")
                self.events.append({**_fields(fields.splitlines()), "_body": content})
            case "text/disconnect-notice":
                pass
            case _:
                return headers, body
        return None

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the switch closed the connection")
        self._buffer += data


def _fields(lines: list[str]) -> Headers:
    return {name: unquote(value) for name, _, value in (line.partition(": ") for line in lines)}


@contextlib.contextmanager
def controller(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Listens where the switch tries first; outside of it that port refuses, and calls go to eslbot."""
    with socket.create_server(address) as server:
        server.settimeout(PATIENCE)
        yield server


def take(server: socket.socket) -> Channel:
    """The next call."""
    return Channel(server.accept()[0])

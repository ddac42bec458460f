"""The inbound event socket: who knows the password may ask (mod_event_socket.c). Commands only, no events."""

from __future__ import annotations

import asyncio

from .api import Api
from .core import Core

#: Seconds for a line, and bytes of it.
LINE_DUE, MAX_LINE = 25.0, 64 * 1024


class Inbound:
    """The listener."""

    def __init__(self, core: Core, address: tuple[str, int], password: str) -> None:
        self._api, self._address, self._password = Api(core), address, password
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._serve, *self._address, limit=MAX_LINE)

    def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"Content-Type: auth/request\n\n")
        let_in = False
        try:
            while command := await asyncio.wait_for(self._command(reader), LINE_DUE):
                verb, _, rest = command.partition(" ")
                if verb == "auth":
                    let_in = rest == self._password
                    word = "+OK accepted" if let_in else "-ERR invalid"
                    writer.write(f"Content-Type: command/reply\nReply-Text: {word}\n\n".encode())
                    if not let_in:
                        break
                elif not let_in or verb != "api":
                    break
                else:
                    writer.write(_answer(self._run(rest)))
                await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            return  # who asks so is none of ours
        finally:
            writer.close()

    async def _command(self, reader: asyncio.StreamReader) -> str:
        return (await reader.readuntil(b"\n\n")).decode("utf-8", "replace").strip()

    def _run(self, command: str) -> str:
        name, _, arguments = command.partition(" ")
        reply = self._api.run(name, arguments)
        return reply if isinstance(reply, str) else "-ERR no reply\n"


def _answer(text: str) -> bytes:
    body = text.encode()
    return b"Content-Type: api/response\nContent-Length: %d\n\n%b" % (len(body), body)

"""The call script on gevent with hardly any parsing: a greenlet a call, a buffer, byte searches.

Nothing is checked, nothing can fail: it is the yardstick for what Python and gevent cost, no controller.
"""

from __future__ import annotations

import sys

from gevent.server import StreamServer
from gevent.socket import IPPROTO_TCP, TCP_NODELAY, socket

from benchmarks.esl.controllers.script import ANSWER, EVENTS, marker, start


class Wire:
    """What came and is not used yet."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._buffer = b""

    def until(self, word: bytes) -> bytes:
        """Everything up to the end of the block that begins with, or holds, ``word``."""
        while (found := self._buffer.find(word)) < 0 or (end := self._buffer.find(b"\n\n", found)) < 0:
            data = self._sock.recv(65536)
            if not data:
                raise EOFError
            self._buffer += data
        block, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return block


def call(sock: socket, _: object) -> None:
    """One call."""
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    wire = Wire(sock)
    try:
        sock.sendall(b"connect\n\n")
        channel = wire.until(b"\nControl: full")
        begin = channel.index(b"\nUnique-ID: ") + 12
        uuid = channel[begin : begin + 36].decode()
        commands = ["linger 5", f"filter Unique-ID {uuid}", EVENTS, f"{ANSWER}\nEvent-UUID: {uuid}"]
        sock.sendall("".join(f"{command}\n\n" for command in commands).encode())
        wire.until(b"\nApplication-UUID: " + uuid.encode())
        sock.sendall(f"{start(uuid)}\n\n".encode())
        wire.until(b"mod_audio_stream%3A%3Aconnect")
        wire.until(b"mod_audio_stream%3A%3Ajson")
        sock.sendall(f"{marker(uuid)}\n\n".encode())
        wire.until(b"\nEvent-Name: CHANNEL_HANGUP_COMPLETE")
    except EOFError:
        pass
    finally:
        sock.close()


if __name__ == "__main__":
    StreamServer(("127.0.0.1", int(sys.argv[1])), call, backlog=4096).serve_forever()

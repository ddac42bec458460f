"""What Ameyo answers to one POST: its status as soon as that is there, and of the rest what comes in time.

Whether Ameyo took the customer is the status and nothing else. http.client gives none before it has read all
headers, nor does h11, and takes any interim answer but 100 for the final one; both cost more.
"""

from __future__ import annotations

import re
from http.client import HTTPException
from typing import Any

#: Bytes of a text that we would care to read.
MAX_TEXT = 64 * 1024
#: Lines around it, of all interim answers, headers, chunks and trailers together.
MAX_LINES = 512

_RECV = 16 * 1024
#: What stands before a status is seen in the first so many bytes, or is none.
_BEFORE_STATUS = 32
_SWITCHING_PROTOCOLS = 101

_STATUS = re.compile(rb"HTTP/1\.([0-9]) +([1-9][0-9]{2})[ \r\n]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(;.*)?", re.DOTALL)
_NAMES = frozenset(
    {b"connection", b"content-encoding", b"content-length", b"retry-after", b"transfer-encoding"}
)


class NoAnswer(HTTPException):
    """What came is not HTTP/1.x. The text does not quote it: it might be our own headers."""


class Answer:
    """An answer on ``sock``; :meth:`begin` first.

    ``status`` is there then. ``text``, without a content coding undone, and ``reusable``, whether the
    connection can serve another POST, are there after :meth:`read`.
    """

    def __init__(self, sock: Any) -> None:
        self.status = 0
        self.text = bytearray()
        self.whole = False
        self.reusable = False
        self.connection: Any = None
        self._sock = sock
        self._held = b""
        self._lines = 0
        self._version_1_0 = False
        self._fields: dict[bytes, bytes] = {}

    def begin(self) -> None:
        """Read up to the status, behind all interim answers. Raises NoAnswer, OSError."""
        while True:
            self.status = self._read_status()
            if self.status >= 200 or self.status == _SWITCHING_PROTOCOLS:
                return
            self._read_fields()

    def read(self) -> None:
        """Read the rest. Where it breaks off, or exceeds its bounds, there is as much of it as came."""
        try:
            self._fields = self._read_fields()
            framed = self._read_text()
        except (HTTPException, OSError):
            return
        self.whole = True
        self.reusable = framed and not self._held and self._stays_open()

    def field(self, name: str) -> str | None:
        """The value of one of the headers that are used; only after :meth:`read`."""
        value = self._fields.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    def _read_status(self) -> int:
        while (found := _STATUS.match(self._held)) is None:
            if len(self._held) >= _BEFORE_STATUS or b"\n" in self._held:
                raise NoAnswer("what came is not HTTP/1.x")
            self._more()
        self._version_1_0 = found[1] == b"0"
        return int(found[2])

    def _read_fields(self) -> dict[bytes, bytes]:
        """The headers that are used, behind the rest of the status line; any other line is skipped."""
        self._line()
        fields: dict[bytes, bytes] = {}
        while line := self._line():
            name, colon, value = line.partition(b":")
            name = name.lower()
            if colon and name in _NAMES:
                value = value.strip()
                fields[name] = fields[name] + b", " + value if name in fields else value
        return fields

    def _read_text(self) -> bool:
        """Whether the answer itself said where it ends."""
        coding, length = self._fields.get(b"transfer-encoding"), self._fields.get(b"content-length")
        if self.status in (204, 304) or self.status < 200:
            return self.status >= 200
        if coding is not None:
            if coding.lower() == b"chunked":
                self._read_chunks()
                return length is None  # with both, somebody on the way may have seen another end
        elif length is not None and _LENGTH.fullmatch(length):
            self._take(int(length))
            return True
        self._read_to_the_end()
        return False

    def _stays_open(self) -> bool:
        wishes = [wish.strip() for wish in self._fields.get(b"connection", b"").lower().split(b",")]
        return b"keep-alive" in wishes if self._version_1_0 else b"close" not in wishes

    def _read_chunks(self) -> None:
        while True:
            size = _CHUNK.fullmatch(self._line())
            if size is None:
                raise NoAnswer("a chunk has no size")
            if int(size[1], 16) == 0:
                break
            self._take(int(size[1], 16))
            if self._line():
                raise NoAnswer("a chunk is longer than it said")
        while self._line():
            pass

    def _read_to_the_end(self) -> None:
        while True:
            self._take(len(self._held))
            data = self._sock.recv(_RECV)
            if not data:
                return
            self._held = data

    def _take(self, size: int) -> None:
        """``size`` bytes of the text."""
        while True:
            taken, self._held = self._held[:size], self._held[size:]
            self.text += taken
            size -= len(taken)
            if len(self.text) > MAX_TEXT:
                del self.text[MAX_TEXT:]
                raise NoAnswer("too long")
            if size == 0:
                return
            self._more()

    def _line(self) -> bytes:
        """A line without its end."""
        self._lines += 1
        if self._lines > MAX_LINES:
            raise NoAnswer(f"more than {MAX_LINES} lines")
        while (end := self._held.find(b"\n")) < 0:
            self._more()
        line, self._held = self._held[:end], self._held[end + 1 :]
        return line.removesuffix(b"\r")

    def _more(self) -> None:
        data = self._sock.recv(_RECV)
        if not data:
            raise NoAnswer(
                "the connection was closed" if self._held else "the connection was closed without an answer"
            )
        self._held += data

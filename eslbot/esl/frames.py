"""The wire: bytes in, frames and events out. No sockets here.

A frame is a block of ``Name: value`` lines, an empty line, and a body of ``Content-Length`` bytes. The body
of a ``text/event-plain`` frame is such a block again, with a body of its own
(FreeSWITCH ``mod_event_socket.c``, ``switch_event.c: switch_event_serialize``).

Values are URL-encoded by FreeSWITCH, but not reliably: its encoder leaves a ``%0A`` that a caller put into a
SIP header as it is. So lines are split first, and each value is unquoted for itself: a decoded line end can
never become a header.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from greenswitch.esl import ESLEvent

from eslbot.esl.errors import ProtocolError

#: Bounds of one frame. A channel with a hundred SIP headers is some 20 kB.
MAX_HEADER_BYTES = 256 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
#: Digits of a whole number: below 2**63, and enough for microseconds since 1970.
MAX_DIGITS = 18


class Headers(Mapping[str, str]):
    """A block's headers, unquoted, and read when they are asked for: of some ninety, three or four are.

    Of equal names the first counts.
    """

    __slots__ = ("_all", "_block")

    def __init__(self, block: bytes) -> None:
        self._block = b"\n%b\n" % block
        self._all: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        value = self._find(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """As a dictionary's; a name that is not there costs no exception."""
        value = self._find(name)
        return default if value is None else value

    def _find(self, name: str) -> str | None:
        if self._all is not None:
            return self._all.get(name)
        block = self._block
        key = f"\n{name}:".encode()
        start = block.find(key)
        if start < 0:
            return None
        start += len(key)
        return _value(block[start : block.find(b"\n", start)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def _parsed(self) -> dict[str, str]:
        if self._all is None:
            self._all = parse_headers(self._block)
        return self._all


class Frame:
    """One frame: its headers and its body, untouched. ``content_type`` is empty where there is none."""

    __slots__ = ("body", "content_type", "headers")

    def __init__(self, headers: Headers, body: bytes = b"") -> None:
        self.headers = headers
        self.body = body
        #: ``text/event-plain``, ``command/reply``, …
        self.content_type: str = headers.get("Content-Type", "")


class Event(ESLEvent):  # type: ignore[misc]  # greenswitch has no types
    """A greenswitch event (``headers``, ``data``) whose ``body`` is the bytes FreeSWITCH sent.

    ``data`` is the body as text; for a command's reply it is the ``Reply-Text``.
    """

    def __init__(self, headers: Mapping[str, str], body: bytes = b"") -> None:
        # ESLEvent's own constructor would parse; ours is given what is parsed already, or will be.
        self.headers: Mapping[str, str] = headers
        self.body = body

    @cached_property
    def name(self) -> str:
        """``Event-Name``, or ``Event-Subclass`` of a CUSTOM event."""
        name = self.headers.get("Event-Name", "")
        return self.headers.get("Event-Subclass", "") if name == "CUSTOM" else name

    @property
    def age(self) -> float:
        """Seconds since FreeSWITCH made it, by both hosts' clocks: it polls a connection every 20 ms."""
        stamp = whole_number(self.headers.get("Event-Date-Timestamp", ""))
        return max(0.0, time.time() - stamp / 1e6) if stamp else 0.0

    @property
    def data(self) -> str:
        """The body as text, or a reply's ``Reply-Text``."""
        return (
            self.body.decode("utf-8", "replace") if self.body else self.headers.get("Reply-Text", "").strip()
        )

    @classmethod
    def of(cls, frame: Frame) -> Event:
        """The event in ``frame``: in its body for ``text/event-plain``, else the frame itself."""
        if frame.content_type != "text/event-plain":
            return cls(frame.headers, frame.body)
        block, _, rest = frame.body.partition(b"\n\n")
        # The length of the body is the last line; a header of that name may stand anywhere, and counts not.
        name, _, value = block[block.rfind(b"\n") + 1 :].partition(b":")
        length = _length(_value(value)) if name == b"Content-Length" else 0
        if length > len(rest):
            raise ProtocolError(f"an event announces a body of {length} bytes and carries {len(rest)}")
        return cls(Headers(block), rest[:length])


def parse_headers(block: bytes) -> dict[str, str]:
    """``Name: value`` lines as a dictionary; of equal names the first counts; bad UTF-8 becomes U+FFFD."""
    headers: dict[str, str] = {}
    for line in block.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.decode("utf-8", "replace"), _value(value))
    return headers


def whole_number(text: str, otherwise: int = 0) -> int:
    """The number that ``text``, a header's value, is: 1 to 18 ASCII digits; ``otherwise`` for anything else.

    ``str.isdecimal`` takes other alphabets' digits for a number, and ``int`` refuses one of 4,301 digits.
    """
    return int(text) if len(text) <= MAX_DIGITS and text.isascii() and text.isdigit() else otherwise


def _value(text: bytes) -> str:
    value = str(text, "utf-8", "replace").strip()
    return unquote(value, errors="replace") if "%" in value else value


def _length(text: str) -> int:
    length = whole_number(text, -1)
    if length < 0:
        raise ProtocolError(f"Content-Length is {text[:40]!r}")
    return length


class FrameReader:
    """Cuts a stream into frames, however it was chunked."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._headers: Headers | None = None
        self._length = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes. Raises :class:`ProtocolError` on a frame beyond the bounds."""
        self._buffer += data
        while self._headers is not None or self._read_headers():
            if len(self._buffer) < self._length:
                return
            headers, self._headers = self._headers, None
            assert headers is not None
            body = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            yield Frame(headers, body)

    def _read_headers(self) -> bool:
        while self._buffer.startswith(b"\n"):
            del self._buffer[:1]
        end = self._buffer.find(b"\n\n", self._searched)
        if end < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise ProtocolError(f"a header block is over {MAX_HEADER_BYTES} bytes")
            self._searched = max(0, len(self._buffer) - 1)
            return False
        if end > MAX_HEADER_BYTES:
            raise ProtocolError(f"a header block is over {MAX_HEADER_BYTES} bytes")
        headers = Headers(bytes(self._buffer[:end]))
        del self._buffer[: end + 2]
        self._searched = 0
        self._length = _length(headers.get("Content-Length", "0"))
        if self._length > MAX_BODY_BYTES:
            raise ProtocolError(f"a body of {self._length} bytes is over {MAX_BODY_BYTES}")
        self._headers = headers
        return True

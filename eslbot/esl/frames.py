"""The wire: bytes in, frames and what is in them out. No sockets here.

A frame is a block of ``Name: value`` lines, an empty line, and a body of ``Content-Length`` bytes. The body
of a ``text/event-plain`` frame is such a block again, with a body of its own
(FreeSWITCH ``mod_event_socket.c``, ``switch_event.c: switch_event_serialize``).

Values are URL-encoded by FreeSWITCH, but not reliably: its encoder leaves a ``%0A`` that a caller put into a
SIP header as it is. So lines are split first, and each value is unquoted for itself: a decoded line end can
never become a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from eslbot.esl.errors import ProtocolError

#: Bounds of one frame. A channel with a hundred SIP headers is some 20 kB; the most that this bound lets
#: through takes some 50 ms to read.
MAX_HEADER_BYTES = 128 * 1024
#: What is longer is skipped as it streams in: a bot's text comes in an event, and its length is the bot's.
MAX_BODY_BYTES = 4 * 1024 * 1024
#: What is kept of a body that is skipped: an event's own headers, which say what it was.
KEPT_BYTES = MAX_HEADER_BYTES
#: A length that nobody sends: whoever announces it does not speak the protocol.
ABSURD_BYTES = 1024 * 1024 * 1024
#: A name or a type that is longer is none that we know.
MAX_WORD = 64
#: Digits of a whole number: below 2**63, and enough for microseconds since 1970.
MAX_DIGITS = 18


class Headers(Mapping[str, str]):
    """A block's headers, unquoted, and read when they are asked for: of some ninety, three or four are.

    ``block`` begins and ends with a line end. Of equal names the first counts.
    """

    __slots__ = ("_all", "_block", "_raw")

    def __init__(self, block: bytes) -> None:
        self._block = block
        #: All of them; and all as they came, where :meth:`index` has cut the block.
        self._all: dict[str, str] | None = None
        self._raw: dict[bytes, bytes] | None = None

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """As a dictionary's; a name that is not there costs no exception."""
        if self._all is not None:
            return self._all.get(name, default)
        if self._raw is not None:
            raw = self._raw.get(_line(name)[1:-1])
            return default if raw is None else _value(raw)
        # As _find and _value would do it: half of a call's lookups are these.
        block, line = self._block, _line(name)
        start = block.find(line)
        if start < 0:
            return default
        start += len(line)
        text = str(block[start : block.find(b"\n", start)], "utf-8", "replace").strip()
        return _ESCAPED.sub(_plain, text) if "%" in text else text

    def index(self) -> Headers:
        """Cut the block into its lines, once: that is less where more than a dozen are looked for."""
        lines = [line.split(b":", 1) for line in self._block.split(b"\n") if b":" in line]
        lines.reverse()  # of equal names the first counts
        self._raw = dict(lines)
        return self

    def raw(self, name: str) -> str:
        """The value as it came, not unquoted; empty where there is none."""
        return str(_find(self._block, _line(name)) or b"", "utf-8", "replace").strip()

    def __bool__(self) -> bool:
        """Whether there is any line: nobody has to read them all for that."""
        return len(self._block) > 1

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return len(self._block)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def _parsed(self) -> dict[str, str]:
        if self._all is None:
            self._all = parse_headers(self._block)
        return self._all


class Frame:
    """One frame: its headers and its body, untouched. ``content_type`` is empty where there is none.

    Of a body beyond the bound only the beginning is there, and ``oversized`` is its length.
    """

    __slots__ = ("block", "body", "content_type", "oversized")

    def __init__(self, block: bytes, body: bytes, oversized: int = 0, kind: str | None = None) -> None:
        #: The headers' lines; begins and ends with a line end.
        self.block = block
        self.body = body
        self.oversized = oversized
        #: ``text/event-plain``, ``command/reply``, …
        self.content_type = _word(_find(block, _TYPE)) if kind is None else kind

    @property
    def headers(self) -> Headers:
        """Of the frame; an event's are in its body."""
        return Headers(self.block)


def parts_of(frame: Frame) -> tuple[Headers, bytes, str | None, int]:
    """An event's headers, body, name (None: not looked for) and the length of a body too long to keep.

    It is in the body of a ``text/event-plain`` frame, else it is the frame itself. Raises ProtocolError where
    it is none, or its headers are beyond the bound.
    """
    if frame.content_type != "text/event-plain":
        return frame.headers, frame.body, None, 0
    body = frame.body
    end = _end(body, 0)
    if (len(body) if end < 0 else end) > MAX_HEADER_BYTES or (frame.oversized and end < 0):
        raise ProtocolError(f"the headers of an event of {frame.oversized or len(body)} bytes do not end")
    block, rest = (b"\n%b\n" % body, b"") if end < 0 else (b"\n" + body[: end + 1], body[end + 2 :])
    # The length of the body is the last line; a header of that name may stand anywhere, and counts not.
    last = block.rfind(b"\n", 0, -1)
    length = _length(block[last + len(_LENGTH) :]) if block.startswith(_LENGTH, last) else 0
    name = _word(_find(block, _NAME))
    if name == "CUSTOM":
        name = _word(_find(block, _SUBCLASS))
    if frame.oversized:
        return Headers(block), b"", name, length
    if length > len(rest):
        raise ProtocolError(f"an event announces a body of {length} bytes and carries {len(rest)}")
    return Headers(block), rest[:length], name, 0


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
    return _ESCAPED.sub(_plain, value) if "%" in value else value


def _plain(escaped: re.Match[str]) -> str:
    """What a row of escapes stands for."""
    row = escaped[0]
    return _ONE[row] if len(row) == 3 else bytes.fromhex(row.replace("%", "")).decode("utf-8", "replace")


#: ``urllib.parse.unquote`` says the same, and takes 130 ms for 256 kB of ``%``, in which all calls wait.
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_DIGITS = "0123456789abcdefABCDEF"
_ONE = {f"%{a}{b}": bytes((int(a + b, 16),)).decode("utf-8", "replace") for a in _DIGITS for b in _DIGITS}


@lru_cache(maxsize=512)
def _line(name: str) -> bytes:
    """How the line of a header begins."""
    return f"\n{name}:".encode("utf-8", "replace")


_TYPE, _LENGTH = _line("Content-Type"), _line("Content-Length")
_NAME, _SUBCLASS = _line("Event-Name"), _line("Event-Subclass")


def _find(block: bytes, line: bytes) -> bytes | None:
    """What stands behind ``line`` in a block between two line ends; None where there is no such line."""
    start = block.find(line)
    if start < 0:
        return None
    start += len(line)
    return block[start : block.find(b"\n", start)]


def _end(data: bytes | bytearray, start: int) -> int:
    """Where the empty line behind a block is, or -1: ``find(b"\\n\\n")``, which takes two to three times as
    long, since every line's end looks like one."""
    found = _EMPTY_LINE(data, start)
    return -1 if found is None else found.start()


_EMPTY_LINE = re.compile(rb"\n\n").search


def _word(raw: bytes | None) -> str:
    """A value that is one of a few again and again."""
    if raw is None:
        return ""
    return _known(raw) if len(raw) <= MAX_WORD else _value(raw)


_known = lru_cache(maxsize=256)(_value)


def _length(raw: bytes) -> int:
    text = _value(raw)
    length = whole_number(text, -1)
    if length < 0:
        raise ProtocolError(f"Content-Length is {text[:40]!r}")
    return length


class FrameReader:
    """Cuts a stream into frames, however it was chunked."""

    def __init__(self) -> None:
        #: The beginning of a header block, and how far its end was looked for.
        self._rest = b""
        self._searched = 0
        #: The headers whose body is not here yet (None: none such), and the length of the body.
        self._block: bytes | None = None
        self._length = 0
        #: What of the body is here, the bytes that are still to be kept, and behind those to be passed over.
        self._parts: list[bytes] = []
        self._wanted = self._skip = 0

    @property
    def held(self) -> int:
        """Bytes that are kept until the rest of their frame comes."""
        return len(self._rest) + sum(map(len, self._parts))

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes. Raises :class:`ProtocolError` on a frame beyond the bounds."""
        at = 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        there = len(data)
        while True:
            if self._block is None:
                usual = _USUAL(data, at)
                if usual is not None:
                    which = usual.lastindex or 0
                    start = usual.end()
                    end = start + int(usual[which]) if which else start
                    if end <= there and end - start <= MAX_BODY_BYTES:  # as nearly all are
                        self._searched = 0
                        yield Frame(b"\n" + data[at : start - 1], data[start:end], 0, _TYPES[which])
                        at = end
                        continue
                at = self._read_headers(data, at)
                if at < 0:
                    return
            wanted = self._wanted
            body = data[at : at + wanted]
            at += len(body)
            if self._parts or len(body) < wanted:
                self._wanted = wanted - len(body)
                if body:
                    self._parts.append(body)
                if self._wanted:
                    return
                body = b"".join(self._parts)
                self._parts.clear()
            if self._skip:
                skipped = min(self._skip, len(data) - at)
                at += skipped
                self._skip -= skipped
                if self._skip:
                    self._parts, self._wanted = [body], 0
                    return
            block, self._block = self._block, None
            assert block is not None
            oversized = self._length if self._length > MAX_BODY_BYTES else 0
            yield Frame(block, body, oversized)

    def _read_headers(self, data: bytes, at: int) -> int:
        """Read a header block that begins at ``at``; where its body begins, or -1 where it has no end yet."""
        while data.startswith(b"\n", at):
            at += 1
        end = data.find(b"\n\n", max(at, self._searched))
        if (len(data) if end < 0 else end) - at > MAX_HEADER_BYTES:
            raise ProtocolError(f"a header block is over {MAX_HEADER_BYTES} bytes")
        if end < 0:
            self._rest = data[at:]
            self._searched = max(0, len(self._rest) - 1)
            return -1
        self._searched = 0
        block = b"\n" + data[at : end + 1]
        raw = _find(block, _LENGTH)
        length = 0 if raw is None else _length(raw)
        if length > ABSURD_BYTES:
            raise ProtocolError(f"a body of {length} bytes is over {ABSURD_BYTES}")
        self._block, self._length = block, length
        self._wanted, self._skip = (
            (length, 0) if length <= MAX_BODY_BYTES else (KEPT_BYTES, length - KEPT_BYTES)
        )
        return end + 2


#: How FreeSWITCH spells most blocks: replies, and what stands before an event. Others are read line by line.
_USUAL = re.compile(
    rb"Content-Type: command/reply\nReply-Text: [^\n]{0,1024}\n\n"
    rb"|Content-Type: api/response\nContent-Length: ([0-9]{1,7})\n\n"
    rb"|Content-Length: ([0-9]{1,7})\nContent-Type: text/event-plain\n\n"
).match
#: Their types, by the group of the length.
_TYPES = ("command/reply", "api/response", "text/event-plain")

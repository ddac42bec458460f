"""Answers that no reader likes: what a peer nobody here wrote may send, by mistake or by intent.

Each is the bytes one after the other; a float among them is a pause of so many seconds, :data:`TAKEN` the
moment at which the status has gone out and the call counts as taken. Most of those that do not end are as
fast as the connection takes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from eslbot.sim.pbx.steps import TAKEN, Mark, Raw

Pieces = Iterator[bytes | float | Mark]

_OK = b"HTTP/1.1 200 OK\r\n"
_WHOLE = _OK + b"Content-Length: 2\r\n\r\n{}"
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_GZIP = _OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
#: Seconds between two drops.
_DRIP = 0.05


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(data) + packer.flush()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _taken(*pieces: bytes | float) -> Callable[[], Pieces]:
    """An answer that accepts with its first piece."""

    def answer() -> Pieces:
        first, *more = pieces
        yield first
        yield TAKEN
        yield from more

    return answer


def _for_ever(first: bytes, again: bytes, pause: float = 0.0, *, taken: bool = True) -> Callable[[], Pieces]:
    """An answer that begins with ``first`` and has no end; ``taken``: it accepts."""
    piece = again if pause else again * (1 + 32768 // len(again))

    def answer() -> Pieces:
        yield first
        if taken:
            yield TAKEN
        while True:
            yield piece
            if pause:
                yield pause

    return answer


def _gzip_bomb() -> Pieces:
    return _for_ever(_GZIP, _chunk(_gzip(bytes(1 << 24))))()


def _many_headers() -> Pieces:
    return _taken(_OK + b"X: y\r\n" * 1_000_000 + b"Content-Length: 0\r\n\r\n")()


def _late() -> Pieces:
    """Accepts behind two interim answers."""
    yield b"HTTP/1.1 102 Processing\r\n\r\n"
    yield 0.2
    yield _EARLY_HINTS
    yield 0.2
    yield _WHOLE
    yield TAKEN


def _interim_in_one() -> Pieces:
    yield b"HTTP/1.1 100 Continue\r\n\r\n" + _EARLY_HINTS * 3 + _WHOLE
    yield TAKEN


#: Those that accept: the status is 200, and the call is taken.
ACCEPTING: dict[str, Callable[[], Pieces]] = {
    "103 first": _late,
    "100 and 103 in one piece": _interim_in_one,
    "headers drip": _for_ever(_OK, b"X-More: x\r\n", _DRIP),
    "text drips": _for_ever(_OK + b"Content-Length: 1000000\r\n\r\n", b"x", _DRIP),
    "chunks drip": _for_ever(_CHUNKED, b"1\r\nx\r\n", _DRIP),
    "reason drips": _for_ever(b"HTTP/1.1 200 ", b"O", _DRIP),
    "text never comes": _taken(_OK + b"Content-Length: 2\r\n\r\n", 60.0),
    "headers break off": _taken(_OK + b"Content-Le"),
    "text breaks off": _taken(_OK + b"Content-Length: 100\r\n\r\nbut"),
    "chunk breaks off": _taken(_CHUNKED + b"ff\r\nbut"),
    "status alone": _taken(b"HTTP/1.1 200\r\n"),
    "endless headers": _for_ever(_OK, b"X-More: x\r\n"),
    "endless header lines of nothing": _for_ever(_OK, b"x\n"),
    "endless header": _for_ever(_OK + b"X-Long: ", b"x"),
    "endless text": _for_ever(_OK + b"\r\n", b"x"),
    "endless chunks": _for_ever(_CHUNKED, b"1\nx\n"),
    "endless chunk size": _for_ever(_CHUNKED, b"0"),
    "endless chunk extension": _for_ever(_CHUNKED + b"1;", b"x"),
    "endless trailers": _for_ever(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-More: x\r\n"),
    "endless gzip members": _for_ever(_GZIP, _chunk(_gzip(b""))),
    "gzip bomb": _gzip_bomb,
    "a million header lines": _many_headers,
    "chunk size of a gigabyte": _for_ever(_CHUNKED + b"40000000\r\n", b"x"),
    "chunk size that is none": _taken(_CHUNKED + b"-1\r\nx\r\n0\r\n\r\n"),
    "length too small": _taken(_OK + b"Content-Length: 2\r\n\r\n{} and more"),
    "length negative": _taken(_OK + b"Content-Length: -1\r\n\r\n{}"),
    "length of many digits": _taken(_OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}"),
    "two lengths": _taken(_OK + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}"),
    "length and chunks": _taken(
        _OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "no colon": _taken(_OK + b"this is no header\r\n: nor this\r\n\tand this\r\nContent-Length: 2\r\n\r\n{}"),
    "NULs": _taken(_OK + b"X\0: \0\r\nContent-Length: 4\r\n\r\n{\0\0}"),
    "messages in messages": _taken(_OK + b"x\r\r" + b"Content-Type: message/rfc822\r\r" * 2000 + b"\r\n\r\n"),
    "Retry-After of many words": _taken(_OK + b"Retry-After: " + b"1 " * 20_000 + b"\r\n\r\n"),
}

#: Those that are no answer at all: nobody is told whether the call was taken, and it was not.
NO_ANSWER: dict[str, Callable[[], Pieces]] = {
    "endless 100": _for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", taken=False),
    "endless 103": _for_ever(b"", _EARLY_HINTS, taken=False),
    "endless 100 in little": _for_ever(b"", b"HTTP/1.1 100\n\n", taken=False),
    "100 drips": _for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", _DRIP, taken=False),
    "status line drips": _for_ever(b"HTTP/1.", b"1", _DRIP, taken=False),
    "endless status line": _for_ever(b"HTTP/1.1 ", b"2", taken=False),
    "endless spaces": _for_ever(b"HTTP/1.1", b" ", taken=False),
    "endless line ends": _for_ever(b"", b"\r\n", taken=False),
    "endless NULs": _for_ever(b"", b"\0", taken=False),
    "status breaks off": lambda: iter([b"HTTP/1.1 20"]),
    "HTTP/0.9": lambda: iter([b"<html>accepted</html>\r\n"]),
    "HTTP/2": lambda: iter([b"HTTP/2 200 OK\r\n\r\n"]),
    "not HTTP": lambda: iter([b"220 mail.example.com ESMTP\r\n"]),
    "status of four digits": lambda: iter([b"HTTP/1.1 2000 OK\r\n\r\n"]),
    "status of letters": lambda: iter([b"HTTP/1.1 OK\r\n\r\n"]),
    "nothing": lambda: iter([b""]),
}

UNKIND = {**ACCEPTING, **NO_ANSWER}


def unkind_answer(how: str) -> Raw:
    """One of :data:`UNKIND`, as a step for :meth:`AmeyoServer.script`."""
    return Raw(UNKIND[how])

"""Mutations: from a sound input and a list of edits to a hostile one, the same each time.

An edit is four small numbers, so that hypothesis can shrink a list of them and a random generator make one.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: Bytes of a mutated input, and of one in so many that is blown up: more than any bound of ours.
MOST, MOST_OF_A_LARGE_ONE, LARGE_ONE_IN = 64 * 1024, 5 * 1024 * 1024, 4096
#: Values of an edit's numbers.
RANGE = 1 << 16

#: What parsers have stumbled over before, here and elsewhere.
TOKENS = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"|",
        b"||",
        b"%",
        b"=",
        b";",
    ),
    *(b"%0A", b"%0d%0a", b"%00", b"%7C", b"%", b"%%", b"%2", b"%zz", b"%u0041", b"%25%30%41", b"%80", b"%ff"),
    *(
        b"\xff",
        b"\xfe\xff",
        b"\xc3",
        b"\xe2\x80\xa8",
        b"\xf0\x9f\x98\x80",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\x85",
    ),
    *(
        "٣".encode(),
        "²".encode(),
        "Ⅷ".encode(),
        "İ".encode(),
        "ß".encode(),
        "\u202e".encode(),
        "é".encode("latin-1"),
    ),
    *(
        b"0",
        b"-0",
        b"-1",
        b"+1",
        b"1_0",
        b"00",
        b"1e999",
        b"-1e999",
        b"nan",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"0x10",
    ),
    *(b"4294967295", b"4294967296", b"9223372036854775807", b"18446744073709551616", b"9" * 18, b"9" * 19),
    *(b"9" * 4300, b"9" * 4301, b"1." + b"0" * 5000 + b"1", b"1e-400", b"2147483648", b"65536", b"-65536"),
    *(
        b"null",
        b"true",
        b"false",
        b"{}",
        b"[]",
        b'""',
        b'"',
        b"'",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"\\",
    ),
    *(b"[" * 100, b"[" * 980, b"[" * 100_000, b'{"a":' * 300, b'{"a":' * 100_000, b"]" * 100, b'[{"":' * 400),
    *(
        b"${NAME}",
        b"${file:/etc/passwd}",
        b"${",
        b"$${x}",
        b"{did}",
        b"{0}",
        b"%s%n",
        b"../../etc/passwd",
        b"/dev/zero",
    ),
    *(
        b"+OK",
        b"-ERR no",
        b"Content-Length: 0",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
    ),
    *(b"Content-Length: 4194304", b"Content-Length: 4194305", b"Content-Length: 5\nContent-Length: 0"),
    *(
        b"Content-Type: text/event-plain",
        b"Content-Type: text/disconnect-notice",
        b"Content-Type: api/response",
    ),
    *(b"Event-Name: ", b"Event-Name: CUSTOM", b"Event-Subclass: mod_audio_stream::json", b"Unique-ID: "),
    *(
        b"a" * 65,
        b"a" * 129,
        b"a" * 1000,
        b"a" * 70_000,
        b"%41" * 20_000,
        b"\n" * 5000,
        b":\n" * 5000,
        b"a=b&" * 30,
    ),
    *(
        b"127.0.0.1",
        b"::1",
        b"::ffff:127.0.0.1",
        b"127.1",
        b"0177.0.0.1",
        b"fe80::1%lo",
        b"256.0.0.1",
        b"1.2.3.4/0",
    ),
)

#: What may stand where JSON had something else.
NODES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**53 + 1,
        2**63,
        -(2**63),
        10**400,
        10**4299,
        0.0,
        -0.0,
        1e308,
        5e-324,
    ),
    *(float("nan"), float("inf"), float("-inf"), 1e15, 1e16, 1700000000.5, 1e10, 1e9),
    *(
        "",
        " ",
        "\0",
        "\n",
        "a\nb: c",
        "\ud800",
        "\udfff\ud800",
        "\u202e",
        "😀",
        "x" * 65,
        "x" * 5000,
        "%0A%7C",
        "${x}",
    ),
    *(
        [],
        {},
        [[]],
        [{}],
        {"": None},
        {"a": {"b": []}},
        ["x"] * 100,
        {str(n): n for n in range(100)},
        {"\ud800": "\0"},
    ),
    *(
        "end",
        "clear",
        "mark",
        "resumed",
        "streamAudio",
        "raw",
        "admitted",
        "ended",
        "accepted",
        "held",
        "bot_ended",
    ),
)

_DIGITS = re.compile(rb"[0-9]+")


@dataclass(frozen=True, slots=True)
class Edit:
    """``kind`` chooses what is done, ``at`` where, ``length`` to how much, ``value`` with what."""

    kind: int
    at: int
    length: int
    value: int


def _place(edit: Edit, content: bytes) -> tuple[int, int]:
    """Beginning and end of what is edited: mostly little, at times most of it."""
    start = edit.at % (len(content) + 1)
    length = edit.length % 16 if edit.length % 4 else edit.length % (len(content) + 1)
    return start, min(len(content), start + length)


def _flip(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    if not content:
        return content
    at = edit.at % len(content)
    return content[:at] + bytes((content[at] ^ (1 << (edit.value % 8)),)) + content[at + 1 :]


def _set(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    start, _ = _place(edit, content)
    return content[:start] + bytes((edit.value % 256,)) + content[start + 1 :]


def _delete(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    start, end = _place(edit, content)
    return content[:start] + content[end:]


def _move(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    start, end = _place(edit, content)
    to = edit.value % (len(content) + 1)
    return content[:to] + content[start:end] + content[to:]


def _insert(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    start, _ = _place(edit, content)
    return content[:start] + TOKENS[edit.value % len(TOKENS)] + content[start:]


def _replace(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    start, end = _place(edit, content)
    return content[:start] + TOKENS[edit.value % len(TOKENS)] + content[end:]


def _truncate(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    return content[: edit.at % (len(content) + 1)]


def _renumber(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    found = list(_DIGITS.finditer(content[:MOST]))
    if not found:
        return content
    match = found[edit.at % len(found)]
    return content[: match.start()] + TOKENS[edit.value % len(TOKENS)] + content[match.end() :]


def _splice(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    other = seeds[edit.value % len(seeds)]
    return content[: edit.at % (len(content) + 1)] + other[edit.length % (len(other) + 1) :]


def _lines(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    lines = content.split(b"\n")
    at, to = edit.at % len(lines), edit.length % len(lines)
    match edit.value % 4:
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case _:
            name, colon, _ = lines[at].partition(b":")
            lines[at] = name + colon + b" " + TOKENS[edit.value // 4 % len(TOKENS)]
    return b"\n".join(lines)


def _repeat(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    start, end = _place(edit, content)
    piece = content[start:end]
    times = min(2 + edit.value % 300, MOST // max(1, len(piece)))
    return content[:start] + piece * times + content[end:]


def _node(content: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    """Another value, or another name, somewhere in a document; of lines, in one of them."""
    lines = content.split(b"\n")
    line = edit.length % len(lines)
    try:
        document = json.loads(lines[line])
    except (ValueError, RecursionError):
        return _replace(content, edit, seeds)
    value: Any = NODES[edit.value % len(NODES)]
    if edit.value // len(NODES) % 16 == 0:
        for _ in range(edit.length % 1200):
            value = [value]
    places: list[tuple[Any, Any]] = []
    _places(document, places)
    if places:
        inside, key = places[edit.at % len(places)]
        if isinstance(inside, dict) and isinstance(value, str) and edit.length % 2:
            inside[value] = inside.pop(key)
        else:
            inside[key] = value
    else:
        document = value
    try:
        lines[line] = json.dumps(document).encode()
    except RecursionError:
        lines[line] = b"[" * 900 + b"]" * 900
    return b"\n".join(lines)


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    if isinstance(value, dict | list) and len(found) < 200:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)


KINDS: tuple[Callable[[bytes, Edit, Sequence[bytes]], bytes], ...] = (
    *(
        _flip,
        _set,
        _delete,
        _move,
        _insert,
        _replace,
        _truncate,
        _renumber,
        _splice,
        _lines,
        _repeat,
        _node,
        _node,
    ),
)


def mutated(content: bytes, edits: Sequence[Edit], seeds: Sequence[bytes], most: int = MOST) -> bytes:
    """``content`` after all ``edits``, each at most ``most`` bytes long."""
    for edit in edits:
        content = KINDS[edit.kind % len(KINDS)](content, edit, seeds)[:most]
    return content


def made_up(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One hostile input: mostly a few edits of a seed, now and then many, or megabytes of it."""
    edits = [
        Edit(rng.randrange(RANGE), rng.randrange(RANGE), rng.randrange(RANGE), rng.randrange(RANGE))
        for _ in range(rng.choice((1, 1, 2, 3, 4, 6, 10)))
    ]
    content = mutated(rng.choice(seeds), edits, seeds)
    if rng.randrange(LARGE_ONE_IN) == 0 and content:
        start = rng.randrange(len(content))
        piece = content[start : start + rng.choice((1, 2, 5, 40, 3000))]
        times = rng.choice((70_000, 300_000, MOST_OF_A_LARGE_ONE)) // len(piece)
        content = content[:start] + piece * times + content[start:]
    return content

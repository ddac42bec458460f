"""The event-socket protocol as FreeSWITCH speaks it, written from its sources (not copied).

``switch_event.c: switch_event_serialize``, ``switch_utils.c: switch_url_encode, separate_string_blank_delim,
cleanup_separated_string``, ``mod_event_socket.c``.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What a header's value may be that is no whole number, though some of Python's ways to read one take it.
NO_NUMBERS = ("", "-1", "+1", " 1", "1\n", "1.5", "1_0", "1e3", "0x10", "²", "٣", "9" * 19, "9" * 5000)

_UNSAFE = '\r\n #%&+:;<=>?@[\\]^`{|}"'
_HEX = "0123456789abcdefABCDEF"


def url_encode(text: str) -> str:
    """FreeSWITCH's own: a ``%`` that two hexadecimal digits follow is taken for encoded, and stays."""
    out = []
    for position, character in enumerate(text):
        following = text[position + 1 : position + 3]
        escaped = character == "%" and len(following) == 2 and all(digit in _HEX for digit in following)
        if not escaped and (character in _UNSAFE or not " " <= character <= "~"):
            out += [f"%{byte:02X}" for byte in character.encode()]
        else:
            out.append(character)
    return "".join(out)


def block(headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A serialised event."""
    lines = "".join(f"{name}: {url_encode(value) or '_undef_'}\n" for name, value in headers.items())
    length = f"Content-Length: {len(body)}\n" if body else ""
    return f"{lines}{length}\n".encode() + body


def event(headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A ``text/event-plain`` frame."""
    inner = block(headers, body)
    return f"Content-Length: {len(inner)}\nContent-Type: text/event-plain\n\n".encode() + inner


def reply(text: str = "+OK", headers: Mapping[str, str] | None = None) -> bytes:
    """The reply to a command; ``connect`` is answered with the whole channel in ``headers``."""
    return b"Content-Type: command/reply\n" + f"Reply-Text: {text}\n".encode() + block(headers or {})


def api_response(body: str | bytes) -> bytes:
    """The answer to ``api …``."""
    content = body.encode() if isinstance(body, str) else body
    return f"Content-Type: api/response\nContent-Length: {len(content)}\n\n".encode() + content


def linger_notice(uuid: str = "u", body: bytes = b"") -> bytes:
    """The channel is down and the socket stays for a while."""
    return (
        f"Content-Type: text/disconnect-notice\nControlled-Session-UUID: {uuid}\n"
        "Content-Disposition: linger\nChannel-Name: sofia/internal/x@y\nLinger-Time: 5\n"
        f"Content-Length: {len(body)}\n\n"
    ).encode() + body


def disconnect_notice(uuid: str = "u") -> bytes:
    """The last words of a connection without linger."""
    body = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
    return (
        f"Content-Type: text/disconnect-notice\nControlled-Session-UUID: {uuid}\n"
        f"Content-Disposition: disconnect\nContent-Length: {len(body)}\n\n"
    ).encode() + body


def separate(text: str, most: int) -> list[str]:
    """Arguments of an API command, as FreeSWITCH separates them by blanks; the last takes the rest."""
    parts: list[str] = []
    position = 0
    while position < len(text) and len(parts) < most:
        start, quoted = position, False
        while position < len(text) and text[position] == " ":
            position += 1
        while position < len(text) and (quoted or text[position] != " " or len(parts) == most - 1):
            if text[position] == "\\":
                position += 1
            elif text[position] == "'":
                quoted = not quoted
            position += 1
        parts.append(text[start:position])
        while position < len(text) and text[position] == " ":
            position += 1
    return [clean(part) for part in parts]


def clean(text: str) -> str:
    """One argument without its quotes, escapes and outer blanks."""
    text = text.lstrip(" ")
    special = {"n": "\n", "r": "\r", "t": "\t", "s": " ", "'": "'", '"': '"', "\\": "\\"}
    out: list[str] = []
    end: int | None = None
    quoted = False
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and text[position + 1 : position + 2] in special:
            out.append(special[text[position + 1]])
            end = len(out)
            position += 2
            continue
        if character == "'" and (quoted or "'" in text[position + 1 :]):
            quoted = not quoted
            if quoted:
                end = len(out)
        else:
            out.append(character)
            if character != " " or quoted:
                end = len(out)
        position += 1
    return "".join(out if end is None else out[:end])

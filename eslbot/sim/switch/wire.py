"""FreeSWITCH's texts: how it splits arguments, encodes values and spells events.

Sources: ``switch_utils.c`` (``switch_separate_string``, ``switch_url_encode_opt``), ``switch_event.c``
(``switch_event_serialize``), ``switch_channel.c`` (``switch_channel_expand_variables``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

#: Texts come from the network as bytes nobody promised to be UTF-8; they go back as they came.
ENCODING, ERRORS = "utf-8", "surrogateescape"

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "s": " "}

# SWITCH_URL_UNSAFE and everything outside printable ASCII. "%" followed by two upper-case hexadecimal digits
# is taken for an already encoded character and left alone: that is FreeSWITCH's own ambiguity, kept on
# purpose.
_UNSAFE = re.compile(r"""%(?![0-9A-F]{2})|[\r\n #&+:;<=>?@\[\\\]^`{|}"]|[^ -~]""")

_REFERENCE = re.compile(r"\$\{([^${}()\[\]]+)\}")


def leading_number(text: str) -> int:
    """What C's ``atoi`` makes of it, negative numbers being nothing here."""
    match = re.match(r"\s*\+?(\d{1,9})", text, re.A)
    return int(match[1]) if match else 0


def separate(text: str, delimiter: str = " ", limit: int = 64) -> list[str]:
    """``text`` split at ``delimiter`` into at most ``limit`` arguments, quotes and escapes resolved.

    The last argument allowed keeps the rest of the text. ``^^;a;b`` chooses the delimiter inside the text.
    """
    if text.startswith("^^") and len(text) > 3:
        delimiter, text = text[2], text[3:]
    blank = delimiter == " "
    parts: list[str] = []
    position, end = 0, len(text)
    while position < end and len(parts) + 1 < limit:
        start = position
        while blank and position < end and text[position] == " ":
            position += 1
        quoted = False
        while position < end:
            char = text[position]
            if char == "\\":
                position += 1
            elif char == "'" and (blank or quoted or "'" in text[position + 1 :]):
                quoted = not quoted
            elif char == delimiter and not quoted:
                break
            position += 1
        parts.append(text[start:position])
        position += 1
        while blank and position < end and text[position] == " ":
            position += 1
    if position < end:
        parts.append(text[position:])
    return [_clean(part, "" if blank else delimiter) for part in parts]


def _clean(text: str, delimiter: str) -> str:
    """One argument without its quotes, escapes and surrounding spaces (``cleanup_separated_string``)."""
    text = text.lstrip(" ")
    kept: list[str] = []
    length = 0  # up to the last character that is not an unquoted space
    quoted = False
    position = 0
    while position < len(text):
        char = text[position]
        following = text[position + 1 : position + 2]
        if (
            char == "\\"
            and following
            and (following in "'\"\\" or following == delimiter or following in _ESCAPES)
        ):
            kept.append(_ESCAPES.get(following, following))
            length = len(kept)
            position += 2
            continue
        if char == "'" and (quoted or "'" in text[position + 1 :]):
            quoted = not quoted
            if quoted:
                length = len(kept)
        else:
            kept.append(char)
            if char != " " or quoted:
                length = len(kept)
        position += 1
    return "".join(kept[:length])


def url_encode(value: str) -> str:
    """``value`` as FreeSWITCH writes it into a plain event, upper-case hexadecimal."""
    if _UNSAFE.search(value) is None:
        return value
    return _UNSAFE.sub(_percent, value)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode(ENCODING, ERRORS))


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with every ``${name}`` replaced by the variable's value, or by nothing where it is unset.

    FreeSWITCH also runs API functions, ``${name(args)}``, slices and array elements: the stand-in does not.
    """
    return _REFERENCE.sub(lambda match: variables.get(match[1], ""), text)


def is_true(value: str | None) -> bool:
    """What FreeSWITCH takes for yes (``switch_true``)."""
    if value is None:
        return False
    if value.lower() in ("yes", "on", "true", "t", "enabled", "active", "allow"):
        return True
    return value.isascii() and value.isdigit() and int(value) != 0


class Variables(Mapping[str, str]):
    """Channel variables: found whatever their spelling, listed in the spelling of whoever set them last."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, str]] = {}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._values.values()])

    def __len__(self) -> int:
        return len(self._values)

    def set(self, name: str, value: str | None) -> None:
        """Set ``name``, or remove it where the value is None or empty, as FreeSWITCH does."""
        self._values.pop(name.lower(), None)
        if value:
            self._values[name.lower()] = (name, value)

    def set_from_network(self, name: str, value: str | None) -> None:
        """Set a value somebody sent us: one with a ``${`` in it is dropped (``switch_string_var_check``)."""
        if value is None or "${" not in value:
            self.set(name, value)


@dataclass
class Event:
    """One event: its name, its headers in order, and the body a CUSTOM or BACKGROUND_JOB event may have."""

    name: str
    headers: list[tuple[str, str]]
    body: str = ""
    subclass: str = ""
    _index: dict[str, str] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> str | None:
        """The first header called ``name``, in any spelling."""
        if not self._index:
            for key, value in reversed(self.headers):
                self._index[key.lower()] = value
        return self._index.get(name.lower())

    @cached_property
    def plain(self) -> bytes:
        """The whole ``text/event-plain`` block; made once however many listeners want it."""
        return self._block("plain", serialise(self.headers, self.body))

    @cached_property
    def json(self) -> bytes:
        """The whole ``text/event-json`` block."""
        content: dict[str, str] = dict(self.headers)
        if self.body:
            content["Content-Length"] = str(len(self.body.encode(ENCODING, ERRORS)))
            content["_body"] = self.body
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return self._block("json", text.encode(ENCODING, ERRORS))

    @staticmethod
    def _block(kind: str, content: bytes) -> bytes:
        return f"Content-Length: {len(content)}\nContent-Type: text/event-{kind}\n\n".encode() + content


def serialise(headers: list[tuple[str, str]], body: str = "") -> bytes:
    """Headers URL-encoded, one a line, an empty one as ``_undef_``; then the body with its own length."""
    text = "".join(f"{name}: {url_encode(value) or '_undef_'}\n" for name, value in headers)
    content = body.encode(ENCODING, ERRORS)
    if not content:
        return (text + "\n").encode(ENCODING, ERRORS)
    return f"{text}Content-Length: {len(content)}\n\n".encode(ENCODING, ERRORS) + content


def words(text: str) -> frozenset[str]:
    """The words of ``text``, for long lists of names."""
    return frozenset(text.split())


#: Every event name FreeSWITCH knows (``EVENT_NAMES`` in switch_event.c); others in a subscription are
#: ignored.
EVENT_NAMES = words("""
    CUSTOM CLONE CHANNEL_CREATE CHANNEL_DESTROY CHANNEL_STATE CHANNEL_CALLSTATE CHANNEL_ANSWER CHANNEL_HANGUP
    CHANNEL_HANGUP_COMPLETE CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_HOLD CHANNEL_UNHOLD
    CHANNEL_BRIDGE CHANNEL_UNBRIDGE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_OUTGOING CHANNEL_PARK
    CHANNEL_UNPARK CHANNEL_APPLICATION CHANNEL_ORIGINATE CHANNEL_UUID API LOG INBOUND_CHAN OUTBOUND_CHAN
    STARTUP SHUTDOWN PUBLISH UNPUBLISH TALK NOTALK SESSION_CRASH MODULE_LOAD MODULE_UNLOAD DTMF MESSAGE
    PRESENCE_IN NOTIFY_IN PRESENCE_OUT PRESENCE_PROBE MESSAGE_WAITING MESSAGE_QUERY ROSTER CODEC
    BACKGROUND_JOB DETECTED_SPEECH DETECTED_TONE PRIVATE_COMMAND HEARTBEAT TRAP ADD_SCHEDULE DEL_SCHEDULE
    EXE_SCHEDULE RE_SCHEDULE RELOADXML NOTIFY PHONE_FEATURE PHONE_FEATURE_SUBSCRIBE SEND_MESSAGE RECV_MESSAGE
    REQUEST_PARAMS CHANNEL_DATA GENERAL COMMAND SESSION_HEARTBEAT CLIENT_DISCONNECTED SERVER_DISCONNECTED
    SEND_INFO RECV_INFO RECV_RTCP_MESSAGE SEND_RTCP_MESSAGE CALL_SECURE NAT RECORD_START RECORD_STOP
    PLAYBACK_START PLAYBACK_STOP CALL_UPDATE FAILURE SOCKET_DATA MEDIA_BUG_START MEDIA_BUG_STOP
    CONFERENCE_DATA_QUERY CONFERENCE_DATA CALL_SETUP_REQ CALL_SETUP_RESULT CALL_DETAIL DEVICE_STATE TEXT
    SHUTDOWN_REQUESTED CERT_RELOAD ALL
    """)

#: What ``myevents`` subscribes to (mod_event_socket.c); neither CUSTOM nor PLAYBACK_START and _STOP are in
#: it.
MY_EVENTS = words("""
    CHANNEL_ANSWER CHANNEL_APPLICATION CHANNEL_BRIDGE CHANNEL_CREATE CHANNEL_DATA CHANNEL_DESTROY
    CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CHANNEL_ORIGINATE
    CHANNEL_UUID CHANNEL_OUTGOING CHANNEL_PARK CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_STATE
    CHANNEL_UNBRIDGE CHANNEL_UNPARK DETECTED_SPEECH DTMF NOTALK TALK
    """)

"""What we say to FreeSWITCH, spelled so that no value can become a command."""

from __future__ import annotations

import re

from eslbot.esl.errors import UnsafeArgument

_NO_LINE = re.compile(r"[\n\r\0]")
#: The backslash first; a replacement each is ten times as fast as a table.
_ESCAPES = (
    ("\\", "\\\\"),
    ("'", "\\'"),
    ('"', '\\"'),
    (" ", "\\s"),
    ("\n", "\\n"),
    ("\r", "\\r"),
    ("\t", "\\t"),
)


def quote(text: str) -> str:
    """``text`` as one argument of an API command, whatever it holds.

    The escapes are those of FreeSWITCH ``switch_utils.c: cleanup_separated_string``; an API command of the
    event socket does not expand ``${…}``. Raises :class:`UnsafeArgument` on NUL.
    """
    if "\0" in text:
        raise UnsafeArgument("an argument holds NUL")
    for character, escaped in _ESCAPES:
        text = text.replace(character, escaped)
    return text


def execute_message(application: str, argument: str = "", event_uuid: str = "") -> str:
    """A ``sendmsg`` that executes an application; ``event_uuid`` comes back as ``Application-UUID``.

    ``event-lock`` keeps the order: without it, what is queued runs inside a playback that is under way
    (``switch_ivr.c: switch_ivr_parse_all_events``). The argument is expanded by FreeSWITCH (``${…}``) and
    must not hold what a caller chose. Raises :class:`UnsafeArgument` on a line end or NUL.
    """
    lines = ["sendmsg", "call-command: execute", f"execute-app-name: {application}", "event-lock: true"]
    if argument:
        lines.append(f"execute-app-arg: {argument}")
    if event_uuid:
        lines.append(f"Event-UUID: {event_uuid}")
    for line in lines:
        check_line(line)
    return "\n".join(lines)


def check_line(line: str) -> str:
    """``line`` itself, if it is one line. Raises :class:`UnsafeArgument` otherwise."""
    if _NO_LINE.search(line):
        raise UnsafeArgument(f"a line end or NUL in {line[:60]!r}")
    return line

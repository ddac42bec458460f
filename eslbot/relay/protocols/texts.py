"""How a text that a bot chose is read: in bounded time, and nothing comes of it but :class:`BadMessage`.

Speech is the only thing that may be long. Where a long text holds some, it is lifted out before the rest is
taken for JSON, so that megabytes are looked at once (and by ``str.find``), and a long text that holds
something else than one long string is refused unread.
"""

from __future__ import annotations

import binascii
import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from eslbot.relay.protocols.base import BadMessage
from eslbot.telemetry import redaction

#: Bytes of speech in one message, binary or as base64: nine minutes of G.711, 87 s of L16 at 24,000 Hz.
MAX_AUDIO_BYTES = 4 * 1024 * 1024
#: Characters around the speech of a long text.
MAX_AROUND = 4 * 1024
#: Bytes of a text with speech; whoever reads from the socket needs to collect no more.
MAX_MESSAGE_BYTES = -(-MAX_AUDIO_BYTES // 3) * 4 + MAX_AROUND
#: Characters of any other text. The bot's properties are the most of it.
MAX_OTHER = 256 * 1024
#: Characters from which on a text may hold enough to keep the garbage collector busy.
LONG = 16 * 1024
#: Characters of a bot's word that a person is shown.
MAX_SHOWN = 200


def read(text: str, key: str) -> tuple[Mapping[str, Any], str | None]:
    """The object that ``text`` holds, and what was lifted out of a long one: the text under ``key``, or None.

    What was lifted is ``""`` in the object. Raises :class:`BadMessage`.
    """
    lifted = None
    if len(text) > LONG:
        lifted, text = _lift(text, key)
    if len(text) > MAX_OTHER:
        raise BadMessage("oversized", f"{len(text)} characters that are not speech; {MAX_OTHER} are read")
    try:
        with _uncollected() if len(text) > LONG else nullcontext():
            document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage("bad_json", "not JSON") from error
    if not isinstance(document, dict):
        raise BadMessage("not_an_object", "not a JSON object")
    return document, lifted


def audio(text: object, what: str) -> bytes:
    """The bytes of base64 that stood under ``what``. Raises :class:`BadMessage`."""
    if not isinstance(text, str):
        raise BadMessage("unusable_audio", f"{what} is missing, or no text")
    try:
        return binascii.a2b_base64(text.replace("\\/", "/"), strict_mode=True)  # PHP writes \/
    except ValueError as error:
        raise BadMessage("unusable_audio", f"{what} is not base64") from error


def compact(document: Mapping[str, Any]) -> str:
    """One line of JSON, in ASCII."""
    return json.dumps(document, separators=(",", ":"))


def printable(text: str, most: int = MAX_SHOWN) -> str:
    """The beginning of a bot's own word, without secrets, fit for a log line and a channel variable."""
    told = redaction.beginning(text, most)
    return "".join(character if character.isprintable() else " " for character in told)


def shown(value: object) -> str:
    """A value of the bot's in a few characters; one that holds others is not spelt out, which takes long."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__}"
    return printable(repr(value[:30] if isinstance(value, str) else value), 30)


def _lift(text: str, key: str) -> tuple[str | None, str]:
    """The string behind the first ``key``, and the text without it; None and the text if there is none."""
    name = f'"{key}"'
    at = text.find(name)
    if at < 0 or len(colon := text[at + len(name) : at + len(name) + 16].split('"', 1)) < 2:
        return None, text
    if colon[0].strip() != ":":
        return None, text
    begin = at + len(name) + len(colon[0]) + 1
    end = text.find('"', begin)  # base64 has no quotation mark that would be escaped
    if end - begin <= LONG:
        return None, text
    rest = text[:begin] + text[end:]
    if len(rest) > MAX_AROUND:
        raise BadMessage("oversized", f"{len(rest)} characters around {key}; {MAX_AROUND} are read")
    if end - begin > MAX_MESSAGE_BYTES - MAX_AROUND:
        raise BadMessage("oversized", f"more than {MAX_AUDIO_BYTES} bytes of speech in one message")
    return text[begin:end], rest


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: tens of thousands of lists would have it look at all that there is."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

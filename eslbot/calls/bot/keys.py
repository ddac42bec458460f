"""The key of a SIP INFO, from what the PBX wrote and not from what FreeSWITCH makes of it.

mod_sofia reads a number where it expects one (``sofia_handle_sip_i_info``: ``atoi``), so a ``*`` of
``application/dtmf`` and an ``a`` of ``application/dtmf-relay`` come as the key ``0``, and a flash as ``F``.
"""

from __future__ import annotations

import re

#: The keys by their event numbers (RFC 4733, table 3).
KEYS = "0123456789*#ABCD"
#: Milliseconds where the INFO names none, or none that a key can have: FreeSWITCH's own default and bounds.
DEFAULT_MS, LEAST_MS, MOST_MS = 250, 50, 24_000
#: Bytes of a body that are looked at.
MOST_BYTES = 1024

_NUMBER = re.compile(r"\d{1,2}", re.ASCII)


def key_of_info(content_type: str, body: bytes) -> tuple[str, int] | None:
    """Key and milliseconds of an INFO, or None where it is no key, or none that we know."""
    text = body[:MOST_BYTES].decode("ascii", "replace")
    kind = content_type.partition(";")[0].strip().lower()
    match kind:
        case "application/dtmf":
            signal, duration = text, ""
        case "application/dtmf-relay":
            signal, duration = _field(text, "signal"), _field(text, "duration")
        case "application/vnd.nortelnetworks.digits":
            signal, duration = _field(text, "d"), ""
        case _:
            return None
    key = _key(signal.strip())
    return (key, _milliseconds(duration.strip())) if key else None


def _field(text: str, name: str) -> str:
    pairs = (line.partition("=") for line in text.splitlines())
    return next((value for key, _, value in pairs if key.strip().lower() == name), "")


def _key(signal: str) -> str:
    """One character is the key itself; two digits are an event number, and 10 is ``*`` everywhere."""
    if len(signal) == 1 and signal.upper() in KEYS:
        return signal.upper()
    if _NUMBER.fullmatch(signal) and int(signal) < len(KEYS):
        return KEYS[int(signal)]
    return ""


def _milliseconds(duration: str) -> int:
    if not re.fullmatch(r"\d{1,6}", duration, re.ASCII) or not int(duration):
        return DEFAULT_MS
    return min(max(int(duration), LEAST_MS), MOST_MS)

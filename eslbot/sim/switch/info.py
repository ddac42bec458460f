"""The key FreeSWITCH sees in a SIP INFO (``sofia.c: sofia_handle_sip_i_info``), wrong ones included."""

from __future__ import annotations

import re

#: ``switch_rfc2833_to_char``; F is a hook flash.
_CHARACTERS = "0123456789*#ABCDF"
#: Samples of 8,000 Hz: the default, the shortest and the longest key (switch_core's defaults).
DEFAULT, SHORTEST, LONGEST = 2000, 400, 192_000


def key_of_info(content_type: str, body: str) -> tuple[str, int] | None:
    """Key and samples, or None where FreeSWITCH takes it for none."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return None
    match kind:
        case "application/dtmf":
            return _made(_character(_atoi(body)), 0)
        case "application/dtmf-relay":
            signal, duration = _behind("Signal=", body), _behind("Duration=", body)
            if signal is None:
                return None
            samples = DEFAULT if duration is None else _atoi(duration) * 8
            return _made(_key(signal), samples if samples > 0 else DEFAULT * 8)
        case "application/vnd.nortelnetworks.digits":
            signal = _behind("d=", body)
            return None if signal is None else _made(_key(signal), SHORTEST)
    return None


def _made(key: str, samples: int) -> tuple[str, int] | None:
    return (key, min(max(samples or DEFAULT, SHORTEST), LONGEST)) if key else None


def _behind(name: str, body: str) -> str | None:
    """What follows ``name``, wherever it stands (``switch_stristr``)."""
    position = body.lower().find(name.lower())
    return None if position < 0 else body[position + len(name) :].lstrip(" ")


def _key(signal: str) -> str:
    return signal[0] if signal[:1] and signal[0] in "*#ABCD" else _character(_atoi(signal))


def _atoi(text: str) -> int:
    match = re.match(r"[ \t\r\n\v\f]*([+-]?\d{1,9})", text, re.A)
    return int(match[1]) if match else 0


def _character(number: int) -> str:
    return _CHARACTERS[number] if 0 <= number < len(_CHARACTERS) else ""

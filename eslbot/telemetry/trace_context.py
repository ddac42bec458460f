"""Which trace a call is (W3C Trace Context), derived from the call's id.

So no process has to tell another: the relay that dials the bot, the page process that exports the spans, and
everybody else who has a call's id come to the same trace. A bot's own spans find ours, exported or not::

    trace id = the first 16 bytes of SHA-256("eslbot trace " + call id)
    span id  = the first 8 bytes of SHA-256("eslbot span " + call id + " " + the span's name)

Whether a call is sampled depends on its trace id, by OpenTelemetry's own rule for a share of all traces
(``TraceIdRatioBased``), which others may follow.
"""

from __future__ import annotations

from hashlib import sha256

#: The span of the bot's part of the call, which is the parent of a bot's own spans.
BOT = "bot"
_SAMPLED, _NOT_SAMPLED = "01", "00"
_HALF = 1 << 64


def trace_id(call_id: str) -> int:
    """128 bits."""
    return int.from_bytes(sha256(f"eslbot trace {call_id}".encode()).digest()[:16])


def span_id(call_id: str, name: str) -> int:
    """64 bits, for the call's span of this name."""
    return int.from_bytes(sha256(f"eslbot span {call_id} {name}".encode()).digest()[:8])


def is_sampled(call_id: str, share: float) -> bool:
    """Whether a call is among the ``share`` of all (0 to 1) whose spans are exported."""
    return trace_id(call_id) % _HALF < round(share * _HALF)


def traceparent(call_id: str, share: float) -> str:
    """The header for the bot (W3C Trace Context, level 1): trace, and parent of the bot's own spans."""
    flags = _SAMPLED if is_sampled(call_id, share) else _NOT_SAMPLED
    return f"00-{trace_id(call_id):032x}-{span_id(call_id, BOT):016x}-{flags}"

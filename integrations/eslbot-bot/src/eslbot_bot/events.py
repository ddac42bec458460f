"""What a bot is told of its call. Fields have the protocol's names and units; more may be added."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Who is calling: the protocol's ``start``.

    Attributes:
        call_id: unique; all connections of the call have it.
        workspace_id: the tenant, a UUID.
        did: the number that was dialled, in international format with ``00``.
        crt_object_id: Ameyo's id of the call.
        caller: the caller's number (``from``), any text; may be empty.
        to: user part of the SIP request; may be empty.
        rate: of the audio in both directions, in Hz: 8000, 16000 or 24000.
        traceparent: the call's trace (W3C Trace Context); empty where there is none.
        resumed: whether the call was under way when this connection was made.
    """

    call_id: str
    workspace_id: str
    did: str
    crt_object_id: str
    caller: str
    to: str
    rate: int
    traceparent: str = ""
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Audio:
    """20 ms of the caller: L16 little-endian, one channel, at the call's rate."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key, one of ``0-9 * # A-D``, for ``duration_ms``."""

    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The caller has heard everything before :meth:`Call.mark`; with ``cleared`` it was not heard."""

    name: str
    cleared: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was said before :meth:`Call.clear` is forgotten."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The PBX has put the caller on hold, or taken them off it; meanwhile nobody hears the bot."""

    on: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The connection was lost, and there is another one. What the caller said in between is lost."""


@dataclass(frozen=True, slots=True)
class Error:
    """eslbot could not use something that the bot sent; the call goes on. ``message`` is for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The bot's part is over; always the last event.

    ``reason`` is eslbot's (``ended``, ``caller_hangup``, ``max_duration``); ``lost`` where the connection
    broke and no other came; empty where it was closed without a reason.
    """

    reason: str


Event = Audio | Dtmf | Mark | Cleared | Hold | Resumed | Error | Stop

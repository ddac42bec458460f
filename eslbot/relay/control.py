"""What a controller and a relay tell each other: texts through mod_audio_stream, one JSON object each.

A controller's *orders* go out as ``uuid_audio_stream … send_text``; a relay's *news* come as
``mod_audio_stream::json``. News are numbered from 1 on. The relay keeps each until it was acknowledged, so
that what fell into a take-over is told again: a new controller sends HELLO, ignores everything up to the
STATE that answers it, and gets all news behind ``acked`` once more. Whatever can be said twice may be.

The relay sends a STATE by itself when a stream comes up. Orders may be lost with a controller; each of them
is either a state that HELLO repeats, or best effort (a key).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Bytes of an order or of news; the bot's properties are the most of it.
MAX_BYTES = 256 * 1024
#: Hz of everything between FreeSWITCH and a relay.
RATE = 8000
#: Headers of the stream's upgrade request: the signed identity (:mod:`eslbot.caller.identity`), and its call.
IDENTITY, CALL = "X-Eslbot-Identity", "X-Call-ID"
#: One more: what the controller knows of the bot's part (:class:`Part`).
PART = "X-Eslbot-Part"
#: And ``1`` where the bot has spoken; a header of its own, which a relay of an earlier version passes over.
HEARD = "X-Eslbot-Heard"
#: And the milliseconds of the packets that FreeSWITCH sends, 20 where it is missing: so the line is read.
PTIME = "X-Eslbot-Ptime"
#: And FreeSWITCH's Core-UUID: another one than before has none of the call's line files open.
SWITCH = "X-Eslbot-Switch"

#: Where a relay tells anybody that it is one, and how.
HEALTH, HEALTHY = "/healthz", b"relay"


class Part(StrEnum):
    """How far the bot's part is for the controller that starts a stream."""

    NEW = "new"  # nobody has dialled yet
    UNDER_WAY = "under_way"  # the bot was there; where the relay does not know it, it is told `resumed`
    HEARD = "heard"  # the same, and it has spoken: no first word is awaited. On the wire, UNDER_WAY and HEARD
    OVER = "over"  # only the last words are to be heard: no bot is dialled


class Order(StrEnum):
    """What a controller wants; the comments name the further fields. Each may have ``ack``."""

    HELLO = "hello"  # `hold`: bool. A new controller: answer with STATE and all that was not acknowledged
    KEY = "key"  # `digit`, `ms`
    HOLD = "hold"  # `on`
    ACK = "ack"  # `ack`: news up to this number need not be told again
    AGAIN = "again"  # the stream ends, and another follows: that is not the call's end
    STOP = "stop"  # `reason`: ended, max_duration. The bot's part is over: say `stop` and close, be silent


class News(StrEnum):
    """What a relay tells; the comments name the further fields. Times in seconds."""

    #: Answer to HELLO and to a new stream; has no number. `acked`: news behind it follow. `bot`: dialling,
    #: connected, over. `spoken`, `speaking`, `done`: bool. `hold`: what was known of one before HELLO.
    #: `ended`: as ENDED has it, or null. `lines`: list of {`path`, `on`}: files to displace onto the channel,
    #: and whether FreeSWITCH reads them already. `url`: of this very relay process. Told unasked where a file
    #: is to be heard no more.
    STATE = "state"
    CONNECTED = "connected"  # the bot is there
    RECONNECTED = "reconnected"  # `why`: the bot was dialled again
    BEGAN = "began"  # `ago`: the caller begins to hear the bot
    SILENT = "silent"  # `cut`: bool, `ago`: the caller hears the bot no more
    MARK = "mark"  # `name`, `cleared`: bool
    CLEARED = "cleared"  # barge-in
    CALLER_SPEECH = "caller_speech"  # `speaking`
    #: A turn is over (:mod:`eslbot.turns`): `turn`, its number, `kind`, `ago`, `seconds`; of an answer
    #: and a barge-in the bot's own share of them, `bot`; of an overlap `by`. So many a call
    #: (:data:`eslbot.turns.MAX_TURNS`).
    TURN = "turn"
    #: The bot's part is over but for its last words: `outcome`, `reason`, `properties` (those the workspace
    #: lets through), `dropped` (names of the others).
    ENDED = "ended"
    DONE = "done"  # behind ENDED: the last word was heard, the line is silent
    SHORT_PACKETS = "short_packets"  # the PBX's are shorter than its SDP says: a jitter buffer is wanted
    #: The call is recorded from here on; or, with `why` (of metrics.RECORDING_WHYS), is not any more.
    RECORDING = "recording"
    LATE = "late"  # `by`: the caller's audio is late since a stall of FreeSWITCH's: flush the RTP socket


#: The URL of a relay process: where `/prepare` and STATE say that a call is.
OWN_URL = re.compile(r"ws://[A-Za-z0-9.-]{1,64}:[0-9]{1,5}/")


class BadText(Exception):
    """A text that is neither an order nor news of this version."""


@dataclass(frozen=True, slots=True)
class Text:
    """One order or one piece of news; ``number`` and ``ack`` are 0 where there is none."""

    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    ack: int = 0


def order(what: Order, *, ack: int = 0, **facts: Any) -> str:
    """The text of an order."""
    return _text({"order": what, **({"ack": ack} if ack else {}), **facts})


def news(what: News, number: int = 0, **facts: Any) -> str:
    """The text of news."""
    return _text({"news": what, **({"n": number} if number else {}), **facts})


def read_order(text: str | bytes) -> Text:
    """What a controller wants. Raises :class:`BadText`."""
    return _read(text, "order", _ORDERS)


def read_news(text: str | bytes) -> Text:
    """What a relay tells. Raises :class:`BadText`."""
    return _read(text, "news", _NEWS)


def _text(document: Mapping[str, Any]) -> str:
    return _to_json(document)


#: ASCII, one line.
_to_json = json.JSONEncoder(separators=(",", ":")).encode


_ORDERS, _NEWS = frozenset(map(str, Order)), frozenset(map(str, News))


def _read(text: str | bytes, key: str, kinds: frozenset[str]) -> Text:
    if len(text) > MAX_BYTES:
        raise BadText(f"{len(text)} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadText("not JSON") from error
    if not isinstance(document, dict):
        raise BadText("not an object")
    what = document.pop(key, None)
    if not isinstance(what, str) or what not in kinds:
        raise BadText(f"no known {key}")
    number, ack = document.pop("n", 0), document.pop("ack", 0)
    if any(type(count) is not int or count < 0 for count in (number, ack)):
        raise BadText("numbers are no numbers")
    return Text(what, document, number, ack)

"""A connection's first messages: who is calling, and what the caller has said before that was told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket

#: Messages before ``start`` that are kept: ten seconds of the caller.
MOST_BEFORE = 500
#: Hz.
RATES = (8000, 16000, 24000)


class BadStart(Exception):
    """A connection that does not begin as eslbot's do; the text says how."""


@dataclass(frozen=True)
class Start:
    """Who is calling, as the message ``start`` tells it.

    Attributes:
        call_id, workspace_id, did, crt_object_id: as in the upgrade's headers; ``crt_object_id`` is up to the
            tenant's PBX: not to be trusted as a file name.
        caller, to: the caller's number and the user part of the request; may be empty.
        sample_rate: of the audio both ways, in Hz.
        traceparent: W3C Trace Context; empty where the operator traces nothing.
        resumed: the call is not new, an earlier connection of it broke.
    """

    call_id: str
    workspace_id: str
    did: str
    crt_object_id: str
    caller: str
    to: str
    sample_rate: int
    traceparent: str = ""
    resumed: bool = False

    @classmethod
    def read(cls, text: str) -> Start:
        """From the message. Raises :class:`BadStart`."""
        document = as_object(text)
        if document.get("type") != "start":
            raise BadStart(f"the first message is {document.get('type')!r:.40}, not 'start'")
        audio = document.get("audio")
        rate = audio.get("sample_rate") if isinstance(audio, dict) else None
        if rate not in RATES:
            raise BadStart(f"audio.sample_rate is {rate!r:.40}; one of {RATES} is expected")
        call_id = _text(document, "call_id")
        if not call_id:
            raise BadStart("call_id is missing, or empty")
        return cls(
            call_id=call_id,
            workspace_id=_text(document, "workspace_id"),
            did=_text(document, "did"),
            crt_object_id=_text(document, "crt_object_id"),
            caller=_text(document, "from"),
            to=_text(document, "to"),
            sample_rate=rate,
            traceparent=_text(document, "traceparent"),
            resumed=document.get("resumed") is True,
        )


async def read_start(websocket: WebSocket, timeout: float = 10.0) -> tuple[Start, str, list[bytes]]:
    """Wait for ``start`` on an accepted socket.

    Returns:
        It, its text, and the binary messages that came before it: they are the caller's audio.

    Raises:
        BadStart: it does not come within ``timeout`` seconds, or is none, or the socket closes.
    """
    before: list[bytes] = []
    try:
        async with asyncio.timeout(timeout):
            while len(before) < MOST_BEFORE:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    raise BadStart(f"closed with {message.get('code')} before start")
                text = message.get("text")
                if text is not None:
                    return Start.read(text), text, before
                before.append(message.get("bytes") or b"")
    except TimeoutError as error:
        raise BadStart(f"no start within {timeout:g} s") from error
    raise BadStart(f"no start within {MOST_BEFORE} messages")


def as_object(text: str) -> dict[str, Any]:
    """A message. Raises :class:`BadStart` for what is no JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadStart(f"not JSON: {text[:40]!r}") from error
    if not isinstance(document, dict):
        raise BadStart(f"not a JSON object: {text[:40]!r}")
    return document


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise BadStart(f"{key} is {value!r:.40}, not a text")
    return value

"""The door for mod_audio_stream: who may come in, and whose call a stream is.

The module's upgrade request carries the call's signed identity. Without one the answer is 403 and nothing
else happens. With one the call is found or made, line files and all, before the upgrade is answered: so the
controller may displace them as soon as the stream is up. A second stream of a call takes the call over from
the first; what the first still says is nobody's.

A stream ends by a close frame (1000: the channel is gone, or the controller has stopped it) or by its
connection's end (FreeSWITCH has died). We answer close frames and end TCP ourselves: the module waits for
that, and FreeSWITCH with it.

``GET /prepare`` with the same headers makes the call and dials its bot before there is a stream: a controller
asks for it while the call is being answered. The answer's body is the URL of the worker that has the call.
"""

from __future__ import annotations

import re
import socket
from abc import ABC, abstractmethod
from typing import Protocol

import structlog
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from eslbot import metrics
from eslbot.identity import Signer
from eslbot.invite import Invite
from eslbot.relay import control
from eslbot.relay.control import Part

log = structlog.get_logger()


class Stream(Protocol):
    """The module's WebSocket, as a call sees it."""

    def send_text(self, text: str) -> None:
        """News for the controller. Nothing is sent once the stream is closed, or its call taken over."""

    def close(self, code: int = 1000) -> None:
        """End it; never waits. The call hears no more of it."""


class Call(ABC):
    """A call in the relay, as its stream and its worker see it: :class:`eslbot.relay.call.RelayCall`.

    It is made with an invite, its workspace and the worker's :class:`~eslbot.relay.shared.Shared`, and has
    its line files then. None of these methods waits, or raises.
    """

    @abstractmethod
    def prepare(self) -> None:
        """A stream is on its way: dial the bot. May come again, and behind :meth:`stream_up`."""

    @abstractmethod
    def stream_up(self, stream: Stream, part: Part) -> None:
        """There is a stream, the first or another one; the one before is gone without further notice."""

    @abstractmethod
    def heard(self, frame: bytes) -> None:
        """A binary frame of the module's: L16 at 8,000 Hz, 320 bytes."""

    @abstractmethod
    def ordered(self, text: str) -> None:
        """A text of the controller's, which may be anything (:func:`eslbot.relay.control.read_order`)."""

    @abstractmethod
    def stream_gone(self, clean: bool) -> None:
        """The stream has ended; ``clean`` by a close frame with 1000."""

    @abstractmethod
    def shutdown(self) -> None:
        """The relay ends at once: tell the bot, close its socket, keep the files for the next relay."""


class NotTaken(Exception):
    """A stream that gets no call. ``why`` is a fixed word for the metric."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Calls(Protocol):
    """The worker's calls."""

    @property
    def url(self) -> str:
        """Where this very worker is reached."""

    def of(self, invite: Invite) -> Call:
        """The call, made where there is none. Raises NotTaken."""

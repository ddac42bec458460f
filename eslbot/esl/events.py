"""Events of FreeSWITCH, as greenswitch has them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from greenswitch.esl import ESLEvent

from eslbot.esl.frames import Frame, Headers, parts_of, whole_number


class Event(ESLEvent):  # type: ignore[misc]  # greenswitch has no types
    """A greenswitch event (``headers``, ``data``) whose ``body`` is the bytes FreeSWITCH sent.

    ``data`` is the body as text; for a command's reply it is the ``Reply-Text``. ``oversized`` is the length
    of a body that was too long to keep; ``body`` is then empty.
    """

    def __init__(
        self, headers: Mapping[str, str], body: bytes = b"", name: str | None = None, oversized: int = 0
    ) -> None:
        # ESLEvent's own constructor would parse; ours is given what is parsed already, or will be.
        self.headers: Mapping[str, str] = headers
        self.body = body
        self.oversized = oversized
        self._name = name

    @property
    def name(self) -> str:
        """``Event-Name``, or ``Event-Subclass`` of a CUSTOM event."""
        if self._name is None:
            name = self.headers.get("Event-Name", "")
            self._name = self.headers.get("Event-Subclass", "") if name == "CUSTOM" else name
        return self._name

    @property
    def age(self) -> float:
        """Seconds since FreeSWITCH made it, by both hosts' clocks: it polls a connection every 20 ms."""
        stamp = whole_number(self.headers.get("Event-Date-Timestamp", ""))
        return max(0.0, time.time() - stamp / 1e6) if stamp else 0.0

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits, nearly."""
        block = self.headers.size if isinstance(self.headers, Headers) else 0
        return block + len(self.body)

    @property
    def data(self) -> str:
        """The body as text, or a reply's ``Reply-Text``."""
        return (
            self.body.decode("utf-8", "replace") if self.body else self.headers.get("Reply-Text", "").strip()
        )

    @classmethod
    def of(cls, frame: Frame) -> Event:
        """The event in ``frame``: in its body for ``text/event-plain``, else the frame itself.

        Raises :class:`ProtocolError` where it is none, or its headers are beyond the bound.
        """
        return cls(*parts_of(frame))

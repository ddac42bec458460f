"""What FreeSWITCH was told and has not come back: applications on the channel, and commands it may refuse."""

from __future__ import annotations

from collections.abc import Callable

from eslbot.esl.errors import CommandFailed, CommandTimeout
from eslbot.esl.events import Event
from eslbot.esl.frames import Frame
from eslbot.esl.waiting import Future
from eslbot.telemetry import redaction

#: What stands in a reply's block where the command is taken.
_TAKEN = b"\nReply-Text: +"


class RefusalOnly:
    """A reply that counts only where it is a refusal: ``refused`` gets its text."""

    def __init__(self, refused: Callable[[str], None]) -> None:
        self._refused = refused

    def passes(self, frame: Frame) -> bool:
        """Whether it is a reply that need not be looked at: nearly all are."""
        return frame.body.startswith(b"+") or (not frame.body and _TAKEN in frame.block)

    def set(self, reply: Event) -> None:
        """The reply is here."""
        if reply.data.startswith("-"):
            self._refused(redaction.beginning(reply.data, 200))

    def set_exception(self, error: BaseException) -> None:
        """No reply will come; whoever waits is told so by what they wait for."""


class Execution:
    """An application that FreeSWITCH was told to execute, in its turn."""

    def __init__(self, application: str, uuid: str, tell: bool, forget: Callable[[str], object]) -> None:
        self.application = application
        #: Comes back as ``Application-UUID``.
        self.uuid = uuid
        #: Whether its completion is one of :meth:`Session.next_event`'s, too.
        self.tell = tell
        self._completion: Future[Event] = Future()
        self._forget = forget

    def refused(self, text: str) -> None:
        """FreeSWITCH will not execute it: it will never complete."""
        self._forget(self.uuid)
        self._completion.set_exception(CommandFailed(f"{self.application}: {text}"))

    @property
    def done(self) -> bool:
        """Whether it has completed, or never will."""
        return self._completion.ready

    def wait(self, timeout: float) -> Event:
        """Its CHANNEL_EXECUTE_COMPLETE.

        Raises :class:`CommandTimeout` after ``timeout`` seconds, OutboundSessionHasGoneAway when the channel
        or the socket goes.
        """
        event = self._completion.wait(timeout)
        if event is None:
            self._forget(self.uuid)
            raise CommandTimeout(f"{self.application} did not complete within {timeout:g} s")
        return event

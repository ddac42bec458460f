"""How a call is given to the next controller when its worker leaves: at once, or when nothing is lost by it.

Three things go before: what is under way and could be noted by nobody else (the answer, a POST); a BYE that
is due, since between two controllers nobody would hear it; and one round trip, so that FreeSWITCH has all
that was noted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from greenswitch.esl import OutboundSessionHasGoneAway

from eslbot.calls.context import CallContext
from eslbot.calls.events import NotSettled
from eslbot.esl.errors import EslError

#: Seconds behind Ameyo's 2xx in which its BYE usually comes.
BYE_DUE = 3.0


class Departure:
    """One call's."""

    def __init__(self, context: CallContext) -> None:
        self._context = context
        #: Whether something is under way that has to be over first.
        self.busy = False
        #: Whether the worker wants to leave.
        self.wanted = False
        self._bye_due = float("-inf")

    def ask(self) -> None:
        """Leave now, or as soon as nothing is under way."""
        self.wanted = True
        if not self.busy:
            self._leave()

    @contextmanager
    def not_now(self) -> Iterator[None]:
        """Nobody leaves meanwhile; behind it whoever was asked to does. Raises OutboundSessionHasGoneAway."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False
        self.leave_if_wanted()

    def leave_if_wanted(self) -> None:
        """Leave if the worker wants to. Raises OutboundSessionHasGoneAway then."""
        if self.wanted:
            self._leave()
            self._context.session.raise_if_disconnected()

    def expect_bye(self, accepted_at: float) -> None:
        """Ameyo has accepted, at ``accepted_at`` of the monotonic clock."""
        self._bye_due = accepted_at + BYE_DUE

    def _leave(self) -> None:
        """Close the connection, FreeSWITCH having had all that was noted: it calls the next controller."""
        session = self._context.session
        if session.gone.wait(timeout=max(0.0, self._bye_due - time.monotonic())):
            return
        if session.uuid:
            try:
                session.settle()
            except (EslError, OutboundSessionHasGoneAway) as error:
                self._context.publish(NotSettled(error=str(error)))
        if not self.busy:  # else it leaves when that is over
            session.stop()

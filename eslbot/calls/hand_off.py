"""The hand-off: Ameyo is told that the customer is theirs, again and again, until it has accepted.

How a POST is made and retried is :mod:`eslbot.ameyo.client`'s. Here is what the call has
to do with it: every attempt is on the channel before it goes out and behind it, so that another controller
neither forgets one nor makes one twice; and the caller's hang-up ends it, since there is nobody to hand over.
"""

from __future__ import annotations

import time

from eslbot.ameyo.client import Attempt
from eslbot.ameyo.notification import notification_of
from eslbot.ameyo.retry import Verdict
from eslbot.calls.channel_state import ChannelState
from eslbot.calls.context import CallContext
from eslbot.calls.departure import Departure
from eslbot.calls.events import (
    AttemptBegan,
    AttemptEnded,
    Attention,
    BotEnd,
    HandOffInDoubt,
    HandOffWasAccepted,
)
from eslbot.config.model import Workspace
from eslbot.outcome import Stage

#: Seconds that a notification whose answer nobody noted waits for the BYE that would be the answer, or for
#: the resume state of who sent it; and between two looks for that.
DOUBT, POLL_INTERVAL = 1.0, 0.05


class HandOff:
    """One call's. :meth:`resume` first where a controller before has begun it."""

    def __init__(self, context: CallContext, departure: Departure) -> None:
        self._context, self._departure = context, departure
        #: How many notifications were begun, by all controllers.
        self.attempts = 0
        #: When Ameyo had accepted, by the call's clock.
        self.accepted_at: float | None = None
        #: Whether a notification was tried and not accepted.
        self.failed = False
        #: When the bot's part was over, on the monotonic clock, until the first POST begins.
        self.bot_ended_at: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether Ameyo has the customer."""
        return self.accepted_at is not None

    @property
    def held_for(self) -> float:
        """Seconds since Ameyo has accepted."""
        return max(0.0, self._context.clock.now() - (self.accepted_at or 0.0))

    def resume(self, attempts: int, accepted_at: float | None) -> None:
        """Go on where the controller before was."""
        self.attempts = attempts
        if accepted_at is not None:
            self._accept(accepted_at)

    def warm(self) -> None:
        """Have a connection to Ameyo ready. Does not wait."""
        if self._context.workspace is not None:
            self._context.host.ameyo(self._context.workspace).warm()

    def run(self, workspace: Workspace, ended: BotEnd) -> None:
        """Notify until Ameyo has accepted. Raises OutboundSessionHasGoneAway."""
        wait = self._left_to_wait(workspace)
        if not self.accepted:
            if wait > 0:  # the controller before has tried, and Ameyo has not accepted
                self._context.needs_attention(Attention.HAND_OFF_FAILING)
            self.notify(workspace, ended, wait)
        self._departure.leave_if_wanted()

    def notify(self, workspace: Workspace, ended: BotEnd, wait: float = 0.0) -> None:
        """Notify until it is accepted, ``wait`` seconds from now. Raises OutboundSessionHasGoneAway."""
        context = self._context
        assert context.invite is not None
        body = notification_of(workspace, context.invite, ended.outcome, ended.reason, ended.properties)
        attempts = context.host.ameyo(workspace).notify(
            body,
            context.session.gone,
            before=self.attempts,
            wait=wait,
            begin=self._attempt_begins,
            hung_up=context.session.hung_up,
        )
        for attempt in attempts:
            self._attempt_is_over(attempt)
        context.session.raise_if_disconnected()

    # -- one attempt --------------------------------------------------------------------------------------

    def _attempt_begins(self, number: int) -> None:
        context = self._context
        self.attempts = number
        self._departure.busy = context.checkpoint.notifying = True
        context.checkpoint.write(eslbot_attempts=str(number), eslbot_next_attempt="")
        context.session.flush()  # before the POST goes out: else the next controller would not know of it
        waited = None if self.bot_ended_at is None else time.monotonic() - self.bot_ended_at
        self.bot_ended_at = None
        context.publish(AttemptBegan(number, waited))

    def _attempt_is_over(self, attempt: Attempt) -> None:
        """Note it on the channel before anything else: what is not there, the next controller does again.

        Raises OutboundSessionHasGoneAway; the BYE may be here before Ameyo's answer. It is told all the same.
        """
        self._departure.busy = self._context.checkpoint.notifying = False
        try:
            self._note(attempt)
        finally:
            self._context.publish(AttemptEnded(attempt))
        if attempt.verdict is not Verdict.ACCEPTED:
            self._departure.leave_if_wanted()

    def _note(self, attempt: Attempt) -> None:
        context = self._context
        if attempt.verdict is Verdict.ACCEPTED and not self.accepted:
            self._enter_held(context.clock.now())
            context.session.flush()
            context.needs_attention(Attention.HAND_OFF_FAILING, False)
        elif not attempt.sent:
            context.checkpoint.write(eslbot_next_attempt=f"{context.clock.now():.3f}")
        elif attempt.verdict not in (Verdict.ACCEPTED, Verdict.INTERRUPTED):
            self.failed = True
            if not self.accepted:
                context.needs_attention(Attention.HAND_OFF_FAILING)
            due = context.clock.now() + attempt.delay
            context.checkpoint.write(eslbot_next_attempt=f"{due:.3f}")

    def _enter_held(self, accepted_at: float) -> None:
        self._accept(accepted_at)
        self._context.enter(Stage.HELD, eslbot_held_at=f"{accepted_at:.3f}")

    def _accept(self, accepted_at: float) -> None:
        self.accepted_at = accepted_at
        self._departure.expect_bye(self._context.clock.began + accepted_at)

    # -- what the controller before has begun -------------------------------------------------------------

    def _left_to_wait(self, workspace: Workspace) -> float:
        """Seconds until the next attempt, where a controller before us has begun with them.

        Where nobody knows what became of the last one, the BYE may still tell, or who has sent it; that it
        was accepted then is noted, and there is no next one. Raises OutboundSessionHasGoneAway.
        """
        if not self.attempts:
            return 0.0
        next_attempt = self._context.state.next_attempt
        if next_attempt is None:
            self._context.publish(HandOffInDoubt(self.attempts))
            state = self._state_of_the_last(workspace)
            if state is not None and state.held_at is not None:
                self._enter_held(state.held_at)
                self._context.publish(HandOffWasAccepted(self.attempts))
                return 0.0
            next_attempt = None if state is None else state.next_attempt
        return 0.0 if next_attempt is None else max(0.0, next_attempt - self._context.clock.now())

    def _state_of_the_last(self, workspace: Workspace) -> ChannelState | None:
        """What the controller that has begun the last attempt says became of it, if it comes to that.

        None behind DOUBT; while it waits for Ameyo's answer, behind that answer's time. Raises
        OutboundSessionHasGoneAway.
        """
        context = self._context
        begun = time.monotonic()
        bound = DOUBT
        while (waited := time.monotonic() - begun) < bound:
            saved = context.host.resume_states.take(context.call_id)
            if saved is not None and saved.under_way:
                bound = workspace.ameyo.timeout + DOUBT
            elif saved is not None:
                state = ChannelState(context.channel, saved)
                if state.resume_state is not None:
                    if state.held_at is not None or state.next_attempt is not None:
                        return state
                    bound = DOUBT  # it does not know, either
            context.session.gone.wait(timeout=min(POLL_INTERVAL, max(0.0, bound - waited)))
            context.session.raise_if_disconnected()
        return None

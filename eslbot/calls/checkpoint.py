"""Checkpoints: how far a call is, written to its channel, and to a file where FreeSWITCH dies.

A checkpoint is a set of channel variables, which :mod:`eslbot.calls.channel_state` reads. All are kept here,
too: a FreeSWITCH that dies forgets them, and a connection that breaks may swallow the last. Then they are
saved as a resume state (:mod:`eslbot.calls.resume_state`), and the next controller brings them back to the
channel.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from eslbot.calls.bot.lines import VARIABLE as LINES
from eslbot.calls.channel_state import BEFORE, MOST_RESTARTS, RESTARTS, SWITCH, CallClock, ChannelState
from eslbot.calls.resume_state import ResumeState, ResumeStates
from eslbot.esl.gone import ConnectionLost
from eslbot.esl.session import Session

#: FreeSWITCH's deaths under a call within so many seconds after which its bot may be what kills it.
MOST_DEATHS, DEATHS_WITHIN = 2, 60.0


class Checkpoint:
    """One call's; :meth:`begin` or :meth:`go_on` first."""

    def __init__(self, session: Session, resume_states: ResumeStates) -> None:
        self._session, self._resume_states = session, resume_states
        self._noted: dict[str, str] = {}
        self._clock = CallClock()
        self._answered_at = time.monotonic()
        self._saved: ResumeState | None = None
        #: The Core-UUID of the FreeSWITCH that has the call.
        self.switch = ""
        #: Whether that is another one than before this controller, and when that has happened.
        self.restarted = False
        self.restarts: tuple[float, ...] = ()
        #: Whether a notification is under way, and who gets the call next has to wait for what becomes of it.
        self.notifying = False

    def begin(self, state: ChannelState, clock: CallClock, **variables: str) -> None:
        """Note the first of a call that is about to be answered."""
        self.switch, self._clock = state.switch, clock
        self.write(**variables, **{SWITCH: self.switch})
        self._session.gone.rawlink(self._gone)

    def go_on(self, state: ChannelState, clock: CallClock, channel: Mapping[str, str]) -> Mapping[str, str]:
        """Go on where a controller before this one has left it.

        Returns what ``channel``, the headers of FreeSWITCH's answer to `connect`, say that is still true.
        """
        self.switch, self._clock = state.switch, clock
        self._noted, self.restarted, self.restarts = state.noted, state.restarted, state.restarts
        self._answered_at = time.monotonic() - state.answered_for
        self._session.gone.rawlink(self._gone)
        if self.restarted:
            channel = self._after_restart(state, channel)
        if self.restarted or state.resume_state is not None:
            known = channel.get
            self._session.set_variables(
                {name: value for name, value in self._noted.items() if known(f"variable_{name}", "") != value}
            )
        return channel

    def _after_restart(self, state: ChannelState, channel: Mapping[str, str]) -> Mapping[str, str]:
        self.restarts = (*self.restarts, self._clock.now())[-MOST_RESTARTS:]
        short = zip((state.invited_for, state.answered_for), state.counted, strict=True)
        self._noted |= {
            SWITCH: self.switch,
            BEFORE: ",".join(f"{max(0.0, true - counted):.3f}" for true, counted in short),
            RESTARTS: ",".join(f"{at:.3f}" for at in self.restarts),
        }
        self._noted.pop(LINES, None)  # it reads none of them any more
        return {name: value for name, value in channel.items() if name != f"variable_{LINES}"}

    @property
    def dies_too_often(self) -> bool:
        """Whether FreeSWITCH has died under this call again, and within a minute."""
        if not self.restarted or len(self.restarts) < MOST_DEATHS:
            return False
        return self.restarts[-1] - self.restarts[-MOST_DEATHS] < DEATHS_WITHIN

    def write(self, **variables: str) -> None:
        """Note it on the channel; an empty text is none.

        It is remembered first: a session that is gone raises OutboundSessionHasGoneAway.
        """
        self._noted |= variables
        self._session.set_variables(variables)

    def count_take_over(self, take_overs: int) -> None:
        """For the next controller; and the dialplan sees by it that there was one, and calls it at once."""
        self.write(eslbot_take_overs=str(take_overs))

    def answered(self, ago: float) -> None:
        """The 200 went out, ``ago`` seconds ago."""
        self._answered_at = time.monotonic() - ago

    def strand(self) -> None:
        """FreeSWITCH has dropped the call without a BYE: its customer may still be with the PBX.

        Whoever looks for such (:mod:`eslbot.calls.stranded`) tells Ameyo.
        """
        self._save()

    def close(self) -> None:
        """This controller does nothing more for the call: what it had under way is over."""
        self.notifying = False
        if self._saved is not None and (self._saved.under_way or self._saved.variables != self._noted):
            self._save()
        elif self._saved is None and self._session.hung_up.is_set():
            # A look may have had it when we took the call over, or a controller before us have been late.
            self._resume_states.forget(self._session.uuid)

    def _gone(self, _: object) -> None:
        """The session is over. Does not wait."""
        if isinstance(self._session.reason, ConnectionLost) and not self._session.stopped:
            self._save()

    def _save(self) -> None:
        self._saved = ResumeState(
            dict(self._noted),
            invited_at=self._clock.began,
            answered_at=self._answered_at,
            lost_at=time.monotonic() if self._saved is None else self._saved.lost_at,
            peer=self._session.client_address[0],
            recovered=bool(self.restarts),
            under_way=self.notifying,
        )
        self._resume_states.save(self._session.uuid, self._saved)

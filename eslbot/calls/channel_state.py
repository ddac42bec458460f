"""Channel state: where a call is, as the controllers before have written to its channel.

:mod:`eslbot.calls.checkpoint` writes it.

Channel variables are texts, and half of a note may be missing: whatever cannot be used counts as not there.
Times are noted by the call's own clock (:class:`CallClock`), which no step of a host's clock moves.

Where FreeSWITCH has died since, the channel is as it was at its answer, and the resume state that a
controller has saved (:mod:`eslbot.calls.resume_state`) counts instead.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import structlog

from eslbot.calls.events import BotEnd
from eslbot.calls.resume_state import ResumeState
from eslbot.esl.frames import whole_number
from eslbot.outcome import Outcome, Stage
from eslbot.relay.control import OWN_URL

log = structlog.get_logger()

#: Seconds: a time that is further away than any call lasts is none.
FAR = 7 * 86400.0
#: The channel variables with FreeSWITCH's Core-UUID, and with what its own times of the call are short of.
SWITCH, BEFORE = "eslbot_switch", "eslbot_before"
#: The one with the times at which FreeSWITCH was back with it.
RESTARTS = "eslbot_restarts"
#: Restarts of FreeSWITCH's that are remembered.
MOST_RESTARTS = 8


class CallClock:
    """Seconds since the INVITE, the same for every controller of a call and on every host.

    FreeSWITCH counts them by its monotonic clock (``switch_time.c``), and from its answer to `connect` on we
    do so by ours.
    """

    def __init__(self, invited_for: float = 0.0) -> None:
        #: The INVITE, on this host's monotonic clock.
        self.began = time.monotonic() - invited_for

    def now(self) -> float:
        """Seconds since the INVITE."""
        return time.monotonic() - self.began

    def epoch(self, at: float) -> float:
        """Epoch seconds, by this host's clock, of ``at`` by this one: for people."""
        return time.time() - (self.now() - at)


class ChannelState:
    """Where a call is, by ``channel``, the headers of FreeSWITCH's answer to `connect`, or a resume state."""

    def __init__(self, channel: Mapping[str, str], resume_state: ResumeState | None = None) -> None:
        self._channel = channel
        # Who has lost the call may notice when another one has it already, and be late.
        if resume_state is not None:
            since = whole_number(channel.get("variable_eslbot_take_overs", ""))
            seen = whole_number(resume_state.variables.get("eslbot_take_overs", ""))
            resume_state = resume_state if seen >= since else None
        #: What a controller has saved, where it counts.
        self.resume_state = resume_state

    @property
    def restarted(self) -> bool:
        """Whether FreeSWITCH is another one than that which has answered the call."""
        noted = self._channel.get(f"variable_{SWITCH}")
        return noted is not None and noted != self.switch

    @property
    def switch(self) -> str:
        """The Core-UUID of the FreeSWITCH that has the call."""
        return self._channel.get("Core-UUID", "")

    @property
    def restarts(self) -> tuple[float, ...]:
        """When FreeSWITCH was back with the call, by the call's clock."""
        times = (_seconds(text) for text in self._text(RESTARTS).split(",")[-MOST_RESTARTS:])
        return tuple(time for time in times if time is not None)

    @cached_property
    def before(self) -> tuple[float, float]:
        """Seconds that FreeSWITCH's own times since the INVITE, and since the answer, are short of.

        It counts anew when it has died.
        """
        invited, _, answered = self._text(BEFORE).partition(",")
        return _seconds(invited) or 0.0, _seconds(answered) or 0.0

    @property
    def relay(self) -> str:
        """The URL of the relay process that has the call; empty where nobody knows."""
        url = self._text("eslbot_relay")
        return url if OWN_URL.fullmatch(url) else ""

    @property
    def stage(self) -> Stage | None:
        """Where the channel's story is, None for a call that nobody has answered."""
        if self._channel.get("Answer-State") != "answered":
            return None
        try:
            return Stage(self._text("eslbot_stage"))
        except ValueError:
            return Stage.ANSWERED

    @property
    def answered_for(self) -> float:
        """Seconds since the answer, by FreeSWITCH's own clock, since ours may be another host's."""
        if self.resume_state is not None:
            return max(0.0, time.monotonic() - self.resume_state.answered_at)
        return self.counted[1] + self.before[1]

    @property
    def invited_for(self) -> float:
        """Seconds since the INVITE, by FreeSWITCH's own clock."""
        if self.resume_state is not None:
            return max(0.0, time.monotonic() - self.resume_state.invited_at)
        # A FreeSWITCH that has died and is back says when it was answered, and has created it since.
        return max(self.counted[0] + self.before[0], self.answered_for)

    @cached_property
    def counted(self) -> tuple[float, float]:
        """Seconds since the INVITE and since the answer, as FreeSWITCH itself counts them."""
        now = whole_number(self._channel.get("Event-Date-Timestamp", ""))
        invited, answered = (
            whole_number(self._channel.get(f"Caller-Channel-{what}-Time", ""))
            for what in ("Created", "Answered")
        )
        return _seconds_between(invited, now), _seconds_between(answered, now)

    @property
    def noted(self) -> dict[str, str]:
        """All of it, as it is noted."""
        if self.resume_state is not None:
            return dict(self.resume_state.variables)
        named = ((name.removeprefix("variable_"), value) for name, value in self._channel.items())
        return {name: value for name, value in named if name.startswith("eslbot_")}

    @property
    def take_overs(self) -> int:
        """How often the call has changed hands before."""
        return self._number("eslbot_take_overs")

    @property
    def late_offer(self) -> bool:
        """Whether the INVITE had no offer, so that the line has no codec before the ACK."""
        return bool(self._text("eslbot_late_offer"))

    @property
    def ended(self) -> BotEnd:
        """How the bot's part ended; to be asked where it did."""
        try:
            properties = json.loads(self._text("eslbot_properties"))
            if not isinstance(properties, dict):
                raise ValueError("properties are no object")
            # An empty reason is no variable.
            return BotEnd(Outcome(self._text("eslbot_outcome")), self._text("eslbot_reason"), properties)
        except (ValueError, RecursionError) as error:
            log.warning("bot_end_unreadable", error=repr(error))
            return BotEnd(Outcome.CONTROLLER_LOST)

    @property
    def attempts(self) -> int:
        """How many notifications were begun."""
        return self._number("eslbot_attempts")

    @property
    def next_attempt(self) -> float | None:
        """When the next one is due, by the call's clock; None where nobody noted what became of the last."""
        return self._time("eslbot_next_attempt")

    @property
    def held_at(self) -> float | None:
        """When Ameyo had accepted, by the call's clock."""
        return self._time("eslbot_held_at")

    def summary(self) -> dict[str, Any]:
        """What the ledger should know, in case the facts before were lost with their worker."""
        facts: dict[str, Any] = {
            "stage": self.stage,
            "invited_for": round(self.invited_for, 3),
            "answered_for": round(self.answered_for, 3),
            "attempts": self.attempts,
        }
        if self.held_at is not None:
            facts["held_since"] = round(CallClock(self.invited_for).epoch(self.held_at), 3)
        if self._text("eslbot_outcome"):
            ended = self.ended
            facts.update(outcome=ended.outcome, reason=ended.reason)
        return facts

    def _text(self, name: str) -> str:
        if self.resume_state is not None:
            return self.resume_state.variables.get(name, "")
        return self._channel.get(f"variable_{name}", "")

    def _number(self, name: str) -> int:
        return whole_number(self._text(name))

    def _time(self, name: str) -> float | None:
        return _seconds(self._text(name))


def _seconds_between(then: int, now: int) -> float:
    """Of FreeSWITCH's microseconds; ``then`` is 0 where it has not happened."""
    return max(0.0, (now - then) / 1e6) if then else 0.0


def _seconds(text: str) -> float | None:
    try:
        noted = float(text)
    except ValueError:
        return None
    return noted if math.isfinite(noted) and 0 <= noted < FAR else None

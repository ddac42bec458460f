"""What the controllers before us have noted of a call on its channel. (:mod:`eslbot.call` writes it.)

Channel variables are texts, and half of a note may be missing: whatever cannot be used counts as not there.
Times are noted by the call's own clock (:class:`CallClock`), which no step of a host's clock moves.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import structlog

from eslbot.bot import BotEnd
from eslbot.esl import whole_number
from eslbot.outcome import Outcome, Stage

log = structlog.get_logger()

#: Seconds: a time that is further away than any call lasts is none.
FAR = 7 * 86400.0


class CallClock:
    """Seconds since the INVITE, the same for every controller of a call and on every host.

    FreeSWITCH counts them by its monotonic clock (``switch_time.c``), and from its answer to `connect` on we
    do so by ours.
    """

    def __init__(self, invited_for: float = 0.0) -> None:
        self._began = time.monotonic() - invited_for

    def now(self) -> float:
        """Seconds since the INVITE."""
        return time.monotonic() - self._began

    def epoch(self, at: float) -> float:
        """Epoch seconds, by this host's clock, of ``at`` by this one: for people."""
        return time.time() - (self.now() - at)


class Notes:
    """Read from ``channel``, the headers of FreeSWITCH's answer to `connect`."""

    def __init__(self, channel: Mapping[str, str]) -> None:
        self._channel = channel

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
        return self._since("Caller-Channel-Answered-Time")

    @property
    def invited_for(self) -> float:
        """Seconds since the INVITE, by FreeSWITCH's own clock."""
        return self._since("Caller-Channel-Created-Time")

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

    def all(self) -> dict[str, Any]:
        """What the ledger should know, in case that the facts before were lost with their worker."""
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

    def _since(self, name: str) -> float:
        now = whole_number(self._channel.get("Event-Date-Timestamp", ""))
        then = whole_number(self._channel.get(name, ""))
        return max(0.0, (now - then) / 1e6) if then else 0.0

    def _text(self, name: str) -> str:
        return self._channel.get(f"variable_{name}", "")

    def _number(self, name: str) -> int:
        return whole_number(self._text(name))

    def _time(self, name: str) -> float | None:
        try:
            noted = float(self._text(name))
        except ValueError:
            return None
        return noted if math.isfinite(noted) and 0 <= noted < FAR else None

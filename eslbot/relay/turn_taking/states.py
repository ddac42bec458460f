"""Who speaks when, and what of it is a turn: the caller stops and the bot answers, the caller breaks in.

::

    state     who is heard        caller begins   caller stops   bot begins        bot falls silent  broken
    QUIET     nobody              CALLER          –              BOT               –                 –
    CALLER    the caller          –               AWAITED        BOTH              –                 QUIET
    AWAITED   nobody: the caller  CALLER          –              BOT: *answer*     –                 QUIET
              has stopped
    BOT       the bot             BOTH            –              –                 QUIET, or behind  –
                                                                                   a *barge-in*
                                                                                   AWAITED
    BOTH      both                –               BOT            –                 CALLER:           BOT
                                                                                   *barge-in* or
                                                                                   *overlap*

A ``clear`` of the bot's changes nothing of this by itself: it says that what the caller hears next, silence,
was wanted. *Broken* is whatever makes that which is known of the caller worthless (a stream that breaks,
packets that are late or missing, a hold, a key): what has begun is forgotten, so a turn that cannot be
measured is not told. Of the bot all is known all the time, from what FreeSWITCH has read.

What is told:

* *answer*: from the caller's last voiced packet to the first packet of the bot's that can be heard; of it,
  until that audio had come from the bot.
* *barge-in*: from the caller's first voiced packet, while the bot is heard, until the line is silent; of it,
  until the bot's ``clear`` had come. The caller may have stopped again by then.
* *overlap*: for how long both were heard in one go of the bot's, and who began the second.

Events come in their order of time. Nothing in here waits, looks at a clock, or talks to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from eslbot.turns import By, Kind, Turn

#: Seconds beyond which what a bot says is no answer any more: it goes on by itself.
MAX_ANSWER_DELAY = 30.0
#: Seconds behind the caller's last word in which a `clear` is still for it.
MAX_CLEAR_DELAY = 2.0
#: Seconds from which on both at one time are told as an overlap: less is how people take turns.
MIN_OVERLAP = 0.2


# -- what can happen; times are seconds of any one clock -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerBegins:
    """With the packet of ``at``, or with one before it where that is not ``sure``."""

    at: float
    sure: bool = True


@dataclass(frozen=True, slots=True)
class CallerStops:
    """With the packet of ``at``."""

    at: float


@dataclass(frozen=True, slots=True)
class BotBegins:
    """The caller hears the bot from ``at`` on; that audio ``arrived`` at the relay before."""

    at: float
    arrived: float


@dataclass(frozen=True, slots=True)
class BotStops:
    """The caller hears the bot no more; ``cut`` by its `clear`."""

    at: float
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Clear:
    """The bot's `clear` has come."""

    at: float


@dataclass(frozen=True, slots=True)
class Broken:
    """What is known of the caller is worth nothing."""

    at: float


Event = CallerBegins | CallerStops | BotBegins | BotStops | Clear | Broken


class State(Enum):
    """Who is heard; see the table."""

    QUIET = auto()
    CALLER = auto()
    AWAITED = auto()
    BOT = auto()
    BOTH = auto()


_CALLER_BEGINS = {
    State.QUIET: State.CALLER,
    State.AWAITED: State.CALLER,
    State.BOT: State.BOTH,
}
_CALLER_STOPS = {State.CALLER: State.AWAITED, State.BOTH: State.BOT}
_BOT_BEGINS = {State.QUIET: State.BOT, State.AWAITED: State.BOT, State.CALLER: State.BOTH}
_BOT_STOPS = {State.BOT: State.QUIET, State.BOTH: State.CALLER}
_BROKEN = {State.CALLER: State.QUIET, State.AWAITED: State.QUIET, State.BOTH: State.BOT}


class TurnTaking:
    """The turns of one call; see the table."""

    def __init__(self) -> None:
        self.state = State.QUIET
        #: When the caller has begun, and stopped, last.
        self._began = self._stopped = 0.0
        #: When the caller has begun while the bot was heard, and the first `clear` behind that.
        self._broke_in: float | None = None
        self._cleared: float | None = None
        #: Since when both are heard, for how long they were in this go of the bot's, and who began.
        self._both_since = self._both_for = 0.0
        self._second: By | None = None

    def happened(self, event: Event) -> Turn | None:
        """The turn that is over by it, if one is."""
        match event:
            case CallerBegins():
                self._caller_begins(event)
            case CallerStops():
                self._caller_stops(event.at)
            case BotBegins():
                return self._bot_begins(event)
            case BotStops():
                return self._bot_stops(event)
            case Clear():
                self._clear(event.at)
            case Broken():
                self.state = _BROKEN.get(self.state, self.state)
                self._forget()
        return None

    def _forget(self) -> None:
        self._broke_in = self._cleared = self._second = None
        self._both_for = 0.0

    def _caller_begins(self, event: CallerBegins) -> None:
        before, self.state = self.state, _CALLER_BEGINS.get(self.state, self.state)
        if self.state is before:
            return
        self._began = event.at
        if self.state is State.BOTH:
            self._both_since = event.at
            if event.sure and self._cleared is None:
                self._broke_in = event.at
            self._second = self._second or By.CALLER

    def _caller_stops(self, at: float) -> None:
        before, self.state = self.state, _CALLER_STOPS.get(self.state, self.state)
        if self.state is not before:
            self._stopped = at
            if before is State.BOTH:
                self._both_for += at - self._both_since

    def _bot_begins(self, event: BotBegins) -> Turn | None:
        before, self.state = self.state, _BOT_BEGINS.get(self.state, self.state)
        if self.state is before:
            return None
        self._forget()
        if before is State.CALLER:
            self._both_since, self._second = event.at, By.BOT
        seconds = event.at - self._stopped
        # What had come before the caller began is no answer: the bot goes on with what it had to say.
        if before is not State.AWAITED or event.arrived < self._began or seconds > MAX_ANSWER_DELAY:
            return None
        return Turn(Kind.ANSWER, event.at, seconds, min(seconds, max(0.0, event.arrived - self._stopped)))

    def _clear(self, at: float) -> None:
        speaks = self.state is State.BOTH
        if self._broke_in is None or self._cleared is not None or not (speaks or self.state is State.BOT):
            return
        if speaks or at - self._stopped <= MAX_CLEAR_DELAY:
            self._cleared = at

    def _bot_stops(self, event: BotStops) -> Turn | None:
        before, self.state = self.state, _BOT_STOPS.get(self.state, self.state)
        if self.state is before:
            return None
        if before is State.BOTH:
            self._both_for += event.at - self._both_since
        broke_in, cleared, second, both = self._broke_in, self._cleared, self._second, self._both_for
        self._forget()
        if event.cut and broke_in is not None and cleared is not None:
            if self.state is State.QUIET:
                self.state = State.AWAITED  # the caller was heard out, and the bot owes an answer
            return Turn(Kind.BARGE_IN, event.at, event.at - broke_in, cleared - broke_in)
        if second is not None and both >= MIN_OVERLAP:
            return Turn(Kind.OVERLAP, event.at, both, by=second)
        return None

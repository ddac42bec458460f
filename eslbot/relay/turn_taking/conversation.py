"""One call's conversation as the relay sees it: both directions, put in order, and the turns of it.

What the caller says is known late: that it was speech by a few voiced frames, that it is over by the pause
behind it. What the bot says is known when FreeSWITCH has read it. So events wait for :data:`SETTLE_TIME`
seconds and then go to :mod:`~eslbot.relay.turn_taking.states` in the order of their times, which are those of
packets: of the caller's, when it came to FreeSWITCH; of the bot's, when FreeSWITCH sent it.

Nothing in here waits or looks at a clock.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from eslbot.audio import FRAME_SECONDS
from eslbot.relay.turn_taking.states import (
    BotBegins,
    BotStops,
    Broken,
    CallerBegins,
    CallerStops,
    Clear,
    Event,
    TurnTaking,
)
from eslbot.relay.turn_taking.vad import Began, Edge, SpeechDetector, Stopped
from eslbot.turns import MAX_TURNS, Turn

#: Seconds from the caller's packet at FreeSWITCH to its frame here: it waits there for the next read of its
#: socket, which comes every 20 ms and in any call at the same place between two packets (0 to 20 ms), and is
#: 2 ms on its way through the module. Measured: 12 ms in the mean (docs/turns.md). A call may be off by 10.
UPLINK = 0.012
#: Seconds from FreeSWITCH's read of a frame to its packet, measured in the same way.
DOWNLINK = 0.003
#: Seconds after which everything that has happened is known, and what is known later comes too late.
SETTLE_TIME = 0.6
#: Frames of each of the two stretches by whose earliest frame it is known when one should have come, and
#: seconds by which one may be later: beyond that packets, or our own turns, are too late to measure by.
STRETCH, MAX_LATENESS = 25, 0.03


class Arrivals:
    """When packets came, told by when their frames did: we may be late for one, or for some together."""

    def __init__(self) -> None:
        self._count = 0
        self._least = self._least_before = math.inf

    def lateness(self, now: float) -> float:
        """By how many seconds the frame that has come ``now`` is later than those before it were."""
        offset = now - self._count * FRAME_SECONDS
        if self._count % STRETCH == 0:
            self._least_before, self._least = self._least, math.inf
        self._count += 1
        self._least = min(self._least, offset)
        return offset - min(self._least, self._least_before)


class Conversation:
    """``tell`` is told each turn with its number, from 1 on. Times are monotonic seconds.

    ``bot_level`` is that of the loudest frame that the caller has heard within
    :data:`eslbot.relay.turn_taking.vad.ECHO_WINDOW` seconds.
    """

    def __init__(self, tell: Callable[[Turn, int], None], bot_level: Callable[[], float]) -> None:
        self._tell = tell
        self._speech = SpeechDetector(bot_level)
        self._arrivals = Arrivals()
        self._turns = TurnTaking()
        self._waiting: list[tuple[float, int, Event]] = []
        self._number = 0
        self._reported = 0
        #: Whether turns can be measured in this call.
        self.measured = True
        self._settled = -math.inf
        self._held = False

    def stop(self) -> None:
        """Nothing can be measured in this call: from here on no turn is told."""
        self.measured = False
        self._waiting.clear()

    # -- the caller ---------------------------------------------------------------------------------------

    def caller_frame(self, frame: bytes, now: float, *, missing: bool) -> None:
        """20 ms of the caller's, or what stands for a packet that is ``missing``."""
        if not self.measured:
            return
        late = self._arrivals.lateness(now)
        if late > MAX_LATENESS:
            self.broken(now)
        elif not self._held:
            edge = self._speech.process(frame, now - late - UPLINK, missing=missing)
            if edge is not None:
                self._take(edge, now)
        self.settle(now)

    def _take(self, edge: Edge, now: float) -> None:
        horizon = max(self._settled, now - SETTLE_TIME)
        match edge:
            case Began(at, sure):
                self._put(CallerBegins(max(at, horizon), sure and at >= horizon))
            case Stopped(at) if at >= horizon:
                self._put(CallerStops(at))
            case _:
                self._put(Broken(now))

    def broken(self, now: float) -> None:
        """What is known of the caller is worth nothing: a stream that broke, packets too late, a key."""
        self._speech.reset()
        self._put(Broken(now))

    def new_stream(self, now: float) -> None:
        """The caller's audio comes on another way, if at all."""
        self._arrivals = Arrivals()
        self.broken(now)

    def hold(self, on: bool, now: float) -> None:
        """The PBX has put the caller on hold, or taken them off it: what comes meanwhile is nobody's."""
        self._held = on
        self.broken(now)

    # -- the bot ------------------------------------------------------------------------------------------

    def bot_audible(self, at: float, arrived: float) -> None:
        """FreeSWITCH has read the first frame of the bot's that can be heard; it ``arrived`` here before."""
        self._put(BotBegins(at + DOWNLINK, arrived))

    def bot_inaudible(self, at: float, cut: bool) -> None:
        """It has read the last; ``cut`` by a clear."""
        self._put(BotStops(at + DOWNLINK, cut))

    def cleared(self, now: float) -> None:
        """The bot's `clear` has come."""
        self._put(Clear(now))

    # -- in their order -----------------------------------------------------------------------------------

    def _put(self, event: Event) -> None:
        if not self.measured:
            return
        if event.at < self._settled and not isinstance(event, Broken):
            self._put(Broken(self._settled))  # what came behind it was not seen in its light
        self._number += 1
        heapq.heappush(self._waiting, (max(event.at, self._settled), self._number, event))

    def settle(self, now: float) -> None:
        """Take what has waited long enough."""
        while self._waiting and self._waiting[0][0] <= now - SETTLE_TIME:
            at, _, event = heapq.heappop(self._waiting)
            self._settled = at
            turn = self._turns.happened(event)
            if turn is not None and self._reported < MAX_TURNS:
                self._reported += 1
                self._tell(turn, self._reported)

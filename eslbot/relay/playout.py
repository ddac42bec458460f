"""What a bot says, heard in order, as soon as can be, and what was heard of it.

Speech goes into the line behind what stands there already. Where nothing stands it begins an utterance, at
the first frame that is its :mod:`~eslbot.relay.playout_delay` away: a bot that is ahead of real time is heard
in the next frame. Where it is late, the next frame takes it and the rest of the utterance is later by so
much. What the rings have no room for waits here::

    fresh ──say──▶ placed ──FreeSWITCH reads its first tick──▶ heard ──UTTERANCE_OVER without more──▶ fresh
                     └────────────────────────────── clear ──────┴───────────────────────────────────▶ fresh

*Heard* is told as ``utterance_began``, its end as ``utterance_over``. What a relay before this one has left
on the line counts as this one's first utterance, *placed* from the beginning.

Nothing here waits or calls back by itself: :meth:`Playout.tick` does what is due and says when it wants to be
called again. It is to be called behind each of the other methods, too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from eslbot.audio import SAMPLE_RATE
from eslbot.audio.levels import audible, audible_spans
from eslbot.relay.line import LineFull
from eslbot.relay.played_level import PlayedLevel
from eslbot.relay.playout_delay import PlayoutDelay
from eslbot.relay.turn_taking.vad import ECHO_WINDOW

#: Seconds of speech that may wait to be heard.
MAX_QUEUED_SECONDS = 600
#: Marks that may wait.
MAX_MARKS = 1000
#: Seconds without speech that end an utterance; and without any sound in it, as the caller hears it.
UTTERANCE_OVER = 0.25

#: Seconds that a late message keeps from the frame after it, so that the rest of its utterance is not late
#: again.
_LATE_GUARD = 0.003
#: Seconds before a read in which the frame after it is taken.
_READ_GUARD = 0.001
#: Seconds until the next :meth:`Playout.tick`: while FreeSWITCH is waited for or stalls, and while there is
#: nothing to do but to keep the line.
_BUSY_POLL_INTERVAL, _IDLE_POLL_INTERVAL = 0.01, 0.25
#: Bytes of room below which the rest of the queue is left where it is.
_MIN_WRITE = SAMPLE_RATE
#: Seconds of speech that stand in the line, beyond which more of it can wait for the loop's next turn: a
#: bot's whole answer, come in a thousand messages at once, is written in a few pieces.
_PLACED_AHEAD = 0.2


class QueueFull(Exception):
    """More speech, or more marks, than a bot may have waiting."""


class PlayoutLine(Protocol):
    """What speech is laid into: :class:`eslbot.relay.line.Line`, where each method is explained.

    Or what stands for it where no FreeSWITCH reads (:mod:`eslbot.botcheck.clocked_line`).
    """

    first_free: int
    frame_bytes: int
    period: float
    ring_bytes: int
    taken: bool

    @property
    def read_by_freeswitch(self) -> bool:
        """Whether anybody reads it yet."""

    @property
    def stalled(self) -> bool:
        """Whether its reader has stopped."""

    def tick(self) -> int:
        """The tick that is read next."""

    def at(self, tick: int) -> float:
        """Monotonic time at which a tick is read."""

    def first_at(self, when: float) -> int:
        """The first tick to be read, and not before this time."""

    def poll_at(self) -> float | None:
        """When a :meth:`tick` would tell most."""

    def room(self, tick: int) -> int:
        """How many bytes may be written from a tick on."""

    def after(self, tick: int, size: int) -> int:
        """The tick behind the last one that so many bytes need."""

    def write(self, tick: int, linear: bytes, standing: int = 0) -> tuple[int, int]:
        """Have this be heard; the first tick of it, and the one behind its last."""

    def silence(self, first: int, last: int) -> int:
        """Have nothing be heard; the tick that is next behind it."""

    def drop_predecessors(self) -> None:
        """Have nothing more be heard of earlier relays."""

    def erase_played(self) -> None:
        """Make silence of what was heard."""

    def checkpoint(self, always: bool = True) -> None:
        """Leave word for the next relay."""

    def attach(self, switch: str) -> bool:
        """Which FreeSWITCH reads it; whether that has restarted."""


class PlayoutListener(Protocol):
    """Who is told what the caller has heard. Nothing of the playout may be called from within."""

    def mark_reached(self, name: str, cleared: bool) -> None:
        """The caller has heard everything up to a mark, or never will."""

    def utterance_began(self, ago: float) -> None:
        """The caller has begun to hear an utterance, seconds ago."""

    def utterance_over(self, cut: bool, ago: float) -> None:
        """The utterance is over, or was cut."""

    def bot_audible(self, at: float, arrived: float) -> None:
        """FreeSWITCH has read the first audible frame since a silence, at the monotonic time ``at``.

        Bots may begin with silence, or send nothing else between two utterances. The frame's audio had
        ``arrived`` before.
        """

    def bot_inaudible(self, at: float, cut: bool) -> None:
        """It has read the last one, whose end is ``at``; ``cut`` by a clear."""


@dataclass(slots=True)
class _AudibleSpan:
    """Ticks of the line in which the bot can be heard."""

    first: int
    last: int
    arrived: float
    cut: bool = False


class Playout:
    """One call's speech."""

    def __init__(
        self,
        line: PlayoutLine,
        delay: PlayoutDelay,
        listener: PlayoutListener,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line
        self._delay = delay
        self._listener = listener
        self._now = now
        self._queue: deque[bytes] = deque()
        self._queued = 0
        #: Bytes said and placed since the beginning: where a mark stands.
        self._bytes_said = self._bytes_placed = 0
        #: The tick behind the last speech, and what stands in the one before it if that is not full.
        self._next = line.first_free
        self._tail = b""
        #: Marks behind speech that waits here (bytes said before it), and behind what is in the line (its
        #: first and last tick since the mark before).
        self._waiting: deque[tuple[int, str]] = deque()
        self._placed_marks: deque[tuple[int, int, str]] = deque()
        self._mark_from: int | None = None
        #: Ticks that went by on hold; the last range grows while it lasts.
        self._holds: deque[list[int]] = deque()
        self._held = False
        self._finished = False
        #: The tick that an utterance begins with; it is None where there is none, and told once it was read.
        self._utterance: int | None = 0 if line.first_free else None
        self._fresh = self._utterance is None
        self._began = False
        #: What can be heard of what was placed: its first tick and the one behind its last, when it came, and
        #: whether it was cut. Of the first, whether its beginning was told.
        self._spans: deque[_AudibleSpan] = deque()
        self._audible = False
        self._level = PlayedLevel(line.frame_bytes, round(ECHO_WINDOW / line.period))
        #: The ticks of a silence.
        self._silence = round(UTTERANCE_OVER / line.period)
        #: How often the disk had no room, and the seconds of speech that were lost by it.
        self.full = 0
        self.lost = 0.0

    @property
    def speaking(self) -> bool:
        """Whether the caller hears an utterance, as told."""
        return self._began

    @property
    def idle(self) -> bool:
        """Whether there is nothing more to be heard, and nothing to be told."""
        return not (
            self._queue
            or self._waiting
            or self._placed_marks
            or self._utterance is not None
            or self._next > self._line.tick()
        )

    @property
    def going(self) -> bool:
        """Whether an utterance stands in the line, and more of it moves nothing that is due."""
        return self._utterance is not None and not self._queue

    def say(self, linear: bytes) -> None:
        """Speech, L16 at 8,000 Hz, to be heard behind everything that was said. Raises QueueFull."""
        if not linear:
            return
        now = self._now()
        tick = self._line.tick()
        waiting = self._queued + max(0, self._next - tick) * self._line.frame_bytes
        if waiting + len(linear) > MAX_QUEUED_SECONDS * 2 * SAMPLE_RATE:
            raise QueueFull(f"more than {MAX_QUEUED_SECONDS} s of speech")
        self._end_utterance(now, tick)
        self._delay.message(now, len(linear) / (2 * SAMPLE_RATE))
        self._queue.append(linear)
        self._queued += len(linear)
        self._bytes_said += len(linear)
        if self._fresh or (self._next - tick) * self._line.period < _PLACED_AHEAD:
            self._place(now, tick)

    def mark(self, name: str) -> None:
        """Tell when everything that was said up to now has been heard. Raises QueueFull."""
        if len(self._waiting) + len(self._placed_marks) >= MAX_MARKS:
            raise QueueFull(f"more than {MAX_MARKS} marks")
        self._waiting.append((self._bytes_said, name))
        self._place_marks(self._next, self._bytes_placed)

    def clear(self) -> None:
        """Barge-in: what was not read by FreeSWITCH is not heard any more."""
        now = self._now()
        self._line.drop_predecessors()
        tick = self._line.tick()
        try:
            tick = self._line.silence(tick, self._next)
        except LineFull:
            self.full += 1  # it is heard: the file system wants room even for silence
        self._next = tick
        self._cut_audible(tick)
        self._queue.clear()
        self._queued, self._tail = 0, b""
        self._bytes_placed = self._bytes_said
        self._tell_marks(tick, now, everything=True)
        self._tell_audible(tick)
        self._tell_began(now, tick)
        if self._began:
            self._listener.utterance_over(True, 0.0)
        self._over()

    def hold(self, on: bool) -> None:
        """The caller is on hold, or back: what goes by meanwhile is not heard."""
        if on != self._held:
            self._held = on
            tick = self._line.tick()
            if on:
                self._holds.append([tick, tick])
            else:
                self._holds[-1][1] = tick

    def attach(self, switch: str) -> bool:
        """FreeSWITCH of this Core-UUID reads the line from now on. Whether it has restarted.

        Where it has, all goes on with what the one before had not read. Raises OSError.
        """
        self.tick()  # what that one has read was heard
        return self._line.attach(switch)

    def finish(self) -> None:
        """Nothing more will be said: the end need not be waited for."""
        self._finished = True

    def tick(self) -> float | None:
        """Do what is due. Returns the monotonic time of the next call; None where another has the line."""
        now = self._now()
        line = self._line
        if line.taken:
            return None
        tick = line.tick()
        due: list[float] = []
        try:
            line.erase_played()
        except LineFull:
            self.full += 1
            due.append(now + _IDLE_POLL_INTERVAL)  # it has a round's time to succeed
        self._place(now, tick)
        awaited = not line.read_by_freeswitch and (self._queue or self._utterance is not None)
        due.append(now + (_BUSY_POLL_INTERVAL if awaited else _IDLE_POLL_INTERVAL))
        self._tell_audible(tick)
        self._tell_began(now, tick)
        if self._utterance is not None and not self._began and not awaited:
            due.append(line.at(self._utterance) + (_BUSY_POLL_INTERVAL if line.stalled else _READ_GUARD))
        due += self._tell_marks(tick, now)
        due += self._end_utterance(now, tick)
        line.checkpoint(always=False)
        poll = line.poll_at()
        if poll is not None:
            due.append(poll)
        return max(now + _READ_GUARD, min(due))

    # ---- speech into the line

    def _place(self, now: float, tick: int) -> None:
        line = self._line
        if not self._queue or not line.read_by_freeswitch:
            return
        if self._fresh:
            self._next = max(self._next, line.first_at(now + max(self._delay.seconds, _READ_GUARD)))
            self._tail = b""
        elif self._next < tick:
            self._next = line.first_at(now + _LATE_GUARD)
            self._tail = b""
        if self._next <= tick:
            self._tail = b""  # its frame was read as it stood
        while self._queue:
            begin = self._next - bool(self._tail)
            room = line.room(begin) - len(self._tail)
            if room < min(self._queued, _MIN_WRITE, line.ring_bytes // 4):
                return
            new = self._take(room)
            linear = self._tail + new
            try:
                first, self._next = line.write(begin, linear, len(self._tail))
                stands = len(linear)
            except LineFull as full:
                first, self._next, stands = full.first, full.next, full.written
                self.full += 1
                self.lost += (len(linear) - stands) / (2 * SAMPLE_RATE)
            if self._fresh:
                self._utterance, self._fresh = first, False
            self._note_audible(now, first, linear if stands == len(linear) else linear[:stands])
            if self._mark_from is None:
                self._mark_from = first
            tail = self._tail
            if tail and first > begin:  # FreeSWITCH was faster: what stood there was heard alone
                linear, tail = new, b""
            rest = len(linear) % line.frame_bytes if stands == len(linear) else 0
            self._tail = linear[len(linear) - rest :] if rest else b""
            self._bytes_placed += len(new)
            self._place_marks(first, self._bytes_placed - len(linear))

    def _take(self, most: int) -> bytes:
        """The queue's first bytes: as many whole messages as there is room for, and the part of one."""
        taken: list[bytes] = []
        size = 0
        while self._queue and size < most:
            message = self._queue.popleft()
            if size + len(message) > most:
                fits = most - size
                self._queue.appendleft(message[fits:])
                message = message[:fits]
            taken.append(message)
            size += len(message)
        self._queued -= size
        return b"".join(taken)

    def _place_marks(self, first: int, said: int) -> None:
        """Find the frames of marks whose speech stands: what follows ``said`` begins with ``first``."""
        while self._waiting and self._waiting[0][0] <= self._bytes_placed:
            at, name = self._waiting.popleft()
            last = self._line.after(first, at - said) - 1
            self._placed_marks.append((last + 1 if self._mark_from is None else self._mark_from, last, name))
            self._mark_from = last + 1 if last + 1 < self._next else None

    # ---- what was heard

    def loudest(self) -> float:
        """The level of the loudest frame of the bot's that the caller has heard lately."""
        return self._level.loudest(self._line.tick())

    def _note_audible(self, now: float, first: int, linear: bytes) -> None:
        """Where in this, which stands from tick ``first`` on, there is something to be heard."""
        self._level.placed(first, linear, self._line.tick())
        size = self._line.frame_bytes
        if len(linear) <= size:
            spans = [(0, 1)] if audible(linear) else []
        else:
            spans = audible_spans(linear, size, self._silence)
        for begin, end in spans:
            last = self._spans[-1] if self._spans else None
            if last is not None and not last.cut and first + begin < last.last + self._silence:
                last.last = max(last.last, first + end)
            else:
                self._spans.append(_AudibleSpan(first + begin, first + end, now))

    def _cut_audible(self, tick: int) -> None:
        """Nothing is heard from this tick on."""
        self._level.cut(tick)
        while self._spans and self._spans[-1].first >= tick:
            self._spans.pop()
        if self._spans and self._spans[-1].last > tick:
            self._spans[-1].last, self._spans[-1].cut = tick, True

    def _tell_audible(self, tick: int) -> None:
        line = self._line
        while self._spans:
            span = self._spans[0]
            if not self._audible:
                if tick <= span.first:
                    return
                self._audible = True
                self._listener.bot_audible(line.at(span.first), span.arrived)
            # More of it may come, that is the same span.
            if tick < span.last + (0 if span.cut else self._silence):
                return
            self._audible = False
            self._listener.bot_inaudible(line.at(span.last), span.cut)
            self._spans.popleft()

    def _tell_marks(self, tick: int, now: float, everything: bool = False) -> list[float]:
        """Tell the marks that were heard; of the others, when the first may be. Or all, as cleared."""
        line = self._line
        if self._held:
            self._holds[-1][1] = tick
        marks = self._placed_marks
        while marks:
            first, last, name = marks[0]
            heard_at = line.at(last) + line.period
            if not everything and (tick <= last or now < heard_at) and tick < last + 2:
                return [heard_at if tick > last else max(heard_at, now + _BUSY_POLL_INTERVAL / 5)]
            marks.popleft()
            self._listener.mark_reached(name, last >= tick or self._went_by_on_hold(first, last))
        if everything:
            while self._waiting:
                self._listener.mark_reached(self._waiting.popleft()[1], True)
            self._mark_from = None
        if not marks and not self._held:
            oldest = self._mark_from if self._mark_from is not None else tick
            while self._holds and self._holds[0][1] <= oldest:
                self._holds.popleft()
        return []

    def _went_by_on_hold(self, first: int, last: int) -> bool:
        return any(start <= last and first < end for start, end in self._holds)

    def _tell_began(self, now: float, tick: int) -> None:
        if self._utterance is not None and not self._began and tick > self._utterance:
            self._began = True
            self._listener.utterance_began(max(0.0, now - self._line.at(self._utterance)))

    def _end_utterance(self, now: float, tick: int) -> list[float]:
        """End an utterance behind which nothing has come; otherwise, when that may be."""
        if self._utterance is None or self._queue:
            return []
        line = self._line
        if tick < self._next:
            # Not at its end, or each message of a bot that is in time would have a look of its own.
            return [line.at(self._next) + (0.0 if self._finished else UTTERANCE_OVER)]
        ended = line.at(self._next - 1) + line.period
        over_at = ended if self._finished else ended + UTTERANCE_OVER
        if now < over_at:
            return [over_at]
        self._tell_began(now, tick)
        self._listener.utterance_over(False, max(0.0, now - ended))
        self._over()
        return []

    def _over(self) -> None:
        self._utterance, self._fresh, self._began = None, True, False
        self._delay.utterance_over()

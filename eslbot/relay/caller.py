"""The caller's frames as mod_audio_stream brings them, on their way to the bot (``docs/line-file.md``).

FreeSWITCH reads the caller once in each of its ticks and hands on 20 ms. Where a tick finds no packet it
makes a frame of nothing but 0xFF bytes, which no decoder makes. The clock tells three reasons apart:

* the PBX is silent (a hold): such a frame takes the place of one, 50 come a second. It is silence.
* packets are longer than the SDP says: they come *beside* the caller's, more than 50 a second. It is nothing.
* packets are shorter: none comes, and fewer than 50 of the caller's. A jitter buffer is wanted.

When FreeSWITCH has stalled, packets wait in its socket ever after: as many frames as ever, each later than it
could be. What is missing then, against the clock, stays missing, and a flush of the socket is wanted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Bytes a second of L16 at 8,000 Hz.
BYTES_A_SECOND = 16_000

#: Packets are short when less than this part of real time comes in each of WINDOWS windows of WINDOW seconds
#: in a row. Measured: 0.61, where 10 ms are sent for 20, and 20 ms for 40.
SHORT = 0.8
WINDOW, WINDOWS = 0.25, 3
#: Seconds without any frame that are a stall and no short packets (0.146 at 20 ms for 60).
STALL = 0.25
#: Seconds over which lateness is its least: a single late frame is none.
STEADY = 1.0
#: Seconds that audio may be ahead of the clock and still be one frame for each tick: they come unevenly.
_EVEN = 0.01


class CallerAudio:
    """The frames of one stream. ``now`` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None
        self._last = 0.0
        self._given = 0.0  # seconds of audio that were handed on
        self._lost = 0.0  # seconds that a flush has lost
        self._least = self._least_lately = self._steady = 0.0  # seconds behind the clock
        self._steady_since = self._window_since = 0.0
        self._window_heard = 0.0
        self._short_windows = 0

    def frame(self, data: bytes) -> bytes | None:
        """What the bot hears of a frame, L16 at 8,000 Hz; None where it is nothing."""
        now = self._now()
        if self._began is None:
            self._began = self._last = self._steady_since = self._window_since = now
        seconds = len(data) / BYTES_A_SECOND
        self._look_for_short_packets(now, seconds)
        behind = now - self._began - self._given
        if data.count(0xFF) == len(data):
            if behind - self._lost < -_EVEN:
                return None
            data = bytes(len(data))
        self._given += seconds
        self._look_for_lateness(now, behind)
        return data

    @property
    def short_packets(self) -> bool:
        """Whether the PBX's packets are shorter than its SDP says."""
        return self._short_windows >= WINDOWS

    @property
    def late(self) -> float:
        """Seconds by which the caller's audio is later than it once was."""
        return max(0.0, self._steady - self._least)

    def flushed(self) -> None:
        """The socket is being flushed: what is missing is lost from here on, and no longer late."""
        self._lost = self._least = self._least_lately = self._steady

    def _look_for_short_packets(self, now: float, seconds: float) -> None:
        if now - self._last > STALL:
            self._window_since, self._window_heard, self._short_windows = now, 0.0, 0
        self._last = now
        if (passed := now - self._window_since) >= WINDOW:
            short = self._window_heard < SHORT * passed
            self._short_windows = self._short_windows + 1 if short else 0
            self._window_since, self._window_heard = now, 0.0
        self._window_heard += seconds

    def _look_for_lateness(self, now: float, behind: float) -> None:
        self._least = min(self._least, behind)
        if now - self._steady_since >= STEADY:
            self._steady, self._steady_since, self._least_lately = self._least_lately, now, behind
        self._least_lately = min(self._least_lately, behind)

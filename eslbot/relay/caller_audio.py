"""The caller's audio as mod_audio_stream brings it, on its way to the bot (``docs/line-file.md``).

FreeSWITCH reads the caller once in each of its ticks and hands on what it has read. Where a tick finds no
packet it makes a frame of nothing but 0xFF bytes, which no decoder makes. Three reasons are told apart:

* the PBX is silent (a hold): such a filler takes the place of audio, 50 come a second. It is silence.
* packets are longer than the SDP says: fillers come *beside* the caller's audio, over 50 frames a second.
  They are nothing. With packets of 30 ms they begin in the middle of the module's frames.
* packets are shorter: none comes, and less than real time of the caller's. A jitter buffer is wanted.

When FreeSWITCH has stalled, it leaves ticks out, and the packets that came meanwhile wait in its socket ever
after: as many frames as ever, each later than it could be. What is missing then, against the clock, stays
missing, and a flush of the socket is wanted. A PBX that is late is made good for by fillers, so it is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from eslbot.audio import FRAME_BYTES, FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_RATE

_BYTES_A_SECOND = 2 * SAMPLE_RATE
#: Bytes in which fillers are looked for: 10 ms. Packets are multiples of it, and so are fillers.
_PIECE = 160
_FILLER = b"\xff" * _PIECE

#: What is said of packets is said of so many windows in a row, each of so many seconds.
WINDOW_SECONDS, WINDOWS = 0.25, 3
#: Packets are short when less than this part of real time comes. Measured: 0.61, where 10 ms are sent for 20,
#: and 20 ms for 40.
SHORT_RATIO = 0.8
#: Packets are long when more than this part of real time comes, with the fillers: 1.33 at 30 ms for 20.
LONG_RATIO = 1.1
#: Pieces of fillers in a row; what is more is silence in a line of long packets, too: 60 ms have 4 of them.
MAX_FILLERS = 10
#: Seconds without any frame that are a stall and no short packets (0.146 at 20 ms for 60).
STALL_SECONDS = 0.25
#: Lateness is the least of two stretches of so many seconds: a single late frame is none.
LATENESS_WINDOW = 0.4
#: Seconds that are not looked at where something of ours costs ticks: when a call is set up, and otherwise.
SET_UP_SECONDS, SETTLE_SECONDS = 1.0, 0.5
#: Seconds that audio may be ahead of the clock and still be one frame for each tick: they come unevenly.
_EVEN = 0.01


class CallerAudio:
    """The audio of one stream. ``now`` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None
        self._last = 0.0
        self._given = 0.0  # seconds of audio that were handed on
        self._rest = b""  # of them, what is less than a frame
        self._fillers = 0  # pieces in a row, in a line of long packets
        self._window_since = 0.0
        self._window_heard = self._window_fillers = 0.0
        self._short_windows = 0
        self._long_windows = 0  # below 0: so many that are not
        self._long = False
        # Seconds behind the clock: what counts as none; the least, once that is known; and lately.
        self._zero = 0.0
        self._least: float | None = None
        self._steady = 0.0
        self._stretches: tuple[float, float] | None = None
        self._stretch_since = 0.0

    def frames(self, data: bytes) -> list[bytes]:
        """What the bot is to hear when this has come: L16 at 8,000 Hz, in whole frames of 20 ms."""
        now = self._now()
        if self._began is None:
            self._began = self._last = self._window_since = now
            self._stretch_since = now + SET_UP_SECONDS
        pieces = [data[n : n + _PIECE] for n in range(0, len(data), _PIECE)]
        fillers = pieces.count(_FILLER)
        self._look_at_packets(now, len(data) / _BYTES_A_SECOND, fillers * _PIECE / _BYTES_A_SECOND)
        behind = now - self._began - self._given
        if fillers:
            pieces = [self._without_filler(piece, behind) for piece in pieces]
        else:
            self._fillers = 0
        audio = b"".join(pieces)
        self._given += len(audio) / _BYTES_A_SECOND
        self._look_for_lateness(now, behind)
        audio = self._rest + audio
        whole = len(audio) - len(audio) % FRAME_BYTES
        self._rest = audio[whole:]
        return [audio[n : n + FRAME_BYTES] for n in range(0, whole, FRAME_BYTES)]

    @property
    def short_packets(self) -> bool:
        """Whether the PBX's packets are shorter than its SDP says."""
        return self._short_windows >= WINDOWS

    @property
    def late(self) -> float:
        """Seconds by which the caller's audio is later than it once was; 0 where packets may be short."""
        if self._least is None or self._short_windows:
            return 0.0
        return max(0.0, self._steady - self._least)

    def settle(self) -> None:
        """Something costs FreeSWITCH ticks, or flushes: what is missing then is lost and not late."""
        self._settle(self._now() + SETTLE_SECONDS)

    def _settle(self, until: float) -> None:
        self._zero, self._least = max(self._zero, self._steady), None
        self._stretches, self._stretch_since = None, until

    def _without_filler(self, piece: bytes, behind: float) -> bytes:
        """What a piece is: the caller's, silence, or nothing. ``behind`` is of its frame's beginning."""
        if piece != _FILLER:
            self._fillers = 0
            return piece
        if not self._long:
            return bytes(_PIECE) if behind >= self._zero - _EVEN else b""
        self._fillers += 1
        if self._fillers <= MAX_FILLERS:
            return b""
        return bytes(_PIECE * (self._fillers if self._fillers == MAX_FILLERS + 1 else 1))

    def _look_at_packets(self, now: float, heard: float, fillers: float) -> None:
        if now - self._last > STALL_SECONDS:
            self._window_since, self._window_heard, self._window_fillers = now, 0.0, 0.0
            self._short_windows = 0
        self._last = now
        if (passed := now - self._window_since) >= WINDOW_SECONDS:
            self._judge(passed)
            self._window_since, self._window_heard, self._window_fillers = now, 0.0, 0.0
        self._window_heard += heard
        self._window_fillers += fillers

    def _judge(self, passed: float) -> None:
        """What a window says of the packets."""
        short = self._window_heard < SHORT_RATIO * passed
        self._short_windows = self._short_windows + 1 if short else 0
        if self.short_packets:
            self._settle(self._last + SETTLE_SECONDS)  # they are later and later until they are put together
        if self._window_fillers >= self._window_heard:
            return  # a silent PBX says nothing of its packets
        if self._window_heard > LONG_RATIO * passed:
            self._long_windows = max(0, self._long_windows) + 1
        else:
            self._long_windows = min(0, self._long_windows) - 1
        if abs(self._long_windows) >= WINDOWS:
            self._long = self._long_windows > 0

    def _look_for_lateness(self, now: float, behind: float) -> None:
        if now < self._stretch_since:
            return
        if self._stretches is None:
            self._stretches = (behind, behind)
        before, lately = self._stretches
        if now - self._stretch_since >= LATENESS_WINDOW:
            self._steady = min(before, lately)
            self._least = self._steady if self._least is None else min(self._least, self._steady)
            self._zero = self._least
            self._stretches, self._stretch_since = (lately, behind), now
        else:
            self._stretches = (before, min(lately, behind))


class MediaTime:
    """The time stamps of one stream's audio: samples that have come, since the time ``began``.

    Not the clock's: bots take a time stamp that is later than the audio before it, be it by a millisecond,
    for lost audio. So only a second that is missing for good moves it on.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._samples = 0

    def next(self, samples: int, now: float) -> float:
        """Seconds at which the next so many samples begin."""
        passed = int((now - self._began) / FRAME_SECONDS) * FRAME_SAMPLES
        if self._samples < passed - SAMPLE_RATE:
            self._samples = passed
        at = self._samples / SAMPLE_RATE
        self._samples += samples
        return at

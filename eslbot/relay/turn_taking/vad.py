"""Whether the caller speaks, and from when to when: WebRTC's voice activity detector, and what it lacks.

The detector says *whether* there is a voice. *When* is told by the level: the detector comes up to 80 ms late
and stays on for up to 100 behind a word, and a turn is measured to the packet. So a frame is *voiced* where
the detector says so and it stands out from the noise, and frames make a *stretch*::

            voiced                  enough of it is a voice              a pause, HANGOVER
    quiet ────────▶ a sound ─────────────────────────────▶ speaking ─────────────────────▶ quiet
      ▲                │ a pause                             │ MAX_SPEECH without a pause, or the packets
      └────────────────┘                                     │ behind the last word are missing
      ▲                                                      ▼
      └───────────── a pause ──────────────────────────── unclear

What is no voice, though the detector may take it for one: a click (too short), a key's tone, a beep, noise
(their level stands still), music on hold that nobody has told (it makes no pause), and the bot's own echo
(it is softer than what the bot has just said: Geigel's detector of double talk).

Nothing in here waits, looks at a clock, or talks to anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import webrtcvad

from eslbot.audio import FRAME_SECONDS, SAMPLE_RATE
from eslbot.audio.levels import rms

#: Of the detector's modes 0 to 3, 3 takes least for speech, and misses half of a soft voice (-41 dB, where 2
#: finds nine tenths). Of noise all take the same for speech, nearly all: that is kept out by its level.
MODE = 2
#: Seconds without a voiced frame that end a stretch: longer than the closure of a plosive (up to 120 ms), and
#: shorter than any bot waits before it takes a caller to be done.
HANGOVER = 0.2
#: Voiced frames that speech has at least: the shortest answers ("no") have some 150 ms.
MIN_VOICED_FRAMES = 6
#: Level (root mean square, of 32,768) of the softest voice, -56 dB: a telephone's is at -40 to -10 dB.
MIN_LEVEL = 50.0
#: How much louder than the noise a voiced frame is (6 dB). The noise is the softest frame of the last one to
#: two NOISE_WINDOW: there is one between any two syllables.
MIN_NOISE_RATIO, NOISE_WINDOW = 2.0, 50
#: Decibels (standard deviation) by which levels differ in speech from frame to frame: 3 and more. Those of
#: white noise differ by 0.5, a tone's by nothing.
MIN_LEVEL_DEVIATION = 1.5
#: Seconds without a pause beyond which nobody speaks: people breathe.
MAX_SPEECH = 20.0
#: An echo is at least this much softer than what made it (Geigel: 6 dB), and comes within so many seconds.
ECHO_RATIO, ECHO_WINDOW = 0.5, 0.4
#: Frames that are no echo, from which on a stretch is the caller's own; the first of them within so many
#: seconds of its beginning, or when it has begun is not clear.
MIN_OWN_FRAMES, OWN_WINDOW = 3, 0.3
#: Seconds by which the detector may be late for a soft beginning: what is loud before it belongs to the word.
MAX_ONSET_DELAY = 0.1
#: Frames behind the last voiced one of which a missing packet may have been one more.
TRAILING_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Began:
    """The caller speaks, since the packet of ``at``; ``sure`` is whether that is when it began."""

    at: float
    sure: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """The packet of ``at`` was the last of what the caller said."""

    at: float


@dataclass(frozen=True, slots=True)
class Unclear:
    """Since ``at`` nobody knows whether the caller speaks, or what has begun was no speech."""

    at: float


Edge = Began | Stopped | Unclear


class _State(Enum):
    QUIET = auto()
    SOUND = auto()
    SPEAKING = auto()
    UNCLEAR = auto()


class SpeechDetector:
    """One call's caller. ``bot_level`` is the loudest frame that the caller has heard within ECHO_WINDOW."""

    def __init__(self, bot_level: Callable[[], float]) -> None:
        self._bot_level = bot_level
        self._vad = webrtcvad.Vad(MODE)
        #: The softest frame of this while and of the one before, and the frames of this.
        self._softest = self._softest_before = math.inf
        self._frames = 0
        self._loud_since: float | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._state = _State.QUIET
        self._first = self._last = 0.0
        self._voiced = self._own = 0
        #: The first frame that is no echo.
        self._own_at: float | None = None
        #: Of the levels in decibels: sums, to tell how much they differ; the newest is not in them yet, since
        #: the first and the last frame of a tone are cut.
        self._sum = self._squares = 0.0
        self._newest: float | None = None
        #: Frames since the last voiced one, and the first of them whose packet was missing.
        self._since = 0
        self._missing: int | None = None

    def reset(self) -> None:
        """Forget what was heard: it is another stream."""
        self._loud_since = None
        self._begin_anew()

    def process(self, frame: bytes, at: float, *, missing: bool = False) -> Edge | None:
        """20 ms of L16 at 8,000 Hz, whose packet came ``at``, or should have. What is known by it."""
        if not missing:
            level = rms(frame)
            noise = self._noise(level)
            voice = self._vad.is_speech(frame, SAMPLE_RATE)
            if level < max(MIN_LEVEL, MIN_NOISE_RATIO * noise):
                self._loud_since = None
            else:
                if self._loud_since is None:
                    self._loud_since = at
                if voice:
                    return self._voice(level, at)
        return None if self._state is _State.QUIET else self._pause(at, missing)

    def _noise(self, level: float) -> float:
        """How loud it is, this frame counted."""
        if self._frames == NOISE_WINDOW:
            self._softest_before, self._softest, self._frames = self._softest, math.inf, 0
        self._frames += 1
        if level < self._softest:
            self._softest = level
        return min(self._softest, self._softest_before)

    def _voice(self, level: float, at: float) -> Edge | None:
        state = self._state
        self._since, self._missing, self._last = 0, None, at
        if state is _State.UNCLEAR:
            return None
        if state is _State.QUIET:
            since = at if self._loud_since is None else self._loud_since
            self._state, self._first = _State.SOUND, max(since, at - MAX_ONSET_DELAY)
        if at - self._first > MAX_SPEECH:
            self._state = _State.UNCLEAR
            return Unclear(at) if state is _State.SPEAKING else None
        if state is _State.SPEAKING:
            return None
        self._voiced += 1
        if self._newest is not None and self._voiced > 2:
            self._sum += self._newest
            self._squares += self._newest * self._newest
        self._newest = 20 * math.log10(level)
        if self._own < MIN_OWN_FRAMES and level > ECHO_RATIO * self._bot_level():
            self._own += 1
            if self._own_at is None:
                self._own_at = at
        if self._voiced < MIN_VOICED_FRAMES or self._own < MIN_OWN_FRAMES or self._is_steady():
            return None
        self._state = _State.SPEAKING
        own_at = self._last if self._own_at is None else self._own_at
        return Began(self._first, sure=own_at - self._first <= OWN_WINDOW)

    def _is_steady(self) -> bool:
        count = self._voiced - 2
        mean = self._sum / count
        return self._squares / count - mean * mean < MIN_LEVEL_DEVIATION * MIN_LEVEL_DEVIATION

    def _pause(self, at: float, missing: bool) -> Edge | None:
        if self._state is _State.QUIET:
            return None
        self._since += 1
        if missing and self._missing is None:
            self._missing = self._since
        if self._since * FRAME_SECONDS < HANGOVER:
            return None
        state, last = self._state, self._last
        lost = self._missing is not None and self._missing <= TRAILING_FRAMES
        self._begin_anew()
        if state is not _State.SPEAKING:
            return None
        return Unclear(at) if lost else Stopped(last)

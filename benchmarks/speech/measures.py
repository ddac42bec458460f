"""What has become of the signals: gaps, phase jumps, latency, lost frames.

Nothing here talks to a network. Times are epoch seconds, positions are samples at 8,000 a second unless
a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.speech.signals import FRAME, NUMBERS, TONES, numbers_of
from eslbot import g711
from eslbot.sim.audio import RATE, SILENCE
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.rtp import RtpPacket

#: Seconds of silence from which on a hole in speech is a gap.
GAP = 0.010
#: Seconds between two RTP packets from which on it is a pause; and a telephone's playout buffer.
PAUSE, BUFFER = 0.060, 0.040

#: Radians between what a tone's phase is and what it would be had nothing happened.
JUMP = 0.2
#: Share of a window's power that is neither tone, from which on it is a click. G.711 leaves 0.0004.
CLICK = 0.05

#: Samples of a window in which phases are taken, its hop, and how many hops apart two are compared: the
#: windows then do not touch, and there is a hop between them, so that a jump anywhere falls between two
#: windows that know nothing of it.
_WINDOW, _HOP, _LAG = 40, 20, 3
#: Samples left out at both ends of speech, where a resampler may ring.
_EDGE = 24

_TABLES = {
    kind: np.frombuffer(g711.decode(law, bytes(range(256))), "<i2")
    for law, kind in g711.PAYLOAD_TYPES.items()
}


_SILENT = {
    kind: bytes(np.flatnonzero(np.abs(table.astype(int)) <= SILENCE).tolist())
    for kind, table in _TABLES.items()
}


def is_loud(packet: RtpPacket) -> bool:
    """Whether a packet is G.711 and not silent."""
    silent = _SILENT.get(packet.payload_type)
    return silent is not None and bool(packet.payload.translate(None, silent))


class Track:
    """What a call received: samples, and of each packet when it came and where in the samples it starts."""

    def __init__(self, at: Sequence[float], blocks: Sequence[NDArray[np.int16]]) -> None:
        self.at = np.asarray(at, float)
        lengths = [len(block) for block in blocks]
        self.starts = np.cumsum([0, *lengths])[:-1].astype(np.int64)
        self.samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
        self.loud = np.array([bool(np.abs(block.astype(int)).max() > SILENCE) for block in blocks], bool)

    @classmethod
    def of(cls, arrivals: Iterable[Arrival]) -> Track:
        """The G.711 packets among ``arrivals``; telephone events and others are left out."""
        at, blocks = [], []
        for arrival in arrivals:
            table = _TABLES.get(arrival.packet.payload_type)
            if table is not None and arrival.packet.payload:
                at.append(arrival.at)
                blocks.append(table[np.frombuffer(arrival.packet.payload, np.uint8)])
        return cls(at, blocks)

    def between(self, begin: float, end: float) -> Track:
        """The packets that came from ``begin`` to before ``end``."""
        first, last = np.searchsorted(self.at, [begin, end])
        ends = [*self.starts[1:], len(self.samples)]
        return Track(
            self.at[first:last],
            [self.samples[self.starts[i] : ends[i]] for i in range(first, last)],
        )

    def arrival_of(self, sample: int) -> float:
        """When the packet with this sample came."""
        return float(self.at[np.searchsorted(self.starts, sample, "right") - 1])

    def speech_packets(self) -> NDArray[np.float64]:
        """When the packets came that are not silent."""
        return self.at[self.loud]


@dataclass(frozen=True, slots=True)
class Hole:
    """A gap: ``start`` and ``length`` in samples."""

    start: int
    length: int


@dataclass(frozen=True)
class Heard:
    """The bot's speech as it arrived, from ``first`` up to ``end`` (samples of the whole).

    ``gaps`` are silences of at least 10 ms, ``jumps`` where (samples) a tone's phase leapt or something else
    than the tones was heard. Shorter silences are jumps.
    """

    first: int = 0
    end: int = 0
    gaps: list[Hole] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How much was heard, gaps left out."""
        return (self.end - self.first - sum(gap.length for gap in self.gaps)) / RATE

    @property
    def whole(self) -> bool:
        """Whether neither gap nor jump is in it: then positions in it are positions in what was sent."""
        return not self.gaps and not self.jumps


def heard(samples: NDArray[np.int16], tones: Sequence[float] = TONES) -> Heard:
    """The gaps and jumps of the bot's speech in ``samples``."""
    loud = np.abs(samples.astype(int)) > SILENCE
    where = np.flatnonzero(loud)
    if not len(where):
        return Heard()
    first, end = int(where[0]), int(where[-1]) + 1
    steps = np.diff(where)
    gaps = [
        Hole(int(where[i]) + 1, int(steps[i]) - 1)
        for i in np.flatnonzero(steps > GAP * RATE)  # a hole of n samples is a step of n + 1
    ]
    bounds = [first, *(edge for gap in gaps for edge in (gap.start, gap.start + gap.length)), end]
    jumps: list[int] = []
    before: _Phases | None = None
    for number, (start, stop) in enumerate(zip(bounds[::2], bounds[1::2], strict=True)):
        skip_start = _EDGE if number == 0 else 0
        skip_stop = _EDGE if number == len(gaps) else 0
        phases = _Phases(samples, start + skip_start, stop - skip_stop, tones)
        if before is not None and not before.goes_on_in(phases, gaps[number - 1].length):
            jumps.append(start)
        jumps += phases.jumps()
        before = phases if phases.count else before
    return Heard(first, end, gaps, sorted(jumps))


class _Phases:
    """The tones' phases in the windows of a stretch of sound."""

    def __init__(self, samples: NDArray[np.int16], start: int, stop: int, tones: Sequence[float]) -> None:
        self._tones = np.asarray(tones)
        self._begins = np.arange(start, stop - _WINDOW + 1, _HOP)
        self.count = len(self._begins)
        if not self.count:
            return
        windows = np.stack([samples[b : b + _WINDOW] for b in self._begins]).astype(float)
        n = np.arange(_WINDOW)
        angles = 2 * np.pi * np.outer(n, self._tones) / RATE
        waves = np.hstack([np.cos(angles), np.sin(angles)])
        parts = windows @ np.linalg.pinv(waves).T  # least squares: cosine and sine parts of each tone
        rest = ((windows - parts @ waves.T) ** 2).sum(axis=1)
        self._rest = rest / np.maximum((windows**2).sum(axis=1), 1.0)
        cosine, sine = parts[:, : len(self._tones)], parts[:, len(self._tones) :]
        # As if all windows began at sample 0: the same for all of them while nothing happens.
        self._phases = np.arctan2(-sine, cosine) - 2 * np.pi * np.outer(self._begins, self._tones) / RATE

    def jumps(self) -> list[int]:
        """Where (samples) they do not go on; one entry for what lies closer together than a window."""
        if not self.count:
            return []
        odd = np.zeros(len(self._begins), bool)
        leaps = np.abs(_wrap(self._phases[_LAG:] - self._phases[:-_LAG])).max(axis=1, initial=0) > JUMP
        # A leap is between the two windows compared, the middle of which is what is marked.
        odd[_LAG // 2 + 1 : _LAG // 2 + 1 + len(leaps)] = leaps
        odd |= self._rest > CLICK
        found, last = [], -10
        for index in np.flatnonzero(odd):
            if index - last > 1:
                found.append(int(self._begins[index]))
            last = index
        return found

    def goes_on_in(self, later: _Phases, silence: int) -> bool:
        """Whether ``later`` begins with the sample that was due when the silence (in samples) began.

        Two samples more or less do not matter: a tone's own zeros count as silence.
        """
        if not self.count or not later.count:
            return True
        turned = later._phases[0] - self._phases[-1]
        return any(
            np.abs(_wrap(turned + 2 * np.pi * self._tones * (silence + slack) / RATE)).max() <= JUMP
            for slack in (0, -1, 1, -2, 2)
        )


def _wrap(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    return (angles + np.pi) % (2 * np.pi) - np.pi


def pauses(times: NDArray[np.float64], longest_usual: float = PAUSE) -> list[tuple[float, float]]:
    """Where no packet came for more than ``longest_usual`` seconds: (epoch seconds, length)."""
    steps = np.diff(times)
    return [(float(times[i]), float(steps[i])) for i in np.flatnonzero(steps > longest_usual)]


def dry(track: Track, buffer: float = BUFFER, shortest: float = GAP) -> list[tuple[float, float]]:
    """Where a telephone that plays ``buffer`` seconds behind runs dry for ``shortest`` and more.

    (epoch seconds, length); only between the first and the last packet with speech.
    """
    spoken = np.flatnonzero(track.loud)
    if not len(spoken):
        return []
    ends = [*track.starts[1:], len(track.samples)]
    found = []
    due = track.at[spoken[0]] + buffer
    for i in range(spoken[0], spoken[-1] + 1):
        late = track.at[i] - due
        if late >= shortest:
            found.append((float(due), float(late)))
        due = max(due, track.at[i]) + (ends[i] - track.starts[i]) / RATE
    return found


def longest_silence(times: NDArray[np.float64], begin: float, end: float) -> float:
    """The longest time without a packet from ``begin`` to ``end``, both ends included."""
    inside = times[(times > begin) & (times < end)]
    return float(np.diff(np.concatenate([[begin], inside, [end]])).max())


# -- latency -------------------------------------------------------------------------------------


def first_packet(track: Track, begin: float, end: float) -> float | None:
    """When the first packet with speech came, from ``begin`` to ``end``."""
    times = track.speech_packets()
    inside = times[(times >= begin) & (times < end)]
    return float(inside[0]) if len(inside) else None


def last_packet(track: Track, begin: float, end: float) -> float | None:
    """When the last packet with speech came, from ``begin`` to ``end``."""
    times = track.speech_packets()
    inside = times[(times >= begin) & (times < end)]
    return float(inside[-1]) if len(inside) else None


def latencies(track: Track, speech: Heard, sent: Sequence[tuple[float, int]]) -> list[float]:
    """Seconds from sending each chunk to the packet with its first sample.

    ``sent`` is (epoch seconds, first sample of the chunk). Empty where samples are missing or repeated: then
    what was sent cannot be told from positions. Gaps in which nothing was lost only make them later.
    """
    if speech.jumps:
        return []
    starts, shifts, silent = [speech.first], [0], 0
    for gap in speech.gaps:
        silent += gap.length
        starts.append(gap.start + gap.length)
        shifts.append(silent)
    # The pieces between the gaps, by their first sample among those that are no gap.
    pieces = np.array(starts) - np.array(shifts) - speech.first
    found = []
    for at, sample in sent:
        position = speech.first + sample + shifts[int(np.searchsorted(pieces, sample, "right")) - 1]
        if position < speech.end:
            found.append(track.arrival_of(position) - at)
    return found


# -- one tone ------------------------------------------------------------------------------------


def tone_seconds(samples: NDArray[np.int16], frequency: float, window: int = 40, hop: int = 10) -> float:
    """Seconds in which ``frequency`` is what is heard, to about ``hop`` samples."""
    if len(samples) < window:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop].astype(float)
    angles = 2 * np.pi * frequency * np.arange(window) / RATE
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    parts = windows @ np.linalg.pinv(waves).T
    power = (windows**2).sum(axis=1)
    share = 1 - ((windows - parts @ waves.T) ** 2).sum(axis=1) / np.maximum(power, 1.0)
    # A window half of which is something else, or silence, has half a share: the border is where it is.
    is_tone = (share > 0.5) & (np.abs(windows).max(axis=1) > SILENCE)
    return float(is_tone.sum() * hop / RATE)


# -- the caller's audio at the bot ---------------------------------------------------------------


@dataclass(frozen=True)
class Uplink:
    """The caller's numbered frames as the bot received them.

    ``lost`` are the nominal times (epoch seconds, by the fastest frame) of the frames that never came,
    ``repeated`` counts frames that came again or out of order, ``silent`` and ``damaged`` frames without a
    number. ``late`` is how much later than the fastest the slowest frame was, in seconds.
    """

    frames: int = 0
    lost: list[float] = field(default_factory=list)
    repeated: int = 0
    silent: int = 0
    damaged: int = 0
    late: float = 0.0


def uplink(l16: bytes, arrivals: Sequence[tuple[float, int]]) -> Uplink:
    """What the bot received: its audio from the start, and of each frame epoch seconds and bytes so far."""
    offset = _alignment(l16)
    numbers = numbers_of(l16[2 * offset :])
    if not len(numbers) or not arrivals:
        return Uplink()
    counts = [count for _, count in arrivals]
    ends = 2 * (offset + FRAME * np.arange(1, len(numbers) + 1))
    at = np.array([arrivals[min(i, len(arrivals) - 1)][0] for i in np.searchsorted(counts, ends)])
    good = np.flatnonzero(numbers >= 0)
    if not len(good):
        return Uplink(len(numbers), silent=int((numbers == -1).sum()), damaged=int((numbers == -2).sum()))
    full = [int(numbers[good[0]])]
    for number in numbers[good[1:]]:
        # To the full number nearest the highest so far.
        full.append(full[-1] + (int(number) - full[-1] + NUMBERS // 2) % NUMBERS - NUMBERS // 2)
    origins = at[good] - np.array(full) * FRAME / RATE
    origin = float(origins.min())
    missing = sorted(set(range(min(full), max(full) + 1)) - set(full))
    inside = numbers[good[0] : good[-1] + 1]
    return Uplink(
        frames=len(numbers),
        lost=[origin + number * FRAME / RATE for number in missing],
        repeated=sum(later <= earlier for earlier, later in pairwise(full)),
        silent=int((inside == -1).sum()),
        damaged=int((inside == -2).sum()),
        late=float(origins.max() - origin),
    )


def _alignment(l16: bytes) -> int:
    """Samples before the first whole numbered frame, where frames do not begin with the audio."""
    part = l16[: 2 * FRAME * 500]
    return max(
        range(0, FRAME, 4), key=lambda offset: (int((numbers_of(part[2 * offset :]) >= 0).sum()), -offset)
    )


@dataclass(frozen=True)
class UplinkLoss:
    """Frames lost around utterances: at the edges of each, within, and outside of all."""

    edges: list[int]
    within: int
    outside: int


def assign_losses(
    lost: Sequence[float], utterances: Sequence[tuple[float, float]], edge: float = 0.25
) -> UplinkLoss:
    """Which of the ``lost`` frames (epoch seconds) belong to the edges of which utterance (begin, end).

    ``edge`` seconds to both sides of its begin and end are an utterance's edges.
    """
    edges = [0] * len(utterances)
    within = outside = 0
    for at in lost:
        for index, (begin, end) in enumerate(utterances):
            if abs(at - begin) <= edge or abs(at - end) <= edge:
                edges[index] += 1
                break
            if begin < at < end:
                within += 1
                break
        else:
            outside += 1
    return UplinkLoss(edges, within, outside)


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed; NaN without values."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]

"""What has become of marked sound on its way: latency, gaps, jumps, samples lost or repeated.

Nothing here talks to a network. Times are epoch seconds, positions and lengths samples at 8,000 a second.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.speech.marks import LENGTH, LINE, Marks, Piece, codes_of
from eslbot.sim.audio import RATE
from eslbot.sim.rtp import RtpPacket

#: Samples of silence from which on a hole in speech is a gap; a shorter one is a jump.
GAP = RATE // 100
#: Seconds: a telephone's playout buffer, and how long it must run dry for a gap.
BUFFER, DRY = 0.040, 0.010
#: G.711 of the marks: PCMU.
PCMU = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """An RTP packet and when the kernel got it."""

    at: float
    packet: RtpPacket


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of a bot's speech: its place in the marks, and when it was sent.

    ``sent``: of each message its time and its first sample. ``cleared``: when the bot took it back.
    ``cause``: the number of the caller's frame that it answers.
    """

    start: int
    samples: int
    sent: list[tuple[float, int]] = field(default_factory=list)
    cleared: float | None = None
    cause: int | None = None
    #: Seconds by which the bot's own messages were later than it meant.
    late: float = 0.0

    @property
    def at(self) -> float:
        """When it began."""
        return self.sent[0][0]


@dataclass(frozen=True)
class Utterance:
    """What was heard of a :class:`Said`; seconds, and samples where said.

    ``first``: from its sending to the packet with its first sample, None where that never came. ``began`` and
    ``over``: when the first and the last packet with anything of it came. ``holes``: silences of 10 ms and
    more in it; ``dry``: for how long a telephone that plays 40 ms behind ran dry. ``jumps``: where it did not
    go on with the next sample. ``lost`` (at its end, too, unless it was cleared), ``repeated``, ``foreign``
    and ``heard``: samples. ``speed``: of the packets against the clock, 1 is right.
    """

    first: float | None = None
    began: float | None = None
    over: float | None = None
    holes: list[float] = field(default_factory=list)
    dry: list[float] = field(default_factory=list)
    jumps: int = 0
    lost: int = 0
    repeated: int = 0
    foreign: int = 0
    heard: int = 0
    speed: float = 1.0

    @property
    def gaps(self) -> int:
        """How often nothing was heard for 10 ms and more."""
        return len(self.holes) + len(self.dry)

    @property
    def whole(self) -> bool:
        """Whether all of it was heard, once, in order, without a hole."""
        return not (self.gaps or self.jumps or self.lost or self.repeated or self.foreign)


class Downlink:
    """What a caller has received; packets that are not PCMU are left out."""

    def __init__(self, arrivals: Iterable[Arrival], marks: Marks = LINE) -> None:
        # A stable order by arrival; duplicates and reordering do not occur on loopback, and would be jumps.
        packets = [a for a in arrivals if a.packet.payload_type == PCMU and a.packet.payload]
        self.at = [a.at for a in packets]
        self.starts = [0]
        for arrival in packets:
            self.starts.append(self.starts[-1] + len(arrival.packet.payload))
        #: Sequence numbers that are missing: the measure's own fault, not the path's.
        self.lost = sum(
            (later.packet.sequence - earlier.packet.sequence - 1) & 0xFFFF
            for earlier, later in pairwise(packets)
            if earlier.packet.ssrc == later.packet.ssrc
        )
        self.pieces = marks.pieces(b"".join(a.packet.payload for a in packets))

    def _packet_of(self, sample: int) -> int:
        return bisect.bisect_right(self.starts, sample) - 1

    def silences(self, said: Said) -> list[int]:
        """Samples of each silence within an utterance."""
        parts = self._parts(said)
        return [quiet for before, after in pairwise(parts) if (quiet := self._quiet(before, after))]

    def utterance(self, said: Said) -> Utterance:
        """What was heard of it."""
        parts = self._parts(said)
        if not parts:
            return Utterance(lost=0 if said.cleared else said.samples)
        holes: list[float] = []
        jumps = lost = repeated = foreign = 0
        expected = said.start
        for number, part in enumerate(parts):
            assert part.position is not None
            jumped = part.position != expected
            lost += max(0, part.position - expected)
            repeated += max(0, expected - part.position)
            if number:
                quiet = self._quiet(parts[number - 1], part)
                strange = part.at - parts[number - 1].end - quiet
                foreign += strange
                if quiet >= GAP:
                    holes.append(quiet / RATE)
                jumped = jumped or 0 < quiet < GAP or strange > 0
            jumps += jumped
            expected = part.position + part.length
        if said.cleared is None and expected < said.start + said.samples:
            lost += said.start + said.samples - expected
        first, last = self._packet_of(parts[0].at), self._packet_of(parts[-1].end - 1)
        return Utterance(
            first=self.at[first] - said.at if parts[0].position == said.start else None,
            began=self.at[first],
            over=self.at[last],
            holes=holes,
            dry=[late for _, late in self.dry(first, last)],
            jumps=jumps,
            lost=lost,
            repeated=repeated,
            foreign=foreign,
            heard=sum(part.length for part in parts),
            speed=self.speed(first, last),
        )

    def speed(self, first: int, last: int) -> float:
        """How fast packets came against the sound in them; 1 where they are too few to tell."""
        seconds = self.at[last] - self.at[first]
        return (self.starts[last] - self.starts[first]) / RATE / seconds if seconds > 0.2 else 1.0

    def dry(self, first: int, last: int) -> list[tuple[float, float]]:
        """Where a telephone that plays 40 ms behind runs dry for 10 ms: (when, seconds)."""
        found = []
        due = self.at[first] + BUFFER
        for number in range(first, last + 1):
            late = self.at[number] - due
            if late >= DRY:
                found.append((due, late))
            due = max(due, self.at[number]) + (self.starts[number + 1] - self.starts[number]) / RATE
        return found

    def _parts(self, said: Said) -> list[Piece]:
        """The pieces of an utterance, without what was said before or behind it in one breath."""
        found = []
        for piece in self.pieces:
            if piece.position is not None:
                begin = max(piece.position, said.start)
                end = min(piece.position + piece.length, said.start + said.samples)
                if begin < end:
                    found.append(Piece(piece.at + begin - piece.position, end - begin, begin))
        return found

    def _quiet(self, before: Piece, after: Piece) -> int:
        """Samples of silence between two pieces."""
        first = bisect.bisect_left(self.pieces, before.end, key=lambda piece: piece.at)
        return sum(
            piece.length
            for piece in self.pieces[first : bisect.bisect_left(self.pieces, after.at, key=lambda p: p.at)]
            if piece.position is None
        )


@dataclass(frozen=True)
class Uplink:
    """The caller's sound as the bot got it.

    ``frames``: of each message that ends with a sample of the caller's, when its packet was sent and how
    many seconds later it was there. ``lost``: when what never came was sent, and how many samples.
    ``repeated``, ``foreign``: samples. ``answers``: by a message's number, when the packet of its last sample
    was sent.
    """

    frames: list[tuple[float, float]] = field(default_factory=list)
    lost: list[tuple[float, int]] = field(default_factory=list)
    repeated: int = 0
    foreign: int = 0
    answers: dict[int, float] = field(default_factory=dict)

    def latencies(self, spoken: Sequence[tuple[float, float]], *, speaking: bool) -> list[float]:
        """Seconds of the frames that were sent while the bot spoke, or while it did not."""
        return [late for at, late in self.frames if _within(at, spoken) == speaking]

    def lost_within(self, spoken: Sequence[tuple[float, float]]) -> int:
        """Samples that were lost while the bot spoke."""
        return sum(samples for at, samples in self.lost if _within(at, spoken))


def _within(at: float, spans: Sequence[tuple[float, float]]) -> bool:
    index = bisect.bisect_right(spans, (at, float("inf"))) - 1
    return index >= 0 and spans[index][0] <= at <= spans[index][1]


def uplink(
    frames: Sequence[tuple[float, bytes]], sent: Sequence[tuple[float, int, int]], marks: Marks
) -> Uplink:
    """What the bot got: ``frames`` (when, L16), ``sent`` of the caller (when, position, samples)."""
    if not sent or not frames:
        return Uplink()
    positions = [position for _, position, _ in sent]

    def packet_of(position: int) -> int:
        return bisect.bisect_right(positions, position) - 1

    pieces = marks.pieces(codes_of(b"".join(data for _, data in frames)), positions[0], b"\xff")
    found = Uplink(foreign=sum(piece.length for piece in pieces if piece.position == -1))
    repeated = 0
    expected: int | None = None
    known: list[tuple[Piece, int]] = []  # with its position counted over the marks' end
    for piece in pieces:
        if piece.position is None or piece.position < 0:
            continue
        near = expected if expected is not None else positions[0]
        position = piece.position + LENGTH * round((near - piece.position) / LENGTH)
        known.append((piece, position))
        if expected is not None and position > expected:
            for number in range(packet_of(expected), packet_of(position - 1) + 1):
                at, begin, samples = sent[number]
                missing = min(position, begin + samples) - max(expected, begin)
                if missing > 0:
                    found.lost.append((at, missing))
        elif expected is not None and position < expected:
            repeated += expected - position
        expected = position + piece.length
    end = index = 0
    for number, (at, data) in enumerate(frames):
        end += len(data) // 2
        while index < len(known) and known[index][0].end < end:
            index += 1
        if index == len(known):
            break
        piece, position = known[index]
        if piece.at < end <= piece.end:
            begun = sent[packet_of(position + end - 1 - piece.at)][0]
            found.frames.append((begun, at - begun))
            found.answers[number] = begun
    return Uplink(found.frames, found.lost, repeated, found.foreign, found.answers)

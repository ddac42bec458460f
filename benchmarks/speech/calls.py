"""Calls that are up: a caller of :mod:`benchmarks.speech.peer`, a bot of :mod:`benchmarks.speech.bot`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.speech.bot import Bots, Connected, Talk
from benchmarks.speech.hearing import Downlink, Said, Uplink, Utterance, uplink
from benchmarks.speech.marks import CALLER
from benchmarks.speech.peer import Peer, Sent, Voice
from benchmarks.speech.subjects import Site
from tests.e2e.interop.pbx import Call

#: Seconds between two INVITEs; until a bot is there and hears; and for Ameyo to accept.
STAGGER, SET_UP, HAND_OFF = 0.05, 15.0, 15.0
#: Frames of the caller's that a bot must have got before it counts as there.
FRAMES = 15


class CallFailed(Exception):
    """A call did not come up, or was lost; the text says how."""


@dataclass
class Line:
    """One call that is up: the PBX's end, and its bot's name."""

    call: Call
    voice: Voice
    tenant: str

    @property
    def crt(self) -> str:
        """The CRT Object ID."""
        return self.call.crt

    def left(self) -> bool:
        """Whether the switch has sent BYE."""
        with contextlib.suppress(TimeoutError, OSError):
            self.call.wants("BYE", 0.001)
        return self.call.over


@dataclass
class Heard:
    """All that is known of a call that was measured."""

    tenant: str
    said: list[Said]
    down: Downlink
    up: Uplink
    connections: list[Connected]
    utterances: list[Utterance] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.utterances = [self.down.utterance(said) for said in self.said]

    @property
    def spoken(self) -> list[tuple[float, float]]:
        """When the caller heard the bot."""
        return [(u.began, u.over) for u in self.utterances if u.began is not None and u.over is not None]


@dataclass
class Stage:
    """What calls are made of: a subject that runs, callers, bots."""

    site: Site
    peer: Peer
    bots: Bots
    #: What did not go by the book while something else was measured.
    problems: list[str] = field(default_factory=list)

    def dial(self, tenant: str, *, ptime: int = 20, offered: int = 0) -> Line:
        """A call that is answered. Sends packets of ``ptime`` ms; its SDP says ``offered``, if any."""
        voice = self.peer.open(ptime)
        call = Call(self.site.sip, self.site.facts["workspaces"][tenant], voice=voice)  # type: ignore[arg-type]
        try:
            call.established(call.offer(ptime=offered))
        except (AssertionError, TimeoutError, OSError) as error:
            with contextlib.suppress(AssertionError, OSError):
                call.close()
            raise CallFailed(f"a call was not answered: {error!r}") from error
        return Line(call, voice, tenant)

    def join(self, lines: Sequence[Line]) -> None:
        """Wait until their bots are there and hear. Raises CallFailed."""
        for line in lines:
            try:
                self.bots.wait(line.crt, FRAMES, timeout=SET_UP)
            except RuntimeError as error:
                raise CallFailed(f"a call's bot does not hear: {error}") from error

    def hang_up(self, line: Line, *, end: bool = True) -> bool:
        """Let the bot end, Ameyo accept, and the PBX hang up; whether it went by the book."""
        lost = line.left()
        if end and not lost:
            self.bots.end(line.crt)
            lost = not self.site.ask("accepted", line.crt, HAND_OFF, timeout=HAND_OFF + 5)
            lost = line.left() or lost
        try:
            line.call.close()
        except (AssertionError, TimeoutError):
            lost = True
        return not lost

    @contextmanager
    def lines(self, tenants: Sequence[str]) -> Iterator[list[Line]]:
        """Calls, one for each name; they are ended behind the block. Raises CallFailed."""
        lines: list[Line] = []
        try:
            for tenant in tenants:
                lines.append(self.dial(tenant))
                time.sleep(STAGGER)
            self.join(lines)
            yield lines
        finally:
            kept = [self.hang_up(line) for line in lines]
        if not all(kept):
            lost = f"{kept.count(False)} of {len(kept)} calls ({tenants[0]} …)"
            self.problems.append(f"{lost} were not handed off, or ended by the switch")

    def talk(self, lines: Sequence[Line], talks: Sequence[Talk], seconds: float, seed: int) -> None:
        """Let all bots talk for so long, beginning now."""
        plans = {
            line.crt: (talk, seed * 1000 + number)
            for number, (line, talk) in enumerate(zip(lines, talks, strict=True))
        }
        self.bots.talk(plans, seconds, binary=self.site.subject.binary)

    def heard(self, lines: Sequence[Line], said: dict[str, list[Said]]) -> list[Heard]:
        """Everything of these calls since they began."""
        taken = [(line, *line.voice.take(), self.bots.take(line.crt)) for line in lines]
        return [
            Heard(
                line.tenant, said.get(line.crt, []), Downlink(arrivals), _up(connections, sent), connections
            )
            for line, arrivals, sent, connections in taken
        ]


def _up(connections: Sequence[Connected], sent: Sent) -> Uplink:
    return uplink([frame for connection in connections for frame in connection.frames], sent, CALLER)

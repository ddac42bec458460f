"""``python -m benchmarks.recording``."""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.frame import About, measuring
from benchmarks.outcome import Verdict
from benchmarks.recording.measures import alignment, gaps, onsets, pauses, second_of_sound, wire_onsets
from benchmarks.report import verdict_table
from eslbot.audio import g711
from eslbot.config import load
from eslbot.recording.store import Damaged, RecordingStore
from eslbot.sim.bot import BotCall
from eslbot.sim.lab import Tenant
from eslbot.sim.loadtest.tables import table
from eslbot.sim.pbx import PbxCall
from eslbot.sim.pbx.media import RtpSession
from eslbot.sim.rtp import RtpPacket
from tests.support.lab import Lab

#: What each of them says: a quiet tone and a loud one, in hertz, that the other's are not.
CALLER, BOT = (400.0, 800.0), (500.0, 1000.0)
#: Seconds of the bot's speech that are ahead of the clock.
AHEAD = 5
#: Calls of each round whose packets are looked at; the callers of the others are SIPp's. Callers and bots
#: here are threads of one process: 20 callers kept each other from sending for 40 ms, and FreeSWITCH, which
#: reads a packet a tick, hands on the caller so much later from then on.
LOOKED_AT = 3
#: Bars: percent of a core a call, gaps, and seconds.
CPU, GAPS, OFF = 0.1, 0, 0.020
#: The order of the rounds in one run, so that what changes slowly counts for both.
ORDER = ("plain", "recorded", "recorded", "plain", "plain", "recorded")
#: Nanoseconds.
SECOND = 1e9


@dataclass
class Used:
    """Of all relays, percent of a core a call: the loop's, and that of the threads beside it."""

    loop: float
    threads: float

    @property
    def all(self) -> float:
        return self.loop + self.threads


@dataclass
class Figures:
    """One run's."""

    used: dict[str, list[Used]] = field(default_factory=lambda: {"plain": [], "recorded": []})
    off: list[float] = field(default_factory=list)
    gaps: int = 0
    recordings: int = 0
    missing: int = 0
    bytes_a_second: list[float] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def processor_time(pids: Sequence[int]) -> tuple[float, float]:
    """Nanoseconds that the first threads of processes have run, and that all their others have (proc(5))."""
    loop = threads = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            ran = float((task / "schedstat").read_text().split()[0])
            if task.name == str(pid):
                loop += ran
            else:
                threads += ran
    return loop, threads


@contextmanager
def sent_packets() -> Iterator[dict[int, list[tuple[float, np.ndarray]]]]:
    """What callers send while it is open, by their ports, with the time of each packet."""
    sent: dict[int, list[tuple[float, np.ndarray]]] = defaultdict(list)
    transmit = RtpSession._transmit

    def noted(session: RtpSession, packet: RtpPacket) -> None:
        transmit(session, packet)
        sent[session.port].append((time.time(), linear(packet)))

    RtpSession._transmit = noted  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        RtpSession._transmit = transmit  # type: ignore[method-assign]


def linear(packet: RtpPacket) -> np.ndarray:
    return (
        np.frombuffer(g711.decode("PCMU", packet.payload), "<i2")
        if not packet.payload_type
        else np.empty(0, "<i2")
    )


class Calls:
    """So many at one time, of a tenant, whose bots speak without a break."""

    def __init__(self, lab: Lab, tenant: str, count: int) -> None:
        said = second_of_sound(*CALLER)
        workspace = lab.tenants[tenant].id
        self._lab = lab
        self.calls: list[tuple[PbxCall, BotCall]] = []
        for number in range(count):
            by_sipp = {"media": "sipp", "caller_tone": CALLER[0]}
            media: dict[str, Any] = by_sipp if number >= LOOKED_AT else {"caller_tone": said}
            call = lab.pbx.call("00919990152080", None, workspace, timeout=600, **media)
            crt = call.crt_object_id
            bot = lab.bot.wait_for_call(lambda one, crt=crt: one.headers.get("X-CRT-Object-ID") == crt, 60)
            self.calls.append((call, bot))

    def talk(self, seconds: float) -> None:
        """Let bots speak for so long; each is a few seconds ahead of the clock."""
        speech = second_of_sound(*BOT)
        begun = time.monotonic()
        said = 0
        while (passed := time.monotonic() - begun) < seconds:
            while said < min(seconds, passed + AHEAD):
                for _, bot in self.calls:
                    bot.say(speech, real_time=False)
                said += 1
            time.sleep(0.1)

    def end(self) -> None:
        for _, bot in self.calls:
            bot.end()
        for call, _ in self.calls:
            call.wait(60)


@click.command()
@click.option("--calls", default=20, show_default=True, type=click.IntRange(1, 200), help="At one time.")
@click.option("--seconds", default=40.0, show_default=True, help="Of each round that are measured.")
@click.option("--rounds", default=len(ORDER), show_default=True, type=click.IntRange(2, len(ORDER)))
@click.option("--switch", type=click.Choice(["auto", "freeswitch", "stand-in"]), default="auto")
@click.option("--sealed", is_flag=True, help="With a key.")
@click.option("--out", type=click.Path(path_type=Path), help="Write FILE.md and FILE.json.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and recordings here."
)
def main(
    calls: int, seconds: float, rounds: int, switch: str, sealed: bool, out: Path | None, keep: Path | None
) -> None:
    """Measure recording: processor time a call with and without, gaps, and the sides against RTP.

    The calls are on loopback, with and without recording in turn. Exits 0 when everything was measured,
    whatever the figures, and 1 when something could not be.
    """
    gc.disable()  # what callers and bots keep is looked through for 80 ms in one go
    own = {"recording": {"key": "0f" * 32}} if sealed else {}
    tenants = [
        Tenant("plain", "hold", workspace={"max_calls": 500}),
        Tenant("recorded", "hold", workspace={"max_calls": 500, "record": True, **own}),
    ]
    figures = Figures()
    with (
        measuring("python -m benchmarks.recording", keep=keep) as run,
        Lab(run.folder, tenants, switch=switch) as lab,
        sent_packets() as sent,
    ):
        run.about.switch = lab.switch_name
        for tenant in ORDER[:rounds]:
            run.say(f"{tenant}: {calls} calls, {seconds:g} s")
            _round(lab, tenant, calls, seconds, figures, sent)
        about = run.over()
    settings = f"{calls} calls, {rounds} rounds of {seconds:g} s{', sealed' if sealed else ''}"
    text = report(figures, about, settings)
    print(text)
    if out is not None:
        out.with_suffix(".md").write_text(text)
        out.with_suffix(".json").write_text(json.dumps(asdict(figures), indent=1))
    sys.exit(1 if figures.damaged or figures.missing or not figures.off else 0)


def _round(
    lab: Lab,
    tenant: str,
    count: int,
    seconds: float,
    figures: Figures,
    sent: dict[int, list[tuple[float, np.ndarray]]],
) -> None:
    up = Calls(lab, tenant, count)
    up.talk(4.0)  # what a call costs at its beginning is not what it costs
    pids = lab.relay_pids()
    begun, before = time.monotonic(), processor_time(pids)
    up.talk(seconds)
    passed, after = time.monotonic() - begun, processor_time(pids)
    loop, threads = (100 * (b - a) / SECOND / passed / count for a, b in zip(before, after, strict=True))
    figures.used[tenant].append(Used(loop, threads))
    up.end()
    if tenant == "recorded":
        _look_at(lab, up, figures, sent)


def _look_at(lab: Lab, up: Calls, figures: Figures, sent: dict[int, list[tuple[float, np.ndarray]]]) -> None:
    """Each recording beside what was on the wire."""
    os.environ.update(lab.tokens)
    store = RecordingStore(load(lab.config), None)
    for number, (call, bot) in enumerate(up.calls):
        entry = None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            entry = store.get(bot.headers["X-Call-ID"])
            if entry is not None and entry.state(time.time()) == "whole":
                break
            time.sleep(0.1)  # the relay's thread writes it
        if entry is None:
            figures.missing += 1
            continue
        figures.recordings += 1
        try:
            sound = np.concatenate(list(store.audio(entry)))
        except Damaged as error:
            figures.damaged.append(str(error))
            continue
        if number >= LOOKED_AT:
            continue
        figures.bytes_a_second.append(entry.files.size / (len(sound) / 8000))
        caller, heard = sound[:, 0], sound[:, 1]
        packets = [(arrival.at, linear(arrival.packet)) for arrival in call.recording.arrivals]
        received = np.concatenate([samples for _, samples in packets])
        session = call.session
        assert session is not None
        said = sent[session.port]
        found = alignment(onsets(caller), onsets(heard), wire_onsets(said), wire_onsets(packets))
        figures.off += found.off
        of_bot = np.frombuffer(bot.audio(), "<i2")
        sides = (("line", heard, received, packets), ("caller", caller, of_bot, said))
        for side, found_in, wire, of_wire in sides:
            more = len(gaps(found_in)) - len(gaps(wire)) - pauses([at for at, _ in of_wire])
            if more > 0:
                figures.gaps += more
                places = ", ".join(f"{size / 8:.0f} ms at {at / 8000:.2f} s" for at, size in gaps(found_in))
                print(f"{bot.headers['X-Call-ID']}: gaps in the {side}'s side: {places}", file=sys.stderr)


def report(figures: Figures, about: About, settings: str) -> str:
    """Markdown."""
    plain, recorded = figures.used["plain"], figures.used["recorded"]
    with_, without = (statistics.mean(used.all for used in of) for of in (recorded, plain))
    threads = statistics.mean(used.threads for used in recorded) - statistics.mean(
        used.threads for used in plain
    )
    worst = max(map(abs, figures.off), default=float("nan"))
    middle = statistics.median(map(abs, figures.off)) if figures.off else float("nan")
    verdicts = [
        Verdict(
            "processor time of a recorded call beyond another's",
            f"≤ {CPU:g} % of a core",
            f"{with_ - without:.3f} %",
            with_ - without <= CPU,
        ),
        Verdict("of that, in the writer's thread", "", f"{threads:.3f} %", None),
        Verdict("gaps that were not on the wire", f"{GAPS}", f"{figures.gaps}", figures.gaps == GAPS),
        Verdict(
            "the sides, against RTP",
            f"≤ {1000 * OFF:g} ms",
            f"{1000 * worst:.1f} ms (median {1000 * middle:.1f})",
            worst <= OFF,
        ),
    ]
    rows = [
        (name, f"{used.loop:.3f}", f"{used.threads:.3f}", f"{used.all:.3f}")
        for name in ("plain", "recorded")
        for used in figures.used[name]
    ]
    size = statistics.median(figures.bytes_a_second) / 1000 if figures.bytes_a_second else float("nan")
    return "\n".join(
        [
            about.head("Recording", settings),
            verdict_table(verdicts),
            f"{figures.recordings} recordings, {figures.missing} missing, {len(figures.damaged)} damaged; "
            f"{len(figures.off)} tones compared; {size:.1f} kB a second (two tones; speech takes less).\n",
            "Percent of a core a call, of the relay, round by round:\n",
            table(("calls", "loop", "threads", "both"), rows),
        ]
    )


if __name__ == "__main__":
    main()

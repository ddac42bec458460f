"""The figures, and what they are against the bars of issue 3."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import Machine
from benchmarks.speech.cases import BargeIn, Crowd, Latency, Stage, Traffic, Utterance
from benchmarks.speech.measures import percentile

#: The bars.
LATENCY_MEDIAN, LATENCY_P99, BARGE_IN_P99 = 0.110, 0.150, 0.060
WORKER_CORES, RTP_SILENCE, TRAFFIC = 0.006, 0.060, 40.0
UPLINK_EDGES, LAST_WORD = 4, 0.280
#: Seconds of an utterance that may be missing at its ends before it counts as cut.
CUT = 0.010


@dataclass(frozen=True)
class Verdict:
    """A bar and how it was met; ``met`` is None where it was not measured."""

    measure: str
    bar: str
    measured: str
    met: bool | None


@dataclass
class Report:
    """One run. ``failures`` are cases that could not be measured, ``problems`` what did not go by
    the book in the others."""

    date: str
    command: str
    switch: str
    machine: Machine
    eslbot: str
    settings: str
    seconds: float = 0.0
    paced: list[Utterance] = field(default_factory=list)
    burst: list[Utterance] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    barge_in: BargeIn | None = None
    crowd: Crowd | None = None
    traffic: list[Traffic] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    last_words: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    # -- against the bars -------------------------------------------------------------------------

    def verdicts(self) -> list[Verdict]:
        """Every bar of the issue, in its order."""
        return [
            _sound("gaps ≥ 10 ms and phase jumps, paced speech", self.paced),
            _sound("the same in a burst", self.burst),
            self._latency(),
            self._barge_in(),
            _sound(
                f"{len(self.crowd.utterances) if self.crowd else 20} calls speaking at once: gaps",
                self.crowd.utterances if self.crowd else [],
            ),
            self._cpu(),
            *self._uplink(),
            self._silence(),
            self._traffic(),
            self._last_word(),
        ]

    def _latency(self) -> Verdict:
        bar = f"median ≤ {ms(LATENCY_MEDIAN)}, p99 ≤ {ms(LATENCY_P99)}"
        measure = "added latency chunk → RTP, first chunk of an utterance"
        if not self.latencies:
            return Verdict(measure, bar, "", None)
        texts, met = [], True
        for case in self.latencies:
            median, p99 = percentile(case.first, 50), percentile(case.first, 99)
            texts.append(f"{case.chunk_ms} ms chunks {_median_p99(case.first)} of {len(case.first)}")
            met = met and median <= LATENCY_MEDIAN and p99 <= LATENCY_P99 and not case.missed
        return Verdict(measure, bar, "; ".join(texts), met)

    def _barge_in(self) -> Verdict:
        case = self.barge_in
        measure, bar = "`clear` → last packet of speech", f"p99 ≤ {ms(BARGE_IN_P99)}"
        if case is None:
            return Verdict(measure, bar, "", None)
        if not case.cleared:
            return Verdict(
                measure,
                bar,
                f"`clear` is not answered: no `cleared` in {case.tried} tries; "
                f"speech went on for {_median_p99(case.stopped)}",
                False,
            )
        text = f"p50 {ms(percentile(case.stopped, 50))}, p99 {ms(percentile(case.stopped, 99))}"
        text += f" of {len(case.stopped)}; `cleared` after {_median_p99(case.cleared)}"
        if case.unanswered:
            text += f"; {case.unanswered} not answered"
        if case.not_speaking:
            text += f"; {case.not_speaking} not counted, nothing was being heard yet"
        enough = len(case.stopped) >= 0.9 * case.tried
        met = percentile(case.stopped, 99) <= BARGE_IN_P99 and not case.unanswered and enough
        return Verdict(measure, bar, text, met)

    def _cpu(self) -> Verdict:
        measure, bar = (
            "the same: processor time of eslbot's workers a speaking call",
            f"≤ {WORKER_CORES:.1%} of a core",
        )
        if self.crowd is None:
            return Verdict(measure, bar, "", None)
        text = f"{self.crowd.worker_cores:.3%} (not speaking {self.crowd.idle_cores:.2%}"
        if self.crowd.switch_cores is not None:
            text += f"; FreeSWITCH {self.crowd.switch_cores:.2%}"
        return Verdict(measure, bar, text + ")", self.crowd.worker_cores <= WORKER_CORES)

    def _uplink(self) -> list[Verdict]:
        edges = [u.up_edges for u in (*self.paced, *self.burst)] + [
            n for case in self.latencies for n in case.loss.edges
        ]
        measure = "uplink frames (20 ms) lost while the bot speaks"
        bar = f"within an utterance 0; at its edges 0 (unicast) or ≤ {UPLINK_EDGES} (files)"
        if not edges:
            return [Verdict(measure, bar, "", None)]
        within = sum(u.up_within for u in (*self.paced, *self.burst)) + sum(
            c.loss.within for c in self.latencies
        )
        outside = sum(u.up_outside for u in (*self.paced, *self.burst)) + sum(
            c.loss.outside for c in self.latencies
        )
        text = (
            f"within {within}; at the edges of {len(edges)} utterances {sum(edges) / len(edges):.1f} each, "
            f"most {max(edges)}; in the pauses {outside}"
        )
        return [Verdict(measure, bar, text, not within and max(edges) <= UPLINK_EDGES)]

    def _silence(self) -> Verdict:
        measure, bar = "longest RTP silence towards the PBX, any stage", f"≤ {ms(RTP_SILENCE)}"
        if not self.stages:
            return Verdict(measure, bar, "", None)
        worst = max(self.stages, key=lambda stage: stage.silence)
        return Verdict(measure, bar, f"{ms(worst.silence)} ({worst.name})", worst.silence <= RTP_SILENCE)

    def _traffic(self) -> Verdict:
        measure, bar = "event-socket traffic while speaking in 100 ms chunks", f"≤ {TRAFFIC:g} kB/s a call"
        found = [case for case in self.traffic if case.chunk_ms == 100]
        if not found:
            return Verdict(measure, bar, "", None)
        case = found[0]
        text = f"{case.total:.1f} kB/s (from the switch {case.from_switch:.1f}, "
        text += f"from eslbot {case.from_eslbot:.1f})"
        return Verdict(measure, bar, text, case.total <= TRAFFIC)

    def _last_word(self) -> Verdict:
        measure, bar = "last word of a bot that ends in one breath", f"always ≥ {ms(LAST_WORD)} of 300"
        if not self.last_words:
            return Verdict(measure, bar, "", None)
        words = [word for _, word in self.last_words]
        full = sum(word >= LAST_WORD for word in words)
        text = f"{full} of {len(words)} calls; shortest {ms(min(words))}"
        return Verdict(measure, bar, text, full == len(words))

    # -- for people and programs ------------------------------------------------------------------

    def markdown(self) -> str:
        """The whole report."""
        parts = [
            f"# Speech, measured on {self.date}\n",
            f"* switch: {self.switch}",
            f"* eslbot: {self.eslbot}",
            f"* machine: {self.machine}; Python {self.machine.python}",
            f"* command: `{self.command}`, {self.seconds:.0f} s",
            f"* {self.settings}\n",
            "## Against the bars of issue 3\n",
            table(
                ("measure", "bar", "measured", ""),
                [(v.measure, v.bar, v.measured or "–", _MET[v.met]) for v in self.verdicts()],
            ),
        ]
        for failure in self.failures:
            parts.append(f"**Not measured:** {failure}\n")
        for problem in dict.fromkeys(self.problems):
            parts.append(f"**Noted** ({self.problems.count(problem)} times): {problem}\n")
        speech = [*self.paced, *self.burst]
        if speech:
            parts += ["## Speech\n", _SPEECH, utterances(speech)]
        if self.crowd is not None:
            parts += ["## Many calls at once\n", utterances(self.crowd.utterances)]
        if self.latencies:
            parts += ["## Latency\n", latency_table(self.latencies)]
        if self.barge_in is not None and self.barge_in.first:
            parts.append(
                "Bursts of the barge-in case, all but the first following a `clear`: "
                f"first packet after {_median_p99(self.barge_in.first)}.\n"
            )
        if self.traffic:
            rows = [
                (f"{t.chunk_ms} ms", f"{t.from_switch:.1f}", f"{t.from_eslbot:.1f}", f"{t.total:.1f}")
                for t in self.traffic
            ]
            parts += [
                "## Event socket, kB/s of speech\n",
                table(("chunks", "from the switch", "from eslbot", "total"), rows),
            ]
        if self.stages:
            parts += [
                "## RTP towards the PBX through a whole call\n",
                table(
                    ("stage", "lasted", "longest silence"),
                    [(s.name, f"{s.length:.2f} s", ms(s.silence)) for s in self.stages],
                ),
            ]
        if self.last_words:
            words = sorted(word for _, word in self.last_words)
            breath = sorted(before for before, _ in self.last_words)
            parts += [
                "## The last word\n",
                f"Of 700 ms heard {ms(breath[0])} to {ms(breath[-1])}, of the last 300 ms "
                f"{ms(words[0])} to {ms(words[-1])} (measured in steps of 1.25 ms).\n",
            ]
        return "\n".join(parts)

    def json(self) -> str:
        """The whole report, with the verdicts."""
        told: dict[str, Any] = dataclasses.asdict(self)
        told["verdicts"] = [dataclasses.asdict(verdict) for verdict in self.verdicts()]
        return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


_MET = {True: "met", False: "**NOT met**", None: "not measured"}

_SPEECH = """\
*Gaps* are silences of at least 10 ms in the payloads; *dry* is how often a telephone with 40 ms of playout
buffer runs out of packets for 10 ms; a *pause* is more than 60 ms without a packet; a *jump* is a leap of
the tones' phases by more than 0.2 rad, or a click. *First* is the time from the bot's sending of the first
chunk to the packet with its first sample, *steady* that of all chunks, which is known only where there is no
jump. *Up* are the caller's 20 ms frames that the bot did not get: at the edges of the utterance (up to
250 ms from its first and last packet) and within it; and how much later than the fastest frame the latest
came.
"""


def _sound(measure: str, utterances: Sequence[Utterance]) -> Verdict:
    bar = "0, heard in full"
    if not utterances:
        return Verdict(measure, bar, "", None)
    gaps, silence = sum(u.gaps for u in utterances), sum(u.silence for u in utterances)
    jumps, dry = sum(u.jumps for u in utterances), sum(u.dry for u in utterances)
    pauses, cut = sum(u.pauses for u in utterances), sum(_is_cut(u) for u in utterances)
    text = f"{gaps} gaps ({silence:.2f} s), {jumps} jumps, {dry} times dry, {pauses} pauses "
    text += f"in {len(utterances)} × {utterances[0].sent:g} s; {cut} not heard in full"
    return Verdict(measure, bar, text, not (gaps or jumps or dry or pauses or cut))


def _is_cut(utterance: Utterance) -> bool:
    return abs(utterance.heard_seconds - utterance.sent) > CUT


def utterances(found: Iterable[Utterance]) -> str:
    """A row an utterance."""
    head = (
        "case",
        "gaps",
        "silence",
        "dry",
        "pauses",
        "jumps",
        "heard",
        "first",
        "steady median / p99",
        "up edges",
        "up within",
        "up late",
        "RTP lost",
    )
    found = list(found)
    rows = table(
        head,
        [
            (
                u.name,
                str(u.gaps),
                f"{u.silence:.2f} s",
                str(u.dry),
                str(u.pauses),
                str(u.jumps),
                f"{u.heard_seconds:.3f} of {u.sent:g} s",
                ms(u.first),
                _median_p99(u.steady) if u.steady else "–",
                str(u.up_edges),
                str(u.up_within),
                ms(u.up_late),
                str(u.packets_lost),
            )
            for u in found
        ],
    )
    return rows + "".join(f"\n{u.name}: {_where(u)}\n" for u in found if u.faults)


def _where(utterance: Utterance, most: int = 5) -> str:
    """The first gaps and jumps of an utterance, in seconds from its first sample."""
    texts = [
        f"a jump at {at:.2f} s" if length is None else f"{ms(length)} silent at {at:.2f} s"
        for at, length in utterance.faults[:most]
    ]
    more = utterance.gaps + utterance.jumps - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def latency_table(cases: Iterable[Latency]) -> str:
    """A row a chunk size."""
    head = (
        "utterances",
        "first chunk → RTP: min / median / p99 / max",
        "heard: least / most",
        "not heard",
        "with gaps or jumps",
        "up lost at edges: mean / most",
        "up within / in pauses",
    )
    return table(
        head,
        [
            (
                f"{c.count} × {ms(c.seconds)} in {c.chunk_ms} ms chunks",
                " / ".join(ms(percentile(c.first, p)) for p in (0, 50, 99, 100)),
                f"{ms(min(c.heard, default=None))} / {ms(max(c.heard, default=None))}",
                str(c.missed),
                str(c.broken),
                f"{sum(c.loss.edges) / max(1, len(c.loss.edges)):.1f} / {max(c.loss.edges, default=0)}",
                f"{c.loss.within} / {c.loss.outside}",
            )
            for c in cases
        ],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with even columns."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return (
        "\n".join([line(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)]) + "\n"
    )


def ms(seconds: float | None) -> str:
    """Milliseconds."""
    return "–" if seconds is None or math.isnan(seconds) else f"{seconds * 1000:.0f} ms"


def _median_p99(values: Sequence[float]) -> str:
    return f"{ms(percentile(values, 50))} / {ms(percentile(values, 99))}"

"""Pictures of the cases, one look for all; the same figures make the same file, byte by byte."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.esl.cases import AWAY
from benchmarks.esl.told import ESLBOT
from benchmarks.outcome import Data, lost
from benchmarks.switch.told import BOTS, NAMES, above_rest
from eslbot.sim.loadtest.tables import percentile

#: eslbot, the others, and a moment.
OWN, OTHER, LINE = "#0b6e99", "#8a9ba8", "#d1495b"

_LOOK: Any = {  # matplotlib's stubs want each key as a literal
    "svg.hashsalt": "eslbot",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7ea",
    "axes.edgecolor": "#5c6b75",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def picture(path: Path, columns: int = 1, height: float = 3.4, rows: int = 1) -> Iterator[list[Axes]]:
    """Axes to draw on, left to right and top down; the file is written when the block is over."""
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(max(7.0, 3.9 * columns), height * rows), layout="constrained")
        yield [figure.add_subplot(rows, columns, number + 1) for number in range(rows * columns)]
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    unit: str,
    *,
    own: str = ESLBOT,
    digits: int = 0,
) -> None:
    """A bar for each name: the median of its rounds, its least and most as whiskers."""
    middles = [statistics.median(found) if found else 0.0 for found in values]
    several = any(len(found) > 1 for found in values)
    whiskers = [
        [middle - min(found, default=middle) for middle, found in zip(middles, values, strict=True)],
        [max(found, default=middle) - middle for middle, found in zip(middles, values, strict=True)],
    ]
    colours = [OWN if name.startswith(own) else OTHER for name in names]
    drawn = axes.barh(
        names,
        middles,
        xerr=whiskers if several else None,
        color=colours,
        height=0.6,
        ecolor="#33414a",
        capsize=3,
    )
    axes.bar_label(drawn, [f" {middle:,.{digits}f}" for middle in middles], padding=4)
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.18)


def percentiles(
    axes: Axes, names: Sequence[str], values: Sequence[Sequence[float]], title: str, *, own: str = ESLBOT
) -> None:
    """From p50 to p99 of each name's milliseconds, on a logarithmic scale: so no bars."""
    for place, (name, found) in enumerate(zip(names, values, strict=True)):
        if not found:
            continue
        colour = OWN if name.startswith(own) else OTHER
        middle, late = percentile(found, 50), percentile(found, 99)
        axes.plot([middle, late], [place, place], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot(middle, place, "o", color=colour, markersize=8)
        axes.plot(late, place, "o", color="white", markeredgecolor=colour, markeredgewidth=2, markersize=8)
        label = f"{middle:,.1f} – {late:,.1f}"
        axes.annotate(label, (late, place), (9, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(title)
    axes.set_xlabel("ms: p50 (full) to p99 (hollow)")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.35)


# -- the event socket -------------------------------------------------------------------------------------


def draw_throughput(data: Data, path: Path) -> None:
    """Calls a second, and what a call costs."""
    rounds = data["rounds"]
    with picture(path, 2) as (left, right):
        _speed_and_cost(left, right, list(rounds), rounds)


def draw_paced(data: Data, path: Path) -> None:
    """Latencies."""
    rounds = data["rounds"]
    names = list(rounds)
    with picture(path, 2) as (left, right):
        for axes, series, title in (
            (left, "answer_ms", "connect → answer"),
            (right, "end_to_marker_ms", "bot's end → held"),
        ):
            values = [[v for r in rounds[n] for v in r.get(f"{series}_all", ())] for n in names]
            percentiles(axes, names, values, f"{title}, {data['rate']:g} calls/s")


def draw_burst(data: Data, path: Path) -> None:
    """Who is lost, and how long the others wait."""
    rounds = data["rounds"]
    names = list(rounds)
    with picture(path, 2) as (left, right):
        bars(
            left,
            names,
            [[lost(r) for r in rounds[n]] for n in names],
            f"Lost, of {data['calls']} at once",
            "calls",
        )
        waits = [[v for r in rounds[n] for v in r.get("first_command_ms_all", ())] for n in names]
        percentiles(right, names, waits, "First command")


def draw_hold(data: Data, path: Path) -> None:
    """Memory and idle processor time."""
    counts = data["counts"]
    with picture(path, 2, rows=len(counts), height=3.0) as axes:
        for number, (count, results) in enumerate(counts.items()):
            names = list(results)
            memory, idle = axes[2 * number], axes[2 * number + 1]
            title = f"{int(count):,} held calls"
            bars(memory, names, [[results[n]["kb_per_call"]] for n in names], title, "kB a call", digits=1)
            shares = [[results[n]["idle_core_percent"]] for n in names]
            bars(idle, names, shares, title, "idle: % of a core", digits=2)


def draw_workers(data: Data, path: Path) -> None:
    """One worker and two."""
    rounds = data["rounds"]
    names = [f"eslbot, {count} worker{'s' * (count != '1')}" for count in rounds]
    with picture(path, 2, height=2.4) as (left, right):
        _speed_and_cost(left, right, names, rounds)


def _speed_and_cost(left: Axes, right: Axes, names: Sequence[str], rounds: Data) -> None:
    for axes, figure, title, unit in (
        (left, "calls_per_second", "Calls a second", "calls/s"),
        (right, "cpu_us_per_call", "Processor time a call", "µs"),
    ):
        bars(axes, names, [[r[figure] for r in one] for one in rounds.values()], title, unit)


def draw_handoff(data: Data, path: Path) -> None:
    """From the bot's end to the POST."""
    names = list(data["rounds"])
    values = [[v for found in data["rounds"][name] for v in found] for name in names]
    with picture(path, height=2.4) as (axes,):
        percentiles(axes, names, values, "Bot's end → POST at Ameyo", own="plain")


def draw_storm(data: Data, path: Path) -> None:
    """Attempts, acceptances and processor time, over time from Ameyo's return."""
    variants = data["variants"]
    begin = min(-result["back_after"] for result in variants.values())
    end = max(len(r["attempts_by_slot"]) * r["slot_seconds"] - r["back_after"] for r in variants.values())
    with picture(path, rows=2 * len(variants), height=1.9) as axes:
        for number, (away, result) in enumerate(variants.items()):
            counts, cpu = axes[2 * number], axes[2 * number + 1]
            slot, back = result["slot_seconds"], result["back_after"]
            times = [n * slot - back for n in range(len(result["attempts_by_slot"]))]
            attempts = [count / slot for count in result["attempts_by_slot"]]
            accepted = [count / slot for count in result["accepted_by_slot"]]
            counts.step(times, attempts, where="post", color=OTHER, label="attempts")
            counts.fill_between(times, accepted, step="post", color=OWN, label="accepted")
            counts.set_title(f"{data['waiting']} calls wait; Ameyo: {AWAY[away]}")
            counts.set_ylabel("a second")
            counts.set_ylim(bottom=0)
            counts.legend(loc="upper right")
            used = result["cpu"]
            moments = [at - back for at, _ in used[1:]]
            shares = [100 * (b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(used)]
            cpu.plot(moments, shares, color=OWN)
            cpu.set_ylabel("% of a core")
            cpu.set_ylim(0, 105)
            for one in (counts, cpu):
                # The calls come; they wait.
                one.axvspan(-back, result["waiting_after"] - back, color="#f0f2f4", zorder=0)
                one.axvspan(result["waiting_after"] - back, 0, color="#f6e4e6", zorder=0)
                one.axvline(0, color=LINE, linewidth=1)
                one.set_xlim(begin, end)
        axes[-1].set_xlabel("s from Ameyo's return; grey: the calls come, red: all of them wait")


# -- a real FreeSWITCH ------------------------------------------------------------------------------------


def draw_set_up(data: Data, path: Path) -> None:
    """How many calls were answered within how long."""
    with picture(path) as (axes,):
        for subject, rounds in data["rounds"].items():
            values = sorted(v for found in rounds for v in found)
            shares = [100 * (number + 1) / len(values) for number in range(len(values))]
            colour = OWN if subject == ESLBOT else OTHER
            p99 = percentile(values, 99)
            label = f"{NAMES[subject]}: p50 {percentile(values, 50):.1f}, p99 {p99:.1f} ms"
            axes.step(values, shares, where="post", color=colour, label=label, linewidth=1.8)
            axes.axvline(p99, color=colour, linewidth=0.8, linestyle=":")
        axes.set_title(f"INVITE → 200, {data['rate']:g} calls/s")
        axes.set_xlabel("ms")
        axes.set_ylabel("% of the calls")
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")


def draw_media(data: Data, path: Path) -> None:
    """Processor time a call, of both."""
    rest, whole = data["rest"], data["whole"]
    names = [BOTS[phase["bot"]] for phase in data["phases"]]
    with picture(path, 2, height=2.6) as (up, all_of_it):
        for who, colour, shift in (("eslbot", OWN, -0.2), ("FreeSWITCH", OTHER, 0.2)):
            found = [100 * above_rest(p["cores"], rest, who) / p["calls"] for p in data["phases"]]
            drawn = up.barh(
                [n + shift for n in range(len(names))], found, height=0.38, color=colour, label=who
            )
            up.bar_label(drawn, [f" {who} {value:.2f}" for value in found], padding=2, fontsize=9)
        up.set_yticks(range(len(names)), names)
        up.set_title("A call that is up")
        up.set_xlabel("% of a core")
        up.invert_yaxis()
        up.margins(x=0.35)
        up.grid(visible=False, axis="y")
        both = ["eslbot", "FreeSWITCH"]
        costs = [
            [above_rest(whole["cores"], rest, who) * whole["seconds"] / whole["calls"] * 1000] for who in both
        ]
        bars(all_of_it, both, costs, f"A whole call of {whole['call_seconds']:.0f} s", "ms of processor time")

"""The CSV of a run as one SVG: memory, descriptors, threads, line files, calls, the RTP clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.plots import LINE, picture
from benchmarks.soak.clock import pieces
from benchmarks.soak.growth import thinned
from benchmarks.soak.samples import CALLS, CLOCK, LINES, Row, series
from tests.support.audit import Fault

#: What is sampled, in this order, and its colour.
COLOURS = {
    "arbiter": "#5c6b75",
    "worker": "#0b6e99",
    "page": "#8f6bb3",
    "relay parent": "#a8a878",
    "relay": "#4f9d69",
    "FreeSWITCH": "#e08e2b",
}
#: Points of one line: more than that many nobody can see.
_POINTS = 600


def draw(rows: Sequence[Row], faults: Sequence[Fault], begun: float, path: Path) -> None:
    """Draw it; ``begun`` is the epoch second of the first row."""
    with picture(path, columns=2, rows=3, height=3.0) as axes:
        rss, descriptors, threads, lines, calls, clock = axes
        for one, column, title, unit, scale in (
            (rss, "rss_kb", "Memory", "RSS, MB", 1 / 1024),
            (descriptors, "descriptors", "Descriptors", "open", 1),
            (threads, "threads", "Threads", "", 1),
        ):
            for what, colour in COLOURS.items():
                label: str | None = what
                for points in series(rows, what, column).values():
                    _line(one, points, colour, scale, label)
                    label = None
            one.set_title(title)
            one.set_ylabel(unit)
            one.set_ylim(bottom=0)
        rss.legend(loc="upper left", fontsize=7, ncols=2)
        for one, what, title in ((lines, LINES, "Line files"), (calls, CALLS, "Calls up")):
            for points in series(rows, what, "count").values():
                _line(one, points, COLOURS["worker"], 1, None)
            one.set_title(title)
            one.set_ylim(bottom=0)
        for call in series(rows, CLOCK, "count").values():
            for piece in pieces([(at, ms / 1000) for at, ms in call]):
                begin = piece[0][1]
                _line(clock, [(at, late - begin) for at, late in piece], COLOURS["worker"], 1000, None)
        clock.set_title("RTP clock of the long calls")
        clock.set_ylabel("ms late, from each jump on")
        crashes = [fault.at - begun for fault in faults if fault.hits == "crash"]
        for one in axes:
            one.set_xlim(left=0)
            one.set_xlabel("min")
            for at in crashes:
                one.axvline(at / 60, color=LINE, linewidth=0.8)
        calls.set_xlabel("min; red: FreeSWITCH dies")


def _line(
    axes: Axes, points: Sequence[tuple[float, float]], colour: str, scale: float, label: str | None
) -> None:
    few = thinned(points, _POINTS)
    times, values = [t / 60 for t, _ in few], [v * scale for _, v in few]
    axes.plot(times, values, color=colour, linewidth=1.1, label=label, solid_capstyle="round")

"""How smoothly the call page shows many live calls: frames, long tasks, and what it costs the page process.

Chromium and the page's server are real. The ledger is a stand-in, which tells of changes as the writer does.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.frame import measuring
from benchmarks.machine import Cpu
from benchmarks.outcome import CannotRun
from eslbot.sim.loadtest.tables import table
from tests.support.fake_ledger import FakeLedger, many, stir
from tests.support.page import CHROMIUM, PageService, browser, page_tree, sign_in

OBSERVER = """
window.measured = { frames: [], tasks: [], last: 0 };
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.measured.tasks.push(entry.duration);
}).observe({ type: "longtask", buffered: true });
const frame = (now) => {
  if (window.measured.last) window.measured.frames.push(now - window.measured.last);
  window.measured.last = now;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""
RESET = "() => { measured.frames = []; measured.tasks = []; measured.last = 0; }"
FIRST = """() => {
  const entry = performance.getEntriesByType('resource').find((one) => one.name.endsWith('/api/live'));
  return performance.now() - (entry ? entry.startTime : 0);
}"""


@click.command()
@click.option("--calls", type=click.IntRange(1), default=500, show_default=True)
@click.option(
    "--changes", type=click.IntRange(1), default=100, show_default=True, help="Calls that change a second."
)
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Of each case.")
def main(calls: int, changes: int, seconds: float) -> None:
    """Measure how smoothly the call page shows many live calls."""
    desktop = {"viewport": {"width": 1280, "height": 900}}
    phone = {"viewport": {"width": 375, "height": 667}, "color_scheme": "dark", "has_touch": True}
    cases: list[tuple[str, dict[str, Any], int, float]] = [
        ("desktop, told once a second", desktop, 1, 1.0),
        ("desktop, told ten times a second", desktop, 1, 0.1),
        ("phone, a processor four times slower, once a second", phone, 4, 1.0),
    ]
    rows = []
    with measuring("scripts/benchmark-page") as run:
        if CHROMIUM is None:
            raise CannotRun("chromium is needed; Debian's package is chromium")
        for name, context, slowdown, period in cases:
            run.say(name)
            rows.append((name, *measure(calls, changes, seconds, context, slowdown, period)))
        about = run.over()
    settings = f"{calls} live calls, {changes} changes a second, {seconds:g} s each"
    head = ("case", "drawn after", "frames/s", "p50", "p95", "p99", "longest")
    print(about.head("The call page", settings))
    print(table((*head, "long tasks", "main thread", "CPU"), rows))


def measure(
    calls: int, changes: int, seconds: float, context: dict[str, Any], slowdown: int, period: float
) -> list[str]:
    """The cells of one case."""
    ledger = FakeLedger()
    ledger.put(*many(calls))
    with TemporaryDirectory(prefix="eslbot-") as folder:
        tree = page_tree(Path(folder) / "journal")
        with PageService(Path(folder), tree, ledger) as service, browser() as chromium:
            page = chromium.new_context(**context).new_page()
            page.add_init_script(OBSERVER)
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable")
            devtools.send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
            sign_in(page, service)
            page.wait_for_function(
                "count => document.querySelectorAll('#live-rows tr').length >= count",
                arg=calls,
            )
            drawn = page.evaluate(FIRST)
            ended = threading.Event()
            stirring = threading.Thread(target=_stir, args=(ledger, changes, period, ended))
            stirring.start()
            page.evaluate(RESET)
            # This process: the page's, its stand-in and our own waiting.
            cpu, tasks, began = Cpu([os.getpid()]), _busy(devtools), time.monotonic()
            page.wait_for_timeout(seconds * 1000)
            took = time.monotonic() - began
            cores, tasks = cpu.cores(), _busy(devtools) - tasks
            found = page.evaluate("measured")
            ended.set()
            stirring.join()
    frames = sorted(found["frames"])
    long = found["tasks"]
    cuts = statistics.quantiles(frames, n=100)
    longest = f", longest {max(long):.0f} ms" if long else ""
    return [
        f"{drawn:.0f} ms",
        f"{len(frames) / took:.1f}",
        *(f"{cuts[cut - 1]:.1f} ms" for cut in (50, 95, 99)),
        f"{frames[-1]:.0f} ms",
        f"{len(long)}{longest}",
        f"{100 * tasks / took:.1f} %",
        f"{100 * cores:.1f} %",
    ]


def _stir(ledger: FakeLedger, changes: int, period: float, ended: threading.Event) -> None:
    chance, number = random.Random(1), 0
    while not ended.wait(period):
        number += 1
        stir(ledger, max(1, round(changes * period)), chance, number)


def _busy(devtools: Any) -> float:
    """Seconds that the page's main thread has worked."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


if __name__ == "__main__":
    main()

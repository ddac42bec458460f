"""``python -m benchmarks.speech``."""

from __future__ import annotations

import random
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

import eslbot
from benchmarks.machine import Machine, revision
from benchmarks.speech.cases import Bench, Unmeasured, tenants
from benchmarks.speech.report import Report
from eslbot.sim.bot import Bot
from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.lab import Lab, LabError, free_port
from eslbot.sim.pbx import SippMissing

#: Milliseconds of the bot's chunks.
CHUNKS = (20, 40, 100, 200, 500)

CASES = ("speech", "burst", "latency", "barge-in", "traffic", "whole-call", "last-word", "crowd")

_BEGUN = time.monotonic()

#: Seconds after which the run is given up.
LIMIT = 420


@click.command()
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in", "auto"]), default="auto", show_default=True
)
@click.option("--quick", is_flag=True, help="Fewer repetitions and shorter speech: half a minute.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to FILE.md or FILE.json."
)
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), help="Only this; may be repeated.")
@click.option(
    "--chunk", "chunk_sizes", multiple=True, type=click.IntRange(10, 500), help="ms; may be repeated."
)
@click.option("--seconds", type=click.FloatRange(1, 30), help="Of speech; 10, with --quick 3.")
@click.option("--repeat", type=click.IntRange(1, 200), help="Utterances and barge-ins; 50, with --quick 8.")
@click.option("--calls", type=click.IntRange(1, 200), default=20, show_default=True, help="Speaking at once.")
@click.option("--codec", type=click.Choice(["PCMU", "PCMA"]), default="PCMU", show_default=True)
@click.option(
    "--format", "kind", type=click.Choice(["raw", "pcmu", "pcma"]), default="raw", show_default=True
)
@click.option("--workers", type=click.IntRange(1, 16), default=2, show_default=True, help="Of eslbot.")
@click.option("--seed", type=int, default=3, show_default=True, help="Of jitter and pauses.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and configurations here."
)
def main(
    switch: str,
    quick: bool,
    out: Path | None,
    cases: tuple[str, ...],
    chunk_sizes: tuple[int, ...],
    seconds: float | None,
    repeat: int | None,
    calls: int,
    codec: str,
    kind: str,
    workers: int,
    seed: int,
    keep: Path | None,
) -> None:
    """Measure the bot's speech through the whole path, against the bars of issue 3.

    Bot → mod_audio_stream → eslbot → FreeSWITCH → RTP at the PBX, on loopback. Exits 0 when everything was
    measured, whatever the figures, and 1 when something could not be.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.setswitchinterval(0.001)  # the caller, the bot and the clock are threads of this process
    watchdog = threading.Timer(LIMIT, interrupt_main)
    watchdog.daemon = True
    watchdog.start()
    folder = keep or Path(tempfile.mkdtemp(prefix="eslbot-speech-"))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = cases or CASES
    try:
        report = _run(
            Plan(
                wanted=wanted,
                quick=quick,
                chunk_sizes=chunk_sizes or CHUNKS,
                seconds=seconds or (3.0 if quick else 10.0),
                repeat=repeat or (8 if quick else 50),
                calls=calls,
            ),
            folder,
            switch,
            workers,
            codec,
            kind,
            seed,
        )
    except (LabError, FreeSwitchError, SippMissing, OSError) as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"interrupted, or not over within {LIMIT} s", file=sys.stderr)
        sys.exit(1)
    finally:
        watchdog.cancel()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(report.markdown())
    if out is not None:
        out.write_text(report.json() if out.suffix == ".json" else report.markdown(), encoding="utf-8")
    sys.exit(1 if report.failures else 0)


class Plan:
    """How much of what."""

    def __init__(
        self,
        *,
        wanted: tuple[str, ...],
        quick: bool,
        chunk_sizes: tuple[int, ...],
        seconds: float,
        repeat: int,
        calls: int,
    ) -> None:
        self.wanted, self.quick, self.chunk_sizes = wanted, quick, chunk_sizes
        self.seconds, self.repeat, self.calls = seconds, repeat, calls
        #: Calls that share the machine where that is not what is measured.
        self.at_once = 4 if quick else 2
        self.bursts = (100,) if quick else (20, 100, 500)
        self.words = 6 if quick else 20
        #: Seconds for which Ameyo is away in the whole call.
        self.ameyo_down = 1.0 if quick else 3.0


def _run(plan: Plan, folder: Path, switch: str, workers: int, codec: str, kind: str, seed: int) -> Report:
    begun = time.monotonic()
    proxy = ("127.0.0.1", free_port())
    machine = Machine.here()
    with Bot(keep_audio=600.0) as bot:
        lab = Lab(folder, tenants(bot), switch=switch, workers=workers, controllers=[proxy])
        report = Report(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            command=shlex.join(["python", "-m", "benchmarks.speech", *sys.argv[1:]]),
            switch=lab.switch_name,
            machine=machine,
            eslbot=f"{eslbot.__version__} ({revision()}), {workers} workers",
            settings=f"{codec} on the line, {kind} from the bot, jitter ±30 ms, seed {seed}",
        )
        _say(f"starting a PBX (SIPp), a bot, eslbot, and {lab.switch_name}")
        with lab:
            _measure(plan, Bench(lab, bot, proxy, random.Random(seed), codec=codec, kind=kind), report)
    report.seconds = time.monotonic() - begun
    return report


def _measure(plan: Plan, bench: Bench, report: Report) -> None:
    @contextmanager
    def case(name: str, *parts: str) -> Iterator[None]:
        _say(name)
        try:
            yield
        except Unmeasured as error:
            report.failures.append(f"{name}: {error}")
        except (TimeoutError, OSError, RuntimeError) as error:
            report.failures.append(f"{name}: {error!r}")
            traceback.print_exc()

    def wants(name: str) -> bool:
        return name in plan.wanted

    if plan.quick and wants("speech") and wants("burst"):
        with case(f"{plan.seconds:g} s of speech in chunks of {plan.chunk_sizes} ms, and in a burst"):
            cases = [(c, False) for c in plan.chunk_sizes] + [(c, True) for c in plan.bursts]
            found = bench.speech(cases, plan.seconds, len(cases))
            report.paced, report.burst = found[: len(plan.chunk_sizes)], found[len(plan.chunk_sizes) :]
    elif wants("speech"):
        with case(f"{plan.seconds:g} s of speech in chunks of {plan.chunk_sizes} ms"):
            report.paced = bench.speech([(c, False) for c in plan.chunk_sizes], plan.seconds, plan.at_once)
    if not report.burst and wants("burst") and not (plan.quick and wants("speech")):
        with case(f"the same in a burst, chunks of {plan.bursts} ms"):
            report.burst = bench.speech([(c, True) for c in plan.bursts], plan.seconds, 1)
    side_by_side: list[tuple[str, Callable[[], object]]] = []
    if wants("latency"):
        side_by_side += [
            ("latency", lambda: report.latencies.append(bench.latency(20, plan.repeat))),
            ("latency", lambda: report.latencies.append(bench.latency(100, plan.repeat))),
        ]
    if wants("barge-in"):
        side_by_side.append(("barge-in", lambda: setattr(report, "barge_in", bench.barge_in(plan.repeat))))
    if wants("whole-call"):
        side_by_side.append(
            ("a whole call", lambda: setattr(report, "stages", bench.whole_call(plan.ameyo_down)))
        )
    if side_by_side:
        names = dict.fromkeys(name for name, _ in side_by_side)
        with case(f"side by side: {', '.join(names)}; {plan.repeat} repetitions"):
            bench.together(*(run for _, run in side_by_side))
        report.latencies.sort(key=lambda latency: latency.chunk_ms)
    if wants("traffic"):
        sizes = (100,) if plan.quick else (20, 100, 500)
        with case(f"event-socket traffic, chunks of {sizes} ms"):
            report.traffic = bench.traffic(sizes, plan.seconds / 2)
    if wants("last-word"):
        with case(f"the last word of {plan.words} calls"):
            report.last_words = bench.last_words(plan.words)
    if wants("crowd"):
        with case(f"{plan.calls} calls speaking at once"):
            report.crowd = bench.crowd(plan.calls, plan.seconds, idle=1.0 if plan.quick else 3.0)
    report.problems = bench.problems


def _say(what: str) -> None:
    print(f"» {time.monotonic() - _BEGUN:4.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

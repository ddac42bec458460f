"""``python -m benchmarks.esl``."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import eslbot
from benchmarks.esl.generator import Generator, GeneratorError, Result
from benchmarks.esl.subjects import Running, Subject, SubjectError, running, subjects
from benchmarks.machine import Machine, revision
from eslbot.sim.lab import free_port

#: Milliseconds from the bot's connection to its `end`.
TALK = 20
#: Seconds that held calls are left alone before and while their memory and idle time are measured.
SETTLE, IDLE = 2.0, 8.0
CASES = ("throughput", "paced", "burst", "hold")
_BEGUN = time.monotonic()


@dataclass
class Figures:
    """What was measured: by case, subject and round."""

    results: dict[str, dict[str, list[Result]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, case: str, subject: str, result: Result) -> None:
        """One round."""
        self.results.setdefault(case, {}).setdefault(subject, []).append(result)


@click.command()
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), help="Only this; may be repeated.")
@click.option("--subject", "names", multiple=True, help="Only this controller; may be repeated.")
@click.option("--rounds", type=click.IntRange(1, 50), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 600), default=8.0, show_default=True, help="Of each run.")
@click.option(
    "--calls", type=click.IntRange(1, 5000), default=100, show_default=True, help="In `throughput`."
)
@click.option("--rate", type=click.FloatRange(1, 1000), default=20.0, show_default=True, help="In `paced`.")
@click.option("--burst", type=click.IntRange(1, 5000), default=400, show_default=True)
@click.option("--held", multiple=True, type=click.IntRange(1, 20000), help="Default: 2000 and 5000.")
@click.option(
    "--cores", type=(int, int), default=(0, 1), show_default=True, help="Controller's, generator's."
)
@click.option(
    "--genesis", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A Python with Genesis."
)
@click.option("--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="All raw figures.")
def main(
    cases: tuple[str, ...],
    names: tuple[str, ...],
    rounds: int,
    seconds: float,
    calls: int,
    rate: float,
    burst: int,
    held: tuple[int, ...],
    cores: tuple[int, int],
    genesis: Path | None,
    as_json: Path | None,
) -> None:
    """Measure controllers of FreeSWITCH's outbound event socket with the same call script, in turns."""
    figures = Figures()
    began = datetime.now(UTC)
    machine = Machine.here()
    with tempfile.TemporaryDirectory(prefix="eslbot-esl-") as name:
        folder = Path(name)
        port, web_port, ameyo_port = free_port(), free_port(), free_port()
        try:
            generator = Generator(folder, cores[1], ameyo_port)
            all_subjects = subjects(folder, port, web_port, ameyo_port, genesis)
        except GeneratorError as error:
            raise click.ClickException(str(error)) from error
        chosen = [subject for subject in all_subjects if not names or subject.name in names]

        def throughput(run: Running) -> Result:
            return _with_cpu(
                run,
                lambda: generator.run("throughput", port, calls=calls, seconds=seconds, talk=TALK, warmup=1),
            )

        def paced(run: Running) -> Result:
            generator.run("paced", port, rate=rate, seconds=1, talk=TALK)  # what is made at the first call
            return _with_cpu(run, lambda: generator.run("paced", port, rate=rate, seconds=seconds, talk=TALK))

        def at_once(run: Running) -> Result:
            generator.run("paced", port, rate=rate, seconds=1, talk=TALK)
            return _with_cpu(run, lambda: generator.run("burst", port, calls=burst, talk=TALK))

        def hold(count: int) -> Callable[[Running], Result]:
            return lambda run: _hold(run, generator, port, count)

        measures: list[tuple[str, Callable[[Running], Result]]] = [
            ("throughput", throughput),
            ("paced", paced),
            ("burst", at_once),
            *((f"hold {count}", hold(count)) for count in held or (2000, 5000)),
        ]
        for case, measure in measures:
            if cases and case.split()[0] not in cases:
                continue
            for number in range(1 if case.startswith("hold") else rounds):
                for subject in chosen:
                    _say(f"{case}, round {number + 1}: {subject.name}")
                    _measure(figures, case, subject, measure, folder, cores[0], port)
    about = f"{began:%Y-%m-%d %H:%M} UTC, {machine}, Python {machine.python}, "
    about += f"eslbot {eslbot.__version__} ({revision()})"
    click.echo("\n".join([about, "", *_tables(figures)]))
    if as_json is not None:
        as_json.write_text(json.dumps({"about": about, "figures": figures.results}, indent=1))
    if figures.failures:
        click.echo("\nNot measured:\n" + "\n".join(figures.failures))
        sys.exit(1)


def _measure(
    figures: Figures,
    case: str,
    subject: Subject,
    measure: Callable[[Running], Result],
    folder: Path,
    core: int,
    port: int,
) -> None:
    try:
        with running(subject, folder, core, port) as run:
            figures.add(case, subject.name, measure(run))
    except (GeneratorError, SubjectError) as error:
        figures.failures.append(f"* {case}, {subject.name}: {error}")


def _with_cpu(run: Running, measure: Callable[[], Result]) -> Result:
    """The result, and the processor time that the controller has used for each call."""
    before = run.cpu_seconds()
    result = measure()
    used = run.cpu_seconds() - before
    result["cpu_us_per_call"] = 1e6 * used / max(1, result["completed"])
    return result


def _hold(run: Running, generator: Generator, port: int, calls: int) -> Result:
    """Memory and idle processor time of held calls."""
    generator.run("paced", port, rate=50, seconds=2, talk=TALK)
    before = run.memory()
    found: Result = {}

    def measure() -> None:
        time.sleep(SETTLE)
        found["kb_per_call"] = (run.memory() - before) / calls / 1000
        began, used = time.monotonic(), run.cpu_seconds()
        time.sleep(IDLE)
        found["idle_core_percent"] = 100 * (run.cpu_seconds() - used) / (time.monotonic() - began)

    seconds = SETTLE + IDLE + 2
    result = generator.run(
        "hold", port, measure, calls=calls, rate=100, seconds=seconds, talk=TALK, patience=60
    )
    return {**result, **found}


# -- what is told -----------------------------------------------------------------------------------------


def _tables(figures: Figures) -> list[str]:
    lines: list[str] = []
    columns: dict[str, list[tuple[str, Callable[[Result], float]]]] = {
        "throughput": [
            ("calls/s", lambda r: r["calls_per_second"]),
            ("its CPU, µs a call", lambda r: r["cpu_us_per_call"]),
            ("generator's core used", lambda r: r["own_cpu"]),
            ("lost", _lost),
        ],
        "paced": [
            ("connect → `answer` p50, ms", _of("answer_ms", "p50")),
            ("p99", _of("answer_ms", "p99")),
            ("bot's end → marker p50, ms", _of("end_to_marker_ms", "p50")),
            ("bot's end → POST p99, ms", _of("end_to_post_ms", "p99")),
            ("its CPU, µs a call", lambda r: r["cpu_us_per_call"]),
            ("lost", _lost),
        ],
        "burst": [
            ("lost", _lost),
            ("first command p99, ms", _of("first_command_ms", "p99")),
            ("`answer` p99, ms", _of("answer_ms", "p99")),
        ],
        "hold": [
            ("kB a call", lambda r: r["kb_per_call"]),
            ("idle, % of a core", lambda r: r["idle_core_percent"]),
            ("held", lambda r: r["held"]),
            ("lost", _lost),
        ],
    }
    for case, by_subject in figures.results.items():
        wanted = columns[case.split()[0]]
        lines += [f"### {case}", "", "| controller | " + " | ".join(name for name, _ in wanted) + " |"]
        lines.append("|---" * (len(wanted) + 1) + "|")
        for subject, results in by_subject.items():
            cells = [_cell([value(result) for result in results]) for _, value in wanted]
            lines.append(f"| {subject} | " + " | ".join(cells) + " |")
        lines.append("")
        if case == "throughput":
            lines += _ratios(by_subject)
    return lines


def _ratios(by_subject: dict[str, list[Result]]) -> list[str]:
    """eslbot's calls a second over the others', round by round, and the same of processor time a call."""
    lines: list[str] = []
    own = by_subject.get("eslbot", [])
    for subject, results in by_subject.items():
        pairs = list(zip(own, results, strict=False))
        if subject == "eslbot" or not pairs:
            continue
        speed = [a["calls_per_second"] / b["calls_per_second"] for a, b in pairs if b["calls_per_second"]]
        cpu = [b["cpu_us_per_call"] / a["cpu_us_per_call"] for a, b in pairs if a["cpu_us_per_call"]]
        lines.append(f"* eslbot / {subject}: calls/s {_cell(speed, 2)}, by CPU a call {_cell(cpu, 2)}")
    return [*lines, ""] if lines else []


def _cell(values: list[float], digits: int = 1) -> str:
    """The median, and the least and most of several rounds."""
    known = [value for value in values if value == value]
    if not known:
        return "–"
    middle = f"{statistics.median(known):.{digits}f}"
    return middle if len(known) == 1 else f"{middle} ({min(known):.{digits}f}–{max(known):.{digits}f})"


def _of(series: str, what: str) -> Callable[[Result], float]:
    def value(result: dict[str, Any]) -> float:
        return float(result[series][what]) if series in result else float("nan")

    return value


def _lost(result: Result) -> float:
    return float(sum(result["lost"].values()))


def _say(what: str) -> None:
    print(f"» {time.monotonic() - _BEGUN:4.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

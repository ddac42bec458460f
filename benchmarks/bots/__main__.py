"""``python -m benchmarks.bots``."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click

import eslbot
from benchmarks.bots.call import place
from benchmarks.bots.report import Measured, Report
from benchmarks.bots.subjects import SUBJECTS, Subject, running
from benchmarks.outcome import CannotRun
from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.lab import Tenant
from eslbot.sim.loadtest.machine import Machine, revision
from eslbot.sim.pbx import SippMissing
from eslbot.sim.service import LabError
from tests.support.lab import Lab
from tests.support.proxy import TcpProxy

#: Seconds within which a second worker serves again; a machine may be busy.
SERVING_LIMIT = 120.0
_NAMES = [subject.name for subject in SUBJECTS]


@click.command()
@click.option("--bot", "bots", multiple=True, type=click.Choice(_NAMES), help="Only this; may be repeated.")
@click.option("--calls", type=click.IntRange(1, 1000), default=100, show_default=True, help="To each bot.")
@click.option(
    "--kills", type=click.IntRange(0, 1000), default=50, show_default=True, help="Of workers, in all."
)
@click.option(
    "--at-a-time", type=click.IntRange(1, 50), default=4, show_default=True, help="Calls at one time."
)
@click.option("--workers", type=click.IntRange(2, 16), default=3, show_default=True, help="Of eslbot.")
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in", "auto"]), default="auto", show_default=True
)
@click.option("--seed", type=int, default=16, show_default=True, help="Of which worker is killed.")
@click.option("--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="All raw figures.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and configurations here."
)
def main(
    bots: tuple[str, ...],
    calls: int,
    kills: int,
    at_a_time: int,
    workers: int,
    switch: str,
    seed: int,
    as_json: Path | None,
    keep: Path | None,
) -> None:
    """Place calls to bots of every kind while eslbot's workers are killed, against the bars of issue 16.

    Exits 0 when everything that can run here was measured, whatever the figures, and 1 when nothing could be.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun = time.monotonic()
    folder = keep or Path(tempfile.mkdtemp(prefix="eslbot-bots-"))
    folder.mkdir(parents=True, exist_ok=True)
    report = _begun(workers)
    wanted = [subject for subject in SUBJECTS if not bots or subject.name in bots]
    try:
        with ExitStack() as stack:
            proxies, report.left_out = _start(wanted, folder, stack)
            there = [subject for subject in wanted if subject.name in proxies]
            tenants = [_tenant(subject, proxies[subject.name]) for subject in there]
            if not tenants:
                raise LabError(f"none of these bots can run here: {report.left_out}")
            lab = stack.enter_context(Lab(folder, tenants, switch=switch, workers=workers))
            report.switch = lab.switch_name
            chance = random.Random(seed)
            for number, subject in enumerate(there):
                # Evenly over all bots: the remainder goes to the first.
                share = kills // len(there) + (number < kills % len(there))
                _say(f"{subject.name}: {calls} calls, {share} kills", begun)
                proxy = proxies[subject.name]
                report.measured.append(_measure(lab, subject, proxy, calls, share, at_a_time, chance))
                _say(", ".join(report.measured[-1].row()), begun)
    except (LabError, FreeSwitchError, SippMissing) as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    report.seconds, report.load = time.monotonic() - begun, round(os.getloadavg()[0], 2)
    print(report.text())
    if as_json is not None:
        as_json.write_text(report.json(), encoding="utf-8")


def _begun(workers: int) -> Report:
    return Report(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=shlex.join(["python", "-m", "benchmarks.bots", *sys.argv[1:]]),
        machine=Machine.here(),
        eslbot=f"{eslbot.__version__} ({revision()}), {workers} workers",
    )


def _start(
    wanted: list[Subject], folder: Path, stack: ExitStack
) -> tuple[dict[str, TcpProxy], dict[str, str]]:
    """Start the bots, each behind a proxy that counts its connections; and which cannot be started."""
    proxies, left_out = {}, {}
    for subject in wanted:
        try:
            address = stack.enter_context(running(subject, folder))
        except CannotRun as error:
            left_out[subject.name] = str(error)
            continue
        proxies[subject.name] = stack.enter_context(TcpProxy(("127.0.0.1", 0), address))
    return proxies, left_out


def _tenant(subject: Subject, proxy: TcpProxy) -> Tenant:
    url = f"ws://127.0.0.1:{proxy.address[1]}{subject.path}"
    return Tenant(subject.name, url, bot_keys={"protocol": subject.protocol})


def _measure(
    lab: Lab,
    subject: Subject,
    proxy: TcpProxy,
    calls: int,
    kills: int,
    at_a_time: int,
    chance: random.Random,
) -> Measured:
    """Its calls, so many at a time; a worker is killed each time another share of them is over."""
    measured = Measured(subject.name, subject.protocol)
    with ThreadPoolExecutor(at_a_time) as pool:
        placed = [pool.submit(place, lab, subject, proxy, number) for number in range(calls)]
        for call in as_completed(placed):
            measured.called.append(call.result())
            while measured.kills < kills * len(measured.called) // calls:
                serving = lab.services[0].wait_serving(2, SERVING_LIMIT)  # one that takes over
                os.kill(chance.choice(serving), signal.SIGKILL)
                measured.kills += 1
    return measured


def _say(what: str, begun: float) -> None:
    print(f"» {time.monotonic() - begun:4.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""``python -m benchmarks.bots``."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.bots.call import place
from benchmarks.bots.report import Measured, Report
from benchmarks.bots.subjects import SUBJECTS, Subject, running
from benchmarks.frame import measuring
from benchmarks.outcome import CannotRun
from eslbot.sim.lab import Tenant
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
    measured: list[Measured] = []
    with measuring("python -m benchmarks.bots", keep=keep) as run, ExitStack() as stack:
        about = run.about
        wanted = [subject for subject in SUBJECTS if not bots or subject.name in bots]
        proxies, about.left_out = _start(wanted, run.folder, stack)
        there = [subject for subject in wanted if subject.name in proxies]
        tenants = [_tenant(subject, proxies[subject.name]) for subject in there]
        if not tenants:
            raise CannotRun(f"none of these bots is here: {about.left_out}")
        lab = stack.enter_context(Lab(run.folder, tenants, switch=switch, workers=workers))
        about.switch = lab.switch_name
        chance = random.Random(seed)
        for number, subject in enumerate(there):
            # Evenly over all bots: the remainder goes to the first.
            share = kills // len(there) + (number < kills % len(there))
            run.say(f"{subject.name}: {calls} calls, {share} kills")
            proxy = proxies[subject.name]
            measured.append(_measure(lab, subject, proxy, calls, share, at_a_time, chance))
            run.say(", ".join(measured[-1].row()))
        report = Report(run.over(), workers, measured)
    print(report.text())
    if as_json is not None:
        as_json.write_text(report.json(), encoding="utf-8")


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


if __name__ == "__main__":
    main()

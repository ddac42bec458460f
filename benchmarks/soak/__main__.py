"""``python -m benchmarks.soak``."""

from __future__ import annotations

import random
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.frame import Run, measuring
from benchmarks.soak.bots import BotProcess
from benchmarks.soak.faults import fake_clock, small_disk
from benchmarks.soak.picture import draw
from benchmarks.soak.plan import INTERVALS, interval, tenants
from benchmarks.soak.report import text
from benchmarks.soak.run import Soak, document
from benchmarks.soak.samples import read
from eslbot.sim.loadtest.sites import rtp_ports
from eslbot.sim.pbx import Voices
from tests.support.lab import Lab


@click.command()
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in", "auto"]), default="auto", show_default=True
)
@click.option("--minutes", type=click.FloatRange(0.2, 1440), default=20.0, show_default=True)
@click.option("--hours", type=click.FloatRange(0.1, 24), help="Instead of minutes.")
@click.option("--calls", type=click.IntRange(1, 200), default=46, show_default=True, help="Up at a time.")
@click.option("--workers", type=click.IntRange(2, 16), default=3, show_default=True, help="Of eslbot.")
@click.option("--seed", type=int, help="Of everything that chance decides; by default a new one.")
@click.option(
    "--fault", "wanted", multiple=True, type=click.Choice(list(INTERVALS)), help="Only this; may be repeated."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("soak"),
    show_default=True,
    help="Gets soak.csv, soak.svg, soak.json.",
)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs here.")
def main(
    switch: str,
    minutes: float,
    hours: float | None,
    calls: int,
    workers: int,
    seed: int | None,
    wanted: tuple[str, ...],
    out: Path,
    keep: Path | None,
) -> None:
    """Calls that come and go while everything dies in turn; the account of every caller, and what grew.

    Ctrl-C ends it with the account so far. Exits 0 when every promise was kept, 1 when one was broken or
    it could not go on, 2 when it could not begin.
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    seconds = 3600 * hours if hours is not None else 60 * minutes
    names = [name for name in INTERVALS if not wanted or name in wanted]
    out.mkdir(parents=True, exist_ok=True)
    with measuring("scripts/soak", keep=keep, absent=2) as run, ExitStack() as stack:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # with the account so far
        sys.setswitchinterval(0.002)  # the long call's RTP is a thread of this process
        soak = _soak(run, stack, switch, workers, seed, seconds, calls, names, out)
        result = soak.run()
    draw(read(out / "soak.csv"), result.faults, soak.begun, out / "soak.svg")
    (out / "soak.json").write_text(document(result), encoding="utf-8")
    print(text(result))
    print(f"{out / 'soak.csv'}, {out / 'soak.svg'}, {out / 'soak.json'}")
    sys.exit(1 if result.broken else 0)


def _soak(
    run: Run,
    stack: ExitStack,
    switch: str,
    workers: int,
    seed: int,
    seconds: float,
    calls: int,
    names: list[str],
    out: Path,
) -> Soak:
    """All that it needs, up until ``stack`` is left."""
    folder = run.folder.absolute()
    bot = stack.enter_context(BotProcess())
    no_disk = stack.enter_context(small_disk(folder / "lines"))
    clock, within = fake_clock(folder) or (None, [])
    lab = Lab(
        run.folder,
        tenants(bot.url, seconds),
        switch=switch,
        workers=workers,
        within={"127.0.0.1": within},
        ledger=True,
    )
    lab.rtp_ports = rtp_ports(2 * calls, lab.rtp_ports)
    voices = stack.enter_context(Voices())
    stack.enter_context(lab)
    if no_disk is not None:
        run.say(f"the disk is never full: a file system of its own cannot be mounted here: {no_disk}")
    if clock is None:
        run.say("the clock is never stepped: there is no C compiler (cc) here")
    soak = Soak(
        lab, bot, seed, seconds, calls, names, no_disk is None, clock, out / "soak.csv", voices, run.say
    )
    run.say(f"seed {seed}; {lab.switch_name}; {seconds / 60:g} minutes, {calls} calls up at a time")
    run.say("every so many seconds: " + ", ".join(f"{n} {interval(n, seconds):g}" for n in soak.names))
    return soak


if __name__ == "__main__":
    main()

"""``python -m benchmarks.soak``."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.soak.bots import BotProcess
from benchmarks.soak.faults import fake_clock, small_disk
from benchmarks.soak.picture import draw
from benchmarks.soak.plan import INTERVALS, interval, tenants
from benchmarks.soak.report import text
from benchmarks.soak.run import Soak, document
from benchmarks.soak.samples import read
from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.loadtest.sites import rtp_ports
from eslbot.sim.pbx import SippMissing, Voices
from eslbot.sim.pbx.voices import VoicesError
from eslbot.sim.service import LabError
from tests.support.lab import Lab

_BEGUN = time.monotonic()


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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.setswitchinterval(0.002)  # the long call's RTP is a thread of this process
    seed = random.randrange(1_000_000) if seed is None else seed
    seconds = 3600 * hours if hours is not None else 60 * minutes
    folder = keep or Path(tempfile.mkdtemp(prefix="eslbot-soak-"))
    for needed in (folder, out):
        needed.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            bot = stack.enter_context(BotProcess())
            no_disk = stack.enter_context(small_disk(folder.absolute() / "lines"))
            faked = fake_clock(folder.absolute())
            clock, within = faked if faked is not None else (None, [])
            lab = Lab(
                folder,
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
                _say(f"the disk is never full: a file system of its own cannot be mounted here: {no_disk}")
            if clock is None:
                _say("the clock is never stepped: there is no C compiler (cc) here")
            names = [name for name in INTERVALS if not wanted or name in wanted]
            soak = Soak(
                lab, bot, seed, seconds, calls, names, no_disk is None, clock, out / "soak.csv", voices, _say
            )
            _say(f"seed {seed}; {lab.switch_name}; {seconds / 60:g} minutes, {calls} calls up at a time")
            _say("every so many seconds: " + ", ".join(f"{n} {interval(n, seconds):g}" for n in soak.names))
            result = soak.run()
    except (LabError, FreeSwitchError, SippMissing, VoicesError, OSError) as error:
        print(f"the soak cannot run: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    draw(read(out / "soak.csv"), result.faults, soak.begun, out / "soak.svg")
    (out / "soak.json").write_text(document(result), encoding="utf-8")
    print(text(result))
    print(f"{out / 'soak.csv'}, {out / 'soak.svg'}, {out / 'soak.json'}")
    sys.exit(1 if result.broken else 0)


def _say(what: str) -> None:
    print(f"» {time.monotonic() - _BEGUN:5.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""``python -m tests.support.chaos``: a longer run by hand."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

import click

from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.pbx import SippMissing
from eslbot.sim.service import LabError
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import plan, tenants
from tests.support.chaos.run import run
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab


@click.command()
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in", "auto"]), default="auto", show_default=True
)
@click.option("--seed", type=int, help="Of everything that chance decides; by default a new one.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60.0, show_default=True)
@click.option("--calls-per-second", type=click.FloatRange(0.1, 50), default=4.0, show_default=True)
@click.option("--workers", type=click.IntRange(1, 16), default=3, show_default=True, help="Of each eslbot.")
@click.option("--hosts", type=click.IntRange(1, 4), default=1, show_default=True, help="Running eslbot.")
@click.option("--fault", "wanted", multiple=True, help="Only this, by name; may be repeated.")
@click.option("--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="The account.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs here.")
def main(
    switch: str,
    seed: int | None,
    seconds: float,
    calls_per_second: float,
    workers: int,
    hosts: int,
    wanted: tuple[str, ...],
    as_json: Path | None,
    keep: Path | None,
) -> None:
    """Calls under faults, and the account of them. Exits 0 when the account is clean, 1 when it is not."""
    seed = random.randrange(1_000_000) if seed is None else seed
    folder = keep or Path(tempfile.mkdtemp(prefix="eslbot-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    addresses = [f"127.0.0.{number}" for number in range(1, hosts + 1)]
    try:
        with Lab(
            folder, tenants(), switch=switch, workers=workers, hosts=addresses, proxied=True, refreshes=True
        ) as lab:
            names = sorted(Faults(Witness(lab), random.Random()).by_name)
            if unknown := set(wanted) - set(names):
                raise click.BadParameter(f"{sorted(unknown)}; there are {', '.join(names)}")
            _say(f"seed {seed}; {lab.switch_name}")
            account = run(lab, plan(seed, seconds, calls_per_second, wanted or names), _say)
    except (LabError, FreeSwitchError, SippMissing, OSError) as error:
        print(f"chaos cannot run: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(account.table())
    if as_json is not None:
        as_json.write_text(account.json(), encoding="utf-8")
    sys.exit(1 if account.guilty else 0)


def _say(what: str) -> None:
    print(f"» {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

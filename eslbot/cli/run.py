"""The processes of the service: ``serve``, ``relay`` and ``page``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from eslbot.cli.options import DurationParam, config_option, log_option
from eslbot.cli.output import UNUSABLE, give_up
from eslbot.cli.reading import configuration_errors


@click.command()
@config_option
@log_option
@click.option(
    "--drain",
    type=DurationParam(),
    default="0s",
    show_default=True,
    help="How long a worker that leaves waits for its calls to end; then the next one takes them over.",
)
def serve(path: Path, json_logs: bool, drain: float) -> None:
    """Run the service until SIGTERM or SIGINT. SIGHUP reads the configuration again; see: eslbot reload."""
    from eslbot.server.service import serve

    with configuration_errors():
        serve(path, drain=drain, json_logs=json_logs)


@click.command()
@config_option
@log_option
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="How many; default: relay.processes, or 1 where that is 0.",
)
@click.option(
    "--drain",
    type=DurationParam(),
    help="How long calls have to end when the relay was told to; default: longer than any max_duration.",
)
def relay(path: Path, json_logs: bool, processes: int | None, drain: float | None) -> None:
    """Run the media relay alone, beside FreeSWITCH; `serve` starts one unless relay.processes is 0.

    SIGHUP reads the configuration again. SIGTERM ends it when its calls are over; a second one, at once.
    """
    from eslbot.relay.parent import run

    with configuration_errors():
        run(path, processes=processes, drain=drain, json_logs=json_logs)


@click.command(hidden=True)
@config_option
@log_option
def page(path: Path, json_logs: bool) -> None:
    """Tell what happens: call page, API, metrics and ledger. What ``serve`` starts by itself."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        give_up("this is for `eslbot serve` to start, which says where metrics are", UNUSABLE)
    from eslbot.web.process import run

    with configuration_errors():
        raise SystemExit(run(path, json_logs=json_logs))

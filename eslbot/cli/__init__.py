"""The command line: one file a command group; the work itself is done in other rooms.

Rooms are imported where they are used: ``serve`` must not load what opens sockets before gunicorn's workers
have patched the standard library, and nobody waits for the stand-ins to load in order to read a help text. So
a file here imports click, its neighbours, and nothing else of ours at its top.
"""

from __future__ import annotations

import click

import eslbot
from eslbot.cli import (
    bot,
    calls,
    configuration,
    doctor,
    loadtest,
    onboard,
    recording,
    reload,
    run,
    sim,
    tenant,
)
from eslbot.cli.output import Program


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eslbot.__version__, prog_name="eslbot")
def main() -> None:
    """Connects an Ameyo contact centre to a voice bot through FreeSWITCH.

    When the bot is done, Ameyo is told and gives the customer to a human. Begin with: eslbot demo
    """


for command in (
    run.serve,
    run.relay,
    run.page,
    configuration.check,
    configuration.conf,
    configuration.key,
    reload.reload,
    tenant.tenant,
    onboard.onboard,
    calls.calls,
    calls.stats,
    calls.notify,
    calls.ledger,
    recording.recording_group,
    doctor.doctor,
    doctor.recovery,
    bot.bot,
    sim.demo,
    sim.sim,
    loadtest.loadtest,
):
    main.add_command(command)

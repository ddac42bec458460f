"""The command line. Each command is a few lines over the room that does the work.

Rooms are imported where they are used: ``serve`` must not load what opens sockets before gunicorn's workers
have patched the standard library, and nobody waits for the stand-ins to load in order to read a help text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

import eslbot
from eslbot.config import Config, ConfigError, load

F = TypeVar("F", bound=Callable[..., Any])

#: Exit codes: 0 done, 1 it ran and did not succeed, 2 it could not begin (usage, configuration).
FAILED, UNUSABLE = 1, 2


def config_option(command: F) -> F:
    """``--config FILE``."""
    return click.option(
        "--config",
        "path",
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        envvar="ESLBOT_CONFIG",
        show_envvar=True,
        help="The TOML configuration.",
    )(command)


@contextmanager
def configuration_errors() -> Iterator[None]:
    """Every problem on a line of its own, exit code 2."""
    try:
        yield
    except ConfigError as error:
        count = len(error.problems)
        click.echo(f"the configuration has {count} problem{'s' if count > 1 else ''}:", err=True)
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
        raise SystemExit(UNUSABLE) from None


def read(path: Path) -> Config:
    """The configuration, its warnings told."""
    with configuration_errors():
        config = load(path)
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    return config


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eslbot.__version__, prog_name="eslbot")
def main() -> None:
    """Connects an Ameyo contact centre to a voice bot through FreeSWITCH.

    When the bot is done, Ameyo is told and gives the customer to a human. Begin with: eslbot demo
    """


@main.command()
@config_option
@click.option(
    "--log",
    "log_format",
    type=click.Choice(["auto", "json", "console"]),
    default="auto",
    show_default=True,
    help="Log lines as JSON or for people; auto: for people on a terminal.",
)
def serve(path: Path, log_format: str) -> None:
    """Run the service until SIGTERM or SIGINT. SIGHUP reads the configuration again."""
    from eslbot.service import serve

    json_logs = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    with configuration_errors():
        serve(path, json_logs=json_logs)


@main.command()
@config_option
def check(path: Path) -> None:
    """Validate the configuration and print what is in force, secrets masked."""
    from eslbot.config.show import show

    click.echo(show(read(path)), nl=False)


@main.command()
@config_option
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where FreeSWITCH's configuration goes, e.g. /etc/freeswitch.",
)
@click.option("--force", is_flag=True, help="Write over a configuration that eslbot did not write.")
def conf(path: Path, out: Path, force: bool) -> None:
    """Write the FreeSWITCH configuration: the tree of freeswitch-conf with this site's values."""
    from eslbot.switchconf import SwitchConfError, render

    config = read(path)
    try:
        changes = render(config, out, force=force)
    except SwitchConfError as error:
        give_up(str(error), UNUSABLE)
    for change in changes:
        click.echo(f"{change.what:9}  {change.path}")
    click.echo(
        f"Start FreeSWITCH with: -conf {out} -temp {config.freeswitch.temp_dir} "
        "(with -log and -db, which it wants together with -conf)"
    )


@main.command()
@click.option(
    "--switch", type=click.Choice(["auto", "freeswitch", "stand-in"]), default="auto", show_default=True
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and captures in DIR."
)
def demo(switch: str, keep: Path | None) -> None:
    """One whole call on loopback, told as it happens.

    Uses a real FreeSWITCH with mod_audio_stream when this machine has one, else the stand-in switch.
    Exit code 0 only if Ameyo accepted the hand-off and the PBX sent the BYE.
    """
    with stand_ins():
        from eslbot.sim.demo import demo

    raise SystemExit(0 if demo(switch, keep, click.echo) else FAILED)


@main.group()
def sim() -> None:
    """The stand-ins, each alone: a switch, a PBX with Ameyo's REST server, a bot.

    They are for trying and testing. Events come out as one JSON object a line.
    """


@contextmanager
def stand_ins() -> Iterator[None]:
    """A clear word where the stand-ins' libraries are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        give_up(
            f"{error.name} is not installed; install the stand-ins with: pip install 'eslbot[sim]'", UNUSABLE
        )


def give_up(message: str, code: int) -> NoReturn:
    """Say why, and leave."""
    click.echo(f"eslbot: {message}", err=True)
    raise SystemExit(code)

"""What is wrong with an installation: ``doctor``; what FreeSWITCH has been through: ``recovery``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from eslbot.cli.options import DurationParam, config_option, config_option_here_or_above, json_option
from eslbot.cli.output import UNUSABLE, document, give_up, wants_json


@click.command()
@config_option
@json_option
@click.option(
    "--only", multiple=True, metavar="CHECK", help="Only this check; again for the next. See --list."
)
@click.option(
    "--timeout", type=DurationParam(), default="20s", show_default=True, help="How long all of it may take."
)
@click.option("--user", metavar="NAME", help="Who the service runs as; default: as it runs now, else you.")
@click.option(
    "--freeswitch-conf",
    "conf_dir",
    metavar="DIR",
    help="Where `eslbot conf` wrote; default: of the running FreeSWITCH, else /etc/freeswitch.",
)
@click.option("--strict", is_flag=True, help="Warnings are exit code 1, too.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: list_checks(ctx) if wanted else None,
    help="Name the checks and leave.",
)
def doctor(
    path: Path,
    as_json: bool,
    only: tuple[str, ...],
    timeout: float,
    user: str | None,
    conf_dir: str | None,
    strict: bool,
) -> None:
    """Look at the installation and say what is wrong and how to mend it.

    It only reads: no call is placed and nobody is notified; bots see one connection that is closed at once.

    Exit code: 0 no errors (with --strict: nor warnings), 1 some, 2 it could not begin. What could not be
    checked is told and changes no code.
    """
    from eslbot.doctor import examine, report
    from eslbot.doctor.progress import Progress

    if strange := set(only) - examine.TITLES.keys():
        give_up(f"there is no check {', '.join(sorted(strange))}; eslbot doctor --list names them", UNUSABLE)
    with Progress(sys.stderr, wanted=not as_json) as progress:
        request = examine.Request(path, only, max(1.0, timeout), user, conf_dir, progress)
        try:
            checked = examine.examine(request)
        except KeyError as error:
            give_up(f"--user: {error.args[0]}", UNUSABLE)
    if as_json:
        click.echo(report.as_json(checked, strict=strict))
    else:
        for line in report.text(checked, colour=sys.stdout.isatty()):
            click.echo(line)
    raise SystemExit(report.exit_code(checked, strict=strict))


def list_checks(ctx: click.Context) -> NoReturn:
    """The names that ``--only`` takes."""
    from eslbot.doctor.examine import TITLES

    if wants_json():
        document({"checks": [{"check": name, "title": title} for name, title in TITLES.items()]})
        ctx.exit(0)
    for name, title in TITLES.items():
        click.echo(f"{name:13} {title}")
    ctx.exit(0)


@click.command()
@config_option_here_or_above
@json_option
@click.option(
    "--before-start",
    is_flag=True,
    help="Count a start, close the databases to others, and delete the calls where they are in a loop of "
    "crashes: what FreeSWITCH's unit runs. Only while FreeSWITCH does not run.",
)
@click.option("--user", default="", help="With --before-start, as root: FreeSWITCH's user.")
def recovery(path: Path | None, as_json: bool, before_start: bool, user: str) -> None:
    """Show FreeSWITCH's restarts; before each of them, end a loop of crashes.

    A FreeSWITCH that died takes its calls up again; when it dies again and again, one of them may be the
    cause. Without --config the usual places are looked at. FreeSWITCH's unit says python -m eslbot.recovery,
    which is the same and starts sooner.
    """
    from eslbot.recovery.command import run

    raise SystemExit(run(path, before=before_start, user=user, as_json=as_json))

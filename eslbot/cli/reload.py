"""Bringing a changed configuration into force: ``reload``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eslbot.cli.options import DurationParam, config_option, json_option
from eslbot.cli.output import FAILED, document, progress
from eslbot.cli.reading import configuration_errors

if TYPE_CHECKING:
    from eslbot.admin.reload import Outcome, Step

_MARKS = {True: ("ok", 32), False: ("FAILED", 31), None: ("-", 36)}


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option(
    "--freeswitch-conf",
    "conf_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where `eslbot conf` wrote; default: of the running FreeSWITCH, else /etc/freeswitch.",
)
@click.option("--no-freeswitch", is_flag=True, help="Tell the service only.")
@click.option(
    "--timeout",
    type=DurationParam(),
    default="30s",
    show_default=True,
    help="How long the service may take for the change.",
)
@json_option
def reload(
    path: Path, dry_run: bool, conf_dir: Path | None, no_freeswitch: bool, timeout: float, as_json: bool
) -> None:
    """Bring a changed configuration into force, and say what is.

    Checks it, and does nothing where it cannot be used. Says what changes, and warns of calls of a tenant
    that goes. Then the service reads it into new workers (no call is lost), FreeSWITCH's list of who may call
    is rendered, reloadxml and reloadacl are said, and both are asked what they have.

    Exit code: 0 all of it is in force, 1 something is not, 2 the configuration cannot be used.
    """
    from eslbot.admin.reload import Request, reload

    def tell(step: Step) -> None:
        if not as_json:
            mark, colour = _MARKS[step.ok]
            click.echo(f"{_coloured(f'{mark:6}', colour)}  {step.step:13}  {step.told}")
            if step.remedy:
                click.echo(f"{'':23}{'remedy: ' if step.ok is False else ''}{step.remedy}")

    request = Request(
        path,
        conf_dir=conf_dir,
        freeswitch=not no_freeswitch,
        timeout=max(1.0, timeout),
        dry_run=dry_run,
        tell=tell,
        progress=progress,
    )
    with configuration_errors():
        outcome = reload(request)
    code = 0 if outcome.well else FAILED
    if as_json:
        document(_shape(path, outcome, dry_run=dry_run, code=code))
    raise SystemExit(code)


def _coloured(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() else text


def _shape(path: Path, outcome: Outcome, *, dry_run: bool, code: int) -> dict[str, Any]:
    from dataclasses import asdict

    changes = None
    if outcome.changes is not None:
        changes = asdict(outcome.changes)
        for tenant in changes["removed"]:
            del tenant["keys"]
            tenant["calls"] = None if outcome.calls is None else outcome.calls.get(tenant["name"], 0)
        for tenant in changes["added"]:
            del tenant["keys"]
    return {
        "configuration": str(path),
        "dry_run": dry_run,
        "changes": changes,
        "steps": [asdict(step) for step in outcome.steps],
        "exit_code": code,
    }

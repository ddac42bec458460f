"""The record of every call: ``calls``, ``stats``, ``notify``, ``ledger``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eslbot.cli.options import (
    MomentParam,
    config_option,
    config_option_here_or_above,
    json_option,
    numbers_option,
    options,
    yes_option,
)
from eslbot.cli.output import FAILED, UNUSABLE, document, give_up, progress, say_yes
from eslbot.cli.reading import read

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from eslbot.config import Config
    from eslbot.config.model import Ledger
    from eslbot.ledger.filters import Filter


@click.group()
def ledger() -> None:
    """The record of every call."""


@ledger.command()
@config_option
@json_option
def migrate(path: Path, as_json: bool) -> None:
    """Make the ledger's tables, or bring them to this version. The service does it by itself, too."""
    from eslbot.ledger.database import migrate, open_database

    ledger = configured_ledger(read(path))
    progress(f"{ledger.shown}: its tables are brought to this version")
    with ledger_errors():
        revision = migrate(open_database(ledger, create=True))
    if as_json:
        document({"url": ledger.shown, "revision": revision})
    else:
        click.echo(f"{ledger.shown} is at revision {revision}")


def configured_ledger(config: Config) -> Ledger:
    """The ledger; exit code 2 where there is none."""
    if config.ledger is None:
        give_up("the configuration has no [ledger]: calls are not recorded; add the table", UNUSABLE)
    return config.ledger


@contextmanager
def ledger_errors() -> Iterator[None]:
    """A database that cannot be used is exit code 2, and a line that says why."""
    from eslbot.ledger.database import LedgerDown

    try:
        yield
    except LedgerDown as error:
        give_up(f"the ledger cannot be used: {error}", UNUSABLE)


#: Which calls.
filter_options = options(
    click.option("--workspace", metavar="NAME", help="A tenant's name or UUID."),
    click.option("--prefix", metavar="TEXT", help="How the call id, CRT Object ID, DID or caller begins."),
    click.option("--did", metavar="NUMBER", help="The DID that was called."),
    click.option("--crt", metavar="ID", help="CRT Object ID, or how it begins: 'abc*'."),
    click.option("--caller", metavar="NUMBER", help="Who called."),
    click.option("--outcome", metavar="WORD", help="bot_ended, bot_failed, caller_hangup, …"),
    click.option("--fault", metavar="WORD", help="none, bot, ameyo, pbx or eslbot."),
    click.option("--stage", metavar="WORD", help="admitted, talking, held, refused, …"),
    click.option("--attention", is_flag=True, default=None, help="Only calls that somebody should look at."),
    click.option("--live/--ended", "live", default=None, help="Only calls that live, or have ended."),
    click.option(
        "--handed-off/--not-handed-off", "handed_off", default=None, help="Whether Ameyo took them."
    ),
    click.option(
        "--since",
        type=MomentParam(),
        help="2h (ago), 2026-11-23 or 2026-11-23T10:15; UTC, or with a zone.",
    ),
    click.option("--until", type=MomentParam(), help="As --since."),
)


@click.group(invoke_without_command=True)
@config_option_here_or_above
@filter_options
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many."
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print every column as CSV.")
@numbers_option
def calls(path: Path | None, limit: int, as_json: bool, as_csv: bool, numbers: bool, **wanted: Any) -> None:
    """List calls, the newest first; or show one: eslbot calls show ID."""
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        context.obj = path
        return
    one_form(as_json, as_csv)
    from eslbot.ledger import queries, terminal
    from eslbot.ledger.masking import mask_numbers

    with asking(path) as connection:
        found = queries.iterate_calls(connection, wanted_calls(wanted), limit)
        rows = found if numbers else map(mask_numbers, found)
        if as_json:
            terminal.write_json(rows, sys.stdout)
        elif as_csv:
            terminal.write_csv(rows, sys.stdout)
        else:
            for line in terminal.format_calls(rows, time.time()):
                click.echo(line)


@calls.command("show")
@click.argument("name", metavar="ID")
@config_option_here_or_above
@json_option
@numbers_option
def calls_show(path: Path | None, name: str, as_json: bool, numbers: bool) -> None:
    """Show one call from the INVITE to the BYE. ID is a call id or a CRT Object ID."""
    from eslbot.ledger import queries, terminal
    from eslbot.ledger.masking import mask_details

    with asking(path or click.get_current_context().obj) as connection:
        found = queries.call_ids_named(connection, name)
        details = queries.call_details(connection, found[0]) if found else None
    if details is None:
        give_up(f"the ledger has no call {terminal.printable(name)!r}", FAILED)
    for other in found[1:]:
        click.echo(f"also with this CRT Object ID: {other}", err=True)
    details = details if numbers else mask_details(details)
    for line in [terminal.call_json(details)] if as_json else terminal.format_call(details):
        click.echo(line)


@click.command()
@config_option
@filter_options
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="A line a figure: workspace, figure, value.")
def stats(path: Path, as_json: bool, as_csv: bool, **wanted: Any) -> None:
    """Say what calls came to: by tenant, outcome and fault, with hand-off rate and times."""
    from eslbot.ledger import terminal
    from eslbot.ledger.statistics import statistics

    one_form(as_json, as_csv)
    with asking(path) as connection:
        found = statistics(connection, wanted_calls(wanted))
    if as_json:
        document(found)
    elif as_csv:
        terminal.write_statistics_csv(found, sys.stdout)
    else:
        for line in terminal.format_statistics(found):
            click.echo(line)


def one_form(as_json: bool, as_csv: bool) -> None:
    """Exit code 2 for both at once."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two forms of one thing; ask for one")


@click.command()
@config_option
@click.option("--call", "name", required=True, metavar="ID", help="A call id or a CRT Object ID.")
@yes_option
@numbers_option
@json_option
def notify(path: Path, name: str, yes: bool, numbers: bool, as_json: bool) -> None:
    """Send the notification of a call to Ameyo once more, and record it.

    Exit code 0 only if Ameyo accepts it.
    """
    from gevent import monkey

    say_yes(yes, as_json=as_json)
    config = read(path)
    monkey.patch_all()  # the client bounds its waits with it, as in the service

    from eslbot.ameyo.retry import Verdict
    from eslbot.ledger.database import open_database
    from eslbot.ledger.resend import CannotResend, Resend

    with ledger_errors():
        engine = open_database(configured_ledger(config))
        try:
            resend = Resend.prepare(engine, config, name)
        except CannotResend as error:
            give_up(str(error), UNUSABLE)
        shown = list(resend.shown(numbers=numbers))
        for line in [] if as_json else shown:
            click.echo(line)
        if not yes:
            click.confirm("Send it?", abort=True)
        attempt = resend.send(engine)
    if as_json:
        document(
            {
                "call_id": resend.call["call_id"],
                "sent": shown,
                "verdict": str(attempt.verdict),
                "status": attempt.status,
                "seconds": attempt.seconds,
                "detail": attempt.detail,
            }
        )
    else:
        click.echo(f"{attempt.verdict}: status {attempt.status}, {attempt.seconds:.3f} s: {attempt.detail}")
    raise SystemExit(0 if attempt.verdict is Verdict.ACCEPTED else FAILED)


@contextmanager
def asking(path: Path | None) -> Iterator[Connection]:
    """A connection to the ledger's database; exit code 2 where there is none."""
    from eslbot.ledger.database import open_database, reading

    if path is None:
        raise click.UsageError("Missing option '--config' (env var: 'ESLBOT_CONFIG').")
    ledger = configured_ledger(read(path))
    with ledger_errors(), reading(open_database(ledger)) as connection:
        yield connection


def wanted_calls(values: dict[str, Any]) -> Filter:
    """The filter of a command's options; exit code 2 for a value that no call can have."""
    from eslbot.ledger.filters import BadFilter, Filter

    try:
        return Filter.of(values)
    except BadFilter as error:
        give_up(str(error), UNUSABLE)

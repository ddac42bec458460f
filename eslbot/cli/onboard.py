"""A tenant's go-live checklist: ``onboard``."""

from __future__ import annotations

from pathlib import Path

import click

from eslbot.cli.options import config_option, json_option
from eslbot.cli.output import FAILED, UNUSABLE, document, give_up
from eslbot.cli.reading import configuration_errors


@click.command()
@config_option
@click.option("--workspace", required=True, metavar="NAME-or-UUID", help="The tenant.")
@json_option
@click.option("--markdown", is_flag=True, help="For mails and tickets.")
@click.option(
    "--egress",
    multiple=True,
    metavar="IP",
    help="An address our REST calls come from; again for the next. Default: egress.addresses.",
)
@click.option(
    "--invite-confirmed", is_flag=True, help="Ameyo has confirmed the From display name of its INVITEs."
)
def onboard(
    path: Path, workspace: str, as_json: bool, markdown: bool, egress: tuple[str, ...], invite_confirmed: bool
) -> None:
    """The go-live checklist of a workspace: what is set, what is owed, what to whitelist and to try.

    To be sent to Ameyo as it is: the token is masked. Exit code 0 when nothing is owed any more, else 1.
    """
    from eslbot.onboarding import forms
    from eslbot.onboarding.checklist import UnknownWorkspace, checklist

    if as_json and markdown:
        raise click.UsageError("--json and --markdown are two forms of one thing; ask for one")
    try:
        with configuration_errors():
            found = checklist(path, workspace, egress, invite_confirmed=invite_confirmed)
    except (UnknownWorkspace, ValueError) as error:
        give_up(str(error), UNUSABLE)
    if as_json:
        document(forms.as_document(found))
    else:
        click.echo(forms.as_markdown(found) if markdown else forms.as_text(found))
    raise SystemExit(0 if found.complete else FAILED)

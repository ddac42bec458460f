"""Checking the configuration and what is generated from it: ``check``, ``conf``, ``key``."""

from __future__ import annotations

from pathlib import Path

import click

from eslbot.cli.options import config_option, json_option
from eslbot.cli.output import UNUSABLE, document, give_up, warn
from eslbot.cli.reading import read


@click.command()
@config_option
@json_option
def check(path: Path, as_json: bool) -> None:
    """Validate the configuration and print what is in force, secrets masked."""
    from eslbot.config.advice import advice, advice_here
    from eslbot.config.show import as_tree, show

    config = read(path)
    advised = [*advice(config), *advice_here(config)]
    if as_json:
        document({"configuration": as_tree(config), "warnings": [*config.warnings, *map(str, advised)]})
        return
    for one in advised:
        warn(str(one))
    click.echo(show(config), nl=False)


@click.command()
@config_option
@json_option
def key(path: Path, as_json: bool) -> None:
    """Make the key that signs whose call a call is, where there is none, and show its fingerprint.

    Every host of a service needs the same key file (server.key_file): else a call that changes hosts cannot
    be verified, and nobody hands it off. The fingerprint tells nothing of the key. Exit code 2 where the file
    cannot be used.
    """
    from eslbot.caller import keyfile

    file = read(path).server.key_file
    try:
        signer = keyfile.load_or_make(Path(file))
    except keyfile.KeyFileError as error:
        give_up(str(error), UNUSABLE)
    signs, *others = signer.fingerprints
    if as_json:
        document({"file": file, "signs": signs, "believed": others})
        return
    click.echo(f"{file}: {signs} signs")
    for other in others:
        click.echo(f"{file}: {other} is believed, too")


@click.command()
@config_option
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where it goes, e.g. /etc/freeswitch; /etc/kamailio with --edge, /etc/eslbot with --firewall.",
)
@click.option("--edge", is_flag=True, help="Write Kamailio's configuration instead, for the table [edge].")
@click.option("--firewall", is_flag=True, help="Write nftables rules of FreeSWITCH's host instead.")
@click.option("--force", is_flag=True, help="Write over a configuration that eslbot did not write.")
@json_option
def conf(path: Path, out: Path, edge: bool, firewall: bool, force: bool, as_json: bool) -> None:
    """Write the FreeSWITCH configuration: the tree of freeswitch-conf with this site's values.

    With --edge: that of Kamailio, the edge in front of several FreeSWITCH hosts. With --firewall: eslbot.nft,
    a table of nftables that lets nobody but the PBXs reach FreeSWITCH, and each tenant within its budget.
    """
    from eslbot.freeswitch import configuration
    from eslbot.freeswitch import edge as kamailio
    from eslbot.freeswitch import firewall as nftables
    from eslbot.freeswitch.files import RenderError

    if edge and firewall:
        raise click.UsageError("--edge and --firewall are for two machines; ask for one at a time")
    config = read(path)
    try:
        if firewall:
            changes, notes = nftables.render(config, out, force=force), nftables.notes(out)
        elif edge:
            out = out.absolute()
            changes, notes = kamailio.render(config, out, force=force), kamailio.notes(out)
        else:
            changes, notes = configuration.render(config, out, force=force), configuration.notes(config, out)
    except RenderError as error:
        give_up(str(error), UNUSABLE)
    if as_json:
        document(
            {
                "files": [{"path": str(change.path), "what": change.what} for change in changes],
                "notes": list(notes),
            }
        )
        return
    for change in changes:
        click.echo(f"{change.what:9}  {change.path}")
    for note in notes:
        click.echo(note)

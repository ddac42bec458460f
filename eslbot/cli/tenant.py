"""Tenants in the configuration file: ``tenant add``, ``list``, ``show``, ``remove``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eslbot.cli.options import config_option, json_option, options, yes_option
from eslbot.cli.output import FAILED, UNUSABLE, document, give_up, say_yes, warn
from eslbot.cli.reading import configuration_errors

if TYPE_CHECKING:
    from eslbot.config.edit import Draft, NewTenant, Preview


@click.group()
def tenant() -> None:
    """Tenants in the configuration file. What changes comes into force with: eslbot reload"""


class ReferenceParam(click.ParamType[tuple[str, str]]):
    """``NAME=TEXT`` where TEXT holds ``${…}``: a secret does not belong on a command line."""

    name = "name=${reference}"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Name and text."""
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail("expected NAME=TEXT", param, ctx)
        if "${" not in text:  # not quoted: it may be the secret
            self.fail(
                f"the value of {name!r} is no reference: everybody on this host can read a command line; "
                "write '${NAME}' for the environment's, or '${file:/path}', in single quotes",
                param,
                ctx,
            )
        return name, text


class PairParam(click.ParamType[tuple[str, str]]):
    """``KEY=TEXT``."""

    name = "key=text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Key and text."""
        key, equals, text = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not KEY=TEXT", param, ctx)
        return key, text


#: What a tenant is made of.
new_tenant_options = options(
    click.option(
        "--source",
        "sources",
        multiple=True,
        required=True,
        metavar="CIDR",
        help="A SIP gateway; again for the next.",
    ),
    click.option(
        "--bot-url",
        "bot_urls",
        multiple=True,
        required=True,
        metavar="URL",
        help="Again: tried in order.",
    ),
    click.option(
        "--bot-header",
        "bot_headers",
        multiple=True,
        type=ReferenceParam(),
        help="Authorization='Bearer ${NAME}'",
    ),
    click.option(
        "--protocol", metavar="NAME", help="What the bot speaks: eslbot (default), twilio, exotel, plivo."
    ),
    click.option(
        "--ameyo-url", default="https://management.ameyo.app:8887", show_default=True, metavar="URL"
    ),
    click.option("--tenant-host", required=True, metavar="HOST", help="The tenant's host name at Ameyo."),
    click.option(
        "--token-env",
        metavar="NAME",
        help="Ameyo's token is in this variable of the service's environment.",
    ),
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Ameyo's token is in this file; default: NAME-ameyo-token beside the configuration.",
    ),
    click.option(
        "--ask", is_flag=True, help="Ask for secrets whose files are not there, and write those (0600)."
    ),
    click.option(
        "--ca-file", metavar="FILE", help="Whom Ameyo's TLS certificate is of; default: the system's."
    ),
    click.option(
        "--bot-property",
        "bot_properties",
        multiple=True,
        metavar="KEY",
        help="A property that the bot sets.",
    ),
    click.option("--property", "properties", multiple=True, type=PairParam(), help="A property: DID='{did}'"),
    click.option("--max-calls", type=int, metavar="N", help="Calls at one time; default: 200."),
    click.option("--max-cps", type=int, metavar="N", help="INVITEs a second; default: 30."),
    click.option("--max-duration", metavar="DURATION", help="Of a call; default: 30m."),
    click.option("--id", "uuid", type=click.UUID, help="The workspace's UUID; made where it is not given."),
    click.option(
        "--insecure", is_flag=True, help="Take ws:// and http://, which send everything in clear text."
    ),
    click.option("--shared-source", is_flag=True, help="Take sources that another tenant has, too."),
)


@contextmanager
def edit_errors() -> Iterator[None]:
    """A file that cannot be changed as it was asked for is exit code 2, and nothing was written."""
    from eslbot.config.edit import CannotEdit

    with configuration_errors():
        try:
            yield
        except CannotEdit as error:
            give_up(str(error), UNUSABLE)
        except OSError as error:
            give_up(f"the file could not be written: {error.strerror or error}", FAILED)


@tenant.command("add")
@click.argument("name")
@config_option
@new_tenant_options
@json_option
def add(
    path: Path,
    name: str,
    ask: bool,
    shared_source: bool,
    token_env: str | None,
    token_file: Path | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Put a tenant into the configuration file, and say what is to be done for it.

    The file's comments and order stay, and it is written only if the service could use it. No secret is taken
    from the command line: they are named, as ${NAME} or ${file:/path}. What is to be mailed to Ameyo is
    printed.
    """
    from eslbot.config.edit import Draft, preview

    if token_env and token_file:
        raise click.UsageError("--token-env and --token-file are two places for one token; name one")
    if ask and as_json:
        raise click.UsageError("with --json nobody is asked; write the secrets' files yourself")
    file = (token_file or path.parent / f"{name}-ameyo-token").absolute()
    new = _new(name, f"${{{token_env}}}" if token_env else f"${{file:{file}}}", wanted)
    with edit_errors():
        draft = Draft.of(path)
        text = draft.with_tenant(new)
        found = preview(text, path, os.environ)
        warnings = _refuse_or_warn(found, new, shared=shared_source)
        written = _ask_for_secrets(new, path) if ask else []
        try:
            draft.save(text)
        except BaseException:
            for file in written:
                file.unlink()
            raise
    for warning in warnings:
        warn(warning)
    _next_steps(path, new, warnings, as_json=as_json)


def _new(name: str, token: str, wanted: dict[str, Any]) -> NewTenant:
    from uuid import uuid4

    from eslbot.config.edit import NewTenant
    from eslbot.config.urls import query_secrets

    for url in wanted["bot_urls"]:
        if "?" in url and any(part and "${" not in part for part in list(query_secrets(url))[1:]):
            raise click.BadParameter(
                "its query holds what looks like a secret, and everybody on this host can read a command "
                "line; write ${NAME} or ${file:/path} instead, in single quotes",
                param_hint="--bot-url",
            )
    tables: dict[str, Any] = {key: dict(wanted.pop(key)) for key in ("bot_headers", "properties")}
    limits = {key: wanted.pop(key) for key in ("max_calls", "max_cps", "max_duration")}
    return NewTenant(
        id=str(wanted.pop("uuid") or uuid4()),
        name=name,
        token=token,
        limits={key: value for key, value in limits.items() if value is not None},
        **tables,
        **wanted,
    )


def _refuse_or_warn(found: Preview, new: NewTenant, *, shared: bool) -> list[str]:
    """What the operator should know of a tenant that may be added. Raises CannotEdit."""
    from eslbot.config.advice import is_wide
    from eslbot.config.edit import CannotEdit, overlapping

    workspace = found.config.workspaces[new.id.lower()]
    shares = overlapping(found.config, workspace)
    if shares and not shared:
        raise CannotEdit(
            "; ".join(f"{ours} is also {other.name}'s ({theirs})" for ours, other, theirs in shares)
            + ": two tenants behind one gateway are told apart by X-Workspace-ID alone; if that is meant, "
            "say --shared-source"
        )
    own = f"workspaces.{new.id}."
    return [
        *(
            f"{network} is wide: whoever has one of its addresses may call as {new.name}"
            for network in workspace.sources
            if is_wide(network)
        ),
        *(f"{ours} is also {other.name}'s" for ours, other, _ in shares),
        *(f"{place}: {why}" for place, why in found.unresolved.items() if not place.startswith(own)),
    ]


def _ask_for_secrets(new: NewTenant, beside: Path) -> list[Path]:
    """Files with what was typed, for references to files that are not there."""
    from eslbot.config.edit import write_secret

    written: list[Path] = []
    for key, reference in new.references:
        kind, _, place = reference.partition(":")
        if kind != "file" or not place or Path(place).exists():
            continue
        typed = click.prompt(f"{key} of {new.name} (not shown)", hide_input=True, err=True).strip()
        if not typed or not typed.isprintable() or not typed.isascii():
            give_up(f"{key}: expected printable ASCII; nothing was written", UNUSABLE)
        write_secret(Path(place), typed, beside)
        written.append(Path(place))
    return written


def _next_steps(path: Path, new: NewTenant, warnings: list[str], *, as_json: bool) -> None:
    """What is to be done now: secrets, what brings it into force, what Ameyo is to get."""
    from eslbot.onboarding import forms
    from eslbot.onboarding.checklist import checklist

    found = checklist(path, new.id)
    secrets = [_secret(key, reference) for key, reference in new.references]
    commands = [f"eslbot reload --config {path}", f"eslbot doctor --config {path}"]
    if as_json:
        document(
            {
                "workspace": {"id": new.id, "name": new.name},
                "file": str(path),
                "warnings": warnings,
                "secrets": secrets,
                "next": commands,
                "onboard": forms.as_document(found),
            }
        )
        return
    click.echo(f"{new.name} is workspace {new.id} in {path}.")
    missing = [secret for secret in secrets if not secret["there"]]
    if missing:
        click.echo("\nStill to be put in place:")
        for secret in missing:
            click.echo(f"  {secret['key']}: {secret['remedy']}")
    click.echo("\nThen:")
    for command in commands:
        click.echo(f"  {command}")
    click.echo("\nTo be mailed to Ameyo:\n")
    click.echo(forms.as_text(found))


def _secret(key: str, reference: str) -> dict[str, Any]:
    """Where a secret has to be, and whether it is there, as far as this process can see."""
    kind, _, place = reference.partition(":")
    if kind == "file":
        there = Path(place).exists()
        remedy = f"write it, alone, into {place}, which only the service's user may read (0600)"
    else:
        there = reference in os.environ
        remedy = (
            f"put {reference}=… into the service's environment (secrets.env), and restart it: a reload does "
            "not read that again"
        )
    return {"key": key, "reference": f"${{{reference}}}", "there": there, "remedy": "" if there else remedy}


def _seen(path: Path) -> tuple[Draft, Preview]:
    """The file as it is, whether this process has its secrets or not."""
    from eslbot.config.edit import Draft, preview
    from eslbot.config.secrets import secrets_of
    from eslbot.telemetry import redaction

    with edit_errors():
        draft = Draft.of(path)
        found = preview(draft.content.decode(), path, os.environ)
    redaction.protect(secrets_of(found.config))
    return draft, found


def _calls(found: Preview) -> Mapping[str, int] | str:
    """The number of calls up by tenant's name; or why that is not known."""
    from eslbot.admin.live_calls import CannotCount, living_calls

    try:
        return living_calls(found.config.web.listen)
    except CannotCount as error:
        return str(error)


@tenant.command("list")
@config_option
@json_option
def list_(path: Path, as_json: bool) -> None:
    """List the tenants of the configuration file, and how many calls of each are up."""
    _, found = _seen(path)
    calls = _calls(found)
    rows: list[dict[str, Any]] = [
        {
            "id": workspace.id,
            "name": workspace.name,
            "sources": [str(network) for network in workspace.sources],
            "max_calls": workspace.max_calls,
            "calls": None if isinstance(calls, str) else calls.get(workspace.name, 0),
        }
        for workspace in found.config.workspaces.values()
    ]
    if as_json:
        document({"tenants": rows})
        return
    if isinstance(calls, str):
        warn(f"how many calls are up is not known: {calls}")
    width = max(len(str(row["name"])) for row in rows)
    click.echo(f"{'NAME':{width}}  {'ID':36}  {'CALLS':>11}  SOURCES")
    for row in rows:
        count = f"{'?' if row['calls'] is None else row['calls']} of {row['max_calls']}"
        click.echo(f"{row['name']:{width}}  {row['id']}  {count:>11}  {', '.join(row['sources'])}")


@tenant.command("show")
@click.argument("name", metavar="NAME-or-UUID")
@config_option
@json_option
def show(path: Path, name: str, as_json: bool) -> None:
    """Show what is in force for one tenant once it is read: every key, secrets masked."""
    import tomli_w

    from eslbot.config.show import as_tree

    draft, found = _seen(path)
    with edit_errors():
        key = draft.key_of(name).lower()
    table = as_tree(found.config)["workspaces"][key]
    calls = _calls(found)
    count = None if isinstance(calls, str) else calls.get(table["name"], 0)
    if as_json:
        document({"id": key, "workspace": table, "calls": count})
        return
    click.echo(tomli_w.dumps({"workspaces": {key: table}}), nl=False)
    click.echo(f"\n# calls that are up: {'not known' if count is None else count}")


@tenant.command("remove")
@click.argument("name", metavar="NAME-or-UUID")
@config_option
@yes_option
@json_option
def remove(path: Path, name: str, yes: bool, as_json: bool) -> None:
    """Take a tenant's tables out of the configuration file; comments stay.

    Says how many calls of it are up, and asks. Its files of secrets are left where they are.
    """
    from eslbot.config.edit import preview

    say_yes(yes, as_json=as_json)
    draft, found = _seen(path)
    with edit_errors():
        key = draft.key_of(name)
        text = draft.without_tenant(key)
        preview(text, path, os.environ)
    workspace = found.config.workspaces[key.lower()]
    calls = _calls(found)
    count = None if isinstance(calls, str) else calls.get(workspace.name, 0)
    known = f"how many is not known ({calls})" if count is None else str(count)
    if not as_json:
        click.echo(f"{workspace.name} ({workspace.id}): calls that are up: {known}")
    if not yes:
        click.confirm(f"Take it out of {path}?", abort=True)
    with edit_errors():
        draft.save(text)
    following = f"eslbot reload --config {path}"
    if as_json:
        told = {"id": workspace.id, "name": workspace.name}
        document({"workspace": told, "file": str(path), "calls": count, "next": [following]})
        return
    click.echo(f"It is out of {path}. Then: {following}")

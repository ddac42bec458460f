"""For those who build a bot: ``bot check``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from eslbot.cli.options import DurationParam, config_option_here_or_above, json_option
from eslbot.cli.output import UNUSABLE, document, give_up, progress, wants_json
from eslbot.cli.reading import configuration_errors, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eslbot.botcheck.run import Progress, Result
    from eslbot.botcheck.target import Target, Times


@click.group("bot")
def bot() -> None:
    """For who builds a bot."""


class HeaderParam(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``; what is wrong with it is told without the value."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Name and value."""
        if isinstance(value, tuple):
            return value
        name, mark, content = str(value).partition("=")
        if not mark or not name.strip():
            self.fail("expected NAME=VALUE", param, ctx)
        return name.strip(), content.strip()


@bot.command("check")
@click.argument("url", required=False)
@click.option(
    "--protocol",
    type=click.Choice(["eslbot", "twilio", "exotel", "plivo"]),
    help="What it speaks, as bot.protocol.  [default: eslbot]",
)
@click.option(
    "--rate",
    type=click.Choice(["8000", "16000", "24000"]),
    help="Hz of the caller's audio, as bot.sample_rate.  [default: 8000]",
)
@click.option(
    "--header",
    "headers",
    type=HeaderParam(),
    multiple=True,
    help="On the upgrade; again for the next. VALUE may be ${VARIABLE} or ${file:/path}, so that no secret "
    "stands on the command line.",
)
@click.option("--insecure", is_flag=True, help="Take ws:// to another host than this one.")
@click.option(
    "--connect-timeout",
    type=DurationParam(),
    help="As bot.connect_timeout.  [default: 3s]",
    metavar="DURATION",
)
@click.option(
    "--first-audio-timeout",
    type=DurationParam(),
    metavar="DURATION",
    help="As bot.first_audio_timeout; 0s: it may wait for the caller.  [default: 10s]",
)
@config_option_here_or_above
@click.option("--workspace", metavar="NAME", help="Take all of the above from this workspace of --config.")
@click.option(
    "--only", multiple=True, metavar="CHECK", help="Only this check; again for the next. See --list."
)
@click.option(
    "--say",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.wav",
    help="What the caller says: 16-bit mono, up to 20 s.  [default: a sentence of 2.6 s]",
)
@click.option(
    "--timeout",
    type=DurationParam(),
    default="30s",
    show_default=True,
    help="How long one call may last.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="Calls at one time; two-calls needs one more.",
)
@click.option("--strict", is_flag=True, help="Warnings are exit code 1, too.")
@json_option
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the result for a CI, too.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: list_checks(ctx) if wanted else None,
    help="Name the checks and leave.",
)
def check(
    url: str | None,
    path: Path | None,
    workspace: str | None,
    only: tuple[str, ...],
    say: Path | None,
    timeout: float,
    parallel: int,
    strict: bool,
    as_json: bool,
    junit: Path | None,
    **own: Any,
) -> None:
    """Play FreeSWITCH and eslbot to a bot, and say what it does wrong and how to mend that.

    It places some 25 calls to URL, or to the bot of a workspace (--config FILE --workspace NAME), in which a
    caller speaks, presses keys, hangs up, and connections break.

    Exit code: 0 no check failed (with --strict: nor warned), 1 some did, 2 it could not begin. What the bot
    never did, so that nothing was seen of it, is told and changes no code.
    """
    from eslbot.botcheck import report
    from eslbot.botcheck.checks import NAMES
    from eslbot.botcheck.target import Times

    if strange := set(only) - NAMES.keys():
        give_up(
            f"there is no check {', '.join(sorted(strange))}; eslbot bot check --list names them", UNUSABLE
        )
    target = _target(url, path, workspace, say, own)
    results = _examine(target, Times(call=max(1.0, timeout)), only, parallel, as_json=as_json)
    if junit is not None:
        _write_junit(junit, target, results, strict=strict)
    if as_json:
        document(report.as_document(target, results, strict=strict))
    else:
        for line in report.text(target, results, colour=sys.stdout.isatty()):
            click.echo(line)
    raise SystemExit(report.exit_code(results, strict=strict))


def _target(
    url: str | None, path: Path | None, workspace: str | None, say: Path | None, own: dict[str, Any]
) -> Target:
    """The bot that the command line names."""
    from eslbot.botcheck import caller_speech
    from eslbot.botcheck.target import of_url, of_workspace

    if (url is None) == (workspace is None):
        raise click.UsageError("say which bot: its URL, or --config FILE --workspace NAME")
    try:
        says = caller_speech.of_file(say) if say else caller_speech.sentence()
    except caller_speech.UnusableSpeech as error:
        give_up(str(error), UNUSABLE)
    if url is not None:
        _protect(url, own["headers"])
        with configuration_errors():
            target = of_url(url, _keys(own), own["headers"], says)
        _protect(url, [(name, value.reveal()) for name, value in target.bot.headers.items()])
        return target
    if strange := [name for name, value in own.items() if value]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
        raise click.UsageError(f"{options}: with --workspace its bot is taken as it is configured")
    if path is None:
        raise click.UsageError("--workspace needs --config FILE")
    config = read(path)
    found = [one for one in config.workspaces.values() if workspace in (one.name, one.id)]
    if not found:
        names = ", ".join(sorted(one.name for one in config.workspaces.values()))
        give_up(f"there is no workspace {workspace!r}; there are: {names}", UNUSABLE)
    return of_workspace(found[0], says)


def _keys(own: dict[str, Any]) -> dict[str, Any]:
    """The options as a workspace's table ``bot`` has them."""
    keys: dict[str, Any] = {}
    if own["protocol"]:
        keys["protocol"] = own["protocol"]
    if own["rate"]:
        keys["sample_rate"] = int(own["rate"])
    if own["insecure"]:
        keys["insecure"] = True
    for name in ("connect_timeout", "first_audio_timeout"):
        if own[name] is not None:
            keys[name] = f"{round(1000 * own[name])}ms"
    return keys


def _protect(url: str, headers: Sequence[tuple[str, str]]) -> None:
    """Redact headers' values, and what stands behind the URL's ``?``, from all further output."""
    from eslbot.config.model import Secret
    from eslbot.config.secrets import SHORTEST_SECRET, texts_in
    from eslbot.config.urls import login_secrets, query_secrets
    from eslbot.telemetry import redaction

    secrets = {*query_secrets(url), *login_secrets(url)}
    secrets |= {text for _, value in headers for text in texts_in(Secret(value))}
    redaction.protect(frozenset(text for text in secrets if len(text) >= SHORTEST_SECRET))


def _examine(
    target: Target, times: Times, only: tuple[str, ...], parallel: int, *, as_json: bool
) -> Sequence[Result]:
    import asyncio

    import structlog

    from eslbot.botcheck.run import examine
    from eslbot.doctor.progress import Progress as OneLine

    # The relay's rooms log; here all that they would say is in the report.
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def told(name: str, what: str) -> None:
        progress(f"{name} {what}")

    try:
        with OneLine(sys.stderr, wanted=not as_json) as one_line:
            tell: Progress = told if as_json else one_line
            return asyncio.run(examine(target, times, only=only, parallel=parallel, progress=tell))
    finally:
        structlog.configure(**before)


def _write_junit(path: Path, target: Target, results: Sequence[Result], *, strict: bool) -> None:
    from datetime import UTC, datetime

    from eslbot.botcheck.report import as_junit

    try:
        path.write_bytes(as_junit(target, results, datetime.now(UTC), strict=strict))
    except OSError as error:
        give_up(f"--junit: {path} cannot be written: {error.strerror}", UNUSABLE)


def list_checks(ctx: click.Context) -> NoReturn:
    """The names that ``--only`` takes."""
    from eslbot.botcheck.checks import CHECKS

    if wants_json():
        document({"checks": [{"check": one.name, "proves": one.proves} for one in CHECKS]})
        ctx.exit(0)
    for one in CHECKS:
        click.echo(f"{one.name:22} {one.proves}")
    ctx.exit(0)

"""A load test: ``loadtest``."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

import eslbot
from eslbot.cli.options import AddressParam
from eslbot.cli.output import FAILED, give_up
from eslbot.cli.sim import stand_ins

if TYPE_CHECKING:
    from eslbot.sim.loadtest.profiles import Plan
    from eslbot.sim.loadtest.sites import Site
    from eslbot.sim.pbx import AmeyoServer

TOKEN_VARIABLE = "LOADTEST_AMEYO_TOKEN"

#: Which options belong to which profile, and their defaults.
_DEFAULTS: dict[str, dict[str, float]] = {
    "rate": {"rate": 5.0, "seconds": 30.0, "call_seconds": 10.0},
    "ramp": {"from": 2.0, "to": 20.0, "steps": 10, "step_seconds": 15.0, "call_seconds": 10.0},
    "hold": {"calls": 50, "rate": 5.0, "seconds": 30.0},
}
_LIMITS = {"max_failures", "max_setup", "max_handoff"}
#: Options that mean something only against a target, and only in the laboratory.
_OF_TARGET = (
    *("workspace", "local_ip", "ameyo_listen", "ameyo_http", "ameyo_certificate", "tenant_host"),
    *("token_file", "eslbot_log", "watch"),
)
_OF_LAB = ("switch", "workers", "max_calls", "keep")


class Number(click.FloatRange):
    """A range that knows that nan is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


class WatchParam(click.ParamType[tuple[str, int]]):
    """``NAME=PID``."""

    name = "name=pid"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Group and process id."""
        name, _, pid = str(value).partition("=")
        if name not in ("freeswitch", "eslbot", "bot") or not pid.isdecimal():
            self.fail(f"{value!r} is none of freeswitch=PID, eslbot=PID, bot=PID", param, ctx)
        if not Path(f"/proc/{pid}").exists():
            self.fail(f"there is no process {pid} on this machine", param, ctx)
        return name, int(pid)


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no IPv4 address") from None


def _uuid(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(UUID(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no UUID; it is the NAME of [workspaces.NAME]") from None


def _new_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.name.startswith("--"):
        raise click.BadParameter(f"{value} is an option, and this wants a file")
    return value


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("profile", type=click.Choice(["rate", "ramp", "hold"]), default="rate")
@click.option("--rate", type=Number(), metavar="R", help="rate, hold: new calls a second.  [default: 5]")
@click.option("--seconds", type=Number(0.1, 86_400), metavar="S", help="rate, hold: how long.  [default: 30]")
@click.option("--from", "from_", type=Number(), metavar="R0", help="ramp: first rate.  [default: 2]")
@click.option("--to", type=Number(), metavar="R1", help="ramp: last rate.  [default: 20]")
@click.option("--steps", type=click.IntRange(1, 100), help="ramp.  [default: 10]")
@click.option("--step-seconds", type=Number(1, 3600), metavar="S", help="ramp: of each.  [default: 15]")
@click.option(
    "--calls", type=click.IntRange(1, 5000), metavar="N", help="hold: so many at once.  [default: 50]"
)
@click.option(
    "--call-seconds",
    type=Number(0.5, 3600),
    metavar="S",
    help="rate, ramp: how long the laboratory's bot talks.  [default: 10]",
)
@click.option(
    "--max-failures",
    type=Number(0, 100),
    metavar="PERCENT",
    default=1.0,
    show_default=True,
    help="ramp: of a step's calls; more end it.",
)
@click.option(
    "--max-setup",
    type=Number(1, 60_000),
    metavar="MS",
    default=1000.0,
    show_default=True,
    help="ramp: INVITE → 200 at p99; more ends it.",
)
@click.option(
    "--max-handoff",
    type=Number(1, 60_000),
    metavar="MS",
    default=2000.0,
    show_default=True,
    help="ramp: the bot's end → POST at p99; a step with more is no good one.",
)
@click.option("--did", default="00919990152080", show_default=True, help="First half of the display name.")
@click.option("--user", default="bot", show_default=True, help="Of the request URI.")
@click.option("--codec", type=click.Choice(["PCMU", "PCMA"]), default="PCMU", show_default=True)
@click.option("--transport", type=click.Choice(["udp", "tcp"]), default="udp", show_default=True)
@click.option(
    "--answer-timeout",
    type=Number(0.5, 180),
    metavar="S",
    default=10.0,
    show_default=True,
    help="Until CANCEL.",
)
@click.option(
    "--hang-up-after",
    type=Number(0.1, 86_400),
    metavar="S",
    help="The callers hang up by themselves; nothing has to be handed off then.",
)
@click.option(
    "--json",
    "as_json",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_new_file,
    metavar="FILE",
    help="Write all raw figures there.",
)
@click.option(
    "--switch",
    type=click.Choice(["freeswitch", "stand-in", "auto"]),
    default="auto",
    show_default=True,
    help="Laboratory: which.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Laboratory: eslbot's."
)
@click.option(
    "--max-calls", type=click.IntRange(1, 5000), default=1000, show_default=True, help="Laboratory: a worker."
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Laboratory: keep logs and configurations here.",
)
@click.option("--target", type=AddressParam(), help="Call this installation instead of a laboratory.")
@click.option("--workspace", metavar="UUID", callback=_uuid, help="Target: X-Workspace-ID. Needed.")
@click.option(
    "--local-ip",
    metavar="IP",
    callback=_address,
    help="Target: the source of the calls; default: what the routes say.",
)
@click.option(
    "--ameyo-listen", type=AddressParam(), help="Target: be its Ameyo here; an accepted POST ends its call."
)
@click.option(
    "--ameyo-http", is_flag=True, help="Target: be it without TLS; the workspace needs insecure = true."
)
@click.option(
    "--ameyo-certificate",
    type=_FILE,
    metavar="PEM",
    help="Target: certificate and key of it, which eslbot has to trust (ameyo.ca_file).",
)
@click.option("--tenant-host", help="Target: ameyo.tenant_host of the workspace.")
@click.option(
    "--token-file",
    type=_FILE,
    help=f"Target: ameyo.token of the workspace is in this file; else in ${TOKEN_VARIABLE}.",
)
@click.option(
    "--eslbot-log",
    type=_FILE,
    help="Target: eslbot's log (--log json), for why calls were refused, and what RTP FreeSWITCH had.",
)
@click.option(
    "--watch",
    type=WatchParam(),
    multiple=True,
    help="Target: a process that runs here, freeswitch=PID or eslbot=PID; may be repeated.",
)
@click.pass_context
def loadtest(context: click.Context, /, profile: str, as_json: Path | None, **given: Any) -> None:
    """Place calls with media, by SIPp, and tell how a FreeSWITCH with eslbot bore them.

    \b
    rate   --rate calls a second, for --seconds
    ramp   from --from to --to calls a second in --steps; stops when a limit is hit
    hold   --calls calls at once for --seconds, begun --rate a second

    Without --target a whole contact centre is built on loopback: a real FreeSWITCH with mod_audio_stream
    where there is one, else the stand-in, which says nothing about FreeSWITCH. With --target it calls what is
    there; it must be a test workspace: each call is answered by its bot, and its Ameyo is told.

    Exit code: 0 no call was lost, 1 some were, or the test could not run, 2 it could not begin as it was
    told.
    """
    with stand_ins():
        from eslbot.sim.loadtest import profiles
        from eslbot.sim.loadtest.run import CannotRun, run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))
    _check_options(context, profile, given)
    try:
        plan = _plan(profile, given)
    except profiles.Unusable as error:
        raise click.UsageError(str(error)) from error
    if as_json is not None and not as_json.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {as_json.parent}", param_hint="--json")
    limits = (
        profiles.Limits(given["max_failures"], given["max_setup"] / 1000, given["max_handoff"] / 1000)
        if profile == "ramp"
        else None
    )
    with _folder(given["keep"]) as folder:
        try:
            report = run(
                _site(given, plan, folder),
                plan,
                limits,
                {name: given[name] for name in ("did", "user", "codec", "transport")},
                answer_timeout=given["answer_timeout"],
                version=eslbot.__version__,
                command=shlex.join(["eslbot", *sys.argv[1:]]),
            )
        except CannotRun as error:
            give_up(f"the load test cannot run: {error}", FAILED)
    click.echo(report.markdown())
    if as_json is not None:
        as_json.write_text(report.json(), encoding="utf-8")
    raise SystemExit(FAILED if report.lost or report.result.whole is None else 0)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where logs and configurations go; without ``keep`` they go again."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="eslbot-load-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _check_options(context: click.Context, profile: str, given: dict[str, Any]) -> None:
    """Options that would be ignored are errors: whoever gave them meant something."""
    of_profiles = {name for defaults in _DEFAULTS.values() for name in defaults} | _LIMITS
    own = set(_DEFAULTS[profile]) | (_LIMITS if profile == "ramp" else set())
    for parameter in context.params:
        name = parameter.rstrip("_")
        if not _was_given(context, parameter):
            continue
        if name in of_profiles - own:
            fitting = ", ".join(p for p in _DEFAULTS if name in _DEFAULTS[p]) or "ramp"
            raise click.UsageError(f"{_option(name)} means nothing to {profile}; it is for {fitting}")
        if name in _OF_TARGET and given["target"] is None:
            raise click.UsageError(f"{_option(name)} needs --target: without it a laboratory is built")
        if name in (*_OF_LAB, "call_seconds") and given["target"] is not None:
            raise click.UsageError(f"{_option(name)} is for the laboratory: a --target is as it is")
    if given["target"] is not None:
        _check_target(given)


def _check_target(given: dict[str, Any]) -> None:
    if given["target"][1] == 0:
        raise click.BadParameter("port 0 cannot be called", param_hint="--target")
    if given["workspace"] is None:
        raise click.UsageError("--target needs --workspace UUID: every call names its tenant")
    if given["ameyo_listen"] is None:
        for name in ("ameyo_certificate", "tenant_host", "token_file"):
            if given[name] is not None:
                raise click.UsageError(f"{_option(name)} needs --ameyo-listen HOST:PORT")
        if given["ameyo_http"]:
            raise click.UsageError("--ameyo-http needs --ameyo-listen HOST:PORT")
        if given["hang_up_after"] is None:
            raise click.UsageError(
                "who ends the calls? --ameyo-listen HOST:PORT, where this workspace's ameyo.url points, "
                "or --hang-up-after SECONDS"
            )
        return
    if given["tenant_host"] is None:
        raise click.UsageError("--ameyo-listen needs --tenant-host, ameyo.tenant_host of the workspace")
    if given["ameyo_http"] == (given["ameyo_certificate"] is not None):
        raise click.UsageError("--ameyo-listen needs either --ameyo-http or --ameyo-certificate PEM")


def _was_given(context: click.Context, parameter: str) -> bool:
    return context.get_parameter_source(parameter) not in (None, click.core.ParameterSource.DEFAULT)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plan(profile: str, given: dict[str, Any]) -> Plan:
    from eslbot.sim.loadtest import profiles

    wanted = {**given, "from": given["from_"]}
    told = {
        name: default if wanted[name] is None else wanted[name]
        for name, default in _DEFAULTS[profile].items()
    }
    call_seconds = given["hang_up_after"] or told.get("call_seconds", 0.0)
    match profile:
        case "rate":
            return profiles.rate(told["rate"], told["seconds"], call_seconds)
        case "ramp":
            steps = int(told["steps"])
            return profiles.ramp(told["from"], told["to"], steps, told["step_seconds"], call_seconds)
        case _:
            return profiles.hold(int(told["calls"]), told["rate"], told["seconds"])


def _site(given: dict[str, Any], plan: Plan, folder: Path) -> AbstractContextManager[Site]:
    from eslbot.sim.loadtest.sites import installation, is_own, laboratory, source_for

    if given["target"] is None:
        return laboratory(
            folder,
            plan,
            switch=given["switch"],
            workers=given["workers"],
            max_calls=given["max_calls"],
            hangup_after=given["hang_up_after"],
        )
    local_ip = given["local_ip"]
    if local_ip is None:
        try:
            local_ip = source_for(given["target"])
        except OSError as error:
            raise click.BadParameter(f"it cannot be reached: {error}", param_hint="--target") from error
    elif not is_own(local_ip):
        raise click.BadParameter(f"{local_ip} is no address of this machine", param_hint="--local-ip")
    return installation(
        given["target"],
        given["workspace"],
        local_ip,
        ameyo=_ameyo(given),
        hangup_after=given["hang_up_after"],
        eslbot_log=given["eslbot_log"],
        watch=dict(given["watch"]),
    )


def _ameyo(given: dict[str, Any]) -> AmeyoServer | None:
    from eslbot.sim.pbx import AmeyoServer

    if given["ameyo_listen"] is None:
        return None
    if given["token_file"] is not None:
        token = given["token_file"].read_text().strip()
    else:
        token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise click.UsageError(
            f"--ameyo-listen needs the workspace's token, by --token-file or ${TOKEN_VARIABLE}"
        )
    host, port = given["ameyo_listen"]
    return AmeyoServer(
        {given["tenant_host"]: token},
        host=host,
        port=port,
        tls=not given["ameyo_http"],
        certificate=given["ameyo_certificate"],
    )

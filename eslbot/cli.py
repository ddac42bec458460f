"""The command line. Each command is a few lines over the room that does the work.

Rooms are imported where they are used: ``serve`` must not load what opens sockets before gunicorn's workers
have patched the standard library, and nobody waits for the stand-ins to load in order to read a help text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from marshmallow import ValidationError

import eslbot
from eslbot.config import Config, ConfigError, load
from eslbot.config.fields import Duration
from eslbot.config.model import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from eslbot.ledger.queries import Filter

F = TypeVar("F", bound=Callable[..., Any])

#: Exit codes: 0 done, 1 it ran and did not succeed, 2 it could not begin (usage, configuration).
FAILED, UNUSABLE = 1, 2


def config_option(command: F, *, required: bool = True) -> F:
    """``--config FILE``."""
    return click.option(
        "--config",
        "path",
        required=required,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        envvar="ESLBOT_CONFIG",
        show_envvar=True,
        help="The TOML configuration.",
    )(command)


def config_option_here_or_above(command: F) -> F:
    """``--config FILE``, for a command and for the group it is in: it may stand behind either."""
    return config_option(command, required=False)


def log_option(command: F) -> F:
    """``--log``, of what runs as a service: whether its lines are JSON."""

    def as_json(_: click.Context, __: click.Parameter, value: str) -> bool:
        return value == "json" or (value == "auto" and not sys.stderr.isatty())

    return click.option(
        "--log",
        "json_logs",
        type=click.Choice(["auto", "json", "console"]),
        default="auto",
        show_default=True,
        callback=as_json,
        help="Log lines as JSON or for people; auto: for people on a terminal.",
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
    """The configuration, its warnings told; from here on nothing that goes wrong quotes a secret of it."""
    from eslbot import redaction
    from eslbot.config.secrets import secrets_of

    with configuration_errors():
        config = load(path)
    redaction.protect(secrets_of(config))
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    return config


class DurationParam(click.ParamType[float]):
    """``"0s"``, ``"30m"``: as in the configuration; seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        try:
            return Duration(at_least=0).read(str(value))
        except ValidationError as error:
            self.fail("; ".join(str(message) for message in error.messages), param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eslbot.__version__, prog_name="eslbot")
def main() -> None:
    """Connects an Ameyo contact centre to a voice bot through FreeSWITCH.

    When the bot is done, Ameyo is told and gives the customer to a human. Begin with: eslbot demo
    """


@main.command()
@config_option
@log_option
@click.option(
    "--drain",
    type=DurationParam(),
    default="0s",
    show_default=True,
    help="How long a worker that leaves waits for its calls to end; then the next one takes them over.",
)
def serve(path: Path, json_logs: bool, drain: float) -> None:
    """Run the service until SIGTERM or SIGINT. SIGHUP reads the configuration again."""
    from eslbot.service import serve

    with configuration_errors():
        serve(path, drain=drain, json_logs=json_logs)


@main.command()
@config_option
@log_option
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="How many; default: relay.processes, or 1 where that is 0.",
)
@click.option(
    "--drain",
    type=DurationParam(),
    help="How long calls have to end when the relay was told to; default: longer than any max_duration.",
)
def relay(path: Path, json_logs: bool, processes: int | None, drain: float | None) -> None:
    """Run the media relay alone, beside FreeSWITCH; `serve` starts one unless relay.processes is 0.

    SIGHUP reads the configuration again. SIGTERM ends it when its calls are over; a second one, at once.
    """
    from eslbot.relay.process import run

    with configuration_errors():
        run(path, processes=processes, drain=drain, json_logs=json_logs)


@main.command()
@config_option
def check(path: Path) -> None:
    """Validate the configuration and print what is in force, secrets masked."""
    from eslbot.config.show import show

    click.echo(show(read(path)), nl=False)


@main.command()
@config_option
def key(path: Path) -> None:
    """Make the key that signs whose call a call is, where there is none, and show its fingerprint.

    Every host of a service needs the same key file (server.key_file): else a call that changes hosts cannot
    be verified, and nobody hands it off. The fingerprint tells nothing of the key. Exit code 2 where the file
    cannot be used.
    """
    from eslbot import keyfile

    file = read(path).server.key_file
    try:
        signer = keyfile.load_or_make(Path(file))
    except keyfile.KeyFileError as error:
        give_up(str(error), UNUSABLE)
    signs, *others = signer.fingerprints
    click.echo(f"{file}: {signs} signs")
    for other in others:
        click.echo(f"{file}: {other} is believed, too")


@main.command()
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
def conf(path: Path, out: Path, edge: bool, firewall: bool, force: bool) -> None:
    """Write the FreeSWITCH configuration: the tree of freeswitch-conf with this site's values.

    With --edge: that of Kamailio, the edge in front of several FreeSWITCH hosts. With --firewall: eslbot.nft,
    a table of nftables that lets nobody but the PBXs reach FreeSWITCH, and each tenant within its budget.
    """
    from eslbot import edgeconf, firewallconf, switchconf

    if edge and firewall:
        raise click.UsageError("--edge and --firewall are for two machines; ask for one at a time")
    config = read(path)
    try:
        if firewall:
            changes, notes = firewallconf.render(config, out, force=force), firewallconf.notes(out)
        elif edge:
            out = out.absolute()
            changes, notes = edgeconf.render(config, out, force=force), edgeconf.notes(out)
        else:
            changes, notes = switchconf.render(config, out, force=force), switchconf.notes(config, out)
    except switchconf.SwitchConfError as error:
        give_up(str(error), UNUSABLE)
    for change in changes:
        click.echo(f"{change.what:9}  {change.path}")
    for note in notes:
        click.echo(note)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Show FreeSWITCH's restarts; before each of them, end a loop of crashes.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def recovery(arguments: tuple[str, ...]) -> None:
    """FreeSWITCH's restarts. Its unit runs the module itself, which starts sooner: the options are there."""
    from eslbot.recovery import main

    raise SystemExit(main(arguments))


@main.command()
@config_option
@click.option("--workspace", required=True, metavar="NAME-or-UUID", help="The tenant.")
@click.option("--json", "form", flag_value="json", help="For programs.")
@click.option("--markdown", "form", flag_value="markdown", help="For mails and tickets.")
@click.option(
    "--egress",
    multiple=True,
    metavar="IP",
    help="An address our REST calls come from; again for the next. Default: external_ip, or sip_ip.",
)
@click.option(
    "--invite-confirmed", is_flag=True, help="Ameyo has confirmed the From display name of its INVITEs."
)
def onboard(
    path: Path, workspace: str, form: str | None, egress: tuple[str, ...], invite_confirmed: bool
) -> None:
    """The go-live checklist of a workspace: what is set, what is owed, what to whitelist and to try.

    To be sent to Ameyo as it is: the token is masked. Exit code 0 when nothing is owed any more, else 1.
    """
    from eslbot.onboard import UnknownWorkspace, as_json, as_markdown, as_text, checklist

    try:
        with configuration_errors():
            found = checklist(path, workspace, egress, invite_confirmed=invite_confirmed)
    except (UnknownWorkspace, ValueError) as error:
        give_up(str(error), UNUSABLE)
    click.echo({"json": as_json, "markdown": as_markdown}.get(form or "", as_text)(found))
    raise SystemExit(0 if found.complete else FAILED)


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


class AddressParam(click.ParamType[tuple[str, int]]):
    """``HOST:PORT``."""

    name = "host:port"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host, int(port)


class PortRangeParam(click.ParamType[tuple[int, int]]):
    """``FIRST-LAST``."""

    name = "first-last"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """First and last port."""
        first, _, last = str(value).partition("-")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) < int(last) <= 65535):
            self.fail(f"{value!r} is not FIRST-LAST", param, ctx)
        return int(first), int(last)


class NetworkParam(click.ParamType[Any]):
    """An address or a CIDR block."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The network."""
        try:
            return ip_network(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@sim.command("switch")
@click.option("--sip-listen", type=AddressParam(), default="127.0.0.1:5060", show_default=True)
@click.option(
    "--controllers",
    type=AddressParam(),
    multiple=True,
    default=["127.0.0.1:8084"],
    show_default=True,
    help="Outbound event sockets, in order; give it again for the next.",
)
@click.option(
    "--allow",
    type=NetworkParam(),
    multiple=True,
    default=["127.0.0.1"],
    show_default=True,
    help="PBX sources.",
)
@click.option("--rtp-ports", type=PortRangeParam(), default="10000-10999", show_default=True)
@click.option(
    "--media-timeout",
    type=click.FloatRange(1, 86400),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="End a call whose PBX has sent no RTP for so long; eslbot's freeswitch.media_timeout.",
)
@click.option(
    "--capture",
    type=AddressParam(),
    help="UDP: gets a copy of each SIP message; eslbot's freeswitch.capture.",
)
@click.option(
    "--core-db",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep what is needed to take the calls up again when the switch was killed, and do so at the start.",
)
@click.option("--event-socket", type=AddressParam(), help="Answer commands of whoever knows the password.")
@click.option("--event-socket-password", default="", help="That password, which is no secret.")
def sim_switch(
    sip_listen: tuple[str, int],
    controllers: tuple[tuple[str, int], ...],
    allow: tuple[Any, ...],
    rtp_ports: tuple[int, int],
    media_timeout: float,
    capture: tuple[str, int] | None,
    core_db: Path | None,
    event_socket: tuple[str, int] | None,
    event_socket_password: str,
) -> None:
    """A stand-in for FreeSWITCH with mod_audio_stream (SIP, RTP, outbound event socket)."""
    with stand_ins():
        import asyncio

        from eslbot.sim.events import JsonLines
        from eslbot.sim.switch.server import SwitchSettings, run

    settings = SwitchSettings(
        sip_listen,
        allow,
        controllers,
        rtp_ports,
        media_timeout=media_timeout,
        capture=capture,
        core_db=core_db,
        event_socket=event_socket,
        event_socket_password=event_socket_password,
    )
    try:
        asyncio.run(run(settings, JsonLines(sys.stdout, "switch")))
    except OSError as error:
        give_up(f"the switch cannot run: {error}", FAILED)


@sim.command("bot")
@click.option("--listen", type=AddressParam(), default="127.0.0.1:9000", show_default=True)
@click.option(
    "--wav",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What /wav speaks: a WAV file, 16-bit mono at 8000, 16000 or 24000 Hz.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.wav",
    help="Write what the caller says there; of the next callers to OUT-2.wav and so on.",
)
def sim_bot(listen: tuple[str, int], wav: Path | None, record: Path | None) -> None:
    """A stand-in for a voice bot: a WebSocket server whose URL path says how it behaves.

    /talk greets, listens, says good-bye and ends. /wav?listen_ms=5000 speaks the file of --wav, listens and
    ends. /twilio, /exotel and /plivo are bots made for those. The other paths are told when it starts; what
    each does, and what tunes it (/talk?format=binary&chunk_ms=20), says eslbot/sim/bot/__init__.py.
    """
    with stand_ins():
        from eslbot.sim.bot import Recorder, UnusableFile, WavFile, run
        from eslbot.sim.events import JsonLines

    try:
        speech = WavFile.load(wav) if wav else None
        if wav and record and record.resolve() == wav.resolve():
            raise UnusableFile(f"--record would write over {wav}")
        recorder = Recorder(record) if record else None
    except UnusableFile as error:
        give_up(str(error), UNUSABLE)
    try:
        run(*listen, emit=JsonLines(sys.stdout, "bot"), wav=speech, recorder=recorder)
    except OSError as error:
        give_up(f"the bot cannot run: {error}", FAILED)


@sim.command("pbx")
@click.option(
    "--switch", type=AddressParam(), default="127.0.0.1:5060", show_default=True, help="Where to call."
)
@click.option("--local-ip", default="127.0.0.1", show_default=True, help="The source of the calls.")
@click.option("--workspace", required=True, metavar="UUID", help="X-Workspace-ID.")
@click.option("--did", default="00919990152080", show_default=True)
@click.option("--crt", metavar="ID", help="CRT Object ID; made up where it is not given.")
@click.option("--transport", type=click.Choice(["udp", "tcp"]), default="udp", show_default=True)
@click.option("--codec", type=click.Choice(["PCMU", "PCMA"]), default="PCMU", show_default=True)
@click.option("--ameyo-port", type=click.IntRange(0, 65535), default=8887, show_default=True)
@click.option(
    "--http", is_flag=True, help="Ameyo's server without TLS; the certificate is new at each start."
)
@click.option("--tenant-host", default="acme.ameyo.app", show_default=True)
@click.option(
    "--token", default="acme-token", show_default=True, help="What Ameyo's server takes as the token."
)
@click.option("--hangup-after", type=float, metavar="SECONDS", help="The caller hangs up by himself.")
@click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds until the PBX gives up."
)
def sim_pbx(
    switch: tuple[str, int],
    local_ip: str,
    workspace: str,
    did: str,
    crt: str | None,
    transport: str,
    codec: str,
    ameyo_port: int,
    http: bool,
    tenant_host: str,
    token: str,
    hangup_after: float | None,
    timeout: float,
) -> None:
    """A stand-in for Ameyo's PBX: one call by SIPp, and the REST server that ends it.

    Exit code 0 only if the call was answered and ended by the PBX's BYE.
    """
    with stand_ins():
        from eslbot.sim.events import JsonLines
        from eslbot.sim.pbx import AmeyoServer, Pbx, SippMissing

    emit = JsonLines(sys.stdout, "pbx")
    try:
        with AmeyoServer({tenant_host: token}, port=ameyo_port, tls=not http, emit=emit) as ameyo:
            emit("ready", {"ameyo": ameyo.url, "ca_file": None if http else str(ameyo.ca_file)})
            with Pbx(switch, local_ip, ameyo, emit=emit) as pbx:
                call = pbx.call(
                    did,
                    crt,
                    workspace,
                    transport=transport,
                    codec=codec,
                    hangup_after=hangup_after,
                    timeout=timeout,
                )
                result = call.wait(timeout + 30)
    except (OSError, SippMissing) as error:
        give_up(f"the PBX cannot run: {error}", FAILED)
    raise SystemExit(0 if result.completed else FAILED)


@main.group("ledger")
def ledger_group() -> None:
    """The record of every call."""


@ledger_group.command()
@config_option
def migrate(path: Path) -> None:
    """Make the ledger's tables, or bring them to this version. The service does it by itself, too."""
    from eslbot.ledger.database import migrate, open_database

    ledger = configured_ledger(read(path))
    with ledger_errors():
        revision = migrate(open_database(ledger, create=True))
    click.echo(f"{ledger.shown} is at revision {revision}")


@ledger_group.command(hidden=True)
@config_option
@click.option("--log", "log_format", type=click.Choice(["json", "console"]), default="console")
def keep(path: Path, log_format: str) -> None:
    """Keep the ledger: what ``serve`` starts by itself."""
    from eslbot import logs
    from eslbot.ledger.keeper import Keeper

    logs.configure(json_logs=log_format == "json")
    config = read(path)
    logs.guard(config)
    ledger = configured_ledger(config)
    with ledger_errors():
        Keeper(ledger).run()


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


def filter_options(command: F) -> F:
    """Which calls."""
    options = [
        click.option("--workspace", metavar="NAME", help="A tenant's name or UUID."),
        click.option("--did", metavar="NUMBER"),
        click.option("--crt", metavar="ID", help="CRT Object ID, or how it begins: 'abc*'."),
        click.option("--caller", metavar="NUMBER"),
        click.option("--outcome", metavar="WORD", help="bot_ended, bot_failed, caller_hangup, …"),
        click.option("--fault", metavar="WORD", help="none, bot, ameyo, pbx or eslbot."),
        click.option("--stage", metavar="WORD", help="admitted, talking, held, refused, …"),
        click.option("--live/--ended", "live", default=None, help="Only calls that live, or have ended."),
        click.option("--handed-off/--not-handed-off", "handed_off", default=None),
        click.option(
            "--since",
            type=MomentParam(),
            help="2h (ago), 2026-11-23 or 2026-11-23T10:15; UTC, or with a zone.",
        ),
        click.option("--until", type=MomentParam(), help="As --since."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class MomentParam(click.ParamType[float]):
    """``2h`` ago, or a date and time; epoch seconds."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Epoch seconds."""
        from eslbot.ledger.console import moment, now

        try:
            return moment(str(value), now())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; expected 2h, 2026-11-23 or 2026-11-23T10:15", param, ctx)


numbers_option = click.option("--numbers", is_flag=True, help="Show phone numbers in full.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.group(invoke_without_command=True)
@config_option_here_or_above
@filter_options
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print every column as CSV.")
@numbers_option
def calls(path: Path | None, limit: int, as_json: bool, as_csv: bool, numbers: bool, **wanted: Any) -> None:
    """List calls, the newest first; or show one: eslbot calls show ID."""
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        context.obj = path
        return
    from eslbot.ledger import console, queries
    from eslbot.ledger.masks import masked_row

    with asking(path) as connection:
        found = queries.every(connection, wanted_calls(wanted), limit)
        rows = found if numbers else map(masked_row, found)
        if as_json:
            console.write_json(rows, sys.stdout)
        elif as_csv:
            console.write_csv(rows, sys.stdout)
        else:
            for line in console.table(rows, console.now()):
                click.echo(line)


@calls.command("show")
@click.argument("name", metavar="ID")
@config_option_here_or_above
@json_option
@numbers_option
def calls_show(path: Path | None, name: str, as_json: bool, numbers: bool) -> None:
    """Show one call from the INVITE to the BYE. ID is a call id or a CRT Object ID."""
    from eslbot.ledger import console, queries

    with asking(path or click.get_current_context().obj) as connection:
        found = queries.named(connection, name)
        story = queries.one(connection, found[0]) if found else None
    if story is None:
        give_up(f"the ledger has no call {console.clean(name)!r}", FAILED)
    for other in found[1:]:
        click.echo(f"also with this CRT Object ID: {other}", err=True)
    story = story if numbers else console.hidden(story)
    for line in [console.as_json(story)] if as_json else console.told(story):
        click.echo(line)


@main.command()
@config_option
@filter_options
@json_option
def stats(path: Path, as_json: bool, **wanted: Any) -> None:
    """Say what calls came to: by tenant, outcome and fault, with hand-off rate and times."""
    import json

    from eslbot.ledger import console, queries

    with asking(path) as connection:
        found = queries.stats(connection, wanted_calls(wanted))
    for line in [json.dumps(found, indent=1)] if as_json else console.figures(found):
        click.echo(line)


@main.command()
@config_option
@click.option("--call", "name", required=True, metavar="ID", help="A call id or a CRT Object ID.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@numbers_option
def notify(path: Path, name: str, yes: bool, numbers: bool) -> None:
    """Send the notification of a call to Ameyo once more, and record it.

    Exit code 0 only if Ameyo accepts it.
    """
    from gevent import monkey

    monkey.patch_all()  # the client bounds its waits with it, as in the service

    from eslbot.ameyo.client import Verdict
    from eslbot.ledger.database import open_database
    from eslbot.ledger.resend import CannotResend, Resend

    config = read(path)
    with ledger_errors():
        engine = open_database(configured_ledger(config))
        try:
            resend = Resend.prepare(engine, config, name)
        except CannotResend as error:
            give_up(str(error), UNUSABLE)
        for line in resend.shown(numbers=numbers):
            click.echo(line)
        if not yes:
            click.confirm("Send it?", abort=True)
        attempt = resend.send(engine)
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


def wanted_calls(options: dict[str, Any]) -> Filter:
    """The filter of a command's options; exit code 2 for a value that no call can have."""
    from eslbot.ledger.queries import BadFilter, Filter

    try:
        return Filter.of(options)
    except BadFilter as error:
        give_up(str(error), UNUSABLE)


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
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
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: list_checks(ctx) if wanted else None,
    help="Name the checks and leave.",
)
def doctor(
    path: Path, as_json: bool, only: tuple[str, ...], timeout: float, user: str | None, conf_dir: str | None
) -> None:
    """Look at the installation and say what is wrong and how to mend it.

    It only reads: no call is placed and nobody is notified; bots see one connection that is closed at once.

    Exit code: 0 nothing to mend, 1 errors, 3 warnings only, 2 it could not begin. What could not be checked
    is told and changes no code.
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
        click.echo(report.as_json(checked))
    else:
        for line in report.text(checked, colour=sys.stdout.isatty()):
            click.echo(line)
    raise SystemExit(report.exit_code(checked))


def list_checks(ctx: click.Context) -> NoReturn:
    """The names that ``--only`` takes."""
    from eslbot.doctor.examine import TITLES

    for name, title in TITLES.items():
        click.echo(f"{name:13} {title}")
    ctx.exit(0)


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
    from eslbot import redaction

    click.echo(f"eslbot: {redaction.redact(message)}", err=True)
    raise SystemExit(code)


from eslbot.recording.command import recording_group  # noqa: E402  # it uses what is above

main.add_command(recording_group)

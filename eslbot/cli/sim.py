"""The stand-ins, each alone, and all of them together: ``sim``, ``demo``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from eslbot.cli.options import AddressParam, NetworkParam, PortRangeParam, json_option
from eslbot.cli.output import FAILED, UNUSABLE, document, give_up


@contextmanager
def stand_ins() -> Iterator[None]:
    """Says what to install where the stand-ins' libraries are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "eslbot.sim":
            give_up(
                "the stand-ins are not installed: they are a distribution of their own, eslbot-sim, and come "
                "from eslbot's sources by `pip install ./eslbot/sim` or `scripts/install --extras sim`",
                UNUSABLE,
            )
        give_up(
            f"{error.name} is not installed; what the stand-ins need comes with: pip install 'eslbot[sim]'",
            UNUSABLE,
        )


@click.command()
@click.option(
    "--switch", type=click.Choice(["auto", "freeswitch", "stand-in"]), default="auto", show_default=True
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and captures in DIR."
)
@json_option
def demo(switch: str, keep: Path | None, as_json: bool) -> None:
    """One whole call on loopback, told as it happens.

    Uses a real FreeSWITCH with mod_audio_stream when this machine has one, else the stand-in switch.
    Exit code 0 only if Ameyo accepted the hand-off and the PBX sent the BYE.
    """
    with stand_ins():
        from eslbot.sim.demo import demo

    story: list[str] = []
    done = demo(switch, keep, story.append if as_json else click.echo)
    if as_json:
        document({"completed": done, "story": story})
    raise SystemExit(0 if done else FAILED)


@click.group()
def sim() -> None:
    """The stand-ins, each alone: a switch, a PBX with Ameyo's REST server, a bot.

    They are for trying and testing. Events come out as one JSON object a line.
    """


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

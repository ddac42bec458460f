"""A whole contact centre on loopback: PBX and Ameyo, a switch, eslbot, a bot; for the demo and the load test.

The switch is a real FreeSWITCH with mod_audio_stream, started on the configuration that ``eslbot conf``
renders, or the stand-in. eslbot itself runs as its users run it, by ``eslbot serve`` in a process of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid5

import tomli_w

from eslbot.runtime import file_locks
from eslbot.sim import freeswitch
from eslbot.sim.addresses import colon, free_port, free_rtp_ports
from eslbot.sim.bot import Bot
from eslbot.sim.events import Emit, silent
from eslbot.sim.pbx import AmeyoServer, Pbx
from eslbot.sim.service import START_LIMIT, EslbotService, LabError, wait_listening
from eslbot.sim.switch.process import StandInSwitch

#: By what a kernel tells whose a connection is; and as whom it shows those for whom it has no number.
NETLINK_SOCK_DIAG, NOBODY = 4, 65534
#: Seconds in which all other laboratories that are about to start have done so.
OTHERS_LIMIT = 180.0
#: Of a switch that only this laboratory knows.
EVENT_SOCKET_PASSWORD = "password-of-the-laboratory"


@contextmanager
def _alone_in_starting() -> Iterator[None]:
    """Hold back while another laboratory of this user's starts, in whatever process.

    Raises LabError where that takes too long, OSError.
    """
    path = Path(tempfile.gettempdir()) / f"eslbot-laboratory-starts.{os.getuid()}"
    deadline = time.monotonic() + OTHERS_LIMIT
    while (lock := file_locks.held(path)) is None:
        if time.monotonic() > deadline:
            raise LabError(
                f"another laboratory has been starting for {OTHERS_LIMIT:g} s: end the process that has "
                f"{path} locked (lsof {path})"
            )
        time.sleep(0.05)  # the lock is another process's: there is no event to wait for
    try:
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True)
class Tenant:
    """A workspace of the lab. ``bot`` is a behaviour of the stand-in bot, or several, tried in order.

    ``workspace``, ``bot_keys`` and ``ameyo_keys`` are further keys of its tables; ``id`` is the workspace id,
    by default a UUID made of the name.
    """

    name: str
    bot: str | Sequence[str] = "talk"
    sources: Sequence[str] = ("127.0.0.1",)
    workspace: Mapping[str, Any] = field(default_factory=dict)
    bot_keys: Mapping[str, Any] = field(default_factory=dict)
    ameyo_keys: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", str(uuid5(NAMESPACE_URL, f"eslbot:lab:{self.name}")))

    @property
    def host(self) -> str:
        """``ameyo.tenant_host``."""
        return f"{self.name}.ameyo.example"

    @property
    def token(self) -> str:
        """Ameyo's token of this tenant; secret enough to look for in logs."""
        return f"secret-token-of-{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that holds the token."""
        return f"LAB_TOKEN_{self.name.upper().replace('-', '_').replace('.', '_')}"

    def tables(self, bot: Bot, ameyo: AmeyoServer) -> dict[str, Any]:
        """Its part of the configuration, where these are its bot and its Ameyo."""
        behaviours = [self.bot] if isinstance(self.bot, str) else list(self.bot)
        urls = [b if "://" in b else bot.url(b) for b in behaviours]
        return {
            "name": self.name,
            "sources": list(self.sources),
            "max_cps": 1000,  # all tenants of a laboratory call from one address, and some in bursts
            **self.workspace,
            "bot": {
                "url": urls if len(urls) > 1 else urls[0],
                "insecure": True,
                "headers": {"Authorization": f"Bearer bot-{self.name}"},
                **self.bot_keys,
            },
            "ameyo": {
                "url": ameyo.url,
                "ca_file": str(ameyo.ca_file),
                "tenant_host": self.host,
                "token": f"${{{self.variable}}}",
                "bot_properties": ["agent_group", "summary"],
                "properties": {"DID": "{did}", "outcome": "{outcome}"},
                **self.ameyo_keys,
            },
        }


class Lab:
    """The centre; a context manager, or :meth:`start` and :meth:`stop`.

    Args:
        folder: takes configurations and logs.
        tenants: its workspaces.
        switch: ``freeswitch``, ``stand-in``, or ``auto`` for the real one where the machine has it.
        workers: of ``eslbot serve``, with ``max_calls`` each.
        emit: is told what the stand-ins see.

    Attributes:
        ameyo, bot, pbx: the other parts.
    """

    def __init__(
        self,
        folder: Path,
        tenants: Sequence[Tenant],
        *,
        switch: str = "auto",
        workers: int = 1,
        max_calls: int = 1000,
        emit: Emit = silent,
    ) -> None:
        self.folder = folder
        self.tenants = {tenant.name: tenant for tenant in tenants}
        self.workers, self.max_calls = workers, max_calls
        self.installation = None if switch == "stand-in" else freeswitch.find()
        if switch == "freeswitch" and self.installation is None:
            raise LabError("no FreeSWITCH with mod_audio_stream found; set ESLBOT_FREESWITCH to its binary")
        self.sip = ("127.0.0.1", free_port())
        self.event_socket = ("127.0.0.1", free_port())
        #: Where the switch sends copies of SIP messages.
        self.capture = ("127.0.0.1", free_port())
        self.eslbot = self._eslbot()
        #: Whom the switch hands calls to, in order.
        self.controllers = [self.eslbot.listen]
        self.rtp_ports = free_rtp_ports()
        #: ``relay.listen``; and its line files.
        self.relay, self.lines = ("127.0.0.1", free_port()), folder.absolute() / "lines"
        #: Where recordings are, of tenants that have ``record``.
        self.recordings = folder.absolute() / "recordings"
        #: Where a real FreeSWITCH keeps what is its own.
        self.work = folder / "run"
        self.ameyo = AmeyoServer({tenant.host: tenant.token for tenant in tenants}, emit=emit)
        self.bot = Bot(emit=emit)
        self.pbx = Pbx(self.sip, ameyo=self.ameyo, emit=emit)
        self.real_switch: freeswitch.FreeSwitchProcess | None = None
        self.stand_in: StandInSwitch | None = None
        self._stack = ExitStack()

    def _eslbot(self) -> EslbotService:
        return EslbotService(
            self.folder / "eslbot.toml",
            self.folder / "eslbot.log",
            listen=("127.0.0.1", free_port()),
            health=("127.0.0.1", free_port()),
            web=("127.0.0.1", free_port()),
            workers=self.workers,
            environment=self.tokens,
        )

    @property
    def switch_name(self) -> str:
        """What the switch is, for people."""
        if self.installation is None:
            return "the stand-in switch (no FreeSWITCH with mod_audio_stream on this machine, or not wanted)"
        return f"a real FreeSWITCH {self.installation.version} with mod_audio_stream"

    # -- life ---------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Bring everything up, or nothing. Raises :class:`LabError`."""
        # A start is seconds of CPU and little waiting: four at a time on two cores made one of them miss its
        # limit, and take no less time.
        with _alone_in_starting():
            try:
                self._start()
            except BaseException:
                self._stack.close()
                raise
        return self

    def _start(self) -> None:
        self.lines.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(self.bot)
        self._stack.enter_context(self.ameyo)
        self._start_eslbot()
        wait_listening(self.relay, START_LIMIT)
        self._start_switch()
        self._stack.enter_context(self.pbx)

    def _start_eslbot(self) -> None:
        self._run(self.eslbot)

    def _run(self, service: EslbotService) -> None:
        service.config.write_text(tomli_w.dumps(self.configuration(service)))
        self._stack.callback(service.stop)
        service.start()

    def _start_switch(self) -> None:
        if self.installation is not None:
            self._start_freeswitch(self.installation)
        else:
            switch = StandInSwitch(self._switch_options(), self.folder / "switch.log")
            self.stand_in = self._stack.enter_context(switch)

    def stop(self) -> None:
        """Take everything down, the callers first."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what it runs ---------------------------------------------------------------------------------------

    @property
    def switch(self) -> freeswitch.FreeSwitchProcess | StandInSwitch:
        """The real one, or the stand-in."""
        switch = self.real_switch or self.stand_in
        assert switch is not None
        return switch

    @property
    def service(self) -> subprocess.Popen[bytes] | None:
        """The process of ``eslbot serve``."""
        return self.eslbot.process

    def log_lines(self) -> list[dict[str, Any]]:
        """What eslbot has logged so far."""
        return self.eslbot.log_lines()

    # -- configuration ------------------------------------------------------------------------------------

    @property
    def tokens(self) -> dict[str, str]:
        """Ameyo's tokens, as environment."""
        return {tenant.variable: tenant.token for tenant in self.tenants.values()}

    def configuration(self, service: EslbotService) -> dict[str, Any]:
        """Of an ``eslbot serve``, and of what is beside it."""
        return {
            "server": {
                "listen": colon(service.listen),
                "health": colon(service.health),
                "workers": service.workers,
                "max_calls": self.max_calls,
                "key_file": str(self.folder.absolute() / "identity.key"),
                **({"switch_user": user} if (user := switch_user()) else {}),
            },
            "freeswitch": {
                "sip_ip": self.sip[0],
                "sip_port": self.sip[1],
                "rtp_ports": f"{self.rtp_ports[0]}-{self.rtp_ports[1]}",
                "event_socket": colon(self.event_socket),
                "event_socket_password": EVENT_SOCKET_PASSWORD,
                "capture": colon(self.capture),
                "controllers": [colon(controller) for controller in self.controllers],
                "db": str(self.work.absolute() / "db"),
                "recovery_file": str(self.work.absolute() / "freeswitch.json"),
            },
            "relay": {"listen": colon(self.relay), "directory": str(self.lines)},
            "recording": {"directory": str(self.recordings), "min_free": 0},
            "web": {"listen": colon(service.web)},
            "workspaces": {t.id: t.tables(self.bot, self.ameyo) for t in self.tenants.values()},
        }

    @property
    def sip_peers(self) -> list[str]:
        """Whose INVITEs the switch takes."""
        return sorted({source for tenant in self.tenants.values() for source in tenant.sources})

    def _switch_options(self) -> list[str]:
        options = ["--sip-listen", colon(self.sip)]
        for controller in self.controllers:
            options += ["--controllers", colon(controller)]
        options += ["--rtp-ports", f"{self.rtp_ports[0]}-{self.rtp_ports[1]}"]
        options += ["--capture", colon(self.capture), "--core-db", str(self.work / "db")]
        options += ["--event-socket", colon(self.event_socket)]
        options += ["--event-socket-password", EVENT_SOCKET_PASSWORD]
        for source in self.sip_peers:
            options += ["--allow", str(ip_network(source))]
        return options

    def _start_freeswitch(self, installation: freeswitch.Installation) -> None:
        conf = self.folder / "freeswitch"
        config = str(self.eslbot.config)
        command = [sys.executable, "-m", "eslbot", "conf", "--config", config, "--out", str(conf)]
        rendered = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=START_LIMIT
        )
        if rendered.returncode:
            raise LabError(f"eslbot conf failed:\n{rendered.stderr[-3000:]}")
        self.real_switch = self._stack.enter_context(
            freeswitch.FreeSwitchProcess(installation, conf, self.work)
        )

    def environment(self) -> dict[str, str]:
        """Of a command that reads the configuration."""
        environment = {**os.environ, **self.tokens}
        # A service's own directory of figures is not another's.
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        return environment


def switch_user() -> str | None:
    """Who all processes here run as; None where it cannot be told: in some sandboxes, and of nobody."""
    if os.geteuid() == NOBODY:
        return None
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG).close()
    except OSError:
        return None
    return str(os.geteuid())

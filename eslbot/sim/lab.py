"""A whole contact centre on loopback: PBX and Ameyo, a switch, eslbot, a bot; for the demo and for tests.

The switch is a real FreeSWITCH with mod_audio_stream, started on the configuration that ``eslbot conf``
renders, or the stand-in. eslbot itself runs as its users run it, by ``eslbot serve`` in a process of its own.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid5

import tomli_w

from eslbot.runtime import file_locks
from eslbot.sim import freeswitch
from eslbot.sim.bot import Bot
from eslbot.sim.events import Emit, silent
from eslbot.sim.pbx import AmeyoServer, Pbx
from eslbot.sim.proxy import TcpProxy
from eslbot.sim.relay import RelayAlone
from eslbot.sim.service import (
    START_LIMIT,
    STOP_LIMIT,
    EslbotService,
    ServiceError,
    send,
    wait_gone,
    wait_listening,
)

#: RTP ports of one lab: two a call.
RTP_PORTS = 600
#: Above those that the kernel gives to whoever connects (Linux, ip_local_port_range): a port that is free now
#: is still so when its server, which may take seconds to start, wants it. A process takes every eighth.
PORTS = range(61000, 65536)
SHARES = 8
#: By what a kernel tells whose a connection is; and as whom it shows those for whom it has no number.
NETLINK_SOCK_DIAG, NOBODY = 4, 65534
_given: set[int] = set()


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


class LabError(Exception):
    """A part did not come up; the text holds the end of its log."""


class Lab:
    """The centre; a context manager, or :meth:`start` and :meth:`stop`.

    ``switch`` is ``freeswitch``, ``stand-in``, or ``auto`` for the real one where the machine has it.
    ``folder`` takes configurations and logs. ``controllers`` are tried by the switch, in order, before
    eslbot's own listeners: something in between. ``hosts`` are addresses of loopback; on each runs an
    ``eslbot serve`` of its own (``services``), with ``workers`` workers, run by the command ``within`` has
    for that host, if any. With ``proxied`` the switch reaches them only through ``proxies``, one each.
    With ``ledger`` they record their calls, each host in a database of its own or all in that of the URL.
    ``page_tokens`` are tables ``[web.tokens.NAME]``. ``edge`` is the table ``[edge]``, read at the start:
    the switch then takes calls of that edge only. With ``refreshes`` the PBX sends a re-INVITE behind each
    ACK. ``relays``: how many processes carry the bots' voice; the service starts them, or with several hosts
    the lab does, beside the switch.
    ``ameyo``, ``bot`` and ``pbx`` are the other parts.
    """

    def __init__(
        self,
        folder: Path,
        tenants: Sequence[Tenant],
        *,
        switch: str = "auto",
        workers: int = 1,
        max_calls: int = 1000,
        controllers: Sequence[tuple[str, int]] = (),
        hosts: Sequence[str] = ("127.0.0.1",),
        within: Mapping[str, Sequence[str]] = MappingProxyType({}),
        proxied: bool = False,
        ledger: bool | str = False,
        page_tokens: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        edge: Mapping[str, Any] | None = None,
        refreshes: bool = False,
        relays: int = 1,
        emit: Emit = silent,
    ) -> None:
        self.folder = folder
        self._ledger, self._page_tokens, self._edge = ledger, page_tokens, edge
        self.tenants = {tenant.name: tenant for tenant in tenants}
        self.workers, self.max_calls, self.relays = workers, max_calls, relays
        self.installation = None if switch == "stand-in" else freeswitch.find()
        if switch == "freeswitch" and self.installation is None:
            raise LabError("no FreeSWITCH with mod_audio_stream found; set ESLBOT_FREESWITCH to its binary")
        self.sip = ("127.0.0.1", free_port())
        self.event_socket = ("127.0.0.1", free_port())
        #: Where the switch sends copies of SIP messages.
        self.capture = ("127.0.0.1", free_port())
        self.services = [
            self._service(number, host, within.get(host, ())) for number, host in enumerate(hosts, 1)
        ]
        self._relay_alone = (
            RelayAlone(self.services[0].config, folder / "relay.log", relays, self._tokens())
            if len(self.services) > 1
            else None
        )
        listeners = [service.listen for service in self.services]
        self.proxies = [TcpProxy(("127.0.0.1", free_port()), at) for at in listeners] if proxied else []
        self.controllers = [*controllers, *([proxy.address for proxy in self.proxies] or listeners)]
        self.rtp_ports = free_rtp_ports()
        #: ``relay.listen``, of one relay for all hosts; and its line files.
        self.relay, self.lines = ("127.0.0.1", free_port()), folder.absolute() / "lines"
        #: Where recordings are, of tenants that have ``record``.
        self.recordings = folder.absolute() / "recordings"
        #: Where a real FreeSWITCH keeps what is its own.
        self.work = folder / "run"
        self.ameyo = AmeyoServer({tenant.host: tenant.token for tenant in tenants}, emit=emit)
        self.bot = Bot(emit=emit)
        self.pbx = Pbx(self.sip, ameyo=self.ameyo, refreshes=refreshes, emit=emit)
        self.real_switch: freeswitch.FreeSwitchProcess | None = None
        self.stand_in: StandInSwitch | None = None
        self._stack = ExitStack()

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
            return self._start()

    def _start(self) -> Self:
        try:
            self.lines.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(self.bot)
            self._stack.enter_context(self.ameyo)
            for service in self.services:
                service.config.write_text(tomli_w.dumps(self._configuration(service)))
                self._stack.callback(service.stop)
                service.start()
            if self._relay_alone is not None:
                self._stack.callback(self._relay_alone.stop)
                self._relay_alone.start()
            wait_listening(self.relay, START_LIMIT)
            for proxy in self.proxies:
                self._stack.enter_context(proxy)
            if self.installation is not None:
                self._start_freeswitch(self.installation)
            else:
                self.stand_in = self._stack.enter_context(StandInSwitch(self))
            self._stack.enter_context(self.pbx)
        except ServiceError as error:
            self._stack.close()
            raise LabError(str(error)) from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def stop(self) -> None:
        """Take everything down, the callers first."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- eslbot: the first service, where there are several ------------------------------------------------

    def start_eslbot(self) -> None:
        """Run ``eslbot serve`` and wait until it is ready. Raises :class:`LabError`."""
        try:
            self.services[0].start()
        except ServiceError as error:
            raise LabError(str(error)) from error
        self._wait_capture()

    def _wait_capture(self) -> None:
        """Wait until the page process has the port where FreeSWITCH's refusals are told."""
        port = f":{self.capture[1]:04X}"
        deadline = time.monotonic() + START_LIMIT
        while not any(line.split()[1].endswith(port) for line in _udp_sockets()):
            if time.monotonic() > deadline:
                raise LabError(f"nobody has {colon(self.capture)} (freeswitch.capture)")
            time.sleep(0.02)

    def stop_eslbot(self) -> None:
        """End ``eslbot serve``: the calls in it go to nobody."""
        self.services[0].stop()

    @property
    def service(self) -> subprocess.Popen[bytes] | None:
        """The process of ``eslbot serve``."""
        return self.services[0].process

    @property
    def listen(self) -> tuple[str, int]:
        """``server.listen``."""
        return self.services[0].listen

    @property
    def web(self) -> tuple[str, int]:
        """``web.listen``."""
        return self.services[0].web

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.services[0].config

    @property
    def log_file(self) -> Path:
        """What eslbot says."""
        return self.services[0].log_file

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page of eslbot's page process."""
        return self.services[0].http(path)

    def log_lines(self) -> list[dict[str, Any]]:
        """What every eslbot has logged so far, and the relay."""
        lines = [line for service in self.services for line in service.log_lines()]
        return lines + (self._relay_alone.log_lines() if self._relay_alone is not None else [])

    # -- the relay ----------------------------------------------------------------------------------------

    def relay_pids(self) -> list[int]:
        """The relays, without their parent."""
        of = self._relay_alone if self._relay_alone is not None else self.services[0]
        return of.relay_pids()

    def kill_relay(self) -> list[int]:
        """KILL of all relays; their parent has others at once. Returns their ids when they are gone."""
        pids = self.relay_pids()
        for pid in pids:
            send(pid, signal.SIGKILL)
        if not wait_gone(pids, STOP_LIMIT):
            raise LabError(f"relays {pids} outlive a KILL")
        return pids

    # -- the switch ---------------------------------------------------------------------------------------

    @property
    def switch(self) -> freeswitch.FreeSwitchProcess | StandInSwitch:
        """The real one, or the stand-in."""
        switch = self.real_switch or self.stand_in
        assert switch is not None
        return switch

    def crash_switch(self, signum: int = signal.SIGKILL) -> None:
        """Have the switch die of ``signum``; another one is started at once, and takes up its calls.

        Returns when that is started, which is before it takes calls.
        """
        self.switch.crash(signum)

    def wait_switch_ready(self) -> None:
        """Wait until the switch takes calls, behind a crash."""
        self.switch.wait_until_ready()

    @property
    def switch_pid(self) -> int:
        """The process id of the switch, which is another one behind a crash."""
        return self.switch.pid

    def live_channels(self) -> int:
        """How many channels the switch has now."""
        if self.real_switch is not None:
            return int(self.real_switch.api("show channels count").split()[0])
        assert self.stand_in is not None
        return self.stand_in.live

    # -- configuration ------------------------------------------------------------------------------------

    def _service(self, number: int, host: str, within: Sequence[str]) -> EslbotService:
        name = "eslbot" if number == 1 else f"eslbot-{number}"
        return EslbotService(
            self.folder / f"{name}.toml",
            self.folder / f"{name}.log",
            (host, free_port(host)),
            (host, free_port(host)),
            (host, free_port(host)),
            self.workers,
            self._tokens(),
            within,
        )

    def _tokens(self) -> dict[str, str]:
        return {variable(tenant): tenant.token for tenant in self.tenants.values()}

    def journal(self, service: EslbotService) -> Path:
        """``ledger.journal`` of a service."""
        return self.folder.absolute() / f"journal-{service.config.stem}"

    def _configuration(self, service: EslbotService) -> dict[str, Any]:
        ledger: dict[str, Any] = {}
        if self._ledger:
            url = self._ledger if isinstance(self._ledger, str) else ""
            ledger["ledger"] = {
                "url": url or f"sqlite:///{self.folder.absolute()}/{service.config.stem}.db",
                "journal": str(self.journal(service)),
            }
        return {
            **ledger,
            **({"edge": dict(self._edge)} if self._edge else {}),
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
            "relay": {
                "listen": colon(self.relay),
                "directory": str(self.lines),
                # Of several hosts none is FreeSWITCH's, where the relay has to be.
                "processes": 0 if self._relay_alone else self.relays,
            },
            "recording": {"directory": str(self.recordings), "min_free": 0},
            "web": {
                "listen": colon(service.web),
                "tokens": {name: dict(token) for name, token in self._page_tokens.items()},
            },
            "workspaces": {tenant.id: self._workspace(tenant) for tenant in self.tenants.values()},
        }

    @property
    def sip_peers(self) -> list[str]:
        """Whose INVITEs the switch takes."""
        if self._edge:
            return [self._edge["sip_ip"]]
        return sorted({source for tenant in self.tenants.values() for source in tenant.sources})

    def _workspace(self, tenant: Tenant) -> dict[str, Any]:
        behaviours = [tenant.bot] if isinstance(tenant.bot, str) else list(tenant.bot)
        urls = [b if "://" in b else self.bot.url(b) for b in behaviours]
        return {
            "name": tenant.name,
            "sources": list(tenant.sources),
            "max_cps": 1000,  # all tenants of a laboratory call from one address, and some in bursts
            **tenant.workspace,
            "bot": {
                "url": urls if len(urls) > 1 else urls[0],
                "insecure": True,
                "headers": {"Authorization": f"Bearer bot-{tenant.name}"},
                **tenant.bot_keys,
            },
            "ameyo": {
                "url": self.ameyo.url,
                "ca_file": str(self.ameyo.ca_file),
                "tenant_host": tenant.host,
                "token": f"${{{variable(tenant)}}}",
                "bot_properties": ["agent_group", "summary"],
                "properties": {"DID": "{did}", "outcome": "{outcome}"},
                **tenant.ameyo_keys,
            },
        }

    def _start_freeswitch(self, installation: freeswitch.Installation) -> None:
        conf = self.folder / "freeswitch"
        command = [sys.executable, "-m", "eslbot", "conf", "--config", str(self.config), "--out", str(conf)]
        rendered = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, timeout=START_LIMIT
        )
        if rendered.returncode:
            raise LabError(f"eslbot conf failed:\n{rendered.stderr[-3000:]}")
        self.real_switch = self._stack.enter_context(
            freeswitch.FreeSwitchProcess(installation, conf, self.work)
        )

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **self._tokens()}
        # A service's own directory of figures is not another's.
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        return environment


def _udp_sockets() -> list[str]:
    """Those of this host, as in proc(5)."""
    return Path("/proc/net/udp").read_text().splitlines()[1:]


class StandInSwitch:
    """``eslbot sim switch`` in a process of its own; its events are counted here."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.live = 0
        self.events: list[dict[str, Any]] = []
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        lab = self._lab
        command = [sys.executable, "-m", "eslbot", "sim", "switch"]
        command += ["--sip-listen", colon(lab.sip)]
        for controller in lab.controllers:
            command += ["--controllers", colon(controller)]
        command += ["--rtp-ports", f"{lab.rtp_ports[0]}-{lab.rtp_ports[1]}"]
        command += ["--capture", colon(lab.capture), "--core-db", str(lab.work / "db")]
        command += ["--event-socket", colon(lab.event_socket)]
        command += ["--event-socket-password", EVENT_SOCKET_PASSWORD]
        for source in lab.sip_peers:
            command += ["--allow", str(ip_network(source))]
        self._command, self._log = command, lab.folder / "switch.log"
        self.start()
        return self

    def start(self) -> None:
        """Run it and wait until it takes calls. Raises LabError."""
        self._run()
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def crash(self, signum: int = signal.SIGKILL) -> None:
        """:meth:`kill` it, and start it again at once on what it left.

        Returns when the new process is started, :meth:`wait_until_ready` when that takes calls.
        """
        self.kill(signum)
        self._run()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Have it die of ``signum``. Raises LabError where it does not."""
        self._process.send_signal(signum)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the stand-in switch outlives {signal.Signals(signum).name}") from error
        self._reader.join(STOP_LIMIT)
        self.live = 0

    def wait_until_ready(self) -> None:
        """Wait until it takes calls. Raises LabError."""
        if not self._ready.wait(START_LIMIT):
            raise LabError(f"the stand-in switch did not come up:\n{self._log.read_text()[-3000:]}")

    def _run(self) -> None:
        self._ready.clear()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        self._reader = threading.Thread(target=self._read, name="stand-in switch", daemon=True)
        self._reader.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_process(self._process)
        self._reader.join(STOP_LIMIT)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    continue  # cut short by a kill
                event = json.loads(line)
                self.events.append(event)
                match event["event"]:
                    case "ready":
                        self._ready.set()
                    case "invite" | "recovered":
                        self.live += 1
                    case "hangup":
                        self.live -= 1


def variable(tenant: Tenant) -> str:
    """The environment variable that holds a tenant's token."""
    return f"LAB_TOKEN_{tenant.name.upper().replace('-', '_').replace('.', '_')}"


def colon(address: tuple[str, int]) -> str:
    """``host:port``."""
    return f"{address[0]}:{address[1]}"


def switch_user() -> str | None:
    """Who all processes here run as; None where it cannot be told: in some sandboxes, and of nobody."""
    if os.geteuid() == NOBODY:
        return None
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG).close()
    except OSError:
        return None
    return str(os.geteuid())


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for TCP and UDP on an address of loopback now; each once while there are others."""
    own = PORTS[os.getpid() % SHARES :: SHARES]
    while True:
        if _given.issuperset(own):
            _given.clear()
        port = random.choice(own)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port


def free_rtp_ports() -> tuple[int, int]:
    """A range below the ports that the kernel gives out; two labs at once are unlikely to share it."""
    first = random.randrange(10000, 32000 - RTP_PORTS, RTP_PORTS)
    return first, first + RTP_PORTS - 1


def end_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL where that does not help in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_LIMIT)

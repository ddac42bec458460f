"""A real FreeSWITCH on free loopback ports, running what `eslbot conf` renders; controllers of our own."""

from __future__ import annotations

import random
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Self

import pytest

from eslbot.config.model import (
    Address,
    Ameyo,
    Bot,
    Config,
    FreeSwitch,
    Secret,
    Server,
    Web,
    Workspace,
    loopback,
)
from eslbot.freeswitch.configuration import render
from eslbot.sim.addresses import free_port
from eslbot.sim.freeswitch import FreeSwitchProcess, find

#: Seconds; every wait in these tests ends by then.
PATIENCE = 10.0
#: Everything that the preprocessor, XML or the event socket could trip over.
PASSWORD = """a"b'c$${sip_ip}&lt;<!--#exec "x"--> ${d} />%41\\n|&#36;=,;"""
FOREIGN = "127.0.0.9"
#: An ACK to a refusal belongs to its INVITE's transaction, which is three SIPp steps back.
FAILED = "[branch-3]"


def until(done: Callable[[], bool], otherwise: str) -> None:
    """Ask every 20 ms, for what gives no sign of its own."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


class Session:
    """The controller's side of one outbound event-socket connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(PATIENCE)
        self._stream = connection.makefile("rb")

    def send(self, command: str) -> None:
        self.connection.sendall(f"{command}\n\n".encode())

    def read(self) -> dict[str, str]:
        """The next block of headers, its body dropped."""
        headers = self._block()
        self._stream.read(int(headers.get("Content-Length", 0)))
        return headers

    def read_event(self) -> dict[str, str]:
        """The next event's own headers."""
        outer = self._block()
        if outer.get("Content-Disposition") == "linger":  # it may come before the last event
            self._stream.read(int(outer["Content-Length"]))
            outer = self._block()
        assert outer["Content-Type"] == "text/event-plain"
        return self._block()

    def _block(self) -> dict[str, str]:
        headers = {}
        while line := self._stream.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            headers[name] = value
        return headers

    def connect(self) -> dict[str, str]:
        """The channel as the switch describes it."""
        self.send("connect")
        reply = self.read()
        self.uuid = reply["Unique-ID"]
        return reply

    def execute(self, application: str, data: str = "") -> None:
        argument = f"\nexecute-app-arg: {data}" if data else ""
        self.send(f"sendmsg\ncall-command: execute\nexecute-app-name: {application}{argument}")
        assert self.read()["Reply-Text"].startswith("+OK")

    def api(self, command: str) -> None:
        self.send(f"api {command}")
        assert self.read()["Content-Type"] == "api/response"

    @property
    def host(self) -> int:
        """Which of the controllers' hosts was called."""
        return Controllers.HOSTS.index(self.connection.getsockname()[0])

    def die(self, *, reset: bool = False) -> None:
        """Close; with ``reset`` as a killed host does, by RST."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.close()
        self.connection.close()


class Controllers:
    """Two hosts' controllers: ports held all the time, so that nobody else can take them, open when asked."""

    HOSTS = ("127.0.0.1", "127.0.0.2")

    def __init__(self) -> None:
        self._sockets = [self._held((host, 0)) for host in self.HOSTS]
        self._open: set[int] = set()
        self.addresses: list[tuple[str, int]] = [s.getsockname() for s in self._sockets]

    @staticmethod
    def _held(address: tuple[str, int]) -> socket.socket:
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)  # bound, not listening: connections are refused
        return held

    def open(self, *which: int) -> None:
        """Listen: all of them, or only those (0 is the first of the list that was rendered)."""
        for number in which or (0, 1):
            self._sockets[number].listen(16)
            self._open.add(number)

    def close(self, *which: int) -> None:
        """Refuse connections from now on."""
        for number in which or (0, 1):
            self._open.discard(number)
            self._sockets[number].close()
            self._sockets[number] = self._held(self.addresses[number])

    def accept(self) -> Session:
        ready = self._ready(PATIENCE)
        assert ready, "FreeSWITCH called no controller"
        return Session(ready[0].accept()[0])

    def _ready(self, timeout: float) -> list[socket.socket]:
        return select.select([self._sockets[number] for number in self._open], [], [], timeout)[0]

    @property
    def called(self) -> bool:
        """Whether a connection waits right now."""
        return bool(self._ready(0))


@dataclass
class Switch:
    """The FreeSWITCH under test and where it is."""

    process: FreeSwitchProcess
    sip_port: int
    controllers: Controllers

    def channels(self) -> int:
        return int(self.process.api("show channels count").split()[0])


@pytest.fixture(scope="session")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    with running(tmp_path_factory) as switch:
        yield switch


@contextmanager
def running(tmp_path_factory: pytest.TempPathFactory, media_timeout: float = 300.0) -> Iterator[Switch]:
    """A FreeSWITCH of its own that runs what `eslbot conf` renders."""
    installation = find()
    if installation is None:
        pytest.skip(
            "no FreeSWITCH with mod_audio_stream on this machine (set ESLBOT_FREESWITCH to its binary)"
        )
    controllers = Controllers()
    sip_port = free_port()
    rtp = random.randrange(16000, 30000, 400)  # below the ports that the kernel gives away
    conf, work = tmp_path_factory.mktemp("conf"), tmp_path_factory.mktemp("work")
    event_socket = free_port()
    render(_config(sip_port, (rtp, rtp + 399), event_socket, controllers.addresses, media_timeout), conf)
    with FreeSwitchProcess(installation, conf, work) as process:
        yield Switch(process, sip_port, controllers)
    controllers.close()


def _config(
    sip: int,
    rtp: tuple[int, int],
    event_socket: int,
    controllers: list[tuple[str, int]],
    media_timeout: float,
) -> Config:
    freeswitch = FreeSwitch(
        sip_ip=ip_address("127.0.0.1"),
        sip_port=sip,
        external_ip=None,
        rtp_ports=rtp,
        event_socket=loopback(event_socket),
        event_socket_password=Secret(PASSWORD),
        controllers=tuple(Address(ip_address(host), port) for host, port in controllers),
        media_timeout=media_timeout,
    )
    bot = Bot(("ws://127.0.0.1/",), 8000, 3.0, 10.0, {}, True)
    ameyo = Ameyo("https://127.0.0.1", "a.example.com", Secret("t"), None, (), {}, 3.0, 10.0, False)
    network = (ip_network("127.0.0.1/32"),)
    workspace = Workspace("00000001-0000-0000-0000-000000000000", "demo", network, 200, 1800.0, bot, ameyo)
    server = Server(freeswitch.controllers[0], network, 2, 1000)
    return Config(server, freeswitch, Web(loopback(8085)), {workspace.id: workspace})


@pytest.fixture
def controllers(switch: Switch) -> Iterator[Controllers]:
    """Closed at first and at last, with no call left behind."""
    yield switch.controllers
    switch.controllers.close()
    switch.process.api("hupall")
    until(lambda: switch.channels() == 0, "a call is left behind")


OFFER = {"PCMU": "0", "PCMA": "8", "both": "8 0", "G729": "18", "opus": "96", "telephone-event": ""}


@dataclass
class Caller:
    """SIPp as the PBX: one call, which hangs up when told (its 3PCC command channel)."""

    switch: Switch
    work: Path
    offer: str = "PCMU"
    tcp: bool = False
    source: str = "127.0.0.1"
    headers: str = ""
    during: str = ""
    answer: str = ""
    rtp: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind((self.source, 0))
        self.rtp.settimeout(PATIENCE)
        self._commands = socket.create_server(("127.0.0.1", 0))
        self._commands.settimeout(PATIENCE)
        self._link: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for closing in (self.rtp, self._commands, self._link):
            if closing is not None:
                closing.close()

    def _invite(self) -> str:
        payloads = f"{OFFER[self.offer]} 101".strip()
        extra = {"G729": "\na=rtpmap:18 G729/8000", "opus": "\na=rtpmap:96 opus/48000/2"}.get(self.offer, "")
        header = f"\n{self.headers}" if self.headers else ""
        return f"""<send retrans="500"><![CDATA[
INVITE sip:1234@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "00919990152080|d444-[call_number]" <sip:caller@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:1234@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:caller@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 2{header}
Content-Type: application/sdp
Content-Length: [len]

v=0
o=pbx 1 1 IN IP4 {self.source}
s=-
c=IN IP4 {self.source}
t=0 0
m=audio {self.rtp.getsockname()[1]} RTP/AVP {payloads}{extra}
a=rtpmap:101 telephone-event/8000
]]></send>
<recv response="100" optional="true"/>
"""

    def _run(self, name: str, steps: str, *options: str) -> subprocess.Popen[bytes]:
        scenario = self.work / f"{name}.xml"
        scenario.write_text(f'<?xml version="1.0"?>\n<scenario name="{name}">\n{steps}</scenario>\n')
        command = ["sipp", f"127.0.0.1:{self.switch.sip_port}", "-sf", str(scenario), "-m", "1"]
        command += ["-i", self.source, "-mi", self.source, "-ci", self.source, "-nostdin"]
        command += ["-t", "t1" if self.tcp else "u1", "-timeout", "60s", "-timeout_error", *options]
        output = (self.work / f"{name}.out").open("wb")
        with output:
            return subprocess.Popen(
                [*command, "-trace_err", "-error_file", str(self.work / f"{name}.err")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.work,
            )

    def refused(self, status: int, check: str = "") -> None:
        """Call, expect exactly this final response; ``check`` is a SIPp action on it."""
        with self.refusal(status, check):
            pass

    @contextmanager
    def refusal(self, status: int, check: str = "") -> Iterator[None]:
        """The same, for something that has to happen meanwhile."""
        action = f"<action>{check}</action>" if check else ""
        sipp = self._run(
            "refused",
            f'{self._invite()}<recv response="{status}">{action}</recv>\n'
            f"{request('ACK', '1', branch=FAILED)}{_reference(check)}",
        )
        try:
            yield
            self._ended(sipp, "refused")
        finally:
            if sipp.poll() is None:
                sipp.kill()
                sipp.wait()

    @contextmanager
    def call(self) -> Iterator[Self]:
        """A call in progress; leaving makes SIPp send BYE and checks that nobody else did."""
        action = f"<action>{self.answer}</action>" if self.answer else ""
        sipp = self._run(
            "call",
            f'{self._invite()}<recv response="200" rrs="true">{action}</recv>\n'
            f"{request('ACK', '1')}{self.during}"
            "<sendCmd><![CDATA[\nCall-ID: [call_id]\nFrom: up\n\n]]></sendCmd>\n<recvCmd/>\n"
            f'{request("BYE", "9")}<recv response="200"/>\n{_reference(self.answer)}',
            "-3pcc",
            "{}:{}".format(*self._commands.getsockname()),
        )
        try:
            yield self
            self.up()
            assert self._link is not None
            call_id = self._up.partition("Call-ID: ")[2].splitlines()[0]
            self._link.sendall(f"Call-ID: {call_id}\r\nFrom: test\r\n\r\n\x1b".encode())
            self._ended(sipp, "call")
        finally:
            if sipp.poll() is None:
                sipp.kill()
                sipp.wait()

    @contextmanager
    def abandoned(self, reason: str = "MEDIA_TIMEOUT") -> Iterator[Self]:
        """A call in progress; leaving waits for the switch's BYE, and checks its reason."""
        why = f'<action><ereg regexp="{reason}" search_in="hdr" header="Reason:" check_it="true" '
        sipp = self._run(
            "abandoned",
            f'{self._invite()}<recv response="200" rrs="true"/>\n{request("ACK", "1")}{self.during}'
            "<sendCmd><![CDATA[\nCall-ID: [call_id]\nFrom: up\n\n]]></sendCmd>\n"
            f'<recv request="BYE">{why}assign_to="1"/></action></recv>\n{OK}<Reference variables="1"/>\n',
            "-3pcc",
            "{}:{}".format(*self._commands.getsockname()),
        )
        try:
            yield self
            self._ended(sipp, "abandoned")
        finally:
            if sipp.poll() is None:
                sipp.kill()
                sipp.wait()

    def up(self) -> None:
        """Returns when SIPp has its 200 and has done what was asked for during the call."""
        if self._link is None:
            self._link, _ = self._commands.accept()
            self._link.settimeout(PATIENCE)
            received = b""
            while b"\x1b" not in received:
                more = self._link.recv(4096)
                assert more, self._story("call")
                received += more
            self._up = received.decode()

    def _ended(self, sipp: subprocess.Popen[bytes], name: str) -> None:
        assert sipp.wait(PATIENCE) == 0, self._story(name)

    def _story(self, name: str) -> str:
        errors = self.work / f"{name}.err"
        return f"SIPp says: {errors.read_text(errors='replace') if errors.exists() else '(nothing)'}"


def accept(more: str = "Content-Length: 0\n\n") -> str:
    """A SIPp step: 200 to the request before; ``more`` is what it has of its own."""
    echoed = "".join(f"[last_{name}:]\n" for name in ("Via", "From", "To", "Call-ID", "CSeq"))
    return f"<send><![CDATA[\nSIP/2.0 200 OK\n{echoed}{more}]]></send>\n"


#: A SIPp step: 200 to the request before.
OK = accept()


def _reference(check: str) -> str:
    return '<Reference variables="1"/>\n' if 'assign_to="1"' in check else ""


def reinvite(cseq: str, sdp: str, status: int) -> str:
    """SIPp steps: a new offer within the call, its answer and the ACK."""
    return (
        request("INVITE", cseq, "Content-Type: application/sdp", sdp)
        + f'<recv response="100" optional="true"/>\n<recv response="{status}"/>\n'
        + request("ACK", cseq, branch="[branch]" if status == 200 else FAILED)
    )


def taken_up() -> str:
    """SIPp steps: FreeSWITCH, restarted, offers anew within the call, and sends audio again."""
    answer = """Contact: <sip:caller@[local_ip]:[local_port];transport=[transport]>
Content-Type: application/sdp
Content-Length: [len]

v=0
o=pbx 1 2 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
"""
    return f'<recv request="INVITE"/>\n{accept(answer)}<recv request="ACK"/>\n'


def request(method: str, cseq: str, headers: str = "", content: str = "", branch: str = "[branch]") -> str:
    """A SIPp step: a request within the call."""
    retransmit = "" if method == "ACK" else ' retrans="500"'
    more = f"\n{headers}" if headers else ""
    return f"""<send{retransmit}><![CDATA[
{method} sip:1234@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}
From: "00919990152080|d444-[call_number]" <sip:caller@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:1234@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:caller@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70{more}
Content-Length: [len]

{content}
]]></send>
"""

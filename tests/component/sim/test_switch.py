"""The stand-in switch from outside: a PBX on SIP and RTP, controllers on the event socket, a bot."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import json
import math
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.utils import accept_key

from eslbot.audio import g711
from eslbot.sim.addresses import free_port
from eslbot.sim.bot import Bot as StandInBot
from eslbot.sim.events import JsonLines
from eslbot.sim.rtp import RtpPacket
from eslbot.sim.switch import Switch, SwitchSettings
from eslbot.sim.switch.audio import resample, tone
from eslbot.sim.switch.dialplan import Dialplan
from eslbot.sim.switch.sip_message import MalformedMessage, NameAddr, SipMessage
from eslbot.sim.switch.wire import Variables, expand, separate, url_encode

ROOT = Path(__file__).parents[3]
LIMIT = 8.0  # seconds any one thing may take on a slow machine
DISPLAY = '"00919990152080|d444-69139d35-vce-daf-3883"'
WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
EVERYTHING = (
    "event plain CHANNEL_ANSWER CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP "
    "CHANNEL_HANGUP_COMPLETE DTMF PLAYBACK_START PLAYBACK_STOP BACKGROUND_JOB "
    "CUSTOM mod_audio_stream::connect mod_audio_stream::json "
    "mod_audio_stream::disconnect mod_audio_stream::error"
)


def scenario(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run an async test that takes a temporary directory, with a limit."""

    def run(tmp_path: Path) -> None:
        async def limited() -> None:
            async with asyncio.timeout(30):
                await test(tmp_path)

        asyncio.run(limited())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def soon(work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> Any:
    return await asyncio.wait_for(work, LIMIT)


class Session:
    """One connection a switch made to a controller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.replies: asyncio.Queue[tuple[dict[str, str], str]] = asyncio.Queue()
        self.events: list[tuple[dict[str, str], str]] = []
        self.notices: asyncio.Queue[tuple[dict[str, str], str]] = asyncio.Queue()
        self.raw_events: list[str] = []
        self.news = asyncio.Condition()
        self.channel: dict[str, str] = {}
        self.raw_channel = ""
        self.ended = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                head = (await self.reader.readuntil(b"\n\n")).decode()
                outer = fields(head)
                body = (await self.reader.readexactly(int(outer.get("Content-Length", 0)))).decode()
                kind = outer["Content-Type"]
                if kind.startswith("text/event-"):
                    async with self.news:
                        if kind == "text/event-json":
                            content = json.loads(body)
                            self.events.append((content, content.pop("_body", "")))
                        else:
                            self.raw_events.append(body)
                            inner, _, rest = body.partition("\n\n")
                            self.events.append((fields(inner), rest))
                        self.news.notify_all()
                elif kind == "text/disconnect-notice":
                    self.notices.put_nowait((outer, body))
                else:
                    self.raw_channel = self.raw_channel or head
                    self.replies.put_nowait((outer, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()

    def send(self, *lines: str) -> None:
        self.writer.write(("\n".join(lines) + "\n\n").encode(errors="surrogateescape"))

    async def command(self, *lines: str) -> str:
        """The Reply-Text of a command, or the body of an api response."""
        self.send(*lines)
        outer, body = await soon(self.replies.get())
        return body if outer["Content-Type"] == "api/response" else outer["Reply-Text"]

    async def api(self, text: str) -> str:
        return await self.command(f"api {text}")

    async def connect(self) -> Session:
        self.send("connect")
        self.channel, _ = await soon(self.replies.get())
        return self

    async def begin(self) -> Session:
        """What a controller usually starts with."""
        await self.connect()
        assert await self.command("linger 5") == "+OK will linger 5 seconds"
        assert await self.command(EVERYTHING) == "+OK event listener enabled plain"
        assert (await self.command(f"filter Unique-ID {self.uuid}")).startswith("+OK filter added.")
        return self

    @property
    def uuid(self) -> str:
        return self.channel["Unique-ID"]

    def execute(self, app: str, arg: str = "", lock: bool = True) -> str:
        identifier = str(uuid.uuid4())
        lines = ["sendmsg", "call-command: execute", f"execute-app-name: {app}", f"Event-UUID: {identifier}"]
        lines += [f"execute-app-arg: {arg}"] if arg else []
        self.send(*lines, *(["event-lock: true"] if lock else []))
        return identifier

    async def done(self, app: str, arg: str = "") -> dict[str, str]:
        """Execute and wait for the completion."""
        identifier = self.execute(app, arg)
        outer, _ = await soon(self.replies.get())
        assert outer["Reply-Text"] == "+OK"
        headers, _ = await self.event("CHANNEL_EXECUTE_COMPLETE", **{"Application-UUID": identifier})
        return headers

    async def event(self, name: str, **wanted: str) -> tuple[dict[str, str], str]:
        """The first event, past or coming, called ``name`` whose headers are as wanted."""

        def find() -> tuple[dict[str, str], str] | None:
            for headers, body in self.events:
                called = headers.get("Event-Subclass") or headers["Event-Name"]
                if called == name and all(headers.get(key) == value for key, value in wanted.items()):
                    return headers, body
            return None

        async with self.news:
            await soon(self.news.wait_for(lambda: find() is not None))
        found = find()
        assert found is not None
        return found

    async def bot_event(self, kind: str) -> Any:
        """The JSON body of the newest unread ``mod_audio_stream`` event of ``kind``, which is taken away."""
        headers, body = await self.event(f"mod_audio_stream::{kind}")
        self.events.remove((headers, body))
        return json.loads(body)

    def close(self, reset: bool = False) -> None:
        if reset:
            self.writer.transport.abort()
        self.writer.close()


def fields(text: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in text.split("\n") if line)
    return {name: unquote(value) for name, _, value in pairs}


class Controller:
    """An eslbot that does nothing by itself."""

    def __init__(self) -> None:
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()
        self.server: asyncio.Server | None = None
        self.address = ("127.0.0.1", 0)
        self.hang_up_at_once = False
        self.all: list[Session] = []
        self.accepted = 0

    async def start(self) -> Controller:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.hang_up_at_once:
            writer.close()
        else:
            self.all.append(Session(reader, writer))
            self.sessions.put_nowait(self.all[-1])

    async def session(self) -> Session:
        return await soon(self.sessions.get())


class Pbx(asyncio.DatagramProtocol):
    """A PBX by hand: one call over UDP or TCP, with its RTP."""

    def __init__(self, switch: tuple[str, int]) -> None:
        self.switch = switch
        self.inbox: asyncio.Queue[SipMessage] = asyncio.Queue()
        self.call_id = f"{uuid.uuid4()}@test"
        self.branch = f"z9hG4bK{uuid.uuid4().hex}"
        self.to, self.seen = "<sip:bot@127.0.0.1>", 0
        self.udp: asyncio.DatagramTransport | None = None
        self.tcp: asyncio.StreamWriter | None = None
        self.port = 0
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind(("127.0.0.1", 0))
        self.rtp.setblocking(False)
        self.remote_rtp = ("127.0.0.1", 0)
        self.sequence = 0

    async def start(self, transport: str = "udp") -> Pbx:
        loop = asyncio.get_running_loop()
        if transport == "udp":
            self.udp, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
            self.port = self.udp.get_extra_info("sockname")[1]
        else:
            reader, self.tcp = await asyncio.open_connection(*self.switch)
            self.port = self.tcp.get_extra_info("sockname")[1]
            self.reading = asyncio.create_task(self._read(reader))
        return self

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
                self._take(head + await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._take(data)

    def _take(self, data: bytes) -> None:
        self.seen += 1
        self.inbox.put_nowait(SipMessage.parse(data))

    def send_raw(self, data: bytes) -> None:
        if self.tcp is not None:
            self.tcp.write(data)
        else:
            assert self.udp is not None
            self.udp.sendto(data, self.switch)

    def request(
        self,
        method: str,
        cseq: str,
        headers: list[tuple[str, str]] | None = None,
        body: str = "",
        display: str = DISPLAY,
        branch: str = "",
    ) -> bytes:
        kind = "TCP" if self.tcp is not None else "UDP"
        message = SipMessage(
            method=method, uri=f"sip:bot@{self.switch[0]}:{self.switch[1]}", body=body.encode()
        )
        message.headers = [
            ("Via", f"SIP/2.0/{kind} 127.0.0.1:{self.port};rport;branch={branch or self.branch}"),
            ("Max-Forwards", "70"),
            ("From", f"{display} <sip:+919990@127.0.0.1>;tag=pbx".strip()),
            ("To", self.to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", f"<sip:pbx@127.0.0.1:{self.port}>"),
            *(headers if headers is not None else [("X-Workspace-ID", WORKSPACE)]),
        ]
        return message.pack()

    def invite(self, codecs: str = "0 8 101", display: str = DISPLAY, headers: Any = None) -> bytes:
        data = self.request("INVITE", "1", headers, self.sdp(codecs), display)
        self.send_raw(data)
        return data

    def sdp(self, codecs: str) -> str:
        port = self.rtp.getsockname()[1]
        lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
        lines += [
            f"m=audio {port} RTP/AVP {codecs}",
            "a=rtpmap:101 telephone-event/8000",
            "a=rtpmap:18 G729/8000",
        ]
        return "\r\n".join([*lines, ""])

    async def status(self, *, not_yet: tuple[int, ...] = (100,)) -> SipMessage:
        """The next response that is none of ``not_yet``."""
        while True:
            message = await soon(self.inbox.get())
            if message.status and message.status not in not_yet:
                return message

    async def wants(self, method: str) -> SipMessage:
        while True:
            message = await soon(self.inbox.get())
            if message.method == method:
                return message

    async def answered(self) -> SipMessage:
        response = await self.status()
        assert response.status == 200, (response.status, response.reason)
        self.to = response.need("To")
        match = re.search(r"m=audio (\d+) RTP/AVP (.*)", response.body.decode())
        assert match is not None
        self.remote_rtp = ("127.0.0.1", int(match[1]))
        self.ack()
        return response

    def ack(self, branch: str = "", cseq: str = "1", display: str = DISPLAY) -> None:
        self.send_raw(
            self.request("ACK", cseq, [], display=display, branch=branch or f"{self.branch}a{cseq}")
        )

    async def bye(self) -> None:
        self.send_raw(self.request("BYE", "2", [], branch=f"{self.branch}b"))
        assert (await self.status()).status == 200

    def speak(self, payload: bytes, kind: int = 0, timestamp: int | None = None) -> None:
        self.sequence += 1
        when = self.sequence * 160 if timestamp is None else timestamp
        self.rtp.sendto(RtpPacket(kind, self.sequence, when, 7, payload).pack(), self.remote_rtp)

    async def hear(self, frames: int) -> bytes:
        """The L16 of that many RTP packets."""
        loop, heard = asyncio.get_running_loop(), b""
        for _ in range(frames):
            packet = RtpPacket.parse(await soon(loop.sock_recv(self.rtp, 2048)))
            assert packet is not None
            heard += g711.decode("PCMU", packet.payload)
        return heard

    def close(self) -> None:
        self.rtp.close()
        if self.udp is not None:
            self.udp.close()
        if self.tcp is not None:
            self.tcp.close()


class Rig:
    """A switch, its controllers, its events, and whoever calls it."""

    def __init__(
        self, switch: Switch, controllers: list[Controller], told: list[tuple[str, dict[str, Any]]]
    ) -> None:
        self.switch, self.controllers, self.told = switch, controllers, told
        self.pbxs: list[Pbx] = []
        self.spoken = asyncio.Condition()

    async def pbx(self, transport: str = "udp") -> Pbx:
        self.pbxs.append(await Pbx(self.switch.sip_address).start(transport))
        return self.pbxs[-1]

    async def call(self, **invite: Any) -> tuple[Pbx, Session]:
        """A call that is answered; without the dialplan's silence, so that every packet is a sound."""
        pbx = await self.pbx()
        pbx.invite(**invite)
        session = await (await self.controllers[0].session()).begin()
        await session.api(f"uuid_setvar {session.uuid} send_silence_when_idle 0")
        await session.done("answer")
        await pbx.answered()
        return pbx, session

    def all_told(self, event: str, **wanted: Any) -> list[dict[str, Any]]:
        return [f for name, f in self.told if name == event and all(f.get(k) == v for k, v in wanted.items())]

    async def tells(self, event: str, **wanted: Any) -> dict[str, Any]:
        async with self.spoken:
            await soon(self.spoken.wait_for(lambda: bool(self.all_told(event, **wanted))))
        return self.all_told(event, **wanted)[0]


@asynccontextmanager
async def rig(
    tmp_path: Path, controllers: int = 1, allow: str = "127.0.0.0/8", errors: int = 0, **settings: Any
) -> AsyncIterator[Rig]:
    told: list[tuple[str, dict[str, Any]]] = []
    servers = [await Controller().start() for _ in range(controllers)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()  # a port that refuses once this socket is closed
    settings.setdefault("controllers", [server.address[:2] for server in servers] or [nobody])
    first = 20_000 + 2 * (uuid.uuid4().int % 18_000)
    options = SwitchSettings(
        ("127.0.0.1", 0),
        [ipaddress.ip_network(allow)],
        rtp_ports=(first, first + 1000),
        **settings,
    )

    def emit(event: str, fields: dict[str, Any]) -> None:
        told.append((event, fields))
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(spread()))

    async def spread() -> None:
        async with made.spoken:
            made.spoken.notify_all()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(("error", {**context})))
    switch = Switch(options, emit)
    made = Rig(switch, servers, told)
    await switch.start()
    try:
        yield made
    finally:
        await switch.stop()
        for pbx in made.pbxs:
            pbx.close()
        for server in servers:
            assert server.server is not None
            server.server.close()
            for session in server.all:
                session.close()
                session.reading.cancel()
    assert switch.calls == 0
    assert len(made.all_told("error")) == errors, made.all_told("error")


def power(linear: bytes, frequency: float, rate: int = 8000) -> float:
    """The share of the signal's power at ``frequency``, from 0 to 1."""
    samples = struct.unpack(f"<{len(linear) // 2}h", linear)
    turn = 2 * math.pi * frequency / rate
    real = sum(s * math.cos(turn * n) for n, s in enumerate(samples))
    imaginary = sum(s * math.sin(turn * n) for n, s in enumerate(samples))
    total = sum(s * s for s in samples)
    return 2 * (real**2 + imaginary**2) / (len(samples) * total) if total else 0.0


# -- texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("a b c", 64, ["a", "b", "c"]),
        ("  a   b  ", 64, ["a", "b"]),
        ("u name some text with spaces ", 3, ["u", "name", "some text with spaces"]),
        ("u send_text '{\"a b\": 1}'", 6, ["u", "send_text", '{"a b": 1}']),
        (r"u v it\'s\sone\nline \\", 64, ["u", "v", "it's one\nline", "\\"]),
        (r"u 'a \' b'", 64, ["u", "a ' b"]),
        ("u don't", 64, ["u", "don't"]),
        ("^^;a;b c", 64, ["a", "b c"]),
        ("", 64, []),
    ],
)
def test_arguments_are_separated_as_freeswitch_does(text: str, limit: int, expected: list[str]) -> None:
    assert separate(text, limit=limit) == expected


def test_other_delimiters_keep_spaces() -> None:
    assert separate("a=1;b=two words;c='x;y'", ";") == ["a=1", "b=two words", "c=x;y"]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("0091|x y", "0091%7Cx%20y"),
        ("already%7Cthere", "already%7Cthere"),
        ("lower%7cis not", "lower%257cis%20not"),
        ("100%", "100%25"),
        ("+OK\n", "%2BOK%0A"),
        ("é", "%C3%A9"),
        ("a/b,c-d_e.f", "a/b,c-d_e.f"),
    ],
)
def test_values_are_encoded_as_freeswitch_does(value: str, encoded: str) -> None:
    assert url_encode(value) == encoded


def test_variables_are_found_in_any_spelling_and_an_empty_one_is_gone() -> None:
    variables = Variables()
    variables.set("sip_h_x-Workspace-ID", "w")
    assert variables["SIP_H_X-WORKSPACE-ID"] == "w"
    assert list(variables) == ["sip_h_x-Workspace-ID"]
    assert expand("<${sip_h_X-Workspace-ID}${none}>", variables) == "<w>"
    variables.set_from_network("evil", "${system(x)}")
    variables.set("sip_h_X-Workspace-ID", "")
    assert len(variables) == 0


def test_an_unquoted_bar_is_no_display_name() -> None:
    with pytest.raises(MalformedMessage, match="Bad From Header"):
        NameAddr.parse("00919|x <sip:a@b>", "From")
    assert NameAddr.parse(r'"a \"b\" |c" <sip:u@h>;tag=t', "From").display == r"a \"b\" |c"
    assert NameAddr.parse('"" <sip:u@h>', "From").display is None


def test_resampling_keeps_the_tone() -> None:
    up = resample(tone([440], 100), 8000, 24000)
    assert len(up) == 3 * 1600
    assert power(up, 440, 24000) > 0.98
    assert power(resample(up, 24000, 8000), 440) > 0.98


# -- SIP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_from_invite_to_bye(tmp_path: Path, transport: str) -> None:
    async def test(tmp_path: Path) -> None:
        async with rig(tmp_path) as it:
            pbx = await it.pbx(transport)
            pbx.invite()
            session = await (await it.controllers[0].session()).begin()
            shown = session.channel
            assert shown["Content-Type"] == "command/reply"
            assert shown["Reply-Text"] == "+OK\n"
            assert (shown["Socket-Mode"], shown["Control"]) == ("async", "full")
            assert "Content-Length" not in shown
            assert shown["variable_sip_from_display"] == DISPLAY.strip('"')
            assert shown["variable_sip_h_X-Workspace-ID"] == WORKSPACE
            assert shown["variable_sip_via_protocol"] == transport
            assert shown["variable_sip_network_ip"] == shown["variable_sip_received_ip"] == "127.0.0.1"
            assert shown["variable_sip_call_id"] == pbx.call_id
            assert shown["variable_sip_from_user"] == "+919990"
            assert shown["variable_sip_to_user"] == shown["Caller-Destination-Number"] == "bot"
            assert shown["variable_uuid"] == shown["Unique-ID"] == shown["Channel-Call-UUID"]
            assert shown["variable_socket_resume"] == "true"
            assert shown["Answer-State"] == "ringing"

            done = await session.done("answer")
            assert done["Application-Response"] == "_none_"
            response = await pbx.answered()
            assert "m=audio" in response.body.decode()
            assert ";transport=tcp" in response.need("Contact") or transport == "udp"
            answer, _ = await session.event("CHANNEL_ANSWER")
            assert answer["Answer-State"] == "answered"
            assert it.switch.calls == 1

            await pbx.bye()
            over, _ = await session.event("CHANNEL_HANGUP_COMPLETE")
            assert over["Hangup-Cause"] == over["variable_hangup_cause"] == "NORMAL_CLEARING"
            assert over["variable_sip_hangup_disposition"] == "recv_bye"
            assert (await it.tells("bye"))["by"] == "pbx"
            assert (await it.tells("hangup"))["disposition"] == "recv_bye"
            assert [name for name, _ in it.told[:3]] == ["ready", "invite", "controller"]

    scenario(test)(tmp_path)


SIPP = """<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="pbx">
  <send retrans="500"><![CDATA[

    INVITE sip:bot@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: "00919990152080|crt-[call_number]" <sip:caller@[local_ip]:[local_port]>;tag=[pid]-[call_number]
    To: <sip:bot@[remote_ip]:[remote_port]>
    Call-ID: [call_id]
    CSeq: 1 INVITE
    Contact: <sip:pbx@[local_ip]:[local_port];transport=[transport]>
    Max-Forwards: 70
    X-Workspace-ID: 2b37ba17-7b20-4b3e-b138-1161e351d5c5
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=pbx 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [media_ip]
    t=0 0
    m=audio [media_port] RTP/AVP 8 0
    a=rtpmap:8 PCMA/8000
    a=rtpmap:0 PCMU/8000

  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[

    ACK [next_url] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: "00919990152080|crt-[call_number]" <sip:caller@[local_ip]:[local_port]>;tag=[pid]-[call_number]
    To: <sip:bot@[remote_ip]:[remote_port]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 1 ACK
    Max-Forwards: 70
    Content-Length: 0

  ]]></send>
  <pause milliseconds="1000"/>
  <send retrans="500"><![CDATA[

    BYE [next_url] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: "00919990152080|crt-[call_number]" <sip:caller@[local_ip]:[local_port]>;tag=[pid]-[call_number]
    To: <sip:bot@[remote_ip]:[remote_port]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 2 BYE
    Max-Forwards: 70
    Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"""


@pytest.mark.skipif(shutil.which("sipp") is None, reason="SIPp is not installed")
@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_sipp_makes_many_calls_at_once(tmp_path: Path, transport: str) -> None:
    async def test(tmp_path: Path) -> None:
        calls = 40
        file = tmp_path / "pbx.xml"
        file.write_text(SIPP)
        async with rig(tmp_path) as it:

            async def serve_all() -> None:
                for _ in range(calls):
                    session = await it.controllers[0].session()
                    session.send("connect")
                    session.send("linger 5")
                    session.execute("answer")

            serving = asyncio.create_task(serve_all())
            host, port = it.switch.sip_address
            local = ["-i", host, "-mi", host, "-ci", host, "-p", str(free_port()), "-cp", str(free_port())]
            size = ["-m", str(calls), "-l", str(calls), "-r", "40", "-timeout", "20s", "-timeout_error"]
            sipp = await asyncio.create_subprocess_exec(
                *("sipp", f"{host}:{port}", "-sf", str(file), "-t", transport, *local, *size, "-nostdin"),
                cwd=tmp_path,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, complaints = await asyncio.wait_for(sipp.communicate(), 25)
            assert sipp.returncode == 0, complaints.decode()[-2000:]
            await soon(serving)
            async with it.spoken:
                await soon(it.spoken.wait_for(lambda: len(it.all_told("hangup")) == calls))
            assert {f["disposition"] for f in it.all_told("hangup")} == {"recv_bye"}
            assert len(it.all_told("bye", by="pbx")) == calls
            assert not it.all_told("malformed")

    scenario(test)(tmp_path)


@scenario
async def test_a_source_not_allowed_gets_403_and_no_dialplan(tmp_path: Path) -> None:
    async with rig(tmp_path, allow="192.0.2.0/24") as it:
        pbx = await it.pbx()
        pbx.invite()
        response = await pbx.status(not_yet=())
        assert (response.status, response.reason) == (403, "Forbidden")
        pbx.ack(pbx.branch)
        tcp = await it.pbx("tcp")
        tcp.send_raw(tcp.request("OPTIONS", "1"))
        assert (await tcp.status()).status == 403
        assert it.controllers[0].accepted == 0
        assert len(it.all_told("refused", status=403)) == 2


@pytest.mark.parametrize(
    ("invite", "status", "reason"),
    [
        ({"codecs": "18 101"}, 488, "Not Acceptable Here"),
        ({"codecs": "101"}, 488, "Not Acceptable Here"),
        ({"display": "00919990152080|x"}, 400, "Bad From Header"),
    ],
)
def test_refused_before_the_dialplan(tmp_path: Path, invite: Any, status: int, reason: str) -> None:
    async def test(tmp_path: Path) -> None:
        async with rig(tmp_path) as it:
            pbx = await it.pbx()
            pbx.invite(**invite)
            response = await pbx.status()
            assert (response.status, response.reason) == (status, reason)
            assert it.controllers[0].accepted == 0
            assert it.all_told("refused", status=status)

    scenario(test)(tmp_path)


@scenario
async def test_the_first_acceptable_codec_is_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call(codecs="18 8 0")
        assert await session.api(f"uuid_getvar {session.uuid} read_codec") == "PCMA"
        pbx.send_raw(pbx.request("INVITE", "5", [], pbx.sdp("0 8"), branch="z9hG4bKre"))
        again = await pbx.status()
        assert again.status == 200
        assert b"RTP/AVP 0\r\n" in again.body, "the first of the new offer (measured)"
        assert str(pbx.remote_rtp[1]) in again.body.decode()


@scenario
async def test_nobody_takes_the_call(tmp_path: Path) -> None:
    """No controller at all, and each one accepts and goes: 503 with Retry-After, after two tries."""
    async with rig(tmp_path, controllers=0) as it:
        pbx = await it.pbx()
        pbx.invite()
        response = await pbx.status()
        assert (response.status, response.reason) == (503, "Service Unavailable")
        assert response.get("Retry-After") == "5"
        assert len(it.all_told("controller", state="unreachable")) == 3
        assert (await it.tells("hangup"))["disposition"] == "send_refuse"
    async with rig(tmp_path, controllers=2) as it:
        for controller in it.controllers:
            controller.hang_up_at_once = True
        pbx = await it.pbx()
        pbx.invite()
        assert (await pbx.status()).get("Retry-After") == "5"
        assert [controller.accepted for controller in it.controllers] == [1, 2]


@scenario
async def test_a_call_not_answered_gets_three_tries_whatever_became_of_the_first(tmp_path: Path) -> None:
    async with rig(tmp_path, controllers=2) as it:
        pbx = await it.pbx()
        pbx.invite()
        for number in (0, 1, 1):
            (await (await it.controllers[number].session()).connect()).close()
        assert (await pbx.status()).get("Retry-After") == "5"


@scenario
async def test_a_silent_controller_is_left_for_the_next(tmp_path: Path) -> None:
    async with rig(tmp_path, controllers=2, connect_wait=0.2) as it:
        pbx = await it.pbx()
        pbx.invite()
        silent = await it.controllers[0].session()
        await (await it.controllers[1].session()).connect()
        await soon(silent.ended.wait())
        assert len(it.all_told("controller", state="no connect")) == 1


@scenario
async def test_the_controller_refuses(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).begin()
        assert await session.api(f"uuid_setvar {session.uuid} sip_rh_Retry-After 30") == "+OK\n"
        await session.done("respond", "503 Service Unavailable")
        response = await pbx.status()
        assert (response.status, response.get("Retry-After")) == (503, "30")
        over, _ = await session.event("CHANNEL_HANGUP_COMPLETE")
        assert over["variable_sip_hangup_disposition"] == "send_refuse"
        pbx.ack(pbx.branch)
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).begin()
        session.send("sendmsg", "call-command: hangup", "hangup-cause: CALL_REJECTED")
        assert (await pbx.status()).status == 603


@scenario
async def test_cancel_before_the_answer(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        invite = pbx.invite()
        session = await (await it.controllers[0].session()).begin()
        pbx.send_raw(invite)  # a retransmission makes no second call
        pbx.send_raw(pbx.request("CANCEL", "1", []))
        statuses = {(m.status, m.cseq()[1]) for m in [await pbx.status(), await pbx.status()]}
        assert statuses == {(200, "CANCEL"), (487, "INVITE")}
        pbx.ack(pbx.branch)
        over, _ = await session.event("CHANNEL_HANGUP_COMPLETE")
        assert over["variable_sip_hangup_disposition"] == "recv_cancel"
        assert it.controllers[0].accepted == 1


@scenario
async def test_the_answer_is_repeated_until_ack_and_given_up_with_bye(tmp_path: Path) -> None:
    async with rig(tmp_path, sip_t1=0.02) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).begin()
        await session.done("answer")
        bye = await pbx.wants("BYE")
        assert pbx.seen > 5  # 100, and the 200 many times
        assert bye.need("To") == pbx.request("INVITE", "1").split(b"From: ")[1].split(b"\r\n")[0].decode()
        pbx.send_raw(pbx.request("OPTIONS", "9", [], branch="z9hG4bKother"))
        assert len(it.all_told("no_ack")) == 1
        assert (await it.tells("bye"))["by"] == "switch"
        over, _ = await session.event("CHANNEL_HANGUP_COMPLETE")
        assert over["Hangup-Cause"] == "NORMAL_UNSPECIFIED"
        assert "variable_sip_hangup_disposition" not in over  # the stack's own doing


@scenario
async def test_requests_outside_a_call_and_rubbish(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        for rubbish in (b"\0\xff" * 40, b"INVITE sip:x SIP/2.0\r\n\r\n", b"\r\n\r\n", b"a" * 60_000):
            pbx.send_raw(rubbish)
        pbx.send_raw(pbx.request("BYE", "1", [], branch="z9hG4bK1"))
        assert (await pbx.status()).status == 481
        pbx.send_raw(pbx.request("REGISTER", "2", [], branch="z9hG4bK2"))
        assert (await pbx.status()).status == 405
        pbx.send_raw(pbx.request("OPTIONS", "3", [], branch="z9hG4bK3"))
        assert (await pbx.status()).status == 200
        assert len(it.all_told("malformed")) == 3
        tcp = await it.pbx("tcp")
        tcp.send_raw(b"x" * 200_000)  # never a message: the connection is closed, the port lives on
        await soon(tcp.reading)
        pbx.send_raw(pbx.request("OPTIONS", "4", [], branch="z9hG4bK4"))
        assert (await pbx.status()).status == 200


@scenario
async def test_a_name_that_is_no_utf8_goes_through(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite(display='"\udcff\udcfe|x"')
        session = await (await it.controllers[0].session()).connect()
        assert "variable_sip_from_display: %FF%FE%7Cx" in session.raw_channel
        assert await session.api(f"uuid_audio_stream {session.uuid} send_text \udcff") == "-ERR no reply\n"
        assert "%FF%FE" in await session.api(f"uuid_dump {session.uuid}")
        stream = io.StringIO()
        JsonLines(stream, "switch")("invite", it.all_told("invite")[0])
        assert stream.getvalue().isascii()
        assert json.loads(stream.getvalue())["from_display"] == "\udcff\udcfe|x"


@scenario
async def test_who_is_calling(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        identity = ("P-Asserted-Identity", '"Other Name" <sip:4711@127.0.0.1>')
        doubled = [
            ("x-workspace-id", "first"),
            ("X-Workspace-ID", "second"),
            ("X-Bad", "${system(id)}"),
            identity,
        ]
        pbx.invite(display='"0091%7Cabc\\"x"', headers=doubled)
        session = await (await it.controllers[0].session()).connect()
        shown = session.channel
        assert shown["variable_sip_from_display"] == '0091|abc\\"x'
        assert shown["Caller-Caller-ID-Name"] == "Other Name"
        assert shown["Caller-Caller-ID-Number"] == "4711"
        assert shown["variable_sip_h_x-workspace-id"] == "first"
        assert shown["variable_sip_h_X-Workspace-ID-1"] == "second"
        assert "variable_sip_h_X-Bad" not in shown
        raw = await session.api(f"uuid_getvar {session.uuid} sip_from_display")
        assert raw == '0091%7Cabc\\"x'
        plain = await it.pbx()
        plain.invite(display="")
        shown = (await (await it.controllers[0].session()).connect()).channel
        assert "variable_sip_from_display" not in shown
        assert shown["Caller-Caller-ID-Name"] == "+919990"


# -- the event socket --------------------------------------------------------------------------------------


@scenario
async def test_the_event_socket_itself_can_answer(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).connect()
        assert await session.api(f"uuid_answer {session.uuid}") == "+OK\n"
        await pbx.answered()
        assert await session.api(f"uuid_answer {session.uuid}") == "+OK\n"  # once more is none
        await pbx.bye()


@scenario
async def test_replies_of_the_event_socket(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).connect()
        uid = session.uuid
        expected = {
            "linger": "+OK will linger",
            "linger 7": "+OK will linger 7 seconds",
            "nolinger": "+OK will not linger",
            "myevents": "+OK Events Enabled",
            "event plain NONSENSE": "-ERR no keywords supplied",
            "event json DTMF": "+OK event listener enabled json",
            "event plain ALL": "+OK event listener enabled plain",
            "nixevent DTMF": "+OK events nixed",
            "noevents": "+OK no longer listening for events",
            f"filter Unique-ID {uid}": f"+OK filter added. [Unique-ID]=[{uid}]",
            "filter delete all": "+OK filter deleted. [all][]",
            "divert_events on": "+OK events diverted",
            "resume": "+OK",
            "getvar sip_call_id": pbx.call_id,
            "frobnicate": "-ERR command not found",
            "sendmsg no-such-uuid": "-ERR invalid session id [no-such-uuid]",
            "api nonsense x": "-ERR nonsense Command not found!\n",
            f"api uuid_exists {uid}": "true",
            "api uuid_exists x": "false",
            f"api uuid_setvar {uid} a_name a 'quoted  value'": "+OK\n",
            f"api uuid_getvar {uid} a_name": "a quoted  value",
            f"api uuid_setvar_multi {uid} one=1;two=2 b": "+OK\n",
            f"api uuid_getvar {uid} two": "2 b",
            f"api uuid_setvar {uid} a_name": "+OK\n",
            f"api uuid_getvar {uid} A_NAME": "_undef_",
            "api uuid_getvar x y": "-ERR No such channel!\n",
            "api global_getvar nothing": "-ERR no reply\n",
            "api uuid_break x all": "-ERR No such channel!\n",
            "api uuid_answer x": "-ERROR\n",
        }
        # Pipelined: all at once, the replies in order.
        for command in expected:
            session.send(command)
        for command, reply in expected.items():
            outer, body = await soon(session.replies.get())
            assert (body or outer["Reply-Text"]) == reply, command
        assert "session(s)" in await session.api("status")
        assert f"variable_uuid: {uid}" in await session.api(f"uuid_dump {uid}")
        assert await session.command("exit") == "+OK bye"
        notice, text = await soon(session.notices.get())
        assert notice["Content-Disposition"] == "disconnect"
        assert text.startswith("Disconnected, goodbye.")
        await soon(session.ended.wait())


@scenario
async def test_events_are_filtered_and_come_as_json_too(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        _, session = await it.call()
        other = await it.pbx()
        other.invite()
        second = await (await it.controllers[0].session()).begin()
        assert await second.command("filter delete Unique-ID") == "+OK filter deleted. [Unique-ID][]"
        assert (await second.command("event json DTMF")).endswith("json")
        await second.done("set", "seen_by=the second alone")
        await session.done("set", "seen_by=both ${sip_call_id}")
        heard, _ = await second.event("CHANNEL_EXECUTE_COMPLETE", **{"Unique-ID": session.uuid})
        assert heard["variable_seen_by"].startswith("both ")
        assert all(headers["Unique-ID"] == session.uuid for headers, _ in session.events)
        assert [h["Application"] for h, _ in session.events if h["Event-Name"] == "CHANNEL_EXECUTE"] == [
            "answer",
            "set",
        ]
        job = await second.command("bgapi status", "Job-UUID: 4711")
        assert job == "+OK Job-UUID: 4711"
        headers, body = await second.event("BACKGROUND_JOB")
        assert headers["Job-UUID"] == "4711"
        assert "session(s)" in body


@scenario
async def test_an_unknown_application_ends_the_call(tmp_path: Path) -> None:
    """As in FreeSWITCH (switch_core_session.c), and a reason to have a stand-in."""
    async with rig(tmp_path, errors=1) as it:
        pbx, session = await it.call()
        session.execute("no_such_app")
        await pbx.wants("BYE")
        over, _ = await session.event("CHANNEL_HANGUP_COMPLETE")
        assert over["Hangup-Cause"] == "DESTINATION_OUT_OF_ORDER"
        assert over["variable_sip_hangup_disposition"] == "send_bye"


@scenario
async def test_linger_and_no_linger(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        await session.command("linger 1")
        await pbx.bye()
        notice, _ = await soon(session.notices.get())
        assert notice["Content-Disposition"] == "linger"
        assert notice["Linger-Time"] == "1"
        assert notice["Controlled-Session-UUID"] == session.uuid
        await session.event("CHANNEL_HANGUP_COMPLETE")
        assert await session.api(f"uuid_exists {session.uuid}") == "false"
        assert (await session.command("getvar sip_hangup_disposition")) == "recv_bye"
        goodbye, _ = await soon(session.notices.get())  # after a second of lingering
        assert goodbye["Content-Disposition"] == "disconnect"
        await soon(session.ended.wait())

        pbx, session = await it.call()
        await session.command("nolinger")
        await pbx.bye()
        await soon(session.ended.wait())
        assert "CHANNEL_HANGUP_COMPLETE" not in {headers["Event-Name"] for headers, _ in session.events}


@pytest.mark.parametrize("reset", [False, True])
def test_the_next_controller_takes_over(tmp_path: Path, reset: bool) -> None:
    async def test(tmp_path: Path) -> None:
        async with rig(tmp_path, controllers=2) as it:
            pbx, session = await it.call()
            await session.api(f"uuid_setvar {session.uuid} eslbot_stage talking")
            speech = tmp_path / "speech.r8"
            speech.write_bytes(tone([440], 30_000))
            session.execute("playback", str(speech))
            assert power(await pbx.hear(10), 440) > 0.9
            session.close(reset)
            second = await (await it.controllers[1].session()).begin()
            assert second.uuid == session.uuid
            assert second.channel["variable_eslbot_stage"] == "talking"
            assert second.channel["Answer-State"] == "answered"
            await second.done("playback", "silence_stream://20")  # at once: the old speech was cut
            second.close(reset)
            third = await (await it.controllers[0].session()).begin()
            assert third.uuid == session.uuid
            await pbx.bye()
            await third.event("CHANNEL_HANGUP_COMPLETE")
            assert len(it.all_told("controller", state="connected")) == 3
            assert len(it.all_told("controller", state="lost")) >= 2

    scenario(test)(tmp_path)


class Rounds(Dialplan):
    """The dialplan with its sockets and its pauses written down instead."""

    def __init__(self, answered_by: int | None, rounds: int) -> None:
        super().__init__(object(), [("a", 1), ("b", 2), ("c", 3)], 25.0, 7.5)  # type: ignore[arg-type]
        self.story: list[str] = []
        self.sockets, self.answered_by, self.rounds = 0, answered_by, rounds
        self.variables = Variables()
        self.answered = self.down = False
        self.arrived = True
        asyncio.run(self.run(self))  # type: ignore[arg-type]

    async def _socket(self, channel: Any, order: Any) -> None:
        if self.down:
            return
        self.story.append("".join(host for host, _ in order))
        self.sockets += 1
        self.answered = self.answered or self.sockets == self.answered_by
        self.down = self.sockets >= self.rounds

    def track(self) -> None:
        assert not self.arrived, "a row for each transfer"

    async def dwell(self, seconds: float) -> None:
        self.story.append(f"{seconds:g} s")

    async def execute(self, app: str, argument: str) -> None:
        self.story.append(f"{app} {argument}, {self.variables.get('sip_rh_Retry-After')}")
        self.down = True

    async def finish(self) -> None:
        self.story.append("finish")


def test_the_dialplans_order_is_that_of_the_rendered_one() -> None:
    nobody = Rounds(None, 9)
    assert nobody.story == ["abc", "bca", "0.2 s", "bca", "respond 503 Service Unavailable, 5", "finish"]
    first = Rounds(1, 7)
    a_round = ["0.3 s", "abc", "bca", "abc", "bca"]
    assert first.story == ["abc", "bca", *a_round, "0.3 s", "abc", "finish"]
    last = Rounds(3, 4)
    assert last.story == ["abc", "bca", "0.2 s", "bca", "0.3 s", "abc", "finish"]


def test_a_round_behind_a_controller_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Rounds._socket

    async def counting(self: Rounds, channel: Any, order: Any) -> None:
        await real(self, channel, order)
        self.variables.set("eslbot_take_overs", str(len(self.story)))

    monkeypatch.setattr(Rounds, "_socket", counting)
    assert Rounds(1, 8).story == [*["abc", "bca"] * 4, "finish"]


def test_the_dialplans_variables_and_pauses_are_those_of_the_rendered_one() -> None:
    tree = ElementTree.parse(ROOT / "freeswitch-conf" / "dialplan" / "ameyo.xml")
    actions = [(node.attrib["application"], node.attrib["data"]) for node in tree.iter("action")]
    arrival = [data for app, data in actions[: [app for app, _ in actions].index("socket")] if app == "set"]
    dialplan = Dialplan(None, [("a", 1)], 25.0, 300.0)  # type: ignore[arg-type]
    ours = {**dialplan._variables, "media_timeout": "$${media_timeout}"}
    ours["eslbot_tried"] = "${eslbot_take_overs}"
    assert arrival == [f"{name}={value}" for name, value in ours.items()]
    assert [data for app, data in actions if app == "sleep"] == ["200", "300"]
    assert [data for app, data in actions if app == "respond"] == ["503 Service Unavailable"]
    assert ("set", "sip_rh_Retry-After=5") in actions


@scenario
async def test_a_pbx_that_sends_no_rtp_is_gone(tmp_path: Path) -> None:
    """Parked, playing, and with no controller: the call is ended, with BYE and MEDIA_TIMEOUT."""
    async with rig(tmp_path, media_timeout=0.5) as it:
        for state in ("parked", "playing", "no controller"):
            pbx, session = await it.call()
            if state == "playing":
                session.execute("endless_playback", "silence_stream://5000")
            if state == "no controller":
                assert it.controllers[0].server is not None
                it.controllers[0].server.close()
                session.close()
            bye = await pbx.wants("BYE")
            assert bye.get("Reason") == 'SIP;cause=804;text="MEDIA_TIMEOUT"'
            ended = await it.tells("hangup", uuid=session.uuid)
            assert (ended["cause"], ended["disposition"]) == ("MEDIA_TIMEOUT", "send_bye")
            if state != "no controller":
                last, _ = await session.event("CHANNEL_HANGUP_COMPLETE")
                assert (last["Hangup-Cause"], last["variable_hangup_cause_q850"]) == ("MEDIA_TIMEOUT", "16")
                assert last["variable_sip_hangup_disposition"] == "send_bye"
                assert last["variable_media_timeout"] == "500"
                session.close()


@scenario
async def test_any_packet_of_the_pbx_keeps_its_call(tmp_path: Path) -> None:
    async with rig(tmp_path, media_timeout=0.5) as it:
        pbx, session = await it.call()
        loop = asyncio.get_running_loop()
        ends = loop.time() + 2.0
        while loop.time() < ends:
            pbx.speak(b"\xff" * 160, kind=77)
            last = loop.time()
            await session.done("playback", "silence_stream://200")
        assert not it.all_told("hangup")
        await it.tells("hangup", cause="MEDIA_TIMEOUT")
        assert loop.time() - last >= 0.5


@scenario
async def test_an_answered_call_outlives_its_controllers(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        controller = it.controllers[0]
        assert controller.server is not None
        controller.server.close()
        session.close()
        async with it.spoken:
            await soon(it.spoken.wait_for(lambda: len(it.all_told("controller", state="unreachable")) >= 3))
        assert it.switch.calls == 1
        await pbx.bye()
        assert (await it.tells("hangup"))["disposition"] == "recv_bye"


@scenario
async def test_stopping_ends_live_calls(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, _ = await it.call()
        began = asyncio.get_running_loop().time()
        await it.switch.stop()
        assert asyncio.get_running_loop().time() - began < 3
        await pbx.wants("BYE")
        assert it.switch.calls == 0


# -- media -------------------------------------------------------------------------------------------------


@scenario
async def test_playback_in_order_with_its_events(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        files = []
        for name, frequency, rate in (("a.r8", 400, 8000), ("b.r16", 800, 16000), ("c.r24", 1200, 24000)):
            path = tmp_path / name
            path.write_bytes(tone([frequency], 200, rate))
            files.append(str(path))
        order = [
            session.execute("playback", file)
            for file in [*files, "/no/such.r8", "tone_stream://%(200,0,1600)"]
        ]
        heard = await pbx.hear(40)
        for n, frequency in enumerate((400, 800, 1200, 1600)):
            assert power(heard[n * 3200 + 640 : n * 3200 + 2560], frequency) > 0.9, frequency
        answers = [
            await session.event("CHANNEL_EXECUTE_COMPLETE", **{"Application-UUID": uid}) for uid in order
        ]
        played = [headers["Application-Response"] for headers, _ in answers]
        assert played == ["FILE PLAYED"] * 3 + ["FILE NOT FOUND", "FILE PLAYED"]
        stopped = [h for h, _ in session.events if h["Event-Name"] == "PLAYBACK_STOP"]
        assert [h["Playback-Status"] for h in stopped] == ["done"] * 4
        assert (await session.done("playback", str(tmp_path / "x.pcmu")))[
            "Application-Response"
        ] == "FILE NOT FOUND"


@scenario
async def test_a_completion_says_how_much_was_read(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        _, session = await it.call()
        path = tmp_path / "odd.r8"
        path.write_bytes(tone([500], 100) + bytes(10))
        done = await session.done("playback", str(path))
        assert done["variable_playback_samples"] == "805"
        assert done["variable_playback_ms"] == "100"
        done = await session.done("playback", "/no/such.r8")
        assert done["Application-Response"] == "FILE NOT FOUND"


@scenario
async def test_an_endless_playback_begins_again_until_the_call_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        path = tmp_path / "short.r8"
        path.write_bytes(tone([800], 100))
        session.execute("endless_playback", str(path))
        heard = await pbx.hear(25)
        assert power(heard, 800) > 0.9
        await session.api(f"uuid_break {session.uuid} all")
        await pbx.hear(5)
        assert power(await pbx.hear(10), 800) > 0.9, "a break only begins it anew"
        assert not [
            h
            for h, _ in session.events
            if h.get("Event-Name") == "CHANNEL_EXECUTE_COMPLETE"
            and h.get("Application") == "endless_playback"
        ]


@scenario
async def test_an_endless_playback_of_nothing_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        _, session = await it.call()
        assert (await session.done("endless_playback", "/no/such"))[
            "Application-Response"
        ] == "FILE NOT FOUND"


@scenario
async def test_a_tone_stream_may_be_soft_and_go_on_for_ever(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        session.execute("playback", "tone_stream://v=-20;%(100,100,425);loops=-1")
        heard = await pbx.hear(40)
        numbers = struct.unpack(f"<{len(heard) // 2}h", heard)
        assert 2000 < max(numbers) < 2600, "46,340 less 26.16 dB"
        starts = [n for n in range(320, len(numbers)) if numbers[n] and not any(numbers[n - 320 : n])]
        assert len(starts) in (1, 2, 3)
        assert all(b - a == 1600 for a, b in pairwise(starts))


@scenario
async def test_break_stops_speech_and_flushes_the_queue(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        first = session.execute("playback", "tone_stream://%(20000,0,440)")
        flushed = session.execute("set", "never=set")
        await pbx.hear(5)
        for _ in range(2):
            await soon(session.replies.get())
        assert await session.api(f"uuid_break {session.uuid} all") == "+OK\n"
        await session.event("CHANNEL_EXECUTE_COMPLETE", **{"Application-UUID": first})
        stop, _ = await session.event("PLAYBACK_STOP")
        assert stop["Playback-Status"] == "break"
        await session.done("set", "after=break")
        assert await session.api(f"uuid_getvar {session.uuid} never") == "_undef_"
        assert not [h for h, _ in session.events if h.get("Application-UUID") == flushed]


@scenario
async def test_without_event_lock_a_command_runs_inside_the_playback(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        outer = session.execute("playback", "tone_stream://%(400,0,440)", lock=False)
        await pbx.hear(2)
        inner = session.execute("playback", "tone_stream://%(100,0,1200)", lock=False)
        await session.event("CHANNEL_EXECUTE_COMPLETE", **{"Application-UUID": outer})
        ended = [
            h["Application-UUID"] for h, _ in session.events if h["Event-Name"] == "CHANNEL_EXECUTE_COMPLETE"
        ]
        assert ended[-2:] == [inner, outer]


@scenario
async def test_an_idle_call_is_silent_or_sends_silence(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).begin()
        await session.done("answer")
        await pbx.answered()
        loop = asyncio.get_running_loop()
        await pbx.hear(1)
        began = loop.time()
        assert set(await pbx.hear(50)) <= {0}
        assert 0.9 < loop.time() - began < 1.3  # 50 packets a second

        quiet, other = await it.call()
        await other.done("sleep", "300")
        with pytest.raises(BlockingIOError):
            quiet.rtp.recv(2048)


@scenario
async def test_sound_goes_where_the_pbx_speaks_from(tmp_path: Path) -> None:
    """Symmetric RTP, where it is asked for: behind a NAT the address in the SDP is not the one that works."""
    async with rig(tmp_path) as it:
        pbx = await it.pbx()
        pbx.invite()
        session = await (await it.controllers[0].session()).begin()
        for name in ("send_silence_when_idle", "disable_rtp_auto_adjust"):
            await session.api(f"uuid_setvar {session.uuid} {name} 0")
        await session.done("answer")
        await pbx.answered()
        described, pbx.rtp = pbx.rtp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        pbx.rtp.bind(("127.0.0.1", 0))
        pbx.rtp.setblocking(False)
        with described:
            pbx.speak(g711.SILENCE["PCMU"] * 160)
            session.execute("playback", "tone_stream://%(200,0,440)")
            assert power(await pbx.hear(10), 440) > 0.9
            with pytest.raises(BlockingIOError):
                described.recv(2048)


@scenario
async def test_keys_by_rtp_and_by_info(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        pbx, session = await it.call()
        for duration, end in ((160, 0), (320, 0), (480, 0x80), (480, 0x80), (480, 0x80)):
            pbx.speak(bytes([5, end | 10]) + duration.to_bytes(2, "big"), kind=101, timestamp=8000)
        pbx.speak(bytes([11, 10]) + (160).to_bytes(2, "big"), kind=101, timestamp=16000)  # its end is lost
        pbx.speak(bytes([0, 0x80 | 10]) + (160).to_bytes(2, "big"), kind=101, timestamp=24000)
        await session.event("DTMF", **{"DTMF-Digit": "0"})
        relay = [("Content-Type", "application/dtmf-relay")]
        pbx.send_raw(pbx.request("INFO", "7", relay, "Signal=9\r\nDuration=100\r\n", branch="z9hG4bKinfo"))
        assert (await pbx.status()).status == 200
        await session.event("DTMF", **{"DTMF-Digit": "9"})
        keys = [(h["DTMF-Digit"], h["DTMF-Duration"]) for h, _ in session.events if h["Event-Name"] == "DTMF"]
        assert keys == [("5", "480"), ("#", "160"), ("0", "160"), ("9", "800")]


# -- uuid_audio_stream -------------------------------------------------------------------------------------


class Bot:
    """A WebSocket server that keeps what it hears."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.closed: asyncio.Queue[int | None] = asyncio.Queue()
        self.url = ""

    async def handle(self, connection: ServerConnection) -> None:
        self.sockets.put_nowait(connection)
        with contextlib.suppress(ConnectionClosedError):
            async for message in connection:
                if isinstance(message, str):
                    self.texts.put_nowait(message)
                else:
                    self.frames.put_nowait(message)
        self.closed.put_nowait(connection.close_code)


@asynccontextmanager
async def bot(tls: ssl.SSLContext | None = None) -> AsyncIterator[Bot]:
    made = Bot()
    async with serve(made.handle, "127.0.0.1", 0, ssl=tls) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        made.url = f"ws{'s' if tls else ''}://localhost:{port}/stream?x=1"
        yield made


@scenario
async def test_audio_both_ways(tmp_path: Path) -> None:
    async with rig(tmp_path) as it, bot() as robot:
        pbx, session = await it.call()
        uid = session.uuid
        headers = {"X-Call-ID": "c|1", "Authorization": "Bearer x", "n": 1}
        session.send(f"api uuid_setvar {uid} STREAM_EXTRA_HEADERS {json.dumps(headers)}")
        await soon(session.replies.get())
        assert await session.api(
            f'uuid_audio_stream {uid} start {robot.url} mono 16k \'{{"a": "b c"}}\''
        ) == ("+OK Success\n")
        connection = await soon(robot.sockets.get())
        assert connection.request.headers["X-Call-ID"] == "c|1"
        assert connection.request.headers["Authorization"] == "Bearer x"
        assert "Sec-WebSocket-Extensions" not in connection.request.headers
        assert await session.bot_event("connect") == {"status": "connected"}
        assert json.loads(await soon(robot.texts.get())) == {"a": "b c"}
        empty = robot.frames.qsize()
        assert 1 <= empty <= 9, "frames overtake the first text"

        speech = g711.encode("PCMU", tone([440], 200))
        for start in range(0, len(speech), 160):
            pbx.speak(speech[start : start + 160])
        frames: list[bytes] = []
        while len(frames) < 10:
            frame = await soon(robot.frames.get())
            assert len(frame) == 640
            if frames or len(set(struct.unpack("<320h", frame)[16:])) > 1:
                frames.append(frame)
        assert power(b"".join(frames), 440, 16000) > 0.95

        await connection.send(b"binary is ignored")
        await connection.send("not json")
        headers_, body = await session.event("mod_audio_stream::json")
        assert (headers_["Event-Name"], body) == ("CUSTOM", "not json")
        session.events.remove((headers_, body))
        speech_of_a_bot = json.dumps({"type": "streamAudio", "data": {"audioDataType": "raw"}})
        await connection.send(speech_of_a_bot)
        assert await session.bot_event("json") == json.loads(speech_of_a_bot)

        assert (
            await session.api(f'uuid_audio_stream {uid} send_text \'{{"type": "mark"}}\'') == "+OK Success\n"
        )
        assert json.loads(await soon(robot.texts.get())) == {"type": "mark"}
        assert await session.api(f"uuid_audio_stream {uid} stop bye") == "+OK Success\n"
        assert await soon(robot.texts.get()) == "bye"
        assert await soon(robot.closed.get()) == 1000
        assert not [h for h, _ in session.events if h.get("Event-Subclass") == "mod_audio_stream::disconnect"]


@scenario
async def test_replies_of_uuid_audio_stream(tmp_path: Path) -> None:
    async with rig(tmp_path) as it, bot() as robot:
        _, session = await it.call()

        async def stream(arguments: str) -> str:
            return await session.api(f"uuid_audio_stream {arguments}")

        uid, ok, failed = session.uuid, "+OK Success\n", "-ERR Operation Failed\n"
        assert (await stream("")).startswith("-USAGE: ")
        assert (await stream(uid)).startswith("-USAGE: ")
        assert (await stream(f"{uid} start ws://x")).startswith("-USAGE: ")
        assert await stream(f"{uid} start {robot.url} sideways") == "-ERR no reply\n"
        assert await stream(f"{uid} send_text") == "-ERR no reply\n"
        for wrong in ("http://x/", "ws://under_score/", "ws://[::1]/", "ws://x:8o/"):
            assert await stream(f"{uid} start {wrong} mono") == failed
        assert await stream(f"{uid} start {robot.url} mono 11025") == failed
        assert await stream(f"no-such-uuid start {robot.url} mono") == failed
        assert await stream(f"{uid} frobnicate") == failed
        for verb in ("stop", "pause", "resume", "send_text x"):
            assert await stream(f"{uid} {verb}") == failed, verb

        assert await stream(f"{uid} start {robot.url} mono") == ok
        connection = await soon(robot.sockets.get())
        await session.bot_event("connect")
        assert await stream(f"{uid} start {robot.url} mono") == failed
        for verb in ("pause", "resume", "send_text x"):
            assert await stream(f"{uid} {verb}") == ok, verb
        await connection.close(1000, "done")
        dropped = await session.bot_event("disconnect")
        assert dropped == {"status": "disconnected", "message": {"code": 1000, "reason": "done"}}
        assert await stream(f"{uid} start {robot.url} mono") == failed  # the bug is still attached
        assert await stream(f"{uid} stop") == ok
        assert await stream(f"{uid} stop") == failed


@scenario
async def test_errors_of_uuid_audio_stream(tmp_path: Path) -> None:
    async with rig(tmp_path) as it, bot() as robot:
        _, session = await it.call()
        silent = socket.create_server(("127.0.0.1", 0))  # accepted by the kernel, answered by nobody
        silent_port = silent.getsockname()[1]

        async def forbid(connection: ServerConnection, request: Any) -> Any:
            return connection.respond(403, "no")

        async with serve(robot.handle, "127.0.0.1", 0, process_request=forbid) as refusing:
            refusing_port = next(iter(refusing.sockets)).getsockname()[1]
            plain_port = robot.url.split(":")[2].split("/")[0]
            for url, code in (
                (f"ws://127.0.0.1:{free_port()}", 6),
                ("ws://no-such-host.invalid/", 6),
                (f"ws://127.0.0.1:{refusing_port}", 6),
                (f"wss://127.0.0.1:{plain_port}", 9),
                (f"ws://127.0.0.1:{silent_port}", 10),
            ):
                assert (
                    await session.api(f"uuid_audio_stream {session.uuid} start {url} mono") == "+OK Success\n"
                )
                error = await session.bot_event("error")
                assert error["status"] == "error"
                assert error["message"]["code"] == code, (url, error)
                # it has removed itself
                gone = await session.api(f"uuid_audio_stream {session.uuid} stop")
                assert gone == "-ERR Operation Failed\n"
        assert (
            await session.api(f"uuid_audio_stream {session.uuid} start {robot.url} mono") == "+OK Success\n"
        )
        connection = await soon(robot.sockets.get())
        await session.bot_event("connect")
        connection.transport.abort()
        error = await session.bot_event("error")
        text = "Connection closed without WebSocket CLOSE (abnormal EOF)"
        assert error["message"] == {"code": 1, "error": text}
        silent.close()


@scenario
async def test_tls_and_a_hang_up(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with rig(tmp_path) as it, bot(context) as robot:
        pbx, session = await it.call()
        start = f"uuid_audio_stream {session.uuid} start {robot.url} mono 8000"
        for name, value in (("", ""), ("STREAM_TLS_CA_FILE", str(tmp_path / "ca.pem"))):
            if name:
                await session.api(f"uuid_setvar {session.uuid} {name} {value}")
            assert await session.api(start) == "+OK Success\n"
            assert (await session.bot_event("error"))["message"]["code"] == 9
        await session.api(f"uuid_setvar {session.uuid} STREAM_TLS_DISABLE_HOSTNAME_VALIDATION true")
        assert await session.api(start) == "+OK Success\n"
        await session.bot_event("connect")
        await pbx.bye()
        assert await soon(robot.closed.get()) == 1000
        await session.event("CHANNEL_HANGUP_COMPLETE")
        assert not [h for h, _ in session.events if h.get("Event-Subclass") == "mod_audio_stream::disconnect"]
        assert (await it.tells("stream", state="connected"))["uuid"] == session.uuid


# A bot that has sent its close frame and leaves TCP open. Measured on FreeSWITCH 1.11.3-dev.


async def held(it: Rig, robot: StandInBot) -> tuple[Pbx, Session]:
    """A call whose bot holds the module."""
    pbx, session = await it.call()
    await session.command("event plain BACKGROUND_JOB")
    await session.command("filter Job-UUID mine")
    start = f"uuid_audio_stream {session.uuid} start {robot.url('close?keep_tcp=1&greeting_ms=20')} mono"
    assert await session.api(start) == "+OK Success\n"
    assert (await session.bot_event("disconnect"))["message"]["code"] == 1000
    return pbx, session


@scenario
async def test_a_close_that_comes_with_the_upgrades_answer_is_seen(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        (key,) = (line.partition(": ")[2] for line in request.split("\r\n") if "Sec-WebSocket-Key" in line)
        upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        upgraded += f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
        writer.write(upgraded.encode() + b"\x81\x02{}" + b"\x88\x02\x03\xe8")  # in one piece
        await reader.read()
        writer.close()

    async with rig(tmp_path) as it:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        _, session = await it.call()
        port = server.sockets[0].getsockname()[1]
        start = f"uuid_audio_stream {session.uuid} start ws://127.0.0.1:{port}/ mono"
        assert await session.api(start) == "+OK Success\n"
        assert await session.bot_event("json") == {}
        assert (await session.bot_event("disconnect"))["message"]["code"] == 1000
        server.close()
        await session.api(f"uuid_kill {session.uuid}")


@scenario
async def test_a_stop_by_api_holds_the_connection(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        with StandInBot() as robot:
            pbx, session = await held(it, robot)
            session.send(f"api uuid_audio_stream {session.uuid} stop")
            session.send(f"api uuid_exists {session.uuid}")
            _, other = await it.call()
            async with asyncio.timeout(LIMIT):  # the stream is off the channel first of all
                while not (await other.api(f"uuid_audio_stream {session.uuid} pause")).startswith("-ERR"):
                    await asyncio.sleep(0.01)
            await pbx.bye()
            await it.tells("bye", by="pbx")
            await asyncio.sleep(0.3)  # in which FreeSWITCH tells nothing at all
            assert (session.replies.qsize(), session.notices.qsize()) == (0, 0)
            assert not [h for h, _ in session.events if h["Event-Name"] == "CHANNEL_HANGUP"]
            robot.let_go()
            assert (await soon(session.replies.get()))[1] == "+OK Success\n"
            assert (await soon(session.replies.get()))[1] == "false"
            await session.event("CHANNEL_HANGUP_COMPLETE")


@scenario
async def test_a_stop_by_the_event_sockets_bgapi_holds_the_next_controller_off(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        with StandInBot() as robot:
            _, session = await held(it, robot)
            job = await session.command(f"bgapi uuid_audio_stream {session.uuid} stop", "Job-UUID: mine")
            assert job == "+OK Job-UUID: mine"
            assert await session.api(f"uuid_exists {session.uuid}") == "true", "the connection is free"
            session.close()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(it.controllers[0].sessions.get(), 0.5)
            robot.let_go()
            await it.controllers[0].session()


@scenario
async def test_a_stop_by_the_command_bgapi_holds_nobody(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        with StandInBot() as robot:
            pbx, session = await held(it, robot)
            stop = f"uuid_audio_stream {session.uuid} stop"
            assert await session.api(f"bgapi uuid:mine {stop}") == "+OK Job-UUID: mine\n"
            # The stream is off the channel at once, whatever becomes of its socket.
            again = f"uuid_audio_stream {session.uuid} start {robot.url('hold')} mono"
            assert await session.api(again) == "+OK Success\n"
            await session.bot_event("connect")
            session.close()
            session = await (await it.controllers[0].session()).begin()
            await pbx.bye()
            await session.event("CHANNEL_HANGUP_COMPLETE")
            await session.command("event plain BACKGROUND_JOB")
            await session.command("filter Job-UUID mine")
            assert not it.all_told("hangup"), "the job still uses the session"
            robot.let_go()
            assert (await session.event("BACKGROUND_JOB", **{"Job-UUID": "mine"}))[1] == "+OK Success\n"
            await it.tells("hangup")


@scenario
async def test_a_hang_up_with_such_a_bot_is_told_and_never_completed(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        with StandInBot() as robot:
            pbx, session = await held(it, robot)
            await pbx.bye()
            gone, _ = await session.event("CHANNEL_HANGUP")
            assert "variable_sip_hangup_disposition" not in gone
            assert gone["variable_sip_term_status"] == "200", "by which the PBX's BYE is known"
            await asyncio.sleep(1.3)  # longer than libwsc waits for an answer to its own close frame
            assert not [h for h, _ in session.events if h["Event-Name"] == "CHANNEL_HANGUP_COMPLETE"]
            robot.let_go()
            await session.event("CHANNEL_HANGUP_COMPLETE")


@scenario
async def test_a_bot_that_answers_no_close_frame_is_given_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        with StandInBot() as robot:
            _, session = await it.call()
            start = f"uuid_audio_stream {session.uuid} start {robot.url('frozen?greeting_ms=20')} mono"
            assert await session.api(start) == "+OK Success\n"
            await session.bot_event("json")
            began = asyncio.get_running_loop().time()
            assert await session.api(f"uuid_audio_stream {session.uuid} stop") == "+OK Success\n"
            assert 0.9 <= asyncio.get_running_loop().time() - began < 2.0


# -- as a program ------------------------------------------------------------------------------------------


PROGRAM = """
import asyncio, ipaddress, sys
from eslbot.sim.bot import Bot as StandInBot
from eslbot.sim.events import JsonLines
from eslbot.sim.switch import SwitchSettings, run
settings = SwitchSettings(
    ("127.0.0.1", 0), [ipaddress.ip_network("127.0.0.1")], [("127.0.0.1", 1)], (39000, 39100)
)
asyncio.run(run(settings, JsonLines(sys.stdout, "switch")))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_a_signal_and_tells_in_json_lines(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        ready = json.loads(program.stdout.readline())
        assert ready["who"] == "switch"
        assert ready["event"] == "ready"
        assert abs(ready["t"] - time.time()) < 60
        host, _, port = ready["sip"].partition(":")
        with socket.create_connection((host, int(port)), LIMIT):
            program.send_signal(number)
            last = json.loads(program.stdout.readlines()[-1])
        assert last["event"] == "stopped"
        assert program.wait(LIMIT) == 0

"""An inbound event socket that answers as a FreeSWITCH would that runs what ``eslbot conf`` renders.

Only what ``eslbot doctor`` asks; replies are those of FreeSWITCH 1.11 (captured). What it holds can be
spoiled.
"""

from __future__ import annotations

import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.etree import ElementTree

from eslbot.config.model import Config
from eslbot.doctor.rendering import Rendering, settings

PASSWORD = "password-of-the-event-socket"
STATUS = (
    "UP 0 years, 0 days, 2 hours, 5 minutes, 29 seconds, 907 milliseconds, 813 microseconds\n"
    "FreeSWITCH (Version 1.11.3-dev  64bit) is ready\n0 session(s) since startup\n"
)
USAGE = "-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown ] [wss-url | path]"


@dataclass
class Spoiled:
    """What is not as rendered. ``texts``: patterns in the XML and what stands there instead."""

    texts: Mapping[str, str] = field(default_factory=dict)
    #: Answers of the running profile, such as ``ext-rtp-ip``.
    profile: Mapping[str, str] = field(default_factory=dict)
    missing_modules: frozenset[str] = frozenset()
    replies: Mapping[str, str] = field(default_factory=dict)
    #: What it does with a connection: None is as it should be; ``rude``, ``silent``, ``alien``.
    manners: str | None = None


class InboundSwitch:
    """The server, on a port of its own; a context manager. ``asked`` is every command that it was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answer: Callable[[str], str] = lambda _: "-ERR no reply\n"
        self._spoiled = Spoiled()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def holds(self, config: Config, spoiled: Spoiled | None = None) -> None:
        """Be the switch of ``config``, but for what is spoiled."""
        self._spoiled = spoiled or Spoiled()
        self._answer = _Answers(config, self._spoiled)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone; a second time without harm."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, connection: socket.socket) -> None:
        manners = self._spoiled.manners
        if manners == "rude":
            connection.sendall(
                b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
            )
            return
        if manners == "alien":
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\n\n")
            return
        if manners == "silent":
            connection.recv(1)
            return
        connection.sendall(b"Content-Type: auth/request\n\n")
        for line in _lines(connection):
            word, _, rest = line.partition(" ")
            if word == "auth":
                right = rest == PASSWORD
                reply = "+OK accepted" if right else "-ERR invalid"
                connection.sendall(f"Content-Type: command/reply\nReply-Text: {reply}\n\n".encode())
                if not right:
                    return
                continue
            self.asked.append(rest)
            body = self._answer(rest).encode()
            head = f"Content-Type: api/response\nContent-Length: {len(body)}\n\n"
            connection.sendall(head.encode() + body)


def _lines(connection: socket.socket) -> Any:
    received = b""
    while data := connection.recv(65536):
        received += data
        while b"\n\n" in received:
            line, _, received = received.partition(b"\n\n")
            yield line.decode()


class _Answers:
    def __init__(self, config: Config, spoiled: Spoiled) -> None:
        self._config, self._spoiled = config, spoiled
        self._rendering = Rendering(config, {"local_ip_v4": "127.0.0.1"})

    def __call__(self, command: str) -> str:
        if command in self._spoiled.replies:
            return self._spoiled.replies[command]
        words = command.split(" ")
        match words:
            case ["xml_locate", "configuration", "configuration", "name", name]:
                return self._xml(self._rendering.configuration(name))
            case ["xml_locate", "dialplan", "context", "name", name]:
                return self._xml(self._rendering.context(name))
            case ["sofia", "xmlstatus", "profile", "ameyo"]:
                return self._profile()
            case ["global_getvar", "log_dir"]:
                return str(Path(self._config.relay.directory).with_name("log"))
            case ["global_getvar", "db_dir"]:
                return self._config.freeswitch.db
            case ["global_getvar", "api_on_startup"]:
                return "sofia recover"
            case ["global_getvar", "local_ip_v4"]:
                return "127.0.0.1"
            case ["module_exists", name]:
                return "false" if name in self._spoiled.missing_modules else "true"
            case ["acl", ip, name]:
                return "true" if self._admits(ip, name) else "false"
            case ["strmicroepoch"]:
                return str(round(time.time() * 1e6))
        return {
            "status": STATUS,
            "uptime": "7529\n",
            "version": "FreeSWITCH Version 1.11.3-dev~64bit ( 64bit)\n",
            "fsctl max_sessions": "+OK max sessions: 5000\n",
            "fsctl sps": "+OK sessions per second: 200\n",
            "fsctl pause_check inbound": "false",
            "fsctl shutdown_check": "false",
            "uuid_audio_stream": USAGE,
            "sofia status": "ameyo profile RUNNING (0)",
        }.get(command, "-ERR no reply\n")

    def _xml(self, element: ElementTree.Element) -> str:
        text = ElementTree.tostring(element, "unicode")
        for pattern, instead in self._spoiled.texts.items():
            text = re.sub(pattern, instead, text)
        return text

    def _profile(self) -> str:
        held = settings(self._rendering.configuration("sofia.conf"))
        info = {
            "sip-ip": held["sip-ip"],
            "rtp-ip": held["rtp-ip"],
            "ext-sip-ip": held["ext-sip-ip"],
            "ext-rtp-ip": held["ext-rtp-ip"],
            "url": f"sip:mod_sofia@{held['sip-ip']}:{held['sip-port']}",
            "context": held["context"],
            "inbound-codecs": held["inbound-codec-prefs"],
            "session-to": "0",
            **self._spoiled.profile,
        }
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in info.items())
        return (
            '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
            f"<profile>\n<profile-info>{inner}</profile-info>\n</profile>\n"
        )

    def _admits(self, ip: str, name: str) -> bool:
        document = ElementTree.fromstring(self._xml(self._rendering.configuration("acl.conf")))
        return any(
            ip_address(ip) in ip_network(node.get("cidr", ""))
            for entry in document.iter("list")
            if entry.get("name") == name
            for node in entry.iter("node")
        )

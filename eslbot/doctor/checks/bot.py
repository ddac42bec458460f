"""Each workspace's bot: DNS, TCP, TLS, and the WebSocket upgrade with the headers that a call has."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

from eslbot.config.model import Workspace
from eslbot.config.urls import shown
from eslbot.doctor.findings import Finding, Severity, error, late, note, ok, unknown, warning
from eslbot.doctor.network import Reached, Unreachable, reach
from eslbot.doctor.site import Site
from eslbot.runtime.parallel import together
from eslbot.telemetry import redaction

#: What the bot sees instead of a call's.
CRT_OBJECT_ID, DID = "eslbot-doctor", "0000000000"
MAX_ANSWER_BYTES = 32 * 1024

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CLOSE_1000 = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # masked with zeros
_WORKS = "takes the upgrade"
_LOST = "the caller is handed off at once instead of talking to the bot"


def connections(site: Site) -> Iterator[Finding]:
    """Every URL of every workspace, several at one time."""
    wanted = [(workspace, url) for workspace in site.config.workspaces.values() for url in workspace.bot.urls]
    results = together([partial(_one, site, w, url) for w, url in wanted], site.inner_deadline)
    tried: dict[str, list[Finding]] = {}
    for (workspace, url), result in zip(wanted, results, strict=True):
        if result.error is not None:
            raise result.error
        tried.setdefault(workspace.id, []).append(result.value or late(_looked_at(workspace, url)))
    for findings in tried.values():
        works = any(f.found.startswith(_WORKS) for f in findings)
        for finding in findings:
            if works and finding.severity is Severity.ERROR:
                why = "this workspace has to do without this URL"
                yield warning(finding.looked_at, finding.found, why, finding.remedy)
            else:
                yield finding


def _looked_at(workspace: Workspace, url: str) -> str:
    return f"the bot of {workspace.name}, {shown(url)}"


def _one(site: Site, workspace: Workspace, url: str) -> Finding:
    looked_at = _looked_at(workspace, url)
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    if workspace.bot.proxy is not None:
        why = "its bot is behind bot.proxy, through which only the relay dials"
        return unknown(looked_at, why, f"make a call to {workspace.name}")
    # The relay trusts the system's authorities.
    tls = ssl.create_default_context() if secure else None
    patience = min(site.patience, max(1.0, workspace.bot.connect_timeout))
    try:
        reached = reach(parts.hostname or "", parts.port or (443 if secure else 80), tls, patience)
        with reached.connection:
            reached.connection.settimeout(patience)
            _upgrade(reached.connection, workspace, url)
    except Unreachable as failed:
        return error(looked_at, failed.found, _LOST, failed.remedy)
    except OSError as failed:
        return error(
            looked_at,
            f"takes the connection and breaks off the upgrade: {failed}",
            _LOST,
            "look into the bot's log; is that port the one of its WebSocket server?",
        )
    return _fine(site, looked_at, reached)


def _fine(site: Site, looked_at: str, reached: Reached) -> Finding:
    found = f"{_WORKS}; {reached.validity}"
    if reached.expires_soon:
        return warning(
            looked_at, found, "from then on no call reaches the bot", "have the bot's certificate renewed"
        )
    if not site.switch_is_here:
        return note(
            looked_at, found, "seen from this host; the relay, which is on FreeSWITCH's, connects the bot"
        )
    return ok(looked_at, found)


def _upgrade(connection: socket.socket, workspace: Workspace, url: str) -> None:
    """RFC 6455, 4.1, and a polite close. Raises :class:`Unreachable`, OSError."""
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "User-Agent": "eslbot-doctor",
        **{name: value.reveal() for name, value in workspace.bot.headers.items()},
        "X-Call-ID": str(uuid4()),
        "X-Workspace-ID": workspace.id,
        "X-DID": DID,
        "X-CRT-Object-ID": CRT_OBJECT_ID,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())
    first, answer = _read(connection)
    words = first.split(" ", 2)
    if not first.startswith("HTTP/1.") or len(words) < 2:
        raise Unreachable(
            f"does not speak HTTP: {redaction.beginning(first, 60)!r}", "look whether the URL's port is right"
        )
    if words[1] != "101":
        raise Unreachable(
            f"refuses the upgrade: {redaction.beginning(first, 100)}", _remedy(words[1], workspace)
        )
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    if answer.get("sec-websocket-accept") != base64.b64encode(digest).decode():
        raise Unreachable(
            "answers 101 with a wrong Sec-WebSocket-Accept",
            "something in between (a proxy, a cache) answers for the bot; connect to the bot itself",
        )
    connection.sendall(_CLOSE_1000)
    connection.settimeout(1.0)
    # What it says meanwhile, a greeting perhaps, belongs to nobody; then it closes, or we do.
    try:
        for _ in range(16):
            if not connection.recv(65536):
                return
    except OSError:
        return


def _read(connection: socket.socket) -> tuple[str, dict[str, str]]:
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(4096)
        if not more:
            raise ConnectionResetError("the connection was closed" + (" in mid-answer" if received else ""))
        received += more
        if len(received) > MAX_ANSWER_BYTES:
            raise Unreachable("sends headers without end", "look whether the URL's port is right")
    lines = received.partition(b"\r\n\r\n")[0].decode("utf-8", "replace").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    return lines[0], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _remedy(status: str, workspace: Workspace) -> str:
    key = f"workspaces.{workspace.id}.bot"
    if status in ("401", "403"):
        return f"the bot does not take the headers of {key}.headers: give it the token that it expects"
    if status == "404":
        return f"the path of {key}.url is not one of the bot's"
    if status.startswith("3"):
        return f"write the address that it redirects to into {key}.url: the relay does not follow"
    if status.startswith("5"):
        return "look into the bot's log, or that of the proxy before it"
    return f"look whether {key}.url is the address of the bot's WebSocket server, and into its log"

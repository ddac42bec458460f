"""The probes: short checks, bounded in time and in bytes, which change nothing.

A probe runs in a thread of its own (:mod:`eslbot.health.monitor`) and returns a finding for each component
that it checks.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eslbot.config.model import Address, Config, FreeSwitch, Ledger
from eslbot.esl.errors import CommandTimeout, EslError, UnsafeArgument
from eslbot.esl.inbound import InboundClient, Refused, WrongPassword
from eslbot.freeswitch.password import NoPassword, event_socket_password
from eslbot.health.model import Colour, Component, Finding
from eslbot.recovery import state as recovery
from eslbot.telemetry.redaction import beginning

Findings = Mapping[Component, Finding]
Probe = Callable[[], Findings]

#: Seconds for one probe, all of its requests together.
TIMEOUT = 2.0
#: The SIP profile that ``eslbot conf`` writes.
PROFILE = "ameyo"
#: Bytes of an answer's head and body that are read.
MAX_HEAD, MAX_BODY = 4096, 4096
#: Characters of an error's text that are shown.
MAX_TEXT = 120
#: Seconds for which a death of FreeSWITCH is shown after it runs again.
RESTART_SHOWN_FOR = 600.0
#: Seconds that facts may wait for the database: amber, and red. The writer reads every five at the latest.
LAG_AMBER, LAG_RED = 15.0, 60.0
#: Seconds without a sign of life of the ledger writer.
WRITER_SILENCE_LIMIT = 10.0

_GREEN = Finding(Colour.GREEN)
_START_SWITCH = "systemctl status freeswitch and its log say why it ended; systemctl start freeswitch"


class NoHttp(Exception):
    """The answer is no HTTP."""


def freeswitch(config: FreeSwitch) -> Findings:
    """FreeSWITCH and its event socket: whether it runs, takes calls, and can be asked."""
    address = config.event_socket
    commands = ("status", "fsctl pause_check inbound", "sofia status")
    try:
        with InboundClient(address, event_socket_password(config), TIMEOUT, TIMEOUT) as client:
            status, paused, profiles = map(client.api, commands)
    except NoPassword as error:
        return _not_asked(address, str(error), "set freeswitch.event_socket_password, and reload")
    except Refused:
        return _not_let_in(address, "it refuses this host before it asks for a password")
    except (WrongPassword, UnsafeArgument) as error:
        return _not_let_in(address, str(error))
    except (CommandTimeout, TimeoutError) as error:
        why = f"FreeSWITCH hangs: {address} does not answer in time: {error}"
        remedy = "systemctl kill -s KILL freeswitch: it is started again and takes its calls up"
        lost = Finding(Colour.RED, why, remedy, perhaps_late=True)
        return {Component.FREESWITCH: lost, Component.EVENT_SOCKET: lost}
    except EslError as error:
        remedy = f"look who listens there: ss -ltnp 'sport = {address.port}'"
        lost = Finding(Colour.RED, f"{address} is no event socket: {error}", remedy)
        return {Component.FREESWITCH: _by_sip(config, lost), Component.EVENT_SOCKET: lost}
    except OSError as error:
        lost = Finding(Colour.RED, f"{address}: {error.strerror or error}", _START_SWITCH)
        return {Component.FREESWITCH: _by_sip(config, lost), Component.EVENT_SOCKET: lost}
    return {
        Component.FREESWITCH: _running(config, status, paused, profiles),
        Component.EVENT_SOCKET: _GREEN,
    }


def _not_let_in(address: Address, why: str) -> Findings:
    remedy = "eslbot doctor says which password or which list is wrong"
    return _not_asked(address, f"{address}: {why}", remedy)


def _not_asked(address: Address, why: str, remedy: str) -> Findings:
    runs = Finding(Colour.UNKNOWN, f"it is there, at {address}, and cannot be asked how it is", remedy)
    return {Component.FREESWITCH: runs, Component.EVENT_SOCKET: Finding(Colour.RED, why, remedy)}


def _by_sip(config: FreeSwitch, lost: Finding) -> Finding:
    """FreeSWITCH's own colour where its event socket is gone: whether anybody has its SIP port."""
    if config.sip_ip is None:
        return Finding(Colour.RED, f"nobody can ask it: {lost.why}", lost.remedy)
    at = Address(config.sip_ip, config.sip_port)
    try:
        socket.create_connection(at.pair, TIMEOUT / 2).close()
    except OSError as error:
        why = f"FreeSWITCH is gone: SIP {at}: {error.strerror or 'no answer'}; event socket {lost.why}"
        return Finding(Colour.RED, why, _START_SWITCH)
    why = f"something takes SIP at {at}, and it cannot be asked: {lost.why}"
    return Finding(Colour.AMBER, why, lost.remedy)


def _running(config: FreeSwitch, status: str, paused: str, profiles: str) -> Finding:
    if re.search(r"\bis (not ready|paused|shutting down)", status):
        return Finding(
            Colour.RED, "FreeSWITCH says that it is not ready", "wait for its start, or see its log"
        )
    if paused == "true":
        return Finding(
            Colour.RED, "FreeSWITCH is paused: it refuses new calls", "fs_cli -x 'fsctl resume inbound'"
        )
    rows = [line.split() for line in profiles.splitlines()]
    rows = [row for row in rows if "profile" in row]
    if rows and not any(row[0] == PROFILE and "RUNNING" in row for row in rows):
        return Finding(
            Colour.RED,
            f"the SIP profile `{PROFILE}` does not run: no INVITE is heard",
            f"fs_cli -x 'sofia profile {PROFILE} start'; its log says why it ended (an address taken?)",
        )
    return _after_a_death(config)


def _after_a_death(config: FreeSwitch) -> Finding:
    try:
        known = recovery.read(Path(config.recovery_file))
    except recovery.RecoveryFileError as error:
        return Finding(Colour.AMBER, f"its restarts are not known: {error}", recovery.REMEDY)
    now = time.time()
    if known.last_flush is not None and 0 <= now - known.last_flush < RESTART_SHOWN_FOR:
        return Finding(
            Colour.AMBER,
            f"FreeSWITCH died again and again, and runs without its calls: {known.dropped} dropped",
            "see its log and dmesg for what killed it; eslbot recovery tells its starts",
        )
    if known.last_restart is not None and 0 <= now - known.last_restart < RESTART_SHOWN_FOR:
        return Finding(
            Colour.AMBER,
            "FreeSWITCH has died with calls up, and is back with them",
            "see its log and dmesg for what killed it",
        )
    return _GREEN


@dataclass(frozen=True, slots=True)
class ProcessCount:
    """How many processes of a kind run, and how many are configured."""

    running: int
    wanted: int


def workers(address: Address, count: Callable[[], ProcessCount]) -> Findings:
    """The workers: whether their health port answers, and whether as many as configured take calls."""
    return {Component.WORKERS: _workers(address, count)}


def _workers(address: Address, count: Callable[[], ProcessCount]) -> Finding:
    restart = "systemctl status eslbot; its log says why they ended"
    try:
        status, body = get(address, "/readyz", TIMEOUT)
    except (OSError, NoHttp) as error:
        why = f"no worker answers at {address}: {_describe(error)}"
        late = isinstance(error, TimeoutError)
        return Finding(Colour.RED, why, restart, perhaps_late=late)
    found = count()
    if found.running == 0:
        why = f"no worker takes calls; {found.wanted} are configured"
        return Finding(Colour.RED, why, restart)
    said = _status_word(body)
    if status == 503 and said == "draining" and found.running < found.wanted:
        why = "workers are leaving, and none has come instead"
        return Finding(Colour.AMBER, why, "wait for the reload to end; see reload_failed")
    if status not in (200, 503):
        why = f"{address} answers {status}: that is no worker"
        return Finding(Colour.RED, why, "look who has the port of server.health")
    if found.running < found.wanted:
        why = f"{found.running} of {found.wanted} workers take calls"
        return Finding(Colour.AMBER, why, restart)
    return _GREEN


def _status_word(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(document.get("status", "")) if isinstance(document, dict) else ""


def relays(config: Config, count: Callable[[], ProcessCount]) -> Findings:
    """The relays: whether one answers at `relay.listen`, and whether all that this service starts run."""
    return {Component.RELAYS: _relays(config, count)}


def _relays(config: Config, count: Callable[[], ProcessCount]) -> Finding:
    address = config.relay.listen
    ours = config.relay.processes > 0
    if not ours and address.ip.is_loopback and not config.freeswitch.event_socket.ip.is_loopback:
        why = "the relay is beside FreeSWITCH, on another host"
        return Finding(Colour.UNKNOWN, why, "run eslbot doctor there")
    unit = "eslbot" if ours else "eslbot-relay"
    restart = f"systemctl status {unit}; its log says why: systemctl restart {unit}"
    lost = "new calls get no bot and go to agents"
    try:
        status, body = get(address.from_own_host, "/healthz", TIMEOUT)
    except (OSError, NoHttp) as error:
        why = f"no relay answers at {address}: {_describe(error)}; {lost}"
        late = isinstance(error, TimeoutError)
        return Finding(Colour.RED, why, restart, perhaps_late=late)
    if status != 200 or not body.startswith(b"relay"):
        why = f"what answers at {address} is no relay; {lost}"
        return Finding(Colour.RED, why, f"look who listens there (ss -ltnp), then: {restart}")
    found = count() if ours else ProcessCount(1, 1)
    if found.running < found.wanted:
        why = f"{found.running} of {found.wanted} relays take streams"
        return Finding(Colour.AMBER, why, restart)
    return _GREEN


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """How the ledger writer is.

    Args:
        up: Whether the database can be written.
        why: Why it cannot; empty while it is being opened.
        backlog: Bytes of journals that wait.
        beat: The writer's last sign of life, by the monotonic clock.
        waiting_since: Since when there has always been something to write; None where there is nothing.
    """

    up: bool
    why: str
    backlog: int
    beat: float
    waiting_since: float | None = None


def ledger(config: Ledger | None, writer_status: Callable[[], WriterStatus]) -> Findings:
    """The ledger: whether facts can be written, are read, and get into the database."""
    return {Component.LEDGER: _ledger(config, writer_status)}


def _ledger(config: Ledger | None, writer_status: Callable[[], WriterStatus]) -> Finding:
    if config is None:
        return Finding(Colour.UNKNOWN, "calls are not recorded: there is no [ledger]")
    try:
        _write_a_byte(Path(config.journal))
    except OSError as error:
        return Finding(
            Colour.RED,
            f"facts cannot be written to {config.journal}: {error.strerror}",
            "make room there, and see that the service's user may write; facts wait in memory meanwhile",
        )
    now, state = time.monotonic(), writer_status()
    if now - state.beat > WRITER_SILENCE_LIMIT:
        return Finding(
            Colour.RED,
            f"the journals have not been read for {now - state.beat:.0f} s: the writer hangs",
            "see the database and its disk; where it stays so: systemctl restart eslbot",
        )
    if not state.up and not state.why:
        return Finding(Colour.UNKNOWN, "its database is being opened")
    if not state.up:
        why = f"the database does not take what is written: {beginning(state.why, 2 * MAX_TEXT)}"
        remedy = "mend it; the journals wait, and no call is affected"
        return Finding(Colour.RED, why, remedy)
    late = 0.0 if state.waiting_since is None else now - state.waiting_since
    if late > LAG_AMBER:
        colour = Colour.RED if late > LAG_RED else Colour.AMBER
        why = f"{state.backlog / 1000:.1f} kB of journals have been waiting for {late:.0f} s"
        return Finding(colour, why, "see how busy the database and its disk are")
    return _GREEN


def _write_a_byte(folder: Path) -> None:
    """Raises OSError where a worker could not write a fact either."""
    path = folder / f".probe-{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)
        path.unlink()


# -- HTTP: http.client bounds each read, but not an answer that drips ----------------------------------------


def get(address: Address, path: str, seconds: float) -> tuple[int, bytes]:
    """Status and beginning of the body of ``GET path``, within ``seconds`` however it drips.

    Raises OSError and :class:`NoHttp`.
    """
    until = time.monotonic() + seconds
    with socket.create_connection(address.pair, seconds) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        connection.settimeout(max(0.001, until - time.monotonic()))
        connection.sendall(request.encode())
        received = b""
        while len(received) < MAX_HEAD + MAX_BODY and not _is_whole(received):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no whole answer within {seconds:g} s")
            connection.settimeout(left)
            try:
                data = connection.recv(4096)
            except TimeoutError:
                raise TimeoutError(f"no whole answer within {seconds:g} s") from None
            if not data:
                break
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", head)
    if match is None:
        raise NoHttp("something that is no HTTP")
    return int(match[1]), body


def _is_whole(received: bytes) -> bool:
    """Whether as much of the answer is there as its Content-Length says."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"^content-length: *([0-9]{1,9})\r?$", head, re.MULTILINE | re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def _describe(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return beginning(text, MAX_TEXT)

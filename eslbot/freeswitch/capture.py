"""What FreeSWITCH refuses by itself, before any dialplan: counted and told.

The SIP stack answers 420, 400 and 403 without an event, and 488 or 480 on a channel that never reaches us.
But it sends a copy of each SIP message to ``freeswitch.capture`` (mod_sofia's ``sip-capture``: HEP, version
1, one UDP datagram a message). A thread of the page process reads them.

The dialplan marks each of its own responses (``MARK``), so what a controller has seen and refused is not
counted twice. Anybody on this host can send to the port: what comes is bounded, printable, and believed for
figures only.
"""

from __future__ import annotations

import errno
import re
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address

import structlog

from eslbot.config.model import Address
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: The header of a response that the dialplan, or a controller through it, has made.
MARK = "X-Dialplan"
#: Seconds until a process that has not got the port tries again.
TRY_EVERY = 5.0
#: Refusals that are remembered, since a response over UDP is repeated until its ACK comes (64 × T1).
REMEMBERED, REPEATED_FOR = 1024, 32.0
#: Log lines a minute; what is beyond is counted and told as a number.
LINES = 20
#: Bytes of a response that are looked at.
MOST = 8192

_STATUS = re.compile(r"SIP/2\.0 ([4-6]\d\d) ?([^\r\n]{0,80})")
#: What is no refusal of a call: it was given up, or asked for credentials.
_NOT_MEANT = frozenset({401, 407, 487})
_SIZES = {2: 4, 10: 16}  # AF_INET, AF_INET6
_REMEDIES = {
    400: "the INVITE breaks SIP's or SDP's grammar: a From display name has to be in quotes",
    403: "not in a workspace's sources: add it, or keep it out by the firewall",
    420: "the PBX requires what is `unsupported`: let it only support it; with `timer`, no session timers",
    422: "the PBX's session timer is too short: switch session timers off on this trunk",
    488: "offer PCMU or PCMA in plain RTP/AVP: no fax, no a=crypto",
    503: "FreeSWITCH is full or paused",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A final response of FreeSWITCH's own to an INVITE or a re-INVITE; ``peer`` is who got it."""

    status: int
    phrase: str
    peer: str
    call_id: str
    branch: str
    unsupported: str


def refusal(datagram: bytes) -> Refusal | None:
    """The refusal in a copied message, or None where it is anything else."""
    if len(datagram) < 8 or datagram[0] not in (1, 2):
        return None
    length, size = datagram[1], _SIZES.get(datagram[2], 0)
    if not size or length < 8 + 2 * size or len(datagram) < length:
        return None
    text = datagram[length : length + MOST].decode("utf-8", "replace")
    match = _STATUS.match(text)
    if match is None or int(match[1]) in _NOT_MEANT:
        return None
    head = text.partition("\r\n\r\n")[0]
    if not _header(head, "CSeq").upper().endswith("INVITE") or _header(head, MARK):
        return None
    branch = re.search(r"branch=([^;,\s]{1,128})", _header(head, "Via"))
    return Refusal(
        int(match[1]),
        _printable(match[2]),
        str(ip_address(datagram[8 + size : 8 + 2 * size])),
        _printable(_header(head, "Call-ID")),
        branch[1] if branch else "",
        _printable(_header(head, "Unsupported")),
    )


def _header(head: str, name: str) -> str:
    match = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*([^\r\n]*)", head, re.MULTILINE | re.IGNORECASE)
    return match[1].strip() if match else ""


def _printable(text: str, most: int = 120) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:most])


class Refusals:
    """Counts and tells what FreeSWITCH refuses, each once, and no more than ``LINES`` a minute in the log."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, int], float] = OrderedDict()
        self._minute, self._lines, self._untold = 0.0, 0, 0

    def take(self, datagram: bytes) -> None:
        """One copied message."""
        found = refusal(datagram)
        now = time.monotonic()
        if found is None or self._is_repeated(found, now):
            return
        metrics.REFUSALS.labels(f"switch_{found.status}").inc()
        if now - self._minute >= 60:
            if self._untold:
                log.warning("switch_refusals_untold", count=self._untold)
            self._minute, self._lines, self._untold = now, 0, 0
        if self._lines >= LINES:
            self._untold += 1
            return
        self._lines += 1
        log.warning(
            "switch_refused",
            status=found.status,
            why=found.phrase,
            source=found.peer,
            sip_call_id=found.call_id,
            **({"unsupported": found.unsupported} if found.unsupported else {}),
            remedy=_REMEDIES.get(found.status, "see FreeSWITCH's log"),
        )

    def _is_repeated(self, found: Refusal, now: float) -> bool:
        key = (found.call_id, found.branch, found.status)
        last = self._seen.pop(key, None)
        self._seen[key] = now
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return last is not None and now - last < REPEATED_FOR


def watch(address: Address) -> None:
    """Read what comes to ``address``, once it is free, for as long as the process lives; for a thread."""
    refusals = Refusals()
    with _bound(address) as listener:
        while True:
            refusals.take(listener.recv(65535))


def _bound(address: Address) -> socket.socket:
    """A socket that has the port. Waits for another service of this host to leave it."""
    told = False
    while True:
        listener = socket.socket(
            socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        try:
            listener.bind(address.pair)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE and not told:
                told = True
                log.warning(
                    "capture_not_heard",
                    address=str(address),
                    error=error.strerror,
                    remedy="freeswitch.capture has to be an address of this host",
                )
            time.sleep(TRY_EVERY)
        else:
            return listener

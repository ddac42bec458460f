"""Reaching somebody else's server, step by step, so that it is told which fails: DNS, TCP, proxy, TLS."""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from eslbot.ameyo.proxy import Proxy, ProxyFailed
from eslbot.config.model import IP

#: A certificate that runs out sooner is told of.
SOON = 14 * 86400.0

#: X509_V_ERR_CERT_HAS_EXPIRED, …_NOT_YET_VALID, …_HOSTNAME_MISMATCH and …_IP_ADDRESS_MISMATCH.
_EXPIRED, _NOT_YET, _WRONG_NAMES = 10, 9, (62, 64)
#: The two times of a certificate's validity in DER: UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5).
_TIMES = re.compile(rb"\x17\x0d(\d{12}Z)|\x18\x0f(\d{14}Z)")


class Unreachable(Exception):
    """The step that failed: ``found``, and what mends it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found, self.remedy = found, remedy


@dataclass(frozen=True, slots=True)
class Reached:
    """An open connection: the peer's address, and when its certificate runs out (epoch seconds)."""

    connection: socket.socket
    address: str
    expires: float | None

    @property
    def expires_soon(self) -> bool:
        """Within :data:`SOON`."""
        return self.expires is not None and self.expires - time.time() < SOON

    @property
    def validity(self) -> str:
        """For people."""
        if self.expires is None:
            return "no TLS"
        return f"certificate valid until {datetime.fromtimestamp(self.expires, UTC):%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Way:
    """How it is reached: from which address of this host, and through which proxy."""

    source: IP | None = None
    proxy: Proxy | None = None


_STRAIGHT = Way()


def reach(host: str, port: int, tls: ssl.SSLContext | None, patience: float, way: Way = _STRAIGHT) -> Reached:
    """Connect. ``patience``: seconds for each step. Raises :class:`Unreachable`."""
    connection = _connect(host, port, patience, way)
    address = str(connection.getpeername()[0])
    if tls is None:
        return Reached(connection, address, None)
    try:
        secured = tls.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise _untrusted(error, host, port, patience, way) from None
    except (OSError, ValueError) as error:
        connection.close()
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else error
        raise Unreachable(
            f"TLS with {host}:{port} failed: {reason}",
            "look whether that port speaks TLS 1.2 or later, and whether something in between cuts it off: "
            f"openssl s_client -connect {host}:{port} -servername {host}",
        ) from None
    certificate = secured.getpeercert() or {}
    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"])) if "notAfter" in certificate else None
    return Reached(secured, address, expires)


def _connect(host: str, port: int, patience: float, way: Way) -> socket.socket:
    if way.proxy is None:
        return _straight(host, port, patience, way.source)
    connection = _straight(way.proxy.host, way.proxy.port, patience, way.source)
    try:
        way.proxy.open_tunnel(connection, host, port, patience)
    except ProxyFailed as error:
        connection.close()
        raise Unreachable(error.found, error.remedy) from None
    connection.settimeout(patience)
    return connection


def _straight(host: str, port: int, patience: float, source: IP | None) -> socket.socket:
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(
            f"DNS does not know {host}: {error}",
            f"look the name up on this host (getent ahosts {host}); mend the URL, or the name server in "
            "/etc/resolv.conf",
        ) from None
    try:
        return socket.create_connection((host, port), patience, (str(source), 0) if source else None)
    except TimeoutError:
        raise Unreachable(
            f"nothing answered at {host}:{port} within {patience:g} s",
            f"let the firewalls on the way pass TCP to {host}:{port} from this host, and ask its owner to "
            "allow this host's public address",
        ) from None
    except OSError as error:
        raise Unreachable(
            f"{host}:{port} cannot be connected to: {error.strerror or error}",
            "look whether the port of the URL is right and the server runs",
        ) from None


def _untrusted(
    error: ssl.SSLCertVerificationError, host: str, port: int, patience: float, way: Way
) -> Unreachable:
    whose = f"the TLS certificate of {host}:{port}"
    if error.verify_code == _EXPIRED:
        until = _end_of_validity(host, port, patience, way)
        when = f" on {until:%Y-%m-%d %H:%M} UTC" if until and until < datetime.now(UTC) else ""
        return Unreachable(
            f"{whose} has expired{when}",
            f"the owner of {host} has to renew its certificate; until then nothing can be sent there. "
            f"Look at it: openssl s_client -connect {host}:{port} -servername {host}",
        )
    if error.verify_code == _NOT_YET:
        return Unreachable(
            f"{whose} is not valid yet",
            "set this host's clock (timedatectl set-ntp true); if it is right, the certificate's owner has "
            "to mend it",
        )
    if error.verify_code in _WRONG_NAMES:
        return Unreachable(
            f"{whose} is for another name: {error.verify_message}",
            "write the name that is in the certificate into the URL; TLS is verified against the URL's host",
        )
    return Unreachable(
        f"{whose} is not trusted: {error.verify_message}",
        "if it is of a private authority, name its PEM file (ameyo.ca_file; for a bot, add it to the CA "
        "store of FreeSWITCH's host); if not, the server has to send its intermediate certificates",
    )


def _end_of_validity(host: str, port: int, patience: float, way: Way) -> datetime | None:
    """When a certificate that did not verify ran out, for people; nothing is sent."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        with (
            _connect(host, port, patience, way) as connection,
            blind.wrap_socket(connection, server_hostname=host) as secured,
        ):
            certificate = secured.getpeercert(binary_form=True) or b""
    except (OSError, ValueError, Unreachable):
        return None  # the verdict stands without it
    times = [(short or long).decode() for short, long in _TIMES.findall(certificate)][:2]
    if len(times) != 2:
        return None
    layout = "%y%m%d%H%M%SZ" if len(times[1]) == 13 else "%Y%m%d%H%M%SZ"
    try:
        return datetime.strptime(times[1], layout).replace(tzinfo=UTC)
    except ValueError:
        return None

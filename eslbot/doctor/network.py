"""Connects to somebody else's server step by step, to say which one fails: DNS, TCP, proxy or TLS."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.x509 import load_der_x509_certificate

from eslbot.ameyo.proxy import Proxy, ProxyFailed
from eslbot.config.model import IP

#: A certificate that runs out sooner is told of.
SOON = 14 * 86400.0

#: X509_V_ERR_CERT_HAS_EXPIRED, …_NOT_YET_VALID, …_HOSTNAME_MISMATCH and …_IP_ADDRESS_MISMATCH.
_EXPIRED, _NOT_YET, _WRONG_NAMES = 10, 9, (62, 64)


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
class Route:
    """From which address of this host, and through which proxy, a server is reached."""

    source: IP | None = None
    proxy: Proxy | None = None


_DIRECT = Route()


def reach(
    host: str, port: int, tls: ssl.SSLContext | None, patience: float, route: Route = _DIRECT
) -> Reached:
    """Connect. ``patience``: seconds for each step. Raises :class:`Unreachable`."""
    connection = _connect(host, port, patience, route)
    address = str(connection.getpeername()[0])
    if tls is None:
        return Reached(connection, address, None)
    try:
        secured = tls.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise _untrusted(error, host, port, patience, route) from None
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


def _connect(host: str, port: int, patience: float, route: Route) -> socket.socket:
    if route.proxy is None:
        return _direct(host, port, patience, route.source)
    connection = _direct(route.proxy.host, route.proxy.port, patience, route.source)
    try:
        route.proxy.open_tunnel(connection, host, port, patience)
    except ProxyFailed as error:
        connection.close()
        raise Unreachable(error.found, error.remedy) from None
    connection.settimeout(patience)
    return connection


def _direct(host: str, port: int, patience: float, source: IP | None) -> socket.socket:
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
    error: ssl.SSLCertVerificationError, host: str, port: int, patience: float, route: Route
) -> Unreachable:
    whose = f"the TLS certificate of {host}:{port}"
    if error.verify_code == _EXPIRED:
        until = _end_of_validity(host, port, patience, route)
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


def _end_of_validity(host: str, port: int, patience: float, route: Route) -> datetime | None:
    """When a certificate that did not verify ran out, for people; nothing is sent."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        with (
            _connect(host, port, patience, route) as connection,
            blind.wrap_socket(connection, server_hostname=host) as secured,
        ):
            certificate = secured.getpeercert(binary_form=True) or b""
        return load_der_x509_certificate(certificate).not_valid_after_utc
    except (OSError, ValueError, Unreachable):
        return None  # the verdict stands without it

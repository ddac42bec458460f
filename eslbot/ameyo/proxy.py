"""The way to Ameyo through an HTTP proxy: CONNECT (RFC 9110, 9.3.6), and then TLS with Ameyo itself.

What the proxy answers may be anybody's: so many bytes of it are read, for so long, and nothing of it but the
status is told. It sees Ameyo's host and port, and neither token nor customer.

Nothing here knows of gevent: a worker brings its own sockets, ``eslbot doctor`` the system's.
"""

from __future__ import annotations

import re
import socket
import time
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from eslbot.config.model import Secret

#: Bytes of an answer to CONNECT, all of its headers included.
MAX_HEAD = 8192

_RECV = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] +([1-9][0-9]{2})[ \r\n]")
#: What stands before the status is seen in so many bytes, or is none.
_BEFORE_STATUS = 32
_ENDS = (b"\r\n\r\n", b"\n\n")


class ProxyFailed(OSError):
    """The proxy cannot be reached, or does not let us through; ``remedy`` says what mends it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found, self.remedy = found, remedy


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. ``login``: ``user:password``, where it wants one."""

    host: str
    port: int
    login: Secret | None = None

    @classmethod
    def of(cls, url: Secret) -> Proxy:
        """The one that a checked ``http://[user:password@]host:port`` names."""
        parts = urlsplit(url.reveal())
        login = None
        if parts.username is not None:
            login = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
        return cls(parts.hostname or "", parts.port or 0, login)

    def __str__(self) -> str:
        return authority(self.host, self.port)

    def unreachable(self, error: OSError) -> ProxyFailed:
        """What to say where no connection to it could be made."""
        if isinstance(error, TimeoutError):
            said = "timed out"
        elif isinstance(error, socket.gaierror):
            said = "its name is not known"
        else:
            said = error.strerror or str(error)
        return ProxyFailed(f"the proxy {self} cannot be reached: {said}", "mend ameyo.proxy, or the proxy")

    def open_tunnel(self, connection: socket.socket, host: str, port: int, seconds: float) -> None:
        """Ask this proxy, on ``connection``, for a tunnel to ``host`` and ``port``. Raises ProxyFailed.

        It takes at most ``seconds``, however slowly the proxy speaks; the socket's time-out is another one
        behind it.
        """
        deadline = time.monotonic() + seconds
        target = authority(host, port)
        try:
            connection.settimeout(seconds)
            connection.sendall(self._request(target))
            found = self._answer(connection, target, deadline)
        except TimeoutError:
            found = self._says(f"did not answer CONNECT within {seconds:g} s", "look whether it is one")
        except OSError as error:
            said = error.strerror or str(error)
            found = self._says(f"broke off CONNECT: {said}", "look whether it is an HTTP proxy")
        if found is not None:
            raise found

    def _request(self, target: str) -> bytes:
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.login is not None:
            lines.append(f"Proxy-Authorization: Basic {b64encode(self.login.reveal().encode()).decode()}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _answer(self, connection: socket.socket, target: str, deadline: float) -> ProxyFailed | None:
        """None where it lets us through. Raises OSError."""
        head = b""
        while True:
            status = _STATUS.match(head)
            if status is None and (len(head) >= _BEFORE_STATUS or b"\n" in head):
                return self._says("answered CONNECT with what is no HTTP/1.x", "look whether it is a proxy")
            if status is not None and not 200 <= int(status[1]) < 300:
                return self._refused(int(status[1]), target)
            if (end := next((head.find(e) + len(e) for e in _ENDS if e in head), None)) is not None:
                if end == len(head):
                    return None
                return self._says("spoke before TLS had begun", "look whether it is a proxy")
            if len(head) >= MAX_HEAD:
                return self._says(
                    f"answered CONNECT with over {MAX_HEAD} bytes", "look whether it is a proxy"
                )
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            connection.settimeout(left)
            data = connection.recv(min(_RECV, MAX_HEAD - len(head)))
            if not data:
                return self._says("closed the connection at CONNECT", "see its log")
            head += data

    def _refused(self, status: int, target: str) -> ProxyFailed:
        if status == 407:
            has = "it does not take the user and password in" if self.login else "it wants a login: mend"
            remedy = f"{has} ameyo.proxy" + (": mend them" if self.login else " (http://user:password@…)")
        elif status in (403, 405):
            remedy = f"have it allow CONNECT to {target} (Squid: SSL_ports, and who may)"
        elif status >= 500:
            remedy = f"it does not reach {target}: see its log"
        else:
            remedy = "look whether it is an HTTP proxy that knows CONNECT"
        return self._says(f"answered CONNECT with {status}", remedy)

    def _says(self, what: str, remedy: str) -> ProxyFailed:
        return ProxyFailed(f"the proxy {self} {what}", remedy)


def authority(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

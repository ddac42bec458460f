"""Free ports that neither the system nor a switch hands out.

Linux takes ephemeral ports from up to 60999 and the integration's RTP range ends at 60000, so stand-ins on
the same loopback address stay above both: a switch that finds its RTP port taken fails the call.
"""

from __future__ import annotations

import errno
import random
import socket
import threading
from collections.abc import Callable, Iterable

LOWEST, HIGHEST = 61_000, 65_530


_lock = threading.Lock()
_reserved: dict[str, set[int]] = {}


class Ports:
    """The ports of one address; those reserved are not given out twice, even before SIPp has bound them.

    All PBXs of a process share the reservations: SIPp binds a moment after we have looked.
    """

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self._lock = _lock
        self._reserved = _reserved.setdefault(ip, set())

    def rtp_socket(self) -> socket.socket:
        """A non-blocking UDP socket on an even port (RTP's custom, RFC 3550, section 11)."""
        with self._lock:
            for port in _shuffled(range(LOWEST, HIGHEST, 2)):
                endpoint = None if port in self._reserved else _bound(self.ip, port, socket.SOCK_DGRAM)
                if endpoint is not None:
                    endpoint.setblocking(False)
                    return endpoint
        raise OSError(f"no free even UDP port on {self.ip} from {LOWEST} to {HIGHEST}")

    def reserve_rtp(self) -> int:
        """A port for SIPp's own RTP: it takes the one after next too, for video that nobody sends."""
        return self._reserve(range(LOWEST, HIGHEST, 4), lambda port: _free(self.ip, port, port + 2))

    def reserve_sip(self) -> int:
        """A port for SIP by UDP and TCP."""
        return self._reserve(
            range(LOWEST + 1, HIGHEST, 2),
            lambda port: _free(self.ip, port) and _free(self.ip, port, kind=socket.SOCK_STREAM),
        )

    def release(self, *ports: int) -> None:
        """Whoever had these reserved is gone."""
        with self._lock:
            self._reserved -= {taken for port in ports for taken in (port, port + 2 * (port % 2 == 0))}

    def _reserve(self, candidates: Iterable[int], free: Callable[[int], bool]) -> int:
        with self._lock:
            for port in _shuffled(candidates):
                if port not in self._reserved and free(port):
                    self._reserved |= {port, port + 2 * (port % 2 == 0)}
                    return port
        raise OSError(f"no free port on {self.ip} from {LOWEST} to {HIGHEST}")


def _shuffled(candidates: Iterable[int]) -> list[int]:
    ports = list(candidates)
    random.shuffle(ports)  # so that two test runs at once do not go for the same one
    return ports


def _bound(ip: str, port: int, kind: socket.SocketKind) -> socket.socket | None:
    endpoint = socket.socket(socket.AF_INET, kind)
    try:
        endpoint.bind((ip, port))
    except OSError as error:
        endpoint.close()
        if error.errno != errno.EADDRINUSE:
            raise  # no such address, for one
        return None
    return endpoint


def _free(ip: str, *ports: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> bool:
    for port in ports:
        endpoint = _bound(ip, port, kind)
        if endpoint is None:
            return False
        endpoint.close()
    return True

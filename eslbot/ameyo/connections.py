"""The connections to one workspace's Ameyo: kept alive, and opened without standing in another's way.

gevent looks names up in threads, ten for the whole process: with a name server that never answers for one
tenant's host, a few of its calls would hold all ten, and no other tenant's host would be found any more. A
lookup cannot be cut short either, its thread stays busy when nobody waits for it any longer. So each
workspace has threads of its own.
"""

from __future__ import annotations

import socket
from typing import Any

from gevent.resolver.thread import Resolver
from gevent.threadpool import ThreadPool
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

#: Name lookups of one workspace at one time.
LOOKUPS = 2
#: Seconds after which a thread that has nothing to look up ends.
IDLE = 60


class Connections(HTTPAdapter):
    """A pool of at most ``size`` connections to one host, with a resolver of its own."""

    def __init__(self, size: int) -> None:
        self._names = Resolver()
        self._names.pool = ThreadPool(LOOKUPS, idle_task_timeout=IDLE)
        super().__init__(pool_connections=1, pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests does, with our connections."""
        super().init_poolmanager(*args, **kwargs)
        names = self._names

        class Plain(_LookedUpApart, HTTPConnection):
            resolver = names

        class Tls(_LookedUpApart, HTTPSConnection):
            resolver = names

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


class _LookedUpApart(HTTPConnection):
    """A connection that asks ``resolver`` for its host's addresses, and tries one after the other."""

    resolver: Resolver

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            found = self.resolver.getaddrinfo(name, self.port, 0, socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failed: Exception | None = None
        try:
            for *_, address in found:
                self._dns_host = str(address[0])
                try:
                    return super()._new_conn()
                except (ConnectTimeoutError, NewConnectionError) as error:
                    failed = error
        finally:
            self._dns_host = name  # TLS is verified against it
        assert failed is not None  # getaddrinfo never finds nothing: it fails
        raise failed

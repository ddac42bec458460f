"""The connections to one workspace's Ameyo: kept alive, and opened without standing in another's way.

gevent looks names up in threads, ten for the whole process: with a name server that never answers for one
tenant's host, a few of its calls would hold all ten, and no other tenant's host would be found any more. A
lookup cannot be cut short either, its thread stays busy when nobody waits for it any longer. So each
workspace has threads of its own.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from gevent.resolver.thread import Resolver
from gevent.threadpool import ThreadPool
from requests import Request
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

#: Name lookups of one workspace at one time.
LOOKUPS = 2
#: Seconds after which a thread that has nothing to look up ends.
IDLE = 60


class Connections(HTTPAdapter):
    """A pool of at most ``size`` connections for ``url``, with a resolver of its own.

    TLS is verified with ``ca_file``, read once, or where there is none with what requests brings along. A
    Session of requests' would take longer to prepare a POST than Ameyo to answer it; what it does besides,
    redirects and the environment's proxies and .netrc, would change where a customer's token goes.
    """

    def __init__(self, url: str, ca_file: str | None, size: int) -> None:
        self._request = Request("POST", url).prepare()
        self._ca_file = ca_file
        self._names = Resolver()
        self._names.pool = ThreadPool(LOOKUPS, idle_task_timeout=IDLE)
        super().__init__(pool_connections=1, pool_maxsize=size)

    @cached_property
    def _pool(self) -> HTTPConnectionPool:
        """urllib3's pool, as requests would use it. Raises OSError where ``ca_file`` is gone."""
        pool: Any = self.get_connection_with_tls_context(self._request, verify=True)
        if isinstance(pool, HTTPSConnectionPool):
            pool.conn_kw["ssl_context"] = trusting(self._ca_file) if self._ca_file else _trusting_all_known()
        found: HTTPConnectionPool = pool
        return found

    def post(self, body: bytes, headers: Mapping[str, str], timeout: Timeout) -> BaseHTTPResponse:
        """The answer to one POST, its text not read yet; the caller gives its connection back.

        Raises urllib3's HTTPError, OSError.
        """
        return self._pool.urlopen(
            "POST",
            self._request.path_url,
            body,
            headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout,
            preload_content=False,
        )

    def one_waits(self) -> bool:
        """Whether a connection is there that a POST could use at once. Raises OSError, as :meth:`post`."""
        connection = self._pool._get_conn()
        try:
            return not connection.is_closed
        finally:
            self._pool._put_conn(connection)

    def open_one(self, seconds: float) -> None:
        """Connect, TLS and all, and send nothing; ``seconds`` for each address. Raises as :meth:`post`."""
        connection: Any = self._pool._get_conn()
        try:
            connection.timeout = seconds
            if connection.is_closed:
                connection.connect()
        except BaseException:
            connection.close()
            raise
        finally:
            self._pool._put_conn(connection)

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


def trusting(ca_file: str) -> ssl.SSLContext:
    """How TLS is verified: by the authorities in ``ca_file``. Raises OSError.

    Made once for all connections: reading a hundred authorities takes 20 ms, in which every call waits.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    Path(ca_file).open("rb").close()  # its error names the file
    context.load_verify_locations(ca_file)
    return context


@lru_cache(maxsize=1)
def _trusting_all_known() -> ssl.SSLContext:
    """By those that requests brings along, the same for every workspace."""
    return trusting(DEFAULT_CA_BUNDLE_PATH)


class _LookedUpApart(HTTPConnection):
    """A connection that asks ``resolver`` for its host's addresses, and tries one after the other."""

    resolver: Resolver

    @property
    def is_connected(self) -> bool:
        """Whether the other end has not closed it. It says nothing unasked, but for TLS's session tickets."""
        if self.sock is None:
            return False
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0.0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        finally:
            self.sock.settimeout(timeout)
        return False  # its end, or bytes that belong to no answer

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

"""The connections to one workspace's Ameyo, kept alive; one tenant's never hold up another's.

gevent looks names up in threads, ten for the whole process: with a name server that never answers for one
tenant's host, a few of its calls would hold all ten, and no other tenant's host would be found any more. A
lookup cannot be cut short either, its thread stays busy when nobody waits for it any longer. So each
workspace has threads of its own.

Where the workspace names the address that they leave from, or a proxy, every one does: those that are opened
before they are needed, too.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event as Flag
from gevent.resolver.thread import Resolver
from gevent.threadpool import ThreadPool
from requests import Request
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from eslbot.ameyo.answer import Answer
from eslbot.ameyo.proxy import Proxy
from eslbot.ameyo.sockets import BoundedSocket, FedContext
from eslbot.config.model import IP

#: Name lookups of one workspace at one time.
LOOKUPS = 2
#: Seconds after which a thread that has nothing to look up ends.
IDLE = 60


class CallOver(Exception):
    """The call was over before anything about it had been sent."""


class Connections(HTTPAdapter):
    """A pool of at most ``size`` connections for ``url``, with a resolver of its own.

    TLS is verified with ``ca_file``, read once, or where there is none with what requests brings along. A
    Session of requests' would take longer to prepare a POST than Ameyo to answer it; what it does besides,
    redirects and the environment's proxies and .netrc, would change where a customer's token goes.

    ``source``: the address of this host that they leave from. ``proxy``: what they go through. ``until`` is
    told of each connection until when its certificate counts, in epoch seconds.
    """

    def __init__(
        self,
        url: str,
        ca_file: str | None,
        size: int,
        headers: Mapping[str, str],
        *,
        source: IP | None = None,
        proxy: Proxy | None = None,
        until: Callable[[float], object] = float,
    ) -> None:
        self._until = until
        self._request = Request("POST", url).prepare()
        self._headers = headers
        self._ca_file = ca_file
        self._source, self._proxy = source, proxy
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

    @cached_property
    def _head(self) -> bytes:
        """What stands before each POST's length, written and checked by http.client. Raises ValueError."""
        written = _Written()
        writer = http.client.HTTPConnection("")
        writer.sock = written
        writer.putrequest("POST", self._request.path_url, skip_host=True)
        for name, value in self._headers.items():
            writer.putheader(name, value)
        writer.endheaders()
        return bytes(written.removesuffix(b"\r\n"))

    def post(self, body: bytes, connect_seconds: float, read_seconds: float, over: Flag) -> Answer:
        """The answer to one POST, no more of it read than its status; :meth:`finish` is to be called.

        ``connect_seconds`` are for each address and for a proxy's answer, ``read_seconds`` for each read.
        Raises urllib3's HTTPError, http.client's HTTPException, OSError; CallOver where ``over`` was set
        before the POST could go out.
        """
        connection: Any = self._pool._get_conn()
        try:
            connection.timeout = connect_seconds
            if connection.is_closed:
                connection.connect()
            if over.is_set():  # another controller may have the call by now, and would be the second to tell
                raise CallOver
            connection.timeout = read_seconds
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            answer: Answer = connection.asked(b"".join((self._head, length, body)))
        except BaseException:
            connection.close()
            self._pool._put_conn(connection)
            raise
        answer.connection = connection
        return answer

    def finish(self, answer: Answer, seconds: float) -> None:
        """Read the rest of an answer, for at most ``seconds``, and give its connection back or close it."""
        try:
            with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # its stubs forget False
                answer.read()
        finally:
            if not answer.reusable:
                answer.connection.close()
            self._pool._put_conn(answer.connection)

    def _certificate_shown(self, certificate: Mapping[str, Any] | None) -> None:
        ends = (certificate or {}).get("notAfter")
        if isinstance(ends, str):
            self._until(float(ssl.cert_time_to_seconds(ends)))

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
        if self._source is not None:
            kwargs["source_address"] = (str(self._source), 0)
        super().init_poolmanager(*args, **kwargs)
        names, through, shown = self._names, self._proxy, self._certificate_shown

        class Plain(_OfAmeyo, HTTPConnection):
            resolver, way = names, through

        class Tls(_OfAmeyo, HTTPSConnection):
            resolver, way = names, through

            def connect(self) -> None:
                super().connect()
                tls: Any = self.sock
                shown(tls.getpeercert())

        class PlainPool(HTTPConnectionPool):
            ConnectionCls: Any = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls: Any = Tls

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


def trusting(ca_file: str) -> ssl.SSLContext:
    """A TLS context that trusts the authorities in ``ca_file``. Raises OSError.

    Made once for all connections: reading a hundred authorities takes 20 ms, in which every call waits.
    """
    context = FedContext(ssl.PROTOCOL_TLS_CLIENT)  # which means verified
    context.options |= ssl.OP_NO_RENEGOTIATION
    Path(ca_file).open("rb").close()  # its error names the file
    context.load_verify_locations(ca_file)
    return context


@lru_cache(maxsize=1)
def _trusting_all_known() -> ssl.SSLContext:
    """The one for requests' own bundle of authorities, shared by every workspace."""
    return trusting(DEFAULT_CA_BUNDLE_PATH)


class _Written(bytearray):
    """Looks like a socket to who writes to it."""

    def sendall(self, data: bytes) -> None:
        """One more piece."""
        self.extend(data)


class _OfAmeyo(HTTPConnection):
    """A connection that asks ``resolver`` for its host's addresses, and tries one after the other.

    Or for those of the proxy that is its ``way``, which is then asked to let it through. What it reads is
    bounded, and its answer is there with the status.
    """

    resolver: Resolver
    way: Proxy | None
    _bounded: BoundedSocket

    @property
    def is_connected(self) -> bool:
        """Whether the peer has not closed it: unasked it sends nothing but TLS session tickets."""
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

    def asked(self, request: bytes) -> Answer:
        """The answer to ``request``, read up to its status."""
        sock: Any = self.sock
        sock.settimeout(self.timeout)
        # It may have answered before it closed; where it has not, reading tells.
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request)
        self._bounded.ask()
        answer = Answer(sock)
        answer.begin()
        return answer

    def _new_conn(self) -> socket.socket:
        if self.way is None:
            self._bounded = self._connected(self._dns_host, self.port)
            return self._bounded
        # Whatever fails is the proxy's, and is told as that; TLS is Ameyo's own all the same.
        failed: OSError | None = None
        try:
            self._bounded = self._connected(self.way.host, self.way.port)
        except (ConnectTimeoutError, NewConnectionError) as error:
            assert isinstance(error.__cause__, OSError)
            failed = error.__cause__
        if failed is not None:
            raise self.way.unreachable(failed)
        try:
            self.way.open_tunnel(self._bounded, self._dns_host, self.port, self._seconds())
        except BaseException:
            self._bounded.close()
            raise
        self._bounded.settimeout(self._seconds())
        self._bounded.ask()
        return self._bounded

    def _connected(self, name: str, port: int) -> BoundedSocket:
        """To the first address of ``name`` that takes it. Raises urllib3's errors, each with its cause."""
        family = 0
        if self.source_address is not None:  # an address of the other kind could not be reached from it
            family = socket.AF_INET6 if ":" in self.source_address[0] else socket.AF_INET
        try:
            found = self.resolver.getaddrinfo(name, port, family, socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error
        failed: OSError | None = None
        for *_, address in found:
            try:
                return BoundedSocket(
                    create_connection(
                        (str(address[0]), port),
                        self._seconds(),
                        source_address=self.source_address,
                        socket_options=self.socket_options,
                    )
                )
            except OSError as error:
                failed = error
        assert failed is not None  # getaddrinfo never finds nothing: it fails
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(self, f"nothing answered within {self._seconds():g} s") from failed
        raise NewConnectionError(self, str(failed)) from failed

    def _seconds(self) -> float:
        """The time-out of one step, as set by whoever uses the connection."""
        seconds: Any = self.timeout
        return float(seconds)

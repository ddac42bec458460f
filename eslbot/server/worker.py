"""A gunicorn worker whose connections on the event-socket listener become calls.

Beside it, on a port of loopback, it answers whether it is well (:mod:`eslbot.server.probes`); gunicorn's own
HTTP is not used. All that a worker runs is imported by the arbiter, before the worker patches the standard
library for gevent (:meth:`CallWorker.patch`): a worker is ready as it is forked. So no module may keep
a class, a function or a lock of what is patched, or be derived from one: what waits is gevent's own by name.

A worker that is told to leave closes its listening sockets at once, because all workers share them: it must
not get the calls back that it gives up. Only then does it hand its calls over.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket as std_socket
import time
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from gevent import monkey
from gevent.event import Event
from gevent.monkey import get_original
from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import socket as GeventSocket
from gevent.socket import wait_read
from gunicorn.workers.ggevent import GeventWorker

from eslbot.runtime.garbage import settle_memory
from eslbot.runtime.tcp_keepalive import notice_dead_peers

if TYPE_CHECKING:
    from eslbot.server.controller import Controller
    from eslbot.server.service import Service

log = structlog.get_logger()

#: Seconds between two signs of life for the arbiter's watchdog.
BEAT = 1.0
#: Seconds that connections under way get when the worker leaves.
REQUESTS = 2.0
#: And for probes that it has accepted: one that is reset looks like a service that is down.
PROBES = 0.5
#: Seconds beyond the drain after which a worker exits, whatever is left; the controller's own bound is less
#: (:data:`eslbot.server.controller.LEAVE_LIMIT`).
HAND_OVER = 25.0
#: Seconds between two looks whether all is done.
POLL_INTERVAL = 0.02

#: Connections that a worker accepts before it goes on with the calls it has: one at a time made each wait for
#: a turn of all calls before it. A worker that has the time to accept has it for its calls, too.
ACCEPTS = 64

#: The signals that tell a worker to leave; the arbiter forks with them blocked.
ORDERS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)

#: What a worker shows the arbiter of itself.
STARTING, ACCEPTING, LEAVING = 0, 1, 2


#: Python's own: gevent's has watchers of its own, and waits where a session never does.
_Socket: type[std_socket.socket] = get_original("socket", "socket")


class CallServer(StreamServer):
    """Takes connections for sessions, which wait for no read and no write, as Python's own sockets."""

    def do_read(self) -> Any:
        """The next connection and its peer's address; None where there is none."""
        listener: Any = self.socket
        try:
            descriptor, address = listener._accept()
        except BlockingIOError:
            return None
        return _Socket(listener.family, listener.type, listener.proto, fileno=descriptor), address


class CallWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """GeventWorker with calls; the arbiter gives each its ``row`` of the call counts and the ``lifeline``."""

    app: Service
    alive: bool
    sockets: list[Any]  # gunicorn's, then gevent's
    wsgi: Controller  # gunicorn's name for what the application loads
    row: int
    #: A pipe whose writing end only the arbiter keeps: the reading end tells when the arbiter is gone.
    lifeline: tuple[int, int]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Made by the arbiter before it forks: both processes see and write it.
        self._state = mmap.mmap(-1, 1)
        self._servers: list[StreamServer] = []
        self._pools: list[Pool] = []
        #: Probes that are being answered.
        self._probed = Pool()
        self._stop_requested = Event()
        #: When it was told to leave, and how many seconds calls then have to end by themselves.
        self._told_at = self._drain = 0.0
        self._handing_over: gevent.Greenlet[..., None] | None = None

    # -- what the arbiter sees ----------------------------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """Whether it takes connections."""
        return self._state[0] == ACCEPTING

    @property
    def leaving(self) -> bool:
        """Whether it was told to leave, by the arbiter or by somebody else."""
        return self._state[0] == LEAVING

    def show(self, state: int) -> None:
        """Let the other process know."""
        self._state[0] = state

    # -- its life -----------------------------------------------------------------------------------------

    def init_process(self) -> None:
        """Hear orders from the start: gunicorn forgets one that comes while the worker is being patched."""
        for signum in ORDERS:
            signal.signal(signum, self.handle_exit)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)
        os.close(self.lifeline[1])
        super().init_process()

    def patch(self) -> None:
        """Let what waits in the standard library wait for its greenlet alone, and take the listeners over.

        Not `ssl`, whose contexts would call themselves for ever where they were made before: TLS is spoken
        over no socket here (:class:`eslbot.ameyo.sockets.FedContext`).
        """
        monkey.patch_all(ssl=False)
        self.sockets = [
            GeventSocket(one.FAMILY, std_socket.SOCK_STREAM, fileno=one.sock.detach()) for one in self.sockets
        ]

    def run(self) -> None:
        """Accept until told to leave, hand the calls over, return."""
        # As watchers of the event loop signals are heard at once, each in a greenlet of its own.
        gevent.signal_handler(signal.SIGTERM, self.leave, self.app.drain)
        gevent.signal_handler(signal.SIGQUIT, self.leave, 0.0)
        gevent.signal_handler(signal.SIGINT, self.leave, 0.0)
        if not self.alive:  # told before
            return
        for listener in self.sockets:
            self._serve(listener)
        gevent.spawn(self._watch_arbiter)
        self._watch_stranded()
        settle_memory()
        self.show(ACCEPTING)
        while self.alive:
            self.notify()
            self._stop_requested.wait(BEAT)
        while self._busy():
            self.notify()
            gevent.wait([self._handing_over], timeout=BEAT)
            gevent.sleep(POLL_INTERVAL)

    def notify(self) -> None:
        """A sign of life for the watchdog. (The arbiter's own life is watched by the lifeline.)"""
        self.tmp.notify()

    def leave(self, drain: float) -> None:
        """Stop accepting now; give up each call that has not ended by itself after ``drain`` seconds.

        Told again, it does what is sooner.
        """
        if not self.alive and drain >= self._drain:
            return
        self.alive = False
        self._told_at, self._drain = time.monotonic(), drain
        self.show(LEAVING)
        for server in self._servers:
            server.close()
        if self._handing_over is not None:
            self._handing_over.kill(block=False)
        self._handing_over = gevent.spawn(self.wsgi.hand_over, drain)
        self._stop_requested.set()

    def _busy(self) -> bool:
        """Whether there is something to wait for, and time to."""
        since = time.monotonic() - self._told_at
        if self._handing_over is not None and not self._handing_over.ready():
            return since < self._drain + HAND_OVER
        return (since < REQUESTS and any(self._pools)) or (since < PROBES and bool(self._probed))

    def _watch_arbiter(self) -> None:
        """Leave when there is no arbiter any more: the next one needs our port, and cannot tell us."""
        wait_read(self.lifeline[0])
        self.log.warning("The arbiter is gone; worker %s leaves", self.pid)
        self.leave(0.0)

    def _watch_stranded(self) -> None:
        """Hand off whom FreeSWITCH has lost."""
        from eslbot.calls.stranded import StrandedCalls  # by now: see eslbot.server.service.OF_WORKERS

        gevent.spawn(StrandedCalls(self.wsgi).watch)

    # -- connections --------------------------------------------------------------------------------------

    def _serve(self, listener: std_socket.socket) -> None:
        from eslbot.server.probes import Presence, Probes  # as above

        listener.setblocking(True)
        if listener.getsockname()[:2] == self.wsgi.config.server.listen.pair:
            notice_dead_peers(listener)
            pool = Pool(self.worker_connections)
            server: StreamServer = CallServer(listener, handle=self.take, spawn=pool)
            server.max_accept = ACCEPTS
            self._pools.append(pool)
        else:
            switch = Presence(self.wsgi.config.freeswitch.event_socket)
            server = StreamServer(listener, handle=Probes(self.wsgi, switch).take, spawn=self._probed)
            server.max_accept = 1
        server.start()
        self._servers.append(server)

    def take(self, client: std_socket.socket, addr: tuple[str, int]) -> None:
        """One connection of FreeSWITCH's, in a greenlet of the pool."""
        if self.alive:
            self.wsgi.take(client, addr)
        else:  # accepted in the very moment of leaving: the dialplan calls the next controller
            client.close()

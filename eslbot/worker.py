"""A gunicorn worker whose connections on the event-socket listener become calls.

The web listener stays gunicorn's. This module is imported by the arbiter, before the worker patches the
standard library for gevent, so it must import nothing that opens sockets: the controller, with requests and
ssl, is loaded in the worker by :meth:`eslbot.service.Service.load`.
"""

from __future__ import annotations

import signal
from socket import socket
from typing import TYPE_CHECKING, Any

from gunicorn.workers.ggevent import GeventWorker

if TYPE_CHECKING:
    from types import FrameType

    from eslbot.web.app import WebApp


class CallWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """GeventWorker with one method more to say; the arbiter gives each its ``row`` of the call counts."""

    wsgi: WebApp
    row: int

    def init_process(self) -> None:
        """Hear TERM from the start: gunicorn forgets one that comes while the worker is being patched."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        super().init_process()

    def handle(self, listener: Any, client: socket, addr: tuple[str, int]) -> None:
        """One accepted connection, in a greenlet of gunicorn's pool."""
        controller = self.wsgi.controller
        if listener.getsockname()[:2] == controller.config.server.listen.pair:
            client.setblocking(True)
            controller.take(client, addr)
        else:
            super().handle(listener, client, addr)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """TERM: what is accepted but not yet a call goes elsewhere."""
        if hasattr(self, "wsgi"):  # TERM may come before it is loaded
            self.wsgi.controller.draining = True
        super().handle_exit(sig, frame)

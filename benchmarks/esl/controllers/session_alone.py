"""The call script on :class:`eslbot.esl.Session`: what the wire costs eslbot, without its story around it."""

from __future__ import annotations

import sys

from gevent.server import StreamServer
from gevent.socket import IPPROTO_TCP, TCP_NODELAY, socket
from greenswitch.esl import OutboundSessionHasGoneAway

from benchmarks.esl.controllers.script import marker, start
from eslbot.esl.session import Session

CONNECT, JSON = "mod_audio_stream::connect", "mod_audio_stream::json"
#: Seconds for the bot, more than a run has.
PATIENCE = 600.0


def call(sock: socket, address: tuple[str, int]) -> None:
    """One call."""
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    session = Session(address, sock)
    try:
        session.connect()
        session.subscribe(CONNECT, JSON)
        session.answer()
        session.send(start(session.uuid))
        for name in (CONNECT, JSON):
            while (event := session.next_event(PATIENCE)) is not None and event.name != name:
                pass
        session.post(marker(session.uuid))
        session.finished.wait()
    except OutboundSessionHasGoneAway:
        pass  # the generator counts what became of it
    finally:
        session.stop()


if __name__ == "__main__":
    StreamServer(("127.0.0.1", int(sys.argv[1])), call, backlog=4096).serve_forever()

"""greenswitch's own server as a process, to be compared with ours: an application that takes every call."""

from __future__ import annotations

import logging
import signal
import sys

import gevent
from gevent.event import Event
from greenswitch.esl import OutboundESLServer, OutboundSession


class Application:
    """Answers and stays, as a call does."""

    def __init__(self, session: OutboundSession) -> None:
        self.session = session

    def run(self) -> None:
        self.session.call_command("answer")
        Event().wait()


def main(port: int, max_connections: int) -> None:
    logging.disable()
    server = OutboundESLServer("127.0.0.1", port, Application, max_connections)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.listen()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

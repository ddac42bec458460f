"""A process of its own, because greenswitch as released never comes back from this: an EOF inside a body."""

from __future__ import annotations

import logging
import sys

import gevent
from greenswitch.esl import OutboundSession

from eslbot.esl.session import Session
from tests.support.peer import tcp_pair


def main(kind: str) -> None:
    """Print ``alive`` when other greenlets still run after it."""
    logging.disable()
    ours, theirs = tcp_pair()
    session = {"eslbot": Session, "greenswitch": OutboundSession}[kind](("127.0.0.1", 1), ours)
    theirs.sendall(b"Content-Type: text/event-plain\nContent-Length: 100\n\nEvent-Name: X\n")
    theirs.close()
    print("begun", flush=True)
    gevent.sleep(0.2)
    print("alive", flush=True)
    del session


if __name__ == "__main__":
    main(sys.argv[1])

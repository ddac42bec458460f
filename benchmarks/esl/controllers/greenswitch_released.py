"""The call script on greenswitch's OutboundESLServer, as released and as its examples use it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from gevent.event import AsyncResult
from greenswitch.esl import OutboundESLServer, OutboundSession

from benchmarks.esl.controllers.script import EVENTS, marker, start

#: More than a run has at a time: greenswitch's own limit is not what is measured.
MAX_CONNECTIONS = 100_000


class Application:
    """One call."""

    def __init__(self, session: OutboundSession) -> None:
        self.session = session

    def run(self) -> None:
        """From the answer to connect, which the server has waited for, to the hang-up."""
        session = self.session
        waited_for = {
            name: self._once(name)
            for name in ("mod_audio_stream::connect", "mod_audio_stream::json", "CHANNEL_HANGUP_COMPLETE")
        }
        session.linger(5)
        session.send(f"filter Unique-ID {session.uuid}")
        session.send(EVENTS)
        session.call_command("answer", block=True)
        session.send(start(session.uuid))
        waited_for["mod_audio_stream::connect"].get()
        waited_for["mod_audio_stream::json"].get()
        session.send(marker(session.uuid))
        waited_for["CHANNEL_HANGUP_COMPLETE"].get()

    def _once(self, name: str) -> AsyncResult[Any]:
        came: AsyncResult[Any] = AsyncResult()
        self.session.register_handle(name, came.set)
        return came


if __name__ == "__main__":
    logging.disable()
    OutboundESLServer("127.0.0.1", int(sys.argv[1]), Application, MAX_CONNECTIONS).listen()

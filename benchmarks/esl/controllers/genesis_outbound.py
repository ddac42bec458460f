"""The call script on Genesis' Outbound server, in an environment of its own (``scripts/benchmark``)."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from genesis import Outbound, Session
from script import EVENTS, marker, start  # run by its path: its environment has no eslbot


async def call(session: Session) -> None:
    """One call, from the answer to `connect` to the hang-up."""
    loop = asyncio.get_running_loop()
    waited_for: dict[str, asyncio.Future[Any]] = {}

    def once(name: str) -> None:
        came = waited_for[name] = loop.create_future()

        async def happened(event: Any) -> None:
            if not came.done():
                came.set_result(event)

        session.on(name, happened)

    for name in ("mod_audio_stream::connect", "mod_audio_stream::json", "CHANNEL_HANGUP_COMPLETE"):
        once(name)
    uuid = str(session.uuid)
    await session.send("linger 5")
    await session.send(f"filter Unique-ID {uuid}")
    await session.send(EVENTS)
    await session.sendmsg("execute", "answer", lock=True, block=True)
    await session.send(start(uuid))
    await waited_for["mod_audio_stream::connect"]
    await waited_for["mod_audio_stream::json"]
    await session.send(marker(uuid))
    await waited_for["CHANNEL_HANGUP_COMPLETE"]


if __name__ == "__main__":
    logging.disable()
    asyncio.run(Outbound(call, "127.0.0.1", int(sys.argv[1]), events=False, linger=False).start())

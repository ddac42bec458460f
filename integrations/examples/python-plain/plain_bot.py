"""A bot for eslbot, with websockets alone: greets, can be interrupted, takes a key, and hands over."""

import asyncio
import json
import math
import os
import signal
from array import array
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

GREETING = Path(os.environ["GREETING"]).read_bytes() if "GREETING" in os.environ else b""
GROUPS = {"1": "sales", "2": "support"}
LOUD, ENOUGH, QUIET = 500, 5, 20  # RMS of 20 ms; so many loud ones are speech, so many quiet ones end it


@dataclass
class Conversation:
    """What has to outlive a connection."""

    socket: ServerConnection
    rate: int = 8000
    greeting: str = "not heard"
    unheard: list[str] = field(default_factory=list)  # marks that have not come back
    end: dict[str, Any] | None = None
    held: bool = False
    loud: int = 0
    quiet: int = 0

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def say(self, name: str, speech: bytes) -> None:
        """Speech, and a mark that tells when it was heard."""
        if speech.startswith(b"RIFF"):
            data = {"audioDataType": "wav", "audioData": b64encode(speech).decode()}
            await self.send("streamAudio", data=data)
        else:
            await self.socket.send(speech)
        self.unheard.append(name)
        await self.send("mark", name=name)

    async def say_again(self) -> None:
        """What another connection has to be told; speech is not repeated."""
        for name in self.unheard:
            await self.send("mark", name=name)
        if self.end is not None:
            await self.send("end", **self.end)

    def begins(self, frame: bytes) -> bool:
        """Whether the caller has begun to speak in this very frame."""
        samples = array("h", frame)
        is_loud = math.sqrt(sum(s * s for s in samples) / len(samples)) >= LOUD
        if is_loud:
            self.loud, self.quiet = self.loud + 1, 0
            return self.loud == ENOUGH
        self.quiet += 1
        if self.loud < ENOUGH or self.quiet >= QUIET:
            self.loud = 0
        return False

    async def heard(self, frame: bytes) -> None:
        if not self.held and self.begins(frame) and self.unheard and self.end is None:
            await self.send("clear")  # barge-in
            await self.say("yes", tone(550, 0.3, self.rate))

    async def told(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "start":
                self.rate = message["audio"]["sample_rate"]
                if message.get("resumed"):  # the call is not new: it was greeted
                    await self.say_again()
                else:
                    await self.say("greeted", GREETING or tone(440, 3.0, self.rate))
            case "mark" if message["name"] in self.unheard:
                self.unheard.remove(message["name"])
                if message["name"] == "greeted":
                    self.greeting = "interrupted" if message.get("cleared") else "heard"
            case "hold":
                self.held = message["on"]
            case "dtmf" if self.end is None:
                await self.send("clear")
                await self.say("good-bye", tone(660, 0.4, self.rate))
                digit = message["digit"]
                properties = {
                    "agent_group": GROUPS.get(digit, "general"),
                    "summary": f"pressed {digit}, greeting {self.greeting}",
                }
                self.end = {"properties": properties, "reason": "key pressed"}
                await self.send("end", **self.end)
            case "stop" | "error":
                print(message, flush=True)


conversations: dict[str, Conversation] = {}  # by X-Call-ID: all connections of a call have to come here


def tone(hertz: float, seconds: float, rate: int) -> bytes:
    turns = range(int(rate * seconds))
    return array("h", (int(8000 * math.sin(math.tau * hertz * n / rate)) for n in turns)).tobytes()


async def bot(socket: ServerConnection) -> None:
    """One connection. An exception in here closes it with 1011, which is a failure: a human takes over."""
    assert socket.request is not None
    call_id = socket.request.headers["X-Call-ID"]
    conversation = conversations.setdefault(call_id, Conversation(socket))
    conversation.socket, conversation.held = socket, False
    try:
        async for frame in socket:
            if isinstance(frame, str):
                await conversation.told(json.loads(frame))
            else:
                await conversation.heard(frame)
    finally:  # another connection comes within seconds, or none
        asyncio.get_running_loop().call_later(30, forget, call_id, socket)


def forget(call_id: str, socket: ServerConnection) -> None:
    if call_id in conversations and conversations[call_id].socket is socket:
        del conversations[call_id]


async def main(host: str = "127.0.0.1", port: int = int(os.environ.get("PORT", "9000"))) -> None:
    async with serve(bot, host, port, compression=None) as server:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: server.close(close_connections=False))
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())

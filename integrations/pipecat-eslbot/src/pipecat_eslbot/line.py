"""One call's WebSocket, whichever connection carries it.

Pipecat's transport holds one socket for a pipeline's life. eslbot's connection may break and come again in
mid-call (a relay dies or is replaced, the network fails), and the conversation is to go on. So the transport
gets a :class:`Line`, which has the methods of a WebSocket that Pipecat uses, and the connections come and go
beneath it::

    no connection --carry()--> connected --break, stop(shutdown)--> waiting --carry()--> connected ...
                                   |                                   |
                                   | stop, close 1000, fail()          | nobody comes for `patience` seconds
                                   v                                   v
                                  over                                over

While it waits, what the bot says is kept, and sent when there is a connection again. So is what has to be
said again then: marks that have not come back, and ``end``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterable, Mapping

from loguru import logger
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pipecat_eslbot.start import BadStart, as_object

#: Messages to the pipeline that wait, at most: half a minute of the caller. The oldest are dropped.
MOST_WAITING = 1500
#: Bytes of speech that are kept while there is no connection.
MOST_KEPT = 4 * 1024 * 1024
#: Close codes: the bot failed (the customer goes to an agent at once); another connection has taken over.
FAILED, TAKEN_OVER = 1011, 1001
#: What sending on a socket raises that is gone.
_GONE = (WebSocketDisconnect, RuntimeError, OSError)


class Line:
    """A call's connection to eslbot, to Pipecat a Starlette WebSocket.

    Attributes:
        headers: of the first connection's upgrade.
        over: set when there is no connection any more, and none will come.
        stop_reason: of eslbot's ``stop``: ``caller_hangup``, ``ended``, ``max_duration``; empty before it.
    """

    def __init__(self, headers: Mapping[str, str], *, patience: float = 10.0) -> None:
        self.headers = headers
        self.over = asyncio.Event()
        self.stop_reason = ""
        self._patience = patience
        self._socket: WebSocket | None = None
        self._sending = asyncio.Lock()
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._arrived = asyncio.Event()
        self._unsent: deque[str | bytes] = deque()
        #: Sent, and not come back.
        self._marks: list[str] = []
        self._connected = self._shut_down = False
        self._end: str | None = None
        self._left = False
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        """Whether the bot has said that it is finished."""
        return self._end is not None

    # -- eslbot's side ------------------------------------------------------------------------------------

    async def carry(self, socket: WebSocket, start: str, before: Iterable[bytes]) -> None:
        """Be carried by ``socket`` until it breaks or is closed.

        Args:
            socket: accepted, and its ``start`` read.
            start: that message.
            before: what came before it.
        """
        await self._connect(socket, start)
        for audio in before:
            self._hand_over({"type": "websocket.receive", "bytes": audio})
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            if text is None:
                self._hand_over(message)
            else:
                await self._take(text, message)
        if self._socket is socket:
            self._disconnected(message.get("code", 1006))

    async def _connect(self, socket: WebSocket, start: str) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        if self._connected:
            logger.info("the line is back")
            self._hand_over({"type": "websocket.receive", "text": start})
        self._connected = True
        async with self._sending:
            old, self._socket = self._socket, socket
            lost, self._marks = self._marks, []
            self._unsent.extendleft(json.dumps({"type": "mark", "name": name}) for name in reversed(lost))
            while self._unsent and await self._sent(self._unsent[0]):
                self._unsent.popleft()
            if self._end is not None:
                await self._sent(self._end)
        if old is not None:
            await _close(old, TAKEN_OVER)

    def _disconnected(self, code: int) -> None:
        self._socket = None
        if self.stop_reason or (code == 1000 and not self._shut_down):
            self._set_over()
        elif not self.over.is_set():
            logger.warning(f"the line broke ({code}); waiting {self._patience:g} s for another connection")
            self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._set_over)
        self._shut_down = False

    def _set_over(self) -> None:
        self.over.set()
        self._arrived.set()

    async def _take(self, text: str, message: Message) -> None:
        """A text of eslbot's: what is the line's own is dealt with, the rest is the pipeline's."""
        try:
            document = as_object(text)
        except BadStart as error:
            logger.warning(f"a message that cannot be read: {error}")
            return
        match document:
            case {"type": "stop", "reason": "shutdown"}:
                self._shut_down = True  # of that relay: another one connects
            case {"type": "stop"}:
                self.stop_reason = str(document.get("reason") or "ended")[:40]
            case {"type": "resumed"}:
                async with self._sending:
                    await self._sent(text)
                    if self._end is not None:
                        await self._sent(self._end)
            case {"type": "mark", "name": str(name)}:
                if name in self._marks:  # else it was asked for again, and has come already
                    self._marks.remove(name)
                    self._hand_over(message)
            case _:
                self._hand_over(message)

    def _hand_over(self, message: Message) -> None:
        if not (self._left or self.ended):
            self._waiting.append(message)
            self._arrived.set()

    # -- Pipecat's side: what its transport calls on a WebSocket ---------------------------------------------

    @property
    def client_state(self) -> WebSocketState:
        """Connected, also while another connection is waited for."""
        gone = self.over.is_set() or self._left
        return WebSocketState.DISCONNECTED if gone else WebSocketState.CONNECTED

    @property
    def application_state(self) -> WebSocketState:
        """The same."""
        return self.client_state

    async def receive(self) -> Message:
        """The next message of the call; ``websocket.disconnect`` when it is over."""
        while not self._waiting:
            if self.over.is_set():
                return {"type": "websocket.disconnect", "code": 1000}
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def send_bytes(self, data: bytes) -> None:
        """Speech."""
        await self._send(data)

    async def send_text(self, data: str) -> None:
        """A message."""
        await self._send(data)

    async def close(self, code: int = FAILED, reason: str | None = None) -> None:
        """The pipeline is through with the call. Behind ``end`` eslbot closes; without, it has failed."""
        self._left = True
        if not self.ended:
            await self.fail(code if code != 1000 else FAILED)

    async def fail(self, code: int = FAILED) -> None:
        """End the call as failed: the customer goes to an agent at once."""
        self._left = True
        socket, self._socket = self._socket, None
        self._set_over()
        if socket is not None:
            await _close(socket, code)

    async def part(self, timeout: float) -> None:
        """Wait until eslbot closes behind ``end``, the last word being heard; close after ``timeout`` s."""
        self._left = True
        try:
            async with asyncio.timeout(timeout):
                await self.over.wait()
        except TimeoutError:
            logger.warning(f"the line is still open {timeout:g} s behind end; closing it")
            await self.fail(1000)

    async def _send(self, message: str | bytes) -> None:
        kind = "" if isinstance(message, bytes) else as_object(message).get("type")
        if self.over.is_set() or self._left:
            return
        async with self._sending:
            if kind == "end":
                assert isinstance(message, str)
                self._end = message
                await self._sent(message)
            elif not await self._sent(message):
                self._keep(message, kind)

    async def _sent(self, message: str | bytes) -> bool:
        """Send; False where there is no connection, or none any more."""
        if self._socket is None:
            return False
        document = as_object(message) if isinstance(message, str) else {}
        marks = [document.get("name", "")] if document.get("type") == "mark" else []
        self._marks += marks  # before: its answer may be faster than the way back from sending
        try:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_text(message)
        except _GONE:  # whoever reads from it is told, and how
            for mark in marks:
                self._marks.remove(mark)
            return False
        return True

    def _keep(self, message: str | bytes, kind: object) -> None:
        if kind == "clear":  # what nobody has heard yet nobody will; its marks come back as cleared
            self._unsent = deque(kept for kept in self._unsent if isinstance(kept, str))
        elif sum(map(len, self._unsent)) + len(message) > MOST_KEPT:
            logger.warning("speech is dropped: more than is kept for a line that is away")
            return
        self._unsent.append(message)


async def _close(socket: WebSocket, code: int) -> None:
    with contextlib.suppress(*_GONE):
        await socket.close(code)

"""The calls of this process: each connection is given to its conversation, or begins one."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from loguru import logger
from starlette.websockets import WebSocket, WebSocketState

from pipecat_eslbot.call import Call
from pipecat_eslbot.line import Line
from pipecat_eslbot.start import BadStart, Start, read_start

#: What the user writes: a conversation, from its first word to its ``EndFrame``.
Bot = Callable[[Call], Awaitable[None]]

#: Seconds for the last words behind ``end`` (eslbot plays 60 of them), and for the close.
LAST_WORDS = 75.0
#: Close codes: a message that makes no sense here; not allowed.
UNUSABLE, REFUSED = 1002, 1008


class Calls:
    """Serves ``bot`` to eslbot's connections.

    A call lives as long as ``bot`` runs for it, over all of its connections. When one breaks, because a relay
    of eslbot's died or a network failed, the next one finds the conversation by its call id, and it goes on.
    A call of which this process knows nothing, because another one had it, begins anew with
    ``call.start.resumed``: with several processes, have the balancer send one ``X-Call-ID`` to the same.

    A ``bot`` that returns without an ``EndFrame``, or raises, has failed: the customer goes to an agent at
    once.
    """

    def __init__(self, bot: Bot, *, authorization: str | None = None, patience: float = 10.0) -> None:
        """Begin with no call.

        Args:
            bot: has one call's conversation.
            authorization: what the header ``Authorization`` has to be (``bot.headers`` in eslbot's
                configuration). None lets anyone in who reaches this server, into a call whose id they know.
            patience: seconds for which a broken connection's successor is waited for.
        """
        self._bot = bot
        self._authorization = authorization
        self._patience = patience
        self._lines: dict[str, Line] = {}
        self._conversations: set[asyncio.Task[None]] = set()

    async def handle(self, websocket: WebSocket) -> None:
        """Serve a connection, accepted already or not, until it is closed."""
        if not self._allowed(websocket):
            logger.warning("a connection without the right Authorization was refused")
            await websocket.close(REFUSED)
            return
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.accept()
        try:
            start, text, before = await read_start(websocket)
        except BadStart as error:
            logger.warning(f"a connection that is none of eslbot's: {error}")
            if websocket.client_state is WebSocketState.CONNECTED:
                await websocket.close(UNUSABLE)
            return
        line = self._lines.get(start.call_id)
        if line is None or line.over.is_set() or not start.resumed:
            line = self._begin(start, websocket)
        await line.carry(websocket, text, before)

    async def close(self) -> None:
        """Give up all conversations: their customers go to agents."""
        conversations = list(self._conversations)
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

    def _allowed(self, websocket: WebSocket) -> bool:
        if self._authorization is None:
            return True
        sent = websocket.headers.get("authorization", "")
        return hmac.compare_digest(sent.encode(), self._authorization.encode())

    def _begin(self, start: Start, websocket: WebSocket) -> Line:
        line = Line(websocket.headers, patience=self._patience)
        before = self._lines.get(start.call_id)
        self._lines[start.call_id] = line
        conversation = asyncio.create_task(
            self._converse(Call(start, line), before), name=f"call {start.call_id}"
        )
        self._conversations.add(conversation)
        conversation.add_done_callback(self._over)
        return line

    def _over(self, conversation: asyncio.Task[None]) -> None:
        self._conversations.discard(conversation)
        if not conversation.cancelled() and (error := conversation.exception()) is not None:
            logger.opt(exception=error).error(f"{conversation.get_name()}: the bot has failed")

    async def _converse(self, call: Call, before: Line | None) -> None:
        line, call_id = call.line, call.start.call_id
        try:
            if before is not None:  # eslbot has begun this call anew
                await before.fail()
            with logger.contextualize(call_id=call_id):
                await self._bot(call)
        finally:
            if line.ended:
                await line.part(LAST_WORDS)
            else:
                await line.fail()
            if self._lines.get(call_id) is line:
                del self._lines[call_id]

"""The relay's socket to a bot, which also notes who ends TCP, and when, and answers to a ping."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from picows import WSError, WSFrame, WSMsgType, WSTransport

from eslbot.relay.dialler import BotListener, BotSocket


class WatchedSocket(BotSocket):
    """Times are monotonic, None where it has not happened.

    Attributes:
        pong_at: a pong came.
        closed_at: one side has sent a close frame, or the connection broke.
        answered_at: the bot has answered our close frame.
        ended_at: TCP has ended.
        left_open: it was still open :attr:`patience` seconds behind the close, and was reset by us.
        messages_late: messages that came behind our close frame.
    """

    def __init__(self, listener: BotListener, patience: float, changed: Callable[[], None]) -> None:
        super().__init__(listener)
        self.patience = patience
        self._changed = changed
        self.pong_at: float | None = None
        self.closed_at: float | None = None
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.left_open = False
        self.messages_late = 0
        self._abandoned = False

    def ping(self) -> None:
        """Have the bot answer with a pong."""
        if self._transport is not None and not self._over:
            self._transport.send_ping()

    async def gone(self) -> None:
        """Have the connection end; what picows has found wrong with it was told already."""
        if self.ended_at is None:
            self.abandon()
        if self._transport is not None:
            with suppress(WSError, OSError):
                await self._transport.wait_disconnected()

    def abandon(self) -> None:
        """As when the relay is killed: TCP breaks, without a word."""
        self._abandoned = True
        self.closed_at = self.closed_at or monotonic()
        super().abandon()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Note what matters here, and go on as the relay does."""
        kind = frame.msg_type
        if kind == WSMsgType.PONG:
            self.pong_at = self.pong_at or monotonic()
            self._changed()
        elif self._over and kind == WSMsgType.CLOSE:
            self.answered_at = self.answered_at or monotonic()
            self._changed()
        elif self._over:
            self.messages_late += 1
        super().on_ws_frame(transport, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """TCP has ended, by whomever."""
        self.ended_at = monotonic()
        super().on_ws_disconnected(transport)
        self._changed()

    def _end(self, code: int) -> None:
        self.closed_at = self.closed_at or monotonic()
        super()._end(code)

    def _close_timeout(self) -> float:
        return self.patience

    def _leave_tcp(self) -> None:
        """The relay ends TCP now; here it is the bot's turn (RFC 6455, 7.1.1)."""
        self.answered_at = monotonic()

    def _reset(self) -> None:
        if not self._abandoned and self._transport is not None and not self._transport.is_disconnected:
            self.left_open = True
        super()._reset()

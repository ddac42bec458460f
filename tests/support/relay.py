"""A relay's side of one call, by a test's script, over the stream of a :class:`tests.support.switch.Channel`.

It numbers its news and tells again what nobody has acknowledged, as :mod:`eslbot.relay.control` has it. It
outlives controllers and streams; a relay that died is a new one, which knows nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eslbot.relay import control
from eslbot.relay.control import News, Order

if TYPE_CHECKING:
    from tests.support.switch import Channel

DIRECTORY = "/var/lib/eslbot/lines"


class ScriptedRelay:
    """What it was told is in :attr:`orders`; a test says what happens on the line."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.orders: list[dict[str, Any]] = []
        self.paths = [f"{DIRECTORY}/{channel.uuid}.{name}.r8" for name in "ab"]
        self.bot = "dialling"
        self.ended: dict[str, Any] | None = None
        self.done = False
        #: Whether a relay that has not heard of the call finds last words in its line.
        self.speaks = False
        #: Whether its bot is there as soon as a stream is.
        self.connects = True
        #: Says nothing by itself, not even STATE.
        self.silent = self.spoken = False
        #: Tells nothing at all: its texts are lost.
        self.lost = False
        #: Fields of STATE that are not as they should be.
        self.odd: dict[str, Any] = {}
        self.acknowledged = self._number = 0
        self._kept: list[tuple[int, str]] = []

    # -- what a test does ---------------------------------------------------------------------------------

    def tells(self, what: News, **facts: Any) -> None:
        """News, with the next number."""
        self._number += 1
        text = control.news(what, self._number, **facts)
        self._kept.append((self._number, text))
        self._says(text)

    def ends(
        self,
        properties: dict[str, Any] | None = None,
        reason: str = "done",
        outcome: str = "bot_ended",
        *,
        dropped: tuple[str, ...] = (),
        done: bool = True,
    ) -> None:
        """The bot's part is over; without ``done`` its last words are still to be heard."""
        self.bot = "over"
        self.ended = {
            "outcome": outcome,
            "reason": reason,
            "properties": properties or {},
            "dropped": list(dropped),
        }
        self.tells(News.ENDED, **self.ended)
        if done:
            self.is_done()

    def is_done(self) -> None:
        """The last word was heard."""
        self.done = True
        self.tells(News.DONE)

    def told(self, *kinds: Order) -> list[dict[str, Any]]:
        """Orders of these kinds, without their acknowledgements."""
        wanted = [order for order in self.orders if order["order"] in kinds]
        return [{key: value for key, value in order.items() if key != "ack"} for order in wanted]

    # -- what it does by itself ---------------------------------------------------------------------------

    def stream_up(self, number: int) -> None:
        """A stream has come."""
        self.channel.custom("connect", {"status": "connected"})
        if self.channel.starts[number]["headers"][control.PART] == control.Part.OVER and self.bot != "over":
            self.bot, self.done = "over", not self.speaks  # it has not heard of the call
        if not self.silent:
            self.state()

    def state(self) -> None:
        """Where it is, and all that nobody has acknowledged."""
        on = self.channel.displaced
        self._says(
            control.news(
                News.STATE,
                **{
                    "acked": self.acknowledged,
                    "bot": self.bot,
                    "spoken": self.spoken,
                    "speaking": False,
                    "ended": self.ended,
                    "done": self.done,
                    "lines": [{"path": path, "on": path in on} for path in self.paths],
                    **self.odd,
                },
            )
        )
        for _, text in list(self._kept):
            self._says(text)
        if self.bot == "dialling" and self.connects:
            self.bot = "connected"
            self.tells(News.CONNECTED)

    def ordered(self, text: str) -> None:
        """What the controller wants."""
        order = json.loads(text)
        self.orders.append(order)
        self.acknowledged = max(self.acknowledged, order.get("ack", 0))
        self._kept = [(number, text) for number, text in self._kept if number > self.acknowledged]
        if order["order"] == Order.HELLO and not self.silent:
            self.state()

    def _says(self, text: str) -> None:
        if not self.lost:
            self.channel.custom("json", text.encode())

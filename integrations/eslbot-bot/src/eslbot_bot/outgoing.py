"""What the bot says: what waits to be sent, what was sent and is not answered, what is sent again.

A call has one of these for all its connections, and no sockets. On another connection eslbot knows nothing of
marks and of a ``clear`` that the one before took with it, so these are sent again, and so is ``end``:

* marks that have not come back, in their order: eslbot puts them behind what the caller still hears;
* where a ``clear`` was not answered: that, and all that was sent behind it. Whether eslbot had it or not,
  the caller then hears the same, because it drops all that was sent before;
* ``end``, where it was said.

Speech is not sent again, because what eslbot had is still heard; but for the one message that was being sent.

The marks of a bot have names of its own choosing, which may repeat. On the wire each gets a number, so one
that comes twice, from before a break and from behind it, is known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

from eslbot_bot import messages
from eslbot_bot.messages import MAX_MARK_NAME

#: Bytes that may wait to be sent; at 24,000 Hz ten minutes of speech, which is all that eslbot takes.
MAX_WAITING = 32 * 1024 * 1024
#: Marks that have not come back; eslbot takes 1,000, and drops others.
MAX_MARKS = 900
#: Bytes kept of what was sent behind a ``clear`` that is not answered.
MAX_BEHIND_CLEAR = 4 * 1024 * 1024
#: Characters of a mark's name; the wire's has its number, too.
MAX_NAME = MAX_MARK_NAME - 12


class QueueFull(RuntimeError):
    """More waits to be sent or heard than eslbot would take; the text says what to do."""


class Heard:
    """Whether the caller has heard something: ``await`` it, as often as you like.

    True when the last packet has left FreeSWITCH towards the caller; False where it was cleared, went by
    while the caller was on hold, or the call ended before.
    """

    def __init__(self) -> None:
        self._future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[object, None, bool]:
        return asyncio.shield(self._future).__await__()

    @property
    def done(self) -> bool:
        """Whether it is known."""
        return self._future.done()

    def tell(self, heard: bool) -> None:
        """Make it known; the first word counts."""
        if not self._future.done():
            self._future.set_result(heard)


@dataclass(slots=True, eq=False)
class PendingMark:
    """A mark that has not come back. ``name`` is the bot's; None where it only stands behind speech."""

    wire: str
    name: str | None
    heard: Heard
    behind: int  # the number of the last clear before it


@dataclass(slots=True, eq=False)
class Item:
    """One WebSocket message that waits. ``clear`` is its number where it is one."""

    frame: bytes | str
    speech: bool = False
    mark: PendingMark | None = None
    clear: int = 0
    end: bool = False


class Outgoing:
    """Of one call."""

    def __init__(self) -> None:
        self._waiting: deque[Item] = deque()
        self._bytes = 0
        self._marks: dict[str, PendingMark] = {}
        self._numbers = 0
        self._clears = 0
        #: Clears of this connection that are not answered; what was sent since the last of them, with it.
        self._unanswered: deque[int] = deque()
        self._since_clear: list[Item] | None = None
        self._since_clear_bytes = 0
        #: What is being sent: whether eslbot has it nobody knows.
        self._flying: Item | None = None
        self._end: Item | None = None
        self._utterance: Heard | None = None
        #: How many of the marks stand behind speech.
        self._speaking = 0

    # -- what the bot says --------------------------------------------------------------------------------

    @property
    def speaking(self) -> bool:
        """Whether speech waits to be sent or heard."""
        return self._speaking > 0 or self._utterance is not None

    @property
    def ended(self) -> bool:
        """Whether ``end`` was said."""
        return self._end is not None

    def say(self, frames: list[bytes | str], *, more: bool) -> Heard:
        """Speech in pieces; unless ``more`` of the utterance follows, a mark behind it."""
        size = sum(map(len, frames))
        if self._bytes + size > MAX_WAITING:
            raise QueueFull(
                f"{self._bytes + size} bytes of speech wait to be sent, {MAX_WAITING} may; say less at a time"
            )
        if not more:
            self._room_for_mark()
        utterance = self._utterance or Heard()
        for frame in frames:
            self._put(Item(frame, speech=True))
        self._utterance = utterance
        if not more:
            self._utterance = None
            self._mark(None, utterance)
        return utterance

    def mark(self, name: str) -> Heard:
        """A mark behind all that was said. Raises ValueError for a name that cannot be."""
        if not 1 <= len(name) <= MAX_NAME:
            raise ValueError(f"a mark's name has {len(name)} characters; take 1 to {MAX_NAME}")
        self._room_for_mark()
        heard = Heard()
        self._mark(name, heard)
        return heard

    def _room_for_mark(self) -> None:
        if len(self._marks) >= MAX_MARKS:
            raise QueueFull(
                f"{MAX_MARKS} marks wait to be heard; say the pieces of one utterance with more=True"
            )

    def _mark(self, name: str | None, heard: Heard) -> None:
        self._numbers += 1
        wire = f"{name or 'said'}#{self._numbers}"
        mark = self._marks[wire] = PendingMark(wire, name, heard, self._clears)
        self._speaking += name is None
        self._put(Item(messages.mark(wire), mark=mark))

    def clear(self) -> list[PendingMark]:
        """Forget what was not sent, and have eslbot forget the rest; the marks of what was not sent."""
        kept: deque[Item] = deque()
        unsent: list[PendingMark] = []
        for item in self._waiting:
            if item.mark is not None:
                unsent.append(item.mark)
            if item.speech or item.mark is not None:
                self._bytes -= len(item.frame)
            else:
                kept.append(item)
        self._waiting = kept
        if self._flying is not None and self._flying.speech:
            self._flying = None
        if self._utterance is not None:
            self._utterance.tell(False)
            self._utterance = None
        self._clears += 1
        self._put(Item(messages.clear(), clear=self._clears))
        return [mark for mark in unsent if self._come(mark, heard=False)]

    def end(self, text: str) -> None:
        """The bot is finished; the first word counts."""
        if self._end is None:
            self._end = Item(text, end=True)
            self._put(self._end)

    def put(self, text: str) -> None:
        """Anything else; never sent again."""
        self._put(Item(text))

    def _put(self, item: Item) -> None:
        self._waiting.append(item)
        self._bytes += len(item.frame)

    # -- what is sent -------------------------------------------------------------------------------------

    def take(self) -> Item | None:
        """What is to be sent now; None where nothing waits. To be :meth:`landed` behind it."""
        if not self._waiting:
            return None
        item = self._flying = self._waiting.popleft()
        self._bytes -= len(item.frame)
        if item.clear:
            self._unanswered.append(item.clear)
            self._since_clear, self._since_clear_bytes = [], 0
        if self._since_clear is not None:
            self._since_clear.append(item)
            self._since_clear_bytes += len(item.frame)
            if self._since_clear_bytes > MAX_BEHIND_CLEAR:
                self._since_clear = None
        return item

    def landed(self) -> None:
        """What was taken last was sent."""
        self._flying = None

    def again(self) -> None:
        """There is another connection: put before all else what has to be sent on it again."""
        repeated: list[Item] = []
        if self._since_clear is not None:
            repeated += self._since_clear
        elif self._marks:
            unsent = {item.mark.wire for item in self._waiting if item.mark is not None}
            repeated += [
                Item(messages.mark(mark.wire), mark=mark)
                for mark in self._marks.values()
                if mark.wire not in unsent
            ]
        if self._flying is not None and self._flying.speech and self._flying not in repeated:
            repeated.append(self._flying)
        if self._end is not None and self._end not in self._waiting and self._end not in repeated:
            repeated.append(self._end)
        self._flying = None
        self._unanswered.clear()
        self._since_clear = None
        self._waiting.extendleft(reversed(repeated))
        self._bytes += sum(len(item.frame) for item in repeated)

    def end_again(self) -> None:
        """Say ``end`` again, where it was sent."""
        if self._end is not None and self._end not in self._waiting:
            self._put(self._end)

    # -- what is answered ---------------------------------------------------------------------------------

    def marked(self, wire: str, *, cleared: bool) -> PendingMark | None:
        """A mark has come back; None where it is none of ours, or had come before."""
        mark = self._marks.get(wire)
        return mark if mark is not None and self._come(mark, heard=not cleared) else None

    def cleared(self) -> list[PendingMark]:
        """A ``clear`` was answered; the marks before it that did not come back, and never will."""
        if not self._unanswered:
            return []
        number = self._unanswered.popleft()
        if not self._unanswered:
            self._since_clear = None
        lost = [mark for mark in self._marks.values() if mark.behind < number]
        return [mark for mark in lost if self._come(mark, heard=False)]

    def over(self) -> None:
        """The call is over: nothing more will be sent or heard."""
        self._waiting.clear()
        self._since_clear = None
        self._bytes = 0
        for mark in list(self._marks.values()):
            self._come(mark, heard=False)
        if self._utterance is not None:
            self._utterance.tell(False)
            self._utterance = None

    def _come(self, mark: PendingMark, *, heard: bool) -> bool:
        if self._marks.pop(mark.wire, None) is None:
            return False
        self._speaking -= mark.name is None
        mark.heard.tell(heard)
        return True

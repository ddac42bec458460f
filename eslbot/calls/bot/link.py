"""What controller and relay tell each other, over streams that break and controllers that change.

::

        start ──────▶ STARTING ── the stream's STATE ──▶ UP ──▶ news, in order and once
                      ▲    │ no STATE in time               │
        the stream    │    ▼                                │ the stream is gone
        is found ──▶ ASKING (HELLO) ◀── a number is missing ─┤
                      │ no stream, or no STATE twice         │
                      └───────────────▶ STARTING ◀──────────┘

Until STATE has come nothing counts that a relay tells: it is of another time. One that comes unasked is as
good as any other; what the stream before has left to be read, its STATE too, is nobody's. What is told again
behind STATE is known by its number and text: another relay counts anew.
Nobody waits in here: :attr:`Link.due` says when :meth:`Link.tick` has something to do. A link that is not up
for :data:`RELAY_DUE` raises :class:`RelayLost`, and so does one whose stream was refused :data:`REFUSALS`
times running: whoever answers so is there, and will not think better of it.

A machine at its limit is late everywhere, and a late relay is none that is lost: a stream is asked before it
is taken off, and its relay told that another one follows, so that it keeps the bot; what FreeSWITCH has sent
is read before a time counts as over; and what FreeSWITCH or we ourselves were late by is not the relay's, up
to :data:`EXCUSED` seconds: a customer in silence gets to a human within RELAY_DUE + EXCUSED and one try more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eslbot.calls.bot import stream
from eslbot.calls.events import CallEvent, RelayNewsMissing, RelayStreamLost, RelayTextIgnored
from eslbot.config.model import Address
from eslbot.esl.events import Event
from eslbot.esl.session import Session
from eslbot.relay import control
from eslbot.relay.control import BadText, News, Order, Part, Text

#: Seconds without a relay after which the customer goes to an agent.
RELAY_DUE = 5.0
#: Seconds for a stream's STATE, or for that behind a HELLO: a relay's turn, some ten milliseconds.
STATE_DUE = 1.0
#: How often a relay is asked before its stream is taken off, which costs the caller's audio meanwhile.
ASKED = 1
#: Seconds that FreeSWITCH's answers and our own lateness may add to :data:`RELAY_DUE`.
EXCUSED = 5.0
#: Seconds that every busy process is late by: not counted, nor excused.
LATE = 0.05
#: Seconds before a stream is started once more that could not be; twice as long each time.
RETRY, MOST_RETRY = 0.05, 0.5
#: Refusals of a stream in a row that are final, 1.3 s in all: a process may be full, and the next try goes to
#: another, or may not have read a new workspace's configuration yet.
REFUSALS = 6
#: Streams that are tried with the process that has the call, which may only be late, before any is asked.
OWN_TRIES = 2
#: Seconds after which a stream that was up counts as one: a relay that only comes up to break off is none.
STEADY = 1.0
#: News that may wait to be acknowledged.
UNACKNOWLEDGED = 8
#: News that are known again where they are told again.
HEARD = 4 * UNACKNOWLEDGED
#: Orders that wait for the next STATE: keys, of a caller who presses some while nobody is there.
WAITING = 32


class RelayLost(Exception):
    """No relay takes the call's stream; ``remedy`` is for whoever mends that."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy or "see whether `eslbot relay` runs and listens at relay.listen"


@dataclass(frozen=True, slots=True)
class Way:
    """How to a call's relay: the URL of its listener, and the ``identity`` that it asks for.

    ``own``: the URL of the process that has the call already. ``ptime``: the milliseconds of the packets that
    FreeSWITCH sends. ``switch``: its Core-UUID.
    """

    url: str
    identity: str
    own: str = ""
    ptime: int = 20
    switch: str = ""

    @classmethod
    def to(cls, listen: Address, identity: str) -> Way:
        """To what listens at ``listen``, which is on FreeSWITCH's own host where it is no certain address."""
        return cls(f"ws://{listen.from_own_host}/", identity)


class Link:
    """One call's, in this controller. Raises what the session raises."""

    def __init__(self, session: Session, way: Way, publish: Callable[[CallEvent], None]) -> None:
        self._session = session
        self._publish = publish
        self._way = way
        #: The relay process that has the call, and how often a stream may still be tried there.
        self._own, self._own_tries = way.own, OWN_TRIES
        self._stream = stream.AudioStream(session)
        #: What a relay is told that has not heard of the call.
        self.part = Part.NEW
        #: Whether the caller is on hold.
        self.held = False
        #: Whether the relay's STATE has come, so that its news count.
        self.up = False
        #: When :meth:`tick` has something to do, on the monotonic clock.
        self.due = float("inf")
        self._starting = self._connected = False
        #: Whether what the stream tells is ours to hear: what one before it has left is not.
        self._listening = False
        #: Whether a STATE is waited for, and how often the relay was asked for it since it was none's.
        self._awaited = False
        self._asked = 0
        self._tries = self._refusals = 0
        self._up_since = float("-inf")
        self._give_up = float("inf")
        self._excusable = EXCUSED
        self._why = "no STATE"
        self._last = self._acknowledged = self._missing = 0
        #: What the relay's last STATE said of them.
        self._confirmed = 0
        #: The last news that counted: an acknowledgement may be lost with its stream.
        self._heard: deque[Text] = deque(maxlen=HEARD)
        self._waiting: deque[tuple[Order, dict[str, Any]]] = deque(maxlen=WAITING)
        self._lost_events = session.lost_events
        self._ignored = False

    @property
    def url(self) -> str:
        """Where a relay has to be."""
        return self._way.url

    # -- coming up ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a stream on a channel that has none."""
        self._down()
        self._start()

    def find(self) -> None:
        """Take up the stream that another controller may have started."""
        self._down()
        self._stream.attached = True
        self._hello()

    def at(self, url: str) -> None:
        """The relay process at ``url`` has the call: another one would dial the bot anew."""
        self._own, self._own_tries = url, OWN_TRIES

    def tick(self) -> None:
        """Do what is due. Raises :class:`RelayLost`."""
        if self.up and self._lost_events != self._session.lost_events:
            self._lost_events = self._session.lost_events  # they may have been news, and the last ones
            self._in_doubt()
            self._hello()
        now = time.monotonic()
        if self.up or now < self.due:
            return
        late = now - self.due
        if late < RELAY_DUE and self._session.has_events():
            return  # it may be among them
        if late > LATE and self._excuse(late) and self._awaited:
            self.due = now + STATE_DUE  # who could not look could not hear either
            return
        # How a start has ended the module tells within a second: where it has not, FreeSWITCH is late.
        untold = self._awaited and self._starting and not self._connected and self._excuse(STATE_DUE)
        if now >= self._give_up:
            raise RelayLost(self._why)
        if self._awaited and (untold or self._asked < ASKED):
            self._ask()
        else:
            self._start()

    def doubt(self, why: str, seconds: float) -> None:
        """Something of the last STATE cannot be: ask for another in so many seconds."""
        self._in_doubt()
        self._why, self._awaited, self._asked = why, True, 0
        self.due = time.monotonic() + seconds

    def _down(self) -> None:
        """There is no stream, or nobody knows; one that was up for a moment only has no new time."""
        if self._give_up == float("inf") or (self.up and time.monotonic() - self._up_since >= STEADY):
            self._in_doubt()
        self.up = False

    def _in_doubt(self) -> None:
        """The relay is to tell where it is. It has all its time for that."""
        self._give_up, self._excusable = time.monotonic() + RELAY_DUE, EXCUSED
        self._tries = 0
        self.up = False

    def _excuse(self, seconds: float) -> bool:
        """Let the relay have the time that it was not to have; False where there is none left."""
        seconds = min(seconds, self._excusable)
        self._excusable -= seconds
        self._give_up += seconds
        return seconds > 0

    def _start(self) -> None:
        """A stream, once the one before is off the channel."""
        self._starting, self._connected, self._awaited = True, False, False
        if self._stream.attached and not self._take_off():
            return
        headers = {
            control.IDENTITY: self._way.identity,
            control.CALL: self._session.uuid,
            control.PART: str(Part.UNDER_WAY if self.part is Part.HEARD else self.part),
            **({control.HEARD: "1"} if self.part is Part.HEARD else {}),
            control.PTIME: str(self._way.ptime),
            **({control.SWITCH: self._way.switch} if self._way.switch else {}),
        }
        url = self._way.url
        if self._own and self._own_tries:
            self._own_tries -= 1
            url = self._own
        began = time.monotonic()
        started = self._stream.start(url, headers)
        self._excuse(time.monotonic() - began)
        if started:
            self._listening = True
            self._await(f"the relay said nothing within {STATE_DUE:g} s")
            self._asked = 0
        else:
            self._wait("mod_audio_stream refused to start; is the module loaded?")

    def _take_off(self) -> bool:
        """Take the stream off the channel. Its relay may only be late: what it has of the call it keeps."""
        self._stream.send_text(control.order(Order.AGAIN))
        self._listening = False
        if not self._stream.stop():
            self._wait(f"mod_audio_stream could not close its socket within {stream.STOPPED:g} s")
            self._stream.attached = True
            return False
        self._session.drop_events(stream.of_stream)
        return True

    def _await(self, why: str) -> None:
        """A STATE, be the time of the relay over or not: this try is one, too."""
        self._why, self._awaited = why, True
        self.due = time.monotonic() + STATE_DUE

    def _wait(self, why: str) -> None:
        """Before the next try."""
        self._why, self._awaited = why, False
        delay = min(MOST_RETRY, RETRY * 2**self._tries)
        self._tries += 1
        self.due = min(self._give_up, time.monotonic() + delay)

    def _hello(self) -> None:
        """Ask the relay where it is, and to tell again what nobody has acknowledged."""
        self._starting, self._listening, self._asked = False, True, 0
        self._ask()

    def _ask(self) -> None:
        # Who has just begun may be another one, of whose news we have heard none.
        ack = 0 if self._starting else self._last
        hello = control.order(Order.HELLO, ack=ack, hold=self.held)
        began = time.monotonic()
        reached = self._stream.reaches(hello)
        self._excuse(time.monotonic() - began)
        if reached:
            self._asked += 1
            self._await(f"the relay said nothing within {STATE_DUE:g} s")
        else:
            self._stream.attached = self._listening = False
            self._why = "there was no stream any more"
            if self._starting:  # it has just failed, and the event that says so is on its way
                self._wait(self._why)
            else:
                self._start()

    def _gone(self, event: Event) -> None:
        """The stream is gone, or did not come up. Raises RelayLost where none will."""
        if event.name == stream.ERROR:
            self._stream.attached = False  # the module takes itself off
        self._listening = False
        why = stream.describe(event)
        if not self.up:
            self._own_tries = 0  # whoever it was is gone
            self._refusals = self._refusals + 1 if stream.was_refused(event) else 0
            if self._refusals >= REFUSALS:
                raise RelayLost(
                    f"what listens at relay.listen takes no stream: {why}",
                    "`stream_refused` in the relay's log says why; `eslbot doctor` on FreeSWITCH's host "
                    "finds another key, or another program at relay.listen",
                )
            self._wait(why)
            return
        self._publish(RelayStreamLost(why))
        steady = time.monotonic() - self._up_since >= STEADY
        self._down()
        if steady:
            self._why = why
            self._start()
        else:
            self._wait(why)

    # -- what the relay tells -----------------------------------------------------------------------------

    def happened(self, event: Event) -> Text | None:
        """One event of the stream's; what the relay tells by it, if that counts. Raises RelayLost."""
        match event.name:
            case stream.CONNECT:
                self._connected = self._stream.attached = True
            case stream.ERROR:
                self._gone(event)
            case stream.DISCONNECT if self._connected or not self._starting:
                self._gone(event)  # else it is the end of the stream before
            case stream.JSON if self._listening:
                return self._read(event)
        return None

    def _read(self, event: Event) -> Text | None:
        try:
            if event.oversized:
                raise BadText(f"{event.oversized} bytes")
            text = control.read_news(event.body)
        except BadText as error:
            self.ignore(str(error))
            return None
        if text.what == News.STATE:
            return text
        return text if self.up and self._is_next(text) else None

    def ignore(self, why: str) -> None:
        """A text is none of a relay's."""
        self._publish(RelayTextIgnored(why, first=not self._ignored))
        self._ignored = True

    def synchronised(self, acknowledged: int) -> None:
        """A STATE was taken: what follows are the news behind ``acknowledged``."""
        new = self._starting and not self.up
        if acknowledged < self._confirmed:
            self._heard.clear()  # another relay, whose numbers begin anew
        self._confirmed = acknowledged
        if not self.up:
            self._up_since = time.monotonic()
        self.up, self.due, self._awaited = True, float("inf"), False
        self._own_tries = OWN_TRIES
        self._starting, self._refusals = False, 0
        self._last = self._acknowledged = acknowledged
        if new and (self.held or self.part is not Part.NEW):  # HELLO would have told
            self.order(Order.HOLD, on=self.held)
        while self._waiting:
            what, facts = self._waiting.popleft()
            self.order(what, **facts)

    def _is_next(self, text: Text) -> bool:
        """Whether nobody has heard it before; where one before it is missing, have it told again."""
        number = text.number
        if number <= self._last:
            return False
        if number > self._last + 1 and self._missing != self._last + 1:
            self._missing = self._last + 1  # once: what a relay does not have any more, it cannot tell
            self._publish(RelayNewsMissing(self._missing, number))
            self._in_doubt()
            self._hello()
            return False
        self._last = number
        if text in self._heard:
            return False
        self._heard.append(text)
        return True

    # -- what it is told ----------------------------------------------------------------------------------

    def order(self, what: Order, **facts: Any) -> None:
        """Tell the relay, with all that is handled; a key that finds none waits for the next."""
        if self.up:
            self._acknowledged = self._last
            self._stream.send_text(control.order(what, ack=self._last, **facts))
        elif what is Order.KEY:
            self._waiting.append((what, facts))

    def handled(self, text: Text) -> None:
        """What :meth:`happened` has returned is done: acknowledge it, at once where it is an end."""
        waiting = self._last - self._acknowledged
        if self.up and (waiting >= UNACKNOWLEDGED or (waiting and text.what in (News.ENDED, News.DONE))):
            self.order(Order.ACK)

    def close(self, reason: str) -> None:
        """The bot's part is over. Does not wait."""
        if self._stream.attached:
            self._stream.send_text(control.order(Order.STOP, ack=self._last, reason=reason))
            self._stream.close()

"""The calls of one examination; first the plain call, which the others are compared with.

What a bot says, and when, is its own affair. So no check can know that a bot which says nothing is broken, or
that one which ends was about to: each is compared with the plain call, which is placed first and alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from eslbot.botcheck.call import BotCall
from eslbot.botcheck.findings import Verdict, failed, passed, unseen
from eslbot.botcheck.target import Target, Times
from eslbot.caller.invite import Invite
from eslbot.relay.dialler import BotUnreachable

#: Seconds by which a bot may be earlier or later than it was before.
SLACK = 0.5
#: Seconds for which a call goes on behind the bot's first word, where nothing else shows that it lives.
AWHILE = 0.5
#: Seconds by which a frame of the caller's may leave late, beyond which this machine is too busy to tell what
#: is the bot's lateness.
BUSY = 0.1


class NotTaken(Exception):
    """The bot has not taken a call of the run; the text says how."""


class Examination:
    """One run of the checks against one bot.

    Attributes:
        plain: the plain call.
        calls: all of them, the plain one first.
        refused: the calls that the bot has not taken: their names, and how.
    """

    def __init__(self, target: Target, times: Times, parallel: int) -> None:
        self.target, self.times = target, times
        self.plain: BotCall
        self.calls: list[BotCall] = []
        self.refused: list[tuple[str, str]] = []
        #: How the plain call went.
        self.took = 0.0
        self.ponged: float | None = None
        self.asked_at: float | None = None
        self.ended_tcp = False
        self._slots = asyncio.Semaphore(parallel)

    @property
    def protocol(self) -> str:
        """What the bot speaks."""
        return self.target.bot.protocol

    @property
    def waits_for_caller(self) -> bool:
        """Whether the bot has said nothing in the plain call until the caller had."""
        return self.asked_at is not None and (
            self.plain.spoke_at is None or self.plain.spoke_at > self.asked_at
        )

    @property
    def ends_by_itself(self) -> bool:
        """Whether the plain call's bot was finished before it was answered to: it will be again."""
        finished, asked = self.plain.finished_at, self.asked_at
        return finished is not None and (asked is None or finished <= asked or self.waits_for_caller)

    @property
    def spoke_after(self) -> float:
        """Seconds from `start` (or from the caller's first word) until the plain call's first speech."""
        if self.plain.spoke_at is None:
            return float("inf")
        since = self.asked_at if self.waits_for_caller and self.asked_at is not None else self.plain.connected
        return self.plain.spoke_at - since

    @property
    def greeting(self) -> float:
        """Seconds of speech that the plain call's bot had sent before it was the caller's turn (again)."""
        if self.waits_for_caller or self.asked_at is None:
            return self.plain.spoken(0)
        return sum(piece.seconds for piece in self.plain.speech if piece.at < self.asked_at)

    @property
    def late(self) -> float:
        """Seconds by which this machine was late at most."""
        return max((call.late for call in self.calls), default=0.0)

    def slack(self, call: BotCall) -> float:
        """Seconds by which a call may be earlier or later than the plain one."""
        return SLACK + call.stalled + self.plain.stalled

    @asynccontextmanager
    async def call(self, name: str, invite: Invite | None = None) -> AsyncIterator[BotCall]:
        """Another call; it waits until there is room for it. Raises NotTaken."""
        async with self._slots, self.beside(name, invite) as call:
            yield call

    @asynccontextmanager
    async def beside(self, name: str, invite: Invite | None = None) -> AsyncIterator[BotCall]:
        """A call at the same time as one that :meth:`call` has made room for."""
        call = BotCall(self.target, self.times, name, invite)
        self.calls.append(call)
        try:
            async with call:
                yield call
        except BotUnreachable as error:
            self.refused.append((name, str(error)))
            raise NotTaken(f"the bot did not take this call: {error}") from error

    # -- the plain call --------------------------------------------------------------------------------------

    async def place_plain(self) -> None:
        """Greeted, answer, and hang up; or be handed off. Raises NotTaken."""
        first_word = self.target.bot.first_audio_timeout
        async with self.call("plain") as call:
            self.plain = call
            self.took = await call.connect()
            call.connection.watched.ping()
            if first_word:
                await call.until(lambda: call.spoke_at is not None or call.over, first_word)
            if call.spoke_at is not None:
                await call.until_quiet(self.times.call)
            if not call.over:
                await self._say_something(call)
            if call.finished_at is not None:
                await call.until(lambda: call.playout.idle, self.times.call)
            self.ponged = call.connection.watched.pong_at
            self.ended_tcp = await call.part("ended" if call.over else "caller_hangup")

    async def _say_something(self, call: BotCall) -> None:
        speech_before = len(call.speech)
        call.says(self.target.says)
        await call.until(lambda: call.onset is not None or call.over, 1.0)
        self.asked_at = call.onset
        await call.until(lambda: not call.speaks or call.over, self.times.call)
        await call.until(lambda: len(call.speech) > speech_before or call.over, self.times.answer)
        await call.until_quiet(self.times.call)

    # -- what checks have in common --------------------------------------------------------------------------

    async def greeted(self, call: BotCall) -> bool:
        """Wait for the bot's first word as long as the plain call's took, and a while; whether it came."""
        if self.waits_for_caller:
            call.says(self.target.says)
        if self.plain.spoke_at is None:
            await call.stays(AWHILE)
        else:
            most = self.spoke_after + self.times.answer
            await call.until(lambda: bool(call.heard) or call.over, most + (3.0 if call.speaks else 0.0))
        return bool(call.heard)

    async def lives(self, call: BotCall, since: float, what: str, longer: float = 0.0) -> Verdict:
        """Whether the bot has survived ``what``, which began at a time, and goes on as in the plain call.

        ``longer``: seconds by which that may take longer now.
        """
        if not call.heard:
            await self.greeted(call)
        await call.stays(self.times.settle)
        if (early := self.gave_up(call, since)) is not None:
            return failed(f"{early}, behind {what}")
        if self.plain.spoke_at is not None and call.spoke_at is None:
            return failed(f"says nothing any more, behind {what}: in a plain call it does")
        if self.ends_by_itself and call.finished_at is None:
            rest = self.end_expected(call) + longer + self.times.answer + self.slack(call)
            await call.until(lambda: call.over, rest - monotonic())
            if call.finished_at is None:
                return failed(f"does not end any more, behind {what}: in a plain call it does")
        if self.plain.spoke_at is None and self.plain.finished_at is None:
            return passed("the connection stays (the bot says nothing in any call)")
        return passed("goes on as in a plain call")

    def broke(self, call: BotCall) -> str | None:
        """How the bot has failed, unless it did so in the plain call, at the same point."""
        if call.broken is None or (call.over_budget and self.plain.over_budget):
            return None
        if self.plain.broken and self.plain.lost and call.lost:
            usual = self.plain.lost[0].at - self.plain.connected
            if call.lost[0].at - call.connected >= usual - self.slack(call):
                return None
        return call.broken

    def gave_up(self, call: BotCall, since: float) -> str | None:
        """How the bot broke, or ended before its time, behind a time; None: it did not."""
        if (broken := self.broke(call)) is not None:
            return broken
        if call.finished_at is None or call.finished_at < since:
            return None
        if call.finished_at >= self.end_expected(call) - self.slack(call):
            return None
        how = "ended the call" if call.end is not None and not call.end.closed else "closed"
        return f"{how} {call.finished_at - since:.1f} s later"

    def end_expected(self, call: BotCall) -> float:
        """When a call's bot would be finished if it took as long as the plain call's did."""
        finished = self.plain.finished_at
        if finished is None:
            return float("inf")
        if self.waits_for_caller and self.asked_at is not None:
            return (call.first_onset or call.connected) + finished - self.asked_at
        return call.connected + finished - self.plain.connected

    async def hung_up(self, call: BotCall) -> None:
        """End a call of which all was seen."""
        await call.part("ended" if call.over else "caller_hangup")


def nothing_to_show(exam: Examination) -> Verdict:
    """For a check that needs a bot which speaks."""
    return unseen("the bot has said nothing in the plain call")


def too_busy(exam: Examination) -> str:
    """Why a time says nothing of the bot."""
    return f"this machine was busy, late itself by up to {1000 * exam.late:.0f} ms: try again on a quiet one"

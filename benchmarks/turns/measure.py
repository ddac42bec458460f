"""Conversations, what a capture says of their turns, and how far those of the ledger are off."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import create_engine, select

from benchmarks.turns.talker import LATE, Packet, Talker
from eslbot.ledger.schema import calls, turns
from eslbot.sim.bot import BotCall
from eslbot.sim.rtp import PTIME
from eslbot.turns import Kind
from tests.e2e.interop.pbx import Call
from tests.support.lab import Lab
from tests.support.voices import frames, silence, speech

#: Seconds by which a turn of the ledger's is taken for one of the capture's.
NEAR = 0.4
#: Seconds in which the ledger has all of a call that is over.
SETTLE = 20.0


@dataclass(frozen=True)
class Truth:
    """A turn by the capture: ``at`` when it was over (epoch seconds); in ``seconds`` as the ledger has them.

    ``sound``: whether no packet of ours was late, so that it is a truth at all.
    """

    kind: Kind
    at: float
    seconds: float
    bot: float | None
    sound: bool


@dataclass(frozen=True)
class Told:
    """A turn by the ledger."""

    kind: Kind
    at: float
    seconds: float
    bot: float | None


@dataclass
class Errors:
    """Of many calls: the ledger's seconds minus the capture's, by kind; and what only one of them has."""

    seconds: dict[Kind, list[float]] = field(default_factory=dict)
    bot: dict[Kind, list[float]] = field(default_factory=dict)
    missing: int = 0
    extra: int = 0
    unsound: int = 0

    def add(self, truths: Sequence[Truth], told: Sequence[Told]) -> None:
        """One more call."""
        left = list(told)
        for truth in truths:
            near = [one for one in left if one.kind is truth.kind and abs(one.at - truth.at) < NEAR]
            if not truth.sound:
                self.unsound += 1
                left = [one for one in left if one not in near]
            elif not near:
                self.missing += 1
            else:
                found = min(near, key=lambda one: abs(one.at - truth.at))
                left.remove(found)
                self.seconds.setdefault(truth.kind, []).append(found.seconds - truth.seconds)
                if truth.bot is not None and found.bot is not None:
                    self.bot.setdefault(truth.kind, []).append(found.bot - truth.bot)
        self.extra += len(left)


@dataclass
class Conversation:
    """One call: a caller, their bot, and what is known of it."""

    lab: Lab
    call: Call
    talker: Talker
    bot: BotCall
    truths: list[Truth] = field(default_factory=list)

    @classmethod
    def begin(cls, lab: Lab, tenant: str) -> Conversation:
        """Call, and wait until the bot has greeted."""
        talker = Talker()
        call = Call(lab.sip, lab.tenants[tenant].id, voice=talker)  # type: ignore[arg-type]
        call.established()
        bot = lab.bot.wait_for_call(lambda one: one.headers.get("X-CRT-Object-ID") == call.crt)
        bot.wait_for_message("start")
        conversation = cls(lab, call, talker, bot)
        conversation._until(lambda: _silent_for(talker.came, 0.4), since=time.time())
        return conversation

    def answer(self, asks: float, waits: float, says: float, seed: int) -> None:
        """The caller asks, the bot answers behind so many seconds, and both are silent."""
        self.talker.speak(frames(speech(asks, seed)))
        last = self._last_sent()
        time.sleep(waits)
        said = time.time()
        self.bot.say(_bytes(says, seed + 1), real_time=False)
        first = self._until(lambda: _first(self.talker.came, said), since=said)
        self._note(Kind.ANSWER, first.at, first.at - last.at, said - last.at, last.at)
        self._until(lambda: _silent_for(self.talker.came, 0.5), since=said)

    def barge_in(self, after: float, clears: float, seed: int) -> None:
        """The bot speaks, the caller breaks in ``after`` some seconds, the bot clears, the caller goes on."""
        said = time.time()
        self.bot.say(_bytes(8.0, seed), real_time=False)
        self._until(lambda: _first(self.talker.came, said), since=said)
        time.sleep(after)
        began = time.time()
        self.talker.begin(frames(speech(clears + 0.6, seed + 1, level=6000)))
        time.sleep(clears)
        cleared = time.time()
        self.bot.clear()
        self._until(lambda: _silent_for(self.talker.came, 0.5), since=cleared)
        self.talker.speak(frames(silence(0.1)))
        first = next(one for one in self.talker.sent if one.loud and one.at >= began - 0.001)
        last = [one for one in self.talker.came if one.loud and one.at >= said][-1]
        silent = last.at + PTIME
        self._note(Kind.BARGE_IN, silent, silent - first.at, cleared - first.at, first.at)
        time.sleep(0.5)

    def overlap(self, both: float, seed: int) -> None:
        """The bot begins while the caller speaks, for about so many seconds, and goes on alone."""
        self.talker.begin(frames(speech(0.8 + both, seed, level=6000)))
        time.sleep(0.8)
        said = time.time()
        self.bot.say(_bytes(both + 1.0, seed + 1), real_time=False)
        first = self._until(lambda: _first(self.talker.came, said), since=said)
        self.talker.speak(frames(silence(0.1)))
        last = self._last_sent()
        self._until(lambda: _silent_for(self.talker.came, 0.5), since=said)
        over = [one for one in self.talker.came if one.loud][-1].at + PTIME
        self._note(Kind.OVERLAP, over, last.at - first.at, None, last.at)

    def end(self) -> list[Told]:
        """The caller hangs up; what the ledger has of the call's turns."""
        time.sleep(1.0)
        self.call.bye()
        self.call.close()
        return told(f"sqlite:///{self.lab.folder}/eslbot.db", self.call.crt)

    # -----------------------------------------------------------------------------------------------------

    def _note(self, kind: Kind, at: float, seconds: float, bot: float | None, edge: float) -> None:
        sound = all(one.late < LATE for one in self.talker.sent if abs(one.at - edge) < 0.3)
        self.truths.append(Truth(kind, at, seconds, bot, sound))

    def _last_sent(self) -> Packet:
        return [one for one in self.talker.sent if one.loud][-1]

    def _until(self, look: Callable[[], Packet | None], since: float, seconds: float = 30.0) -> Packet:
        while (found := look()) is None:
            assert time.time() - since < seconds
            time.sleep(0.02)  # packets come in another thread, and nothing else tells
        return found


def _first(came: Sequence[Packet], since: float) -> Packet | None:
    return next((one for one in list(came) if one.loud and one.at >= since), None)


def _silent_for(came: Sequence[Packet], seconds: float) -> Packet | None:
    """The last packet that could be heard, where so many seconds of others are behind it."""
    loud = [one for one in list(came) if one.loud]
    return loud[-1] if loud and came[-1].at - loud[-1].at >= seconds else None


def _bytes(seconds: float, seed: int) -> bytes:
    return b"".join(frames(speech(seconds, seed)))


def converse(lab: Lab, tenant: str, many: int, seed: int) -> tuple[list[Truth], list[Told]]:
    """A call of so many turns, by a seed."""
    chance = random.Random(seed)
    conversation = Conversation.begin(lab, tenant)
    for number in range(many):
        kind = chance.choices(list(Kind), (6, 3, 1))[0]
        place = seed * 1000 + number * 10
        if kind is Kind.ANSWER:
            conversation.answer(
                chance.uniform(0.4, 1.5), chance.choice([0.05, 0.12, 0.3, 0.7, 1.2]), 0.8, place
            )
        elif kind is Kind.BARGE_IN:
            conversation.barge_in(chance.uniform(0.6, 1.2), chance.uniform(0.25, 0.7), place)
        else:
            conversation.overlap(chance.uniform(0.4, 0.8), place)
        time.sleep(chance.uniform(0.6, 0.9))
    return conversation.truths, conversation.end()


def told(url: str, crt: str) -> list[Told]:
    """The turns of a call that is over, by the ledger. Raises AssertionError where it has no end of it."""
    engine = create_engine(url)
    deadline = time.monotonic() + SETTLE
    try:
        while True:
            with engine.connect() as connection:
                query = select(calls.c.call_id).where(
                    calls.c.crt_object_id == crt, calls.c.ended_at.is_not(None)
                )
                call_id = connection.execute(query).scalar()
                if call_id is not None:
                    rows = connection.execute(
                        select(turns).where(turns.c.call_id == call_id).order_by(turns.c.at)
                    )
                    return [Told(Kind(row.kind), row.at, row.seconds, row.bot) for row in rows]
            assert time.monotonic() < deadline, f"the ledger has no end of {crt}"
            time.sleep(0.2)  # the writer is in another process
    finally:
        engine.dispose()

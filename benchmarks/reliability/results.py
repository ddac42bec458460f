"""What each case has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.reliability.measures import Gap
from benchmarks.speech.measures import uplink
from eslbot.sim.bot import BotCall
from tests.support.audit import Account

#: Seconds around a kill in which a lost frame of the caller's belongs to it.
AROUND_KILL = (0.1, 0.6)


class Unmeasured(Exception):
    """A case could not be measured; the text says why."""


@dataclass(frozen=True)
class Kill:
    """One kill in a call: seconds from the signal until the kernel had closed the worker's connection
    (``released``), a new one was ``opened``, its controller had said ``connect``, and FreeSWITCH had
    ``answered`` with the channel.

    ``bot_stays``: the bot's WebSocket is still up.
    """

    at: float
    released: float
    opened: float
    connected: float
    answered: float
    bot_stays: bool


@dataclass
class TakeOvers:
    """Many kills in one call.

    ``error`` is why there were fewer than wanted; ``bots`` counts the WebSockets that were opened. ``lost``
    are the caller's frames lost at each kill that the bot's stream survived, ``lost_elsewhere`` the others.
    """

    wanted: int
    speaking: bool
    kills: list[Kill] = field(default_factory=list)
    error: str | None = None
    handed_off: bool = False
    bots: int = 0
    lost: list[int] = field(default_factory=list)
    lost_elsewhere: int = 0
    left_out: int = 0  # frames that this machine was too busy to send; they are among the lost
    account: Account | None = None


@dataclass
class Away:
    """No eslbot for ``seconds`` in mid-call: how many calls were ``alive`` at its end."""

    seconds: float
    calls: int
    alive: int
    back: list[float]  # seconds from the start of `eslbot serve` to each call's take-over
    account: Account


@dataclass
class Storm:
    """Kills at a fixed pace under held calls."""

    kills: int
    account: Account


@dataclass
class Deploys:
    """Calls under deploys: ``deploys`` were made; gaps inside the bot's tone, with the call they were in.

    ``cut`` are the calls that heard more than 60 ms less of it than was said, with how much less.
    """

    name: str
    seconds: float
    deploys: list[float]
    gaps: list[tuple[str, Gap]]
    cut: list[tuple[str, float]]
    account: Account


@dataclass
class Death:
    """FreeSWITCH dies under ``calls`` calls: seconds from the signal to each call's first packet (``back``).

    ``unbroken``: bots' WebSockets that were still there, of those that were. ``posts``: notifications that
    Ameyo got in all; ``done``: calls that it accepted and ended, ``outcomes`` as what. ``byes`` are ours.
    """

    name: str
    calls: int
    back: list[float]
    unbroken: int
    bots: int
    posts: int
    outcomes: dict[str, int]
    done: int
    byes: int
    account: Account | None = None


def uplink_losses(bot: BotCall, kills: Sequence[Kill]) -> tuple[list[int], int]:
    """Frames lost at each kill whose stream went on, and those lost at no kill."""
    survived = [kill for kill in kills if kill.bot_stays]
    lost = uplink(bot.audio(), list(bot.arrivals)).lost
    counts = [0] * len(survived)
    elsewhere = 0
    for at in lost:
        for index, kill in enumerate(survived):
            if kill.at - AROUND_KILL[0] <= at <= kill.at + kill.answered + AROUND_KILL[1]:
                counts[index] += 1
                break
        else:
            elsewhere += 1
    return counts, elsewhere

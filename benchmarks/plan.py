"""How much of everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Counts of calls, calls a second, and seconds.

    Attributes:
        rounds: of every case in which subjects run in turns.
        talk_ms: from the bot's connection to its `end`, in the cases at the event socket.
        in_flight, seconds, warm_up: of `throughput` and `workers`.
        rate: of `paced` and `handoff`, for ``seconds`` each; and of the storm's new callers.
        burst: calls in one moment.
        held, held_rate, idle: calls that are held, how fast they come, how long they are left alone.
        set_up, set_up_rate: calls a round, for either dialplan.
        media, media_seconds: calls at a time; how long processor time is taken.
        conversations, turns: whole calls; how often their bot speaks and listens, each time 3 s.
        waiting, down, back: calls in the storm, how long Ameyo is away, how long it may take all of them.
    """

    rounds: int = 3
    talk_ms: int = 20
    in_flight: int = 200
    seconds: float = 5.0
    warm_up: float = 1.0
    rate: float = 20.0
    burst: int = 400
    held: tuple[int, ...] = (2000, 5000)
    held_rate: float = 150.0
    idle: float = 6.0
    set_up: int = 120
    set_up_rate: float = 10.0
    media: int = 30
    media_seconds: float = 10.0
    conversations: int = 24
    turns: int = 4
    waiting: int = 500
    down: float = 15.0
    back: float = 60.0


FULL = Plan()
QUICK = Plan(
    rounds=1,
    seconds=2.0,
    held=(500,),
    idle=2.0,
    set_up=30,
    media=10,
    media_seconds=3.0,
    conversations=6,
    turns=1,
    waiting=200,
    down=3.0,
)

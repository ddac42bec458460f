"""Which calls and which faults, and when: everything that chance decides, out of one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eslbot.sim.lab import Tenant
from tests.support.chaos.plan import AMEYO, PlannedFault

#: Calls of one kind that are placed together, and how many of them a second.
BATCH, RATE = 8, 2.0
#: What the caller of kind ``keys`` presses; the last one ends the bot's part.
KEYS = "0123456789"


@dataclass(frozen=True)
class Kind:
    """A caller's fate: the bot's path, how often in a hundred draws, and what the caller does.

    Attributes:
        seconds: how long the bot's part takes, at most.
        hangs_up: seconds from the answer until the caller hangs up first, from and to; None where he waits.
        keys: he presses keys.
        hold: seconds for which the PBX puts the caller on hold; 0 for none.
    """

    bot: str
    share: int
    seconds: float
    hangs_up: tuple[float, float] | None = None
    keys: bool = False
    hold: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether something is done in such a call: then it is placed alone."""
        return self.keys or bool(self.hold)


KINDS = {
    "listens": Kind("/speak?seconds=14&speak_ms=800&pause_ms=6000", 12, 14.0),
    "speaks": Kind("/speak?seconds=20&speak_ms=4000&pause_ms=500", 18, 20.0),
    "barges-in": Kind("/interrupt?seconds=16&speak_ms=4000&after_ms=900", 16, 16.0),
    "hangs-up-first": Kind("/speak?seconds=120&speak_ms=2000&pause_ms=1000", 12, 12.0, (0.3, 12.0)),
    "held": Kind("/speak?seconds=16&speak_ms=2000&pause_ms=500", 21, 16.0, hold=3.0),
    "presses-keys": Kind("/keys?seconds=20", 21, 20.0, keys=True),
}
#: The one long call at a time, by which the RTP clock is measured.
ANCHOR = "stays"


@dataclass(frozen=True)
class PlannedBatch:
    """``calls`` calls of one kind; ``ameyo`` is what Ameyo does with each one's first notifications."""

    number: int
    kind: str
    calls: int
    hangs_up: float | None
    ameyo: Sequence[str]
    keys: str


@dataclass(frozen=True)
class Interval:
    """Seconds between two faults of a kind: wanted, and never less; ``lasts`` seconds, from and to."""

    wanted: float
    least: float
    lasts: tuple[float, float] = (0.0, 0.0)


INTERVALS = {
    "kill worker": Interval(10, 5),
    "kill relay": Interval(60, 12),
    # Twice within a minute takes the bot's part from a call, three times empties the table of calls.
    "crash FreeSWITCH": Interval(600, 66),
    "HUP": Interval(180, 40),
    "bot away": Interval(300, 60, (0.5, 3.0)),
    "Ameyo away": Interval(300, 60, (1.0, 4.0)),
    "Ameyo errors": Interval(300, 60, (2.0, 6.0)),
    "Ameyo slow": Interval(300, 60, (2.0, 6.0)),
    "Ameyo drips": Interval(300, 60, (2.0, 6.0)),
    "full disk": Interval(420, 90, (1.0, 3.0)),
    "clock step": Interval(240, 60),
}


def interval(name: str, seconds: float) -> float:
    """Seconds between two faults of that name in a run of so many: a short run, too, has some of each."""
    told = INTERVALS[name]
    return max(told.least, min(told.wanted, seconds / 4))


def tenants(bot: str, seconds: float) -> list[Tenant]:
    """The workspaces: one for each kind, and the one of the long calls; ``bot`` is the server's URL."""
    workspace = {"max_calls": 1000, "max_duration": f"{int(seconds) + 600}s"}
    paths = {**{name: kind.bot for name, kind in KINDS.items()}, ANCHOR: "/drone"}
    return [Tenant(name, bot + path, workspace=workspace) for name, path in paths.items()]


def batches(seed: int) -> Iterator[PlannedBatch]:
    """One batch of calls after another, without an end."""
    rng = random.Random(f"calls {seed}")
    number = 0
    while True:
        number += 1
        name = rng.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]
        kind = KINDS[name]
        size = 1 if kind.alone else BATCH
        ameyo = rng.choices(list(AMEYO), [share for _, share in AMEYO.values()], k=size)
        hangs_up = rng.uniform(*kind.hangs_up) if kind.hangs_up else None
        keys = "".join(rng.choices(KEYS, k=3)) + "#"
        yield PlannedBatch(number, name, size, hangs_up, ameyo, keys if kind.keys else "")


def faults(seed: int, seconds: float, names: Sequence[str]) -> dict[str, list[PlannedFault]]:
    """The faults of each name in order, each ``pause`` seconds behind the start of the one before it."""
    planned: dict[str, list[PlannedFault]] = {}
    for name in names:
        rng, told = random.Random(f"{name} {seed}"), INTERVALS[name]
        every = interval(name, seconds)
        at = min(every, seconds) * rng.uniform(0.2, 0.8)
        pauses = [at]
        while True:
            # Of what has a least distance, chance takes nothing.
            step = every + rng.uniform(0.0, 0.3) * every
            at += step
            if at > seconds:
                break
            pauses.append(step)
        planned[name] = [PlannedFault(pause, name, rng.uniform(*told.lasts)) for pause in pauses]
    return planned

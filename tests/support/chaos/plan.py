"""Which calls and which faults, and when: everything that chance decides, out of one seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import Answer, Stall
from eslbot.sim.pbx.steps import Step
from tests.support.unkind_ameyo import unkind_answer

#: The callers' fates: the bot's behaviour, and how often in a hundred.
KINDS = {
    "talks": ("talk?greeting_ms=800&listen_ms=400&goodbye_ms=300", 25),
    "talks-long": ("talk?greeting_ms=2500&listen_ms=1500&goodbye_ms=800", 15),
    "converses": ("converse?turns=3&speak_ms=700&listen_ms=300", 15),
    "one-breath": ("one-breath", 10),
    "holds": ("hold?greeting_ms=1500", 15),
    "breaks": ("error-close?greeting_ms=700", 8),
    "aborts": ("abort?greeting_ms=700", 6),
    "once-more": ("abort?once=1&listen_ms=200", 6),
}
#: What Ameyo does with a call's first notifications, and how often in a hundred.
AMEYO: dict[str, tuple[Sequence[Step], int]] = {
    "accepts": ((), 60),
    "slow": ((Stall(1.0, Answer(200)),), 10),
    "busy": ((503, 503), 15),
    "too many": ((Answer(429, {"Retry-After": "1"}),), 5),
    "early hints": ((unkind_answer("103 first"),), 5),
    "no text": ((unkind_answer("text never comes"),), 5),
}
#: Seconds until a caller of a bot that holds hangs up.
HANGS_UP = (1.5, 5.0)
#: Seconds between two faults, and how long one lasts.
PAUSE, LASTS = (0.2, 1.6), (0.3, 1.5)


@dataclass(frozen=True)
class PlannedCall:
    """A call ``at`` seconds from the start; ``hangs_up`` seconds after the answer, where the caller does."""

    at: float
    tenant: str
    hangs_up: float | None
    ameyo: str


@dataclass(frozen=True)
class PlannedFault:
    """A fault ``pause`` seconds after the one before it, that lasts ``seconds``."""

    pause: float
    name: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A whole run: the calls in order of time, the faults in order; ``rng_seed`` is for whom they hit."""

    seed: int
    seconds: float
    calls: Sequence[PlannedCall]
    faults: Sequence[PlannedFault]


def tenants() -> list[Tenant]:
    """The workspaces of a lab for :func:`plan`: one for each of :data:`KINDS`."""
    return [
        Tenant(name, bot, bot_keys={"reconnect": True} if name == "once-more" else {})
        for name, (bot, _) in KINDS.items()
    ]


def plan(seed: int, seconds: float, rate: float, faults: Sequence[str]) -> Plan:
    """``rate`` calls a second for ``seconds``, under ``faults`` (names, any of them as often as the others).

    Raises:
        ValueError: no faults to choose from.
    """
    if not faults:
        raise ValueError("no faults to choose from")
    rng = random.Random(seed)
    calls, at = [], 0.0
    while True:
        at += rng.expovariate(rate)
        if at > seconds:
            break
        tenant = rng.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
        ameyo = rng.choices(list(AMEYO), [share for _, share in AMEYO.values()])[0]
        hangs_up = rng.uniform(*HANGS_UP)
        calls.append(PlannedCall(at, tenant, hangs_up if tenant == "holds" else None, ameyo))
    planned: list[PlannedFault] = []
    length = 0.0
    while length < seconds:
        # Each round has every fault once, so that a short run, too, has most of them.
        for name in rng.sample(list(faults), len(faults)):
            planned.append(PlannedFault(rng.uniform(*PAUSE), name, rng.uniform(*LASTS)))
            length += planned[-1].pause
    return Plan(seed, seconds, calls, planned)

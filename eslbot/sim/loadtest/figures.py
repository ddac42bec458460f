"""Counts and percentiles of some calls, and what broke first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from eslbot.sim.loadtest.calls import Call
from eslbot.sim.loadtest.tables import percentile
from eslbot.sim.loadtest.usage import Used

#: Share of a core from which on one process is taken to be its own limit, and of all cores the machine.
FULL = 0.90
#: Share of the callers' frames that may be left out before they are no fair load any more.
LEFT_OUT = 0.001
#: Cores that others may use before they are part of the story.
OTHERS = 0.25
#: Share of the calls of a plan that have to be begun for the plan to count as kept.
KEPT = 0.95

GENERATOR, BOT, FREESWITCH, ESLBOT = "generator", "bot", "freeswitch", "eslbot"


@dataclass(frozen=True)
class Spread:
    """Some percentiles of ``count`` durations in seconds, or of counts; NaN without any."""

    count: int
    p50: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of these."""
        ordered = sorted(values)
        return cls(len(ordered), *(percentile(ordered, p) for p in (50, 90, 99, 100)))


@dataclass(frozen=True)
class Flows:
    """RTP of some calls in one direction: packets sent, and how many of them did not come.

    ``calls`` are those that both ends counted. ``lost`` may be negative where the ends disagree.
    """

    calls: int
    sent: int
    lost: int

    @property
    def percent(self) -> float:
        """Loss; NaN where nothing was sent."""
        return 100 * self.lost / self.sent if self.sent else math.nan


@dataclass(frozen=True)
class Figures:
    """Of all calls, or of a step's.

    Attributes:
        failures: calls by cause; each failed call has one.
        setup: INVITE → 200.
        to_post: the bot's end → the notification's arrival; to_bye: that → BYE.
        to_caller: RTP from the switch to the PBX, by sequence numbers there.
        to_switch: RTP from the PBX to the switch, by the switch's own counters: it passes over two frames
            where an utterance of the bot's begins or ends, so this is not the network's loss alone.
        unread: of each call, how many of those packets the switch has not counted.
        gap: of each call, the longest time without a packet from the switch.
        heard: share of what the callers said that the bot had.
        left_out: frames that the callers did not send in time, of how many.
        latest: the most seconds by which one was late.
    """

    begun: int
    answered: int
    handed_off: int
    completed: int
    failures: Counter[str]
    setup: Spread
    to_post: Spread
    to_bye: Spread
    to_caller: Flows
    to_switch: Flows
    unread: Spread
    gap: Spread
    heard: float | None
    left_out: int
    voiced: int
    latest: float

    @property
    def failed(self) -> int:
        """Calls that were lost."""
        return self.failures.total()


def figures(calls: Sequence[Call]) -> Figures:
    """All that can be counted of these calls."""
    failures = Counter(cause for call in calls if (cause := call.failure()) is not None)
    voices = [call.voice for call in calls if call.voice is not None]
    both = [(c, v, n) for c in calls if (v := c.voice) is not None and (n := c.packets_in) is not None]
    sent = [voice.sent_before(call.dialog.bye_at if call.dialog else None) for call, voice, _ in both]
    unread = [count - packets for count, (_, _, packets) in zip(sent, both, strict=True)]
    spoken = [(c.heard, c.voice.sent * 0.020) for c in calls if c.voice is not None and c.heard is not None]
    said = sum(seconds for _, seconds in spoken)
    received, lost = sum(v.received for v in voices), sum(v.lost for v in voices)
    return Figures(
        begun=sum(call.dialog is not None and call.dialog.invited_at is not None for call in calls),
        answered=sum(call.answered for call in calls),
        handed_off=sum(bool(call.posts) for call in calls),
        completed=len(calls) - failures.total(),
        failures=failures,
        setup=Spread.of(call.setup for call in calls if call.setup is not None),
        to_post=Spread.of(
            c.posts[0].at - c.bot_ended_at for c in calls if c.posts and c.bot_ended_at is not None
        ),
        to_bye=Spread.of(
            call.dialog.bye_at - call.posts[0].at
            for call in calls
            if call.posts and call.dialog and call.dialog.bye_at and call.dialog.ended_by == "pbx"
        ),
        to_caller=Flows(len(voices), received + lost, lost),
        to_switch=Flows(len(both), sum(sent), sum(unread)),
        unread=Spread.of(unread),
        gap=Spread.of(voice.longest for voice in voices if voice.received > 1),
        heard=sum(heard for heard, _ in spoken) / said if said else None,
        left_out=sum(voice.left_out for voice in voices),
        voiced=sum(voice.sent + voice.left_out for voice in voices),
        latest=max((voice.latest for voice in voices), default=0.0),
    )


@dataclass(frozen=True)
class StepResult:
    """A step of the plan. ``broken`` is the limit that it broke, None for a good one."""

    name: str
    planned: int
    figures: Figures
    at_once: int
    mean_up: float
    used: Used | None
    broken: str | None


@dataclass
class Symptoms:
    """What else was seen.

    Attributes:
        log_read: whether eslbot's log was there to be read.
        refusals: eslbot's own reasons for refusing, by its log.
        complaints: FreeSWITCH's errors, by their text.
        sipp: what SIPp said about itself.
        dropped: RTP packets that came to the generator and found its buffer full.
        udp_dropped: UDP packets that found a receiver's buffer full, of all processes of this machine.
        strays: RTP packets from an address that no answer named.
    """

    log_read: bool = False
    refusals: Counter[str] = field(default_factory=Counter)
    complaints: Counter[str] = field(default_factory=Counter)
    sipp: list[str] = field(default_factory=list)
    dropped: int = 0
    udp_dropped: int = 0
    strays: int = 0


def generator_limits(step: StepResult, symptoms: Symptoms) -> list[str]:
    """Why the generator itself may have been the limit of a step; empty where it was not."""
    found = []
    told, used = step.figures, step.used
    if told.begun < KEPT * step.planned:
        found.append(f"SIPp began {told.begun} of {step.planned} calls")
    if told.voiced and told.left_out > LEFT_OUT * told.voiced:
        found.append(f"the callers left out {told.left_out} of {told.voiced} frames, being late")
    if symptoms.dropped:
        found.append(f"{symptoms.dropped} RTP packets found the callers' buffer full")
    for group in (GENERATOR, BOT):
        share = used.busiest.get(group, 0.0) if used is not None else 0.0
        if share >= FULL:
            found.append(f"a process of the {group} used {share:.0%} of a core")
    return found


def causes(step: StepResult, symptoms: Symptoms) -> list[str]:
    """What broke a step, as far as it can be told: the most telling first."""
    found = [f"{number} × {cause}" for cause, number in step.figures.failures.most_common()]
    for why, number in symptoms.refusals.most_common():
        found.append(_REFUSALS.get(why, f"eslbot refused {number} with reason {why}"))
    own = sum(number for cause, number in step.figures.failures.items() if cause.startswith("503"))
    if symptoms.log_read and own > symptoms.refusals.total():
        found.append(
            "503 of FreeSWITCH's own: its session limits were reached, or no eslbot listener answered"
        )
    if not symptoms.complaints and any(cause.startswith("502") for cause in step.figures.failures):
        found.append("502 is what FreeSWITCH answers when freeswitch.rtp_ports is exhausted: see its log")
    for text, number in symptoms.complaints.most_common(3):
        remedy = next((told for sign, told in _COMPLAINTS.items() if sign in text), "")
        found.append(f"FreeSWITCH said {number} times: {text}{remedy}")
    found += symptoms.sipp
    if symptoms.udp_dropped:
        found.append(f"{symptoms.udp_dropped} UDP packets found the buffer of a process on this machine full")
    found += _processors(step.used)
    found += [f"the generator was at its limit: {text}" for text in generator_limits(step, symptoms)]
    return found


_REFUSALS = {
    "worker_full": "server.max_calls was reached: more workers, or a higher one",
    "workspace_full": "the workspace's max_calls was reached",
    "draining": "eslbot was told to end",
}
_COMPLAINTS = {
    "RTP ports available": " (freeswitch.rtp_ports is exhausted)",
    "Maximum Calls In Progress": " (max-sessions or sessions-per-second)",
    "Over Session": " (max-sessions or sessions-per-second)",
}


def _processors(used: Used | None) -> list[str]:
    if used is None:
        return []
    found = []
    share = used.machine / used.of
    if share >= FULL:
        parts = ", ".join(f"{name} {cores:.2f}" for name, cores in _by_size(used.cores))
        found.append(f"the machine's {used.of} cores were {share:.0%} busy (cores: {parts})")
    if used.busiest.get(ESLBOT, 0.0) >= FULL:
        found.append(f"an eslbot worker used {used.busiest[ESLBOT]:.0%} of a core: more workers")
    return found


def disturbance(step: StepResult) -> str | None:
    """What processes that are none of the test's used meanwhile, where it was much."""
    used = step.used
    others = used.machine - sum(used.cores.values()) if used is not None else 0.0
    return f"others on this machine used {others:.2f} cores meanwhile" if others >= OTHERS else None


def _by_size(cores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(cores.items(), key=lambda item: -item[1])

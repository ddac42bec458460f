"""The cases: calls on a :class:`benchmarks.speech.calls.Stage`, and what is measured on them.

Each returns its raw figures, as JSON has them: lists are samples, numbers are counts, and figures of several
rounds are put together by :func:`benchmarks.speech.measures.merge`. Times are seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from benchmarks.machine import Cpu
from benchmarks.speech.bot import Talk
from benchmarks.speech.calls import STAGGER, Heard, Line, Stage
from benchmarks.speech.hearing import Said, Utterance
from benchmarks.speech.measures import merge
from benchmarks.speech.subjects import NoSubject, kill
from eslbot.sim.audio import RATE

Figures = dict[str, Any]

#: How bots talk in the conversations: a workspace each, since a bot's pace is learnt by workspace.
TALKS = {
    "burst-1000": Talk(1.0, 1000),
    "burst-200": Talk(1.0, 200),
    "burst-20": Talk(1.0, 20),
    "paced-20": Talk(2.0, 20, paced=True),
    "paced-40": Talk(2.0, 40, paced=True),
    "jitter-100": Talk(10.0, 100, paced=True, jitter=30),
    "turn": Talk(0.5, 20, answers=True),
    "clear": Talk(3.0, 200, clear=(0.4, 0.9), rest=(0.4, 0.7)),
}
#: Calls of each; of the jittery one more, because its utterances are long.
CALLS = {**dict.fromkeys(TALKS, 2), "jitter-100": 3}
#: Workspaces of the other cases.
OTHERS = ("kill", "hup", "relay", "crowd-burst", "crowd-paced", "line", "full")
SEAMS = "seams"

#: Seconds around an utterance in which a frame that the caller loses is the utterance's.
EDGE = 0.25
#: Milliseconds of packets that a PBX may send.
PTIMES = (10, 30, 40, 60)
#: Seconds of a hold, and for which a PBX sends nothing.
HOLD, SILENT = 3.0, 5.0
#: Seconds after a machine was full until the latency must be back; and for how long that is watched.
BACK, WATCHED = 2.0, 8.0


def paced(kind: str) -> bool:
    """Whether a bot of this kind sends in real time: its first utterance teaches the relay its pace."""
    return kind.startswith(("paced", "jitter", "crowd-paced"))


def soundness(utterances: Iterable[Utterance]) -> Figures:
    """What was wrong with some utterances, counted."""
    found = {
        "utterances": 0,
        "gaps": 0,
        "dry": 0,
        "jumps": 0,
        "lost": 0,
        "repeated": 0,
        "foreign": 0,
        "unheard": 0,
    }
    for utterance in utterances:
        found["utterances"] += 1
        found["gaps"] += utterance.gaps
        found["dry"] += len(utterance.dry)
        found["jumps"] += utterance.jumps
        found["lost"] += utterance.lost
        found["repeated"] += utterance.repeated
        found["foreign"] += utterance.foreign
        found["unheard"] += utterance.began is None
    return found


def settled(call: Heard, kind: str) -> list[tuple[Said, Utterance]]:
    """A call's utterances that count: of one who speaks in real time those from the second on."""
    both = list(zip(call.said, call.utterances, strict=True))
    return both[1:] if paced(kind) else both


def around(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Utterances with their edges, those that then touch in one."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        begin, end = begin - EDGE, end + EDGE
        if found and begin <= found[-1][1]:
            begin, end = found[-1][0], max(end, found[-1][1])
            found.pop()
        found.append((begin, end))
    return found


def callers_sound(calls: Sequence[Heard]) -> Figures:
    """What the bots got of the callers."""
    return {
        "caller": {
            "frames": sum(len(call.up.frames) for call in calls),
            "lost_speaking": sum(call.up.lost_within(around(call.spoken)) for call in calls),
            "lost": sum(samples for call in calls for _, samples in call.up.lost),
            "repeated": sum(call.up.repeated for call in calls),
            "silent": [late for call in calls for late in call.up.latencies(call.spoken, speaking=False)],
            "speaking": [late for call in calls for late in call.up.latencies(call.spoken, speaking=True)],
        }
    }


def whole_calls(calls: Sequence[Heard]) -> Figures:
    """What bears on whether the measure itself was right, and on whose connections were lost."""
    return {
        "calls": len(calls),
        "rtp_lost": sum(call.down.lost for call in calls),
        "connections": sum(len(call.connections) for call in calls),
        "bot_late": [said.late for call in calls for said in call.said if said.late],
    }


class Cores:
    """Processor time from now on: of eslbot, its relays in that, and FreeSWITCH, in cores a call.

    Of the measure itself: in cores.
    """

    def __init__(self, stage: Stage, calls: int) -> None:
        self._calls = calls
        self._own, self._switch = Cpu(stage.site.own), Cpu([stage.site.freeswitch])
        self._relays = Cpu(stage.site.relays)
        self._measure = Cpu([stage.peer.pid, stage.bots.pid])

    def used(self) -> Figures:
        """Since then; lists of one."""
        by_call = {"own": self._own, "relays": self._relays, "freeswitch": self._switch}
        found: Figures = {name: [cpu.cores() / self._calls] for name, cpu in by_call.items()}
        return {**found, "measure": [self._measure.cores()]}


# -- conversations ---------------------------------------------------------------------------------------


def _talked(
    stage: Stage, kinds: Sequence[str], talks: Mapping[str, Talk], seconds: float, seed: int
) -> tuple[list[Heard], Figures]:
    """What calls with bots of these kinds have heard in so long, and the processor time meanwhile."""
    with stage.lines(kinds) as lines:
        time.sleep(1.0)  # what the set-up cost is no conversation
        cores = Cores(stage, len(lines))
        stage.talk(lines, [talks[kind] for kind in kinds], seconds, seed)
        time.sleep(seconds)
        used = cores.used()
        said = stage.bots.said(30)
        time.sleep(0.5)
        return stage.heard(lines, said), used


def conversation(stage: Stage, seconds: float, seed: int, kinds: Sequence[str]) -> Figures:
    """All kinds of bots talk for so long, some calls each, side by side."""
    tenants = [kind for kind in kinds for _ in range(CALLS[kind])]
    calls, used = _talked(stage, tenants, TALKS, seconds, seed)
    found = {
        "cores": used,
        **whole_calls(calls),
        **callers_sound(calls),
        "kinds": {},
        "turn": [],
        "clear": [],
    }
    for call in calls:
        kind = call.tenant
        counted = settled(call, kind)
        figures = {
            "first": [u.first for _, u in counted if u.first is not None],
            "headless": sum(u.first is None for _, u in counted),
            "sound": soundness(u for _, u in counted),
            "speaking": call.up.latencies(call.spoken, speaking=True),
        }
        found["kinds"] = merge(found["kinds"], {kind: figures})
        for said_, utterance in counted:
            asked = call.up.answers.get(said_.cause) if said_.cause is not None else None
            if asked is not None and utterance.began is not None and utterance.first is not None:
                found["turn"].append(utterance.began - asked)
            if said_.cleared is not None and utterance.began is not None and utterance.began < said_.cleared:
                assert utterance.over is not None
                found["clear"].append(max(0.0, utterance.over - said_.cleared))
    return found


def crowd(stage: Stage, count: int, seconds: float, seed: int) -> Figures:
    """Many calls that all speak at once, half of them in bursts of 200 ms, half paced in 40 ms."""
    talks = {
        "crowd-burst": Talk(4.0, 200, rest=(0.2, 0.5)),
        "crowd-paced": Talk(4.0, 40, paced=True, rest=(0.2, 0.5)),
    }
    tenants = [list(talks)[number % 2] for number in range(count)]
    calls, used = _talked(stage, tenants, talks, seconds, seed)
    found = {"cores": used, **whole_calls(calls), **callers_sound(calls), "kinds": {}}
    for call in calls:
        counted = settled(call, call.tenant)
        figures = {
            "first": [u.first for _, u in counted if u.first is not None],
            "sound": soundness(u for _, u in counted),
        }
        found["kinds"] = merge(found["kinds"], {call.tenant: figures})
    return found


# -- deaths ----------------------------------------------------------------------------------------------


def kills(stage: Stage, count: int, seed: int) -> Figures:
    """The controller of a call is killed in mid-word, again and again."""
    rng = random.Random(seed)
    with stage.lines(["kill"]) as lines:
        (line,) = lines
        stage.talk(lines, [Talk(0, 1000, ahead=True)], 3600, seed)
        time.sleep(2.0)
        took = []
        for _ in range(count):
            while len(stage.site.ask("serving")) < 2:
                time.sleep(0.02)  # another controller must be there; a fork tells nobody that it serves
            pid = stage.site.controller_with_a_call()
            at = kill(pid)
            stage.site.controller_with_a_call(not_=pid)
            took.append(time.time() - at)
            time.sleep(rng.uniform(0.2, 0.4))
            if line.left():
                break
        stage.bots.hush()
        said = stage.bots.said(10)
        time.sleep(6.0 + 0.03 * len(took))  # what was ahead is heard; each take-over is a tick of silence
        (call,) = stage.heard(lines, said)
    (only,) = call.said
    return {
        "kills": len(took),
        "took": took,
        "silences": [samples / RATE for samples in call.down.silences(only)],
        "dry": call.utterances[0].dry,
        "sound": soundness(call.utterances),
        "resumed": sum('"resumed"' in text for c in call.connections for _, text in c.texts),
        "seconds": only.samples / RATE,
        **whole_calls([call]),
        **callers_sound([call]),
    }


def hup(stage: Stage, count: int, seconds: float, seed: int) -> Figures:
    """A reload while many calls speak."""
    with stage.lines(["hup"] * count) as lines:
        before = set(stage.site.controllers)
        stage.talk(lines, [Talk(0, 200, ahead=True)] * count, seconds, seed)
        time.sleep(seconds / 3)
        stage.site.ask("hup")
        time.sleep(seconds * 2 / 3)
        said = stage.bots.said(30)
        new = set(stage.site.controllers) - before
        time.sleep(5.5)
        calls = stage.heard(lines, said)
    return {
        "new_controllers": len(new),
        "sound": soundness(u for call in calls for u in call.utterances),
        "silences": [s / RATE for call in calls for s in call.down.silences(call.said[0])],
        **whole_calls(calls),
        **callers_sound(calls),
    }


def relay_deaths(stage: Stage, count: int, rounds: int, seed: int) -> Figures:
    """All relays are killed while calls speak what was said long before."""
    found: Figures = {"back": [], "hears": [], "kept": 0, "lost_customers": 0, "kills": 0}
    for number in range(rounds):
        if not stage.site.relays:
            raise NoSubject("there is no relay to be killed")
        lines = [_dialled(stage, "relay") for _ in range(count)]
        stage.join(lines)
        stage.talk(lines, [Talk(6.0, 200, rest=(0.1, 0.1))] * count, 6.5, seed + number)
        time.sleep(2.0)
        at = time.time()
        for pid in stage.site.relays:
            kill(pid)
        found["kills"] += 1
        for line in lines:
            with contextlib.suppress(RuntimeError):  # it did not come back: it shows below
                stage.bots.wait(line.crt, 5, 2, timeout=6.0)
        said = stage.bots.said(20)
        time.sleep(0.5)
        stage.talk(lines, [Talk(1.0, 200, rest=(0.1, 0.1))] * count, 1.5, seed + number)
        again = stage.bots.said(20)
        time.sleep(1.5)
        both = {line.crt: said[line.crt] + again[line.crt] for line in lines}
        calls = stage.heard(lines, both)
        kept = [stage.hang_up(line) for line in lines]
        later = [call.connections[1:] for call in calls]
        figures = {
            "back": [later[0].at - at for later in later if later],
            "hears": [later[0].frames[0][0] - at for later in later if later and later[0].frames],
            "resumed": sum('"resumed"' in text for some in later for c in some for _, text in c.texts),
            "said_before": soundness(call.utterances[0] for call in calls),
            "said_after": soundness(call.utterances[1] for call in calls if len(call.utterances) > 1),
            "kept": sum(kept),
            "lost_customers": kept.count(False),
            **whole_calls(calls),
            **callers_sound(calls),
        }
        found = merge(found, figures)
    return found


def _dialled(stage: Stage, tenant: str) -> Line:
    time.sleep(STAGGER)
    return stage.dial(tenant)


# -- odd lines -------------------------------------------------------------------------------------------


def odd_lines(stage: Stage, seed: int) -> Figures:
    """Holds, packets of other lengths, and a silent PBX, side by side."""
    seconds = 14.0
    packets = [
        (f"{ptime} ms, {'said' if told else 'not said'}", ptime, told)
        for told in (True, False)
        for ptime in PTIMES
    ]
    names = ["hold sendonly", "hold inactive", "silent", *(name for name, _, _ in packets)]
    lines = [_dialled(stage, "line") for _ in range(3)]
    for _, ptime, told in packets:
        lines.append(stage.dial("line", ptime=ptime, offered=ptime if told else 0))
    try:
        stage.join(lines)
        talks = [Talk(1.5, 200, rest=(0.3, 0.5))] * 2 + [Talk(0, 200, ahead=True)]
        talks += [Talk(3.0, 200, rest=(0.4, 0.7))] * len(packets)
        time.sleep(0.5)
        stage.talk(lines, talks, seconds, seed)
        time.sleep(3.0)
        held = time.time()
        for line, direction in zip(lines, ("sendonly", "inactive"), strict=False):
            line.call.reinvite(line.call.offer(direction=direction))
        for line in lines[1:3]:
            line.voice.pause()
        time.sleep(held + HOLD - time.time())
        for line in lines[:2]:
            line.call.reinvite(line.call.offer())
            line.voice.say(line.call.remote)
        back = time.time()
        time.sleep(held + SILENT - time.time())
        lines[2].voice.say()
        heard_again = time.time()
        said = stage.bots.said(30)
        time.sleep(5.0)
        calls = dict(zip(names, stage.heard(lines, said), strict=True))
    finally:
        kept = [stage.hang_up(line) for line in lines]
    found: Figures = {"lines": {}, "lost_customers": kept.count(False), **whole_calls(list(calls.values()))}
    for name, call in calls.items():
        counted = list(zip(call.said, call.utterances, strict=True))
        since = 0.0
        if name.startswith("hold"):
            since = back + 0.5
            counted = [
                (s, u) for s, u in counted if s.at + s.samples / RATE < held - 0.1 or s.at > back + 0.2
            ]
        elif name == "silent":
            since = heard_again + 0.5
        found["lines"][name] = _of_line(call, [u for _, u in counted], since)
    return found


def _of_line(call: Heard, counted: Sequence[Utterance], since: float) -> Figures:
    """What counts of one of them: some utterances, and of the caller what came behind ``since``."""
    return {
        "sound": soundness(counted),
        "first": [u.first for u in counted if u.first is not None],
        "speed": [u.speed for u in counted if u.began is not None],
        "caller_lost": sum(samples for at, samples in call.up.lost if at > since),
        "caller_late": [late for at, late in call.up.frames if at > since],
    }


class Seams:
    """One long call beside the others; its bot and caller are processes of their own."""

    def __init__(self, stage: Stage, seconds: float, seed: int) -> None:
        self.stage, self.seconds = stage, seconds
        self.line = stage.dial(SEAMS)
        stage.join([self.line])
        self.begun = time.monotonic()
        stage.talk([self.line], [Talk(0, 1000, ahead=True)], seconds, seed)

    def finish(self) -> Figures:
        """Wait for its end, and what was heard."""
        time.sleep(max(0.0, self.begun + self.seconds - time.monotonic()))
        said = self.stage.bots.said(30)
        time.sleep(6.0)
        (call,) = self.stage.heard([self.line], said)
        kept = self.stage.hang_up(self.line)
        return {
            "seconds": call.said[0].samples / RATE,
            "sound": soundness(call.utterances),
            "silences": [s / RATE for s in call.down.silences(call.said[0])],
            "speed": [u.speed for u in call.utterances],
            "lost_customers": 0 if kept else 1,
            **whole_calls([call]),
            **callers_sound([call]),
        }


# -- a full machine --------------------------------------------------------------------------------------


def full_machine(stage: Stage, side: str, seconds: float, calls: int, seed: int) -> Figures:
    """Two busy loops on one core, which they share with FreeSWITCH or with the relays."""
    pids = [stage.site.freeswitch] if side == "freeswitch" else stage.site.relays
    if not pids:
        raise NoSubject("there is no relay")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise NoSubject("it takes two cores")
    with stage.lines(["full"] * calls) as lines:
        talk = Talk(0.4, 200, rest=(0.2, 0.4))
        stage.talk(lines, [talk] * calls, seconds + 3.0 + WATCHED, seed)
        time.sleep(3.0)
        with _busy(pids, cores[0], seconds):
            begun = time.time()
            time.sleep(seconds)
        ended = time.time()
        said = stage.bots.said(seconds + WATCHED + 30)
        time.sleep(1.0)
        heard = stage.heard(lines, said)
    found: Figures = {**whole_calls(heard), **callers_sound(heard)}
    for name, since, until in (
        ("before", 0.0, begun),
        ("during", begun, ended),
        ("after", ended + BACK, float("inf")),
    ):
        some = [
            (s, u)
            for call in heard
            for s, u in zip(call.said, call.utterances, strict=True)
            if since <= s.at < until
        ]
        found[name] = {
            "sound": soundness(u for _, u in some),
            "first": [u.first for _, u in some if u.first is not None],
            "caller_late": [late for call in heard for at, late in call.up.frames if since <= at < until],
            "caller_lost": sum(n for call in heard for at, n in call.up.lost if since <= at < until),
        }
    return found


@contextmanager
def _busy(pids: Iterable[int], core: int, seconds: float) -> Iterator[None]:
    """Confine processes to a core, with two busy loops that end by themselves."""
    loop = "import sys,time\nend=time.monotonic()+float(sys.argv[1])\nwhile time.monotonic()<end: pass"
    allowed = [(task, os.sched_getaffinity(task)) for pid in pids for task in _tasks(pid)]
    for task, _ in allowed:
        _confine(task, {core})
    loops = [subprocess.Popen([sys.executable, "-c", loop, str(seconds)]) for _ in range(2)]
    for process in loops:
        _confine(process.pid, {core})
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()
        widest = set().union(*(cores for _, cores in allowed))
        for pid in pids:
            for task in _tasks(pid):
                _confine(task, widest)


def _tasks(pid: int) -> list[int]:
    try:
        return [thread.id for thread in psutil.Process(pid).threads()]
    except psutil.Error:
        return []


def _confine(task: int, cores: set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(task, cores)

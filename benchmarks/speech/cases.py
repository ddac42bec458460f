"""The scenarios: whole calls on a :class:`eslbot.sim.lab.Lab`, each returning what it measured."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from benchmarks.machine import Cpu
from benchmarks.speech import signals
from benchmarks.speech.measures import (
    Heard,
    Track,
    Uplink,
    UplinkLoss,
    assign_losses,
    dry,
    first_packet,
    heard,
    is_loud,
    last_packet,
    latencies,
    longest_silence,
    pauses,
    tone_seconds,
    uplink,
)
from eslbot.sim.audio import RATE
from eslbot.sim.bot import GOODBYE, GREETING, Bot, BotCall
from eslbot.sim.lab import Lab, Tenant
from eslbot.sim.pbx import CallResult, Pbx, PbxCall
from eslbot.sim.processes import children
from eslbot.sim.proxy import TcpProxy
from eslbot.sim.rtp import PTIME

#: A bot that does what the benchmark says, and one that says everything in one breath.
SPEAKER, LAST_WORD = "speaker", "last-word"

#: Milliseconds by which a chunk is sent earlier or later than it should be.
JITTER_MS = 30

#: Seconds by which a chunk may be sent later than meant.
LATE = 0.020

#: Seconds: to be answered and connected; until speech that was sent must be over; a call of this benchmark.
SET_UP_LIMIT, PLAY_LIMIT, CALL_LIMIT = 15.0, 12.0, 240.0

#: Seconds without speech after which it is over: where all of it was heard, and where some is missing. And
#: how long a bot waits between two utterances at least.
QUIET, STALLED, REST = 0.3, 3.0, 0.25


class Unmeasured(Exception):
    """A case could not be measured; the text says why."""


def tenants(bot: Bot) -> list[Tenant]:
    """The workspaces of the lab; their bot is ``bot``, which keeps all of a call's audio."""
    keys = {"first_audio_timeout": "120s"}
    return [
        Tenant(SPEAKER, bot.url("hold?greeting_ms=0"), bot_keys=keys),
        Tenant(LAST_WORD, bot.url("one-breath"), bot_keys=keys),
    ]


@dataclass
class Talk:
    """Chunks to be sent in one call: messages, when (seconds from the start), and when they were (epoch)."""

    bot: BotCall
    messages: Sequence[str]
    offsets: Sequence[float]
    sent: list[float] = field(default_factory=list)


def paced(chunk_ms: int, count: int, rng: random.Random) -> list[float]:
    """When to send ``count`` chunks: in real time, each up to 30 ms early or late, in order."""
    offsets: list[float] = []
    for number in range(count):
        at = (JITTER_MS + number * chunk_ms + rng.uniform(-JITTER_MS, JITTER_MS)) / 1000
        offsets.append(max(at, offsets[-1] if offsets else 0.0))
    return offsets


def speak(talks: Sequence[Talk]) -> float:
    """Send all chunks of all talks when they are due; the most by which one was late, in seconds."""
    plan = sorted(
        (offset, number, index)
        for number, talk in enumerate(talks)
        for index, offset in enumerate(talk.offsets)
    )
    begun = time.monotonic()
    latest = 0.0
    for offset, number, index in plan:
        if (ahead := begun + offset - time.monotonic()) > 0:
            time.sleep(ahead)
        elif offset:  # of a burst the first is due at once, and the others as soon as may be
            latest = max(latest, -ahead)
        talk = talks[number]
        talk.sent.append(time.time())
        talk.bot.send_text(talk.messages[index])
    return latest


class Conversation:
    """A call that is up: the PBX's end and the bot's."""

    def __init__(self, call: PbxCall, bot: BotCall) -> None:
        self.call, self.bot = call, bot

    @property
    def track(self) -> Track:
        """What the caller's side has received so far."""
        return Track.of(self.call.recording.arrivals)

    def wait_heard(self, begin: float, seconds: float, limit: float) -> float | None:
        """Wait until ``seconds`` of speech since ``begin`` (epoch) have been heard and it is quiet.

        Also over is speech that stalls for three seconds, and all after ``limit`` seconds. When the last
        packet of speech came, or None without any.
        """
        deadline = time.monotonic() + limit
        last, packets, seen = None, 0, 0
        while time.monotonic() < deadline and self.call.result is None:
            arrivals = self.call.recording.arrivals
            for arrival in arrivals[seen:]:
                if arrival.at >= begin and is_loud(arrival.packet):
                    last, packets = arrival.at, packets + 1
            seen = len(arrivals)
            if last is not None:
                all_heard = packets * PTIME >= seconds - PTIME
                if time.time() - last >= (QUIET if all_heard else STALLED):
                    break
            time.sleep(0.02)  # packets are recorded by another thread, which tells nobody of each
        return last

    def uplink(self) -> Uplink:
        """What the bot has received of the caller so far."""
        return uplink(self.bot.audio(), list(self.bot.arrivals))


@dataclass(frozen=True)
class Utterance:
    """One piece of speech through the path.

    ``sent`` and ``heard_seconds`` in seconds of sound; ``gaps`` in the payloads of at least 10 ms, with their
    sum ``silence``; ``dry`` how often a telephone with a 40 ms buffer ran dry; ``pauses`` without a packet
    for more than 60 ms; ``first`` seconds from the first chunk's sending to its first packet; ``steady`` the
    same for all chunks, where nothing is missing or repeated; ``packets_lost`` RTP sequence numbers.
    ``faults`` are the first gaps (with their length) and jumps (None): seconds from the first sample heard.
    """

    name: str
    sent: float
    heard_seconds: float
    gaps: int
    silence: float
    jumps: int
    dry: int
    pauses: int
    first: float | None
    steady: list[float]
    up_edges: int
    up_within: int
    up_outside: int
    up_late: float
    packets_lost: int
    faults: list[tuple[float, float | None]]


class Bench:
    """The cases, on a lab that is up.

    Args:
        lab: with the tenants of :func:`tenants`.
        bot: theirs.
        proxy: a port before eslbot's own in the lab's controllers; free.
        rng: of all jitter and pauses.
        codec: ``PCMU`` or ``PCMA``.
        kind: of the bot's chunks: ``raw``, ``pcmu`` or ``pcma``.
    """

    def __init__(
        self,
        lab: Lab,
        bot: Bot,
        proxy: tuple[str, int],
        rng: random.Random,
        *,
        codec: str = "PCMU",
        kind: str = "raw",
    ) -> None:
        self.lab, self.bot, self.proxy, self.rng = lab, bot, proxy, rng
        self.codec, self.kind = codec, kind
        self.problems: list[str] = []  # what did not go by the book, once a time

    # -- calls ------------------------------------------------------------------------------------

    def place(self, tenant: str = SPEAKER, pbx: Pbx | None = None) -> PbxCall:
        """A call under way, in which the caller says numbered frames."""
        return (pbx or self.lab.pbx).call(
            crt_object_id=f"bench-{uuid4().hex[:12]}",
            workspace_id=self.lab.tenants[tenant].id,
            caller_tone=signals.numbered_frames(),  # type: ignore[arg-type]
            codec=self.codec,
            timeout=CALL_LIMIT,
        )

    def join(self, call: PbxCall) -> Conversation:
        """The call once it is answered and its bot is there and hears."""
        try:
            call.wait_answered(SET_UP_LIMIT)
            bot = self.bot.wait_for_call(
                lambda c: c.headers.get("X-CRT-Object-ID") == call.crt_object_id, SET_UP_LIMIT
            )
            bot.wait(lambda c: c.audio_frames > 10, SET_UP_LIMIT)
        except (TimeoutError, RuntimeError) as error:
            call.hang_up()
            raise Unmeasured(f"the call did not come up: {error}") from error
        return Conversation(call, bot)

    def finish(self, conversations: Iterable[Conversation]) -> list[CallResult]:
        """Let the bots end, the customers be handed off and the PBX hang up."""
        conversations = list(conversations)
        for conversation in conversations:
            if not conversation.bot.closed and conversation.bot.end_message is None:
                conversation.bot.end({})
        return [self.result(conversation.call) for conversation in conversations]

    def result(self, call: PbxCall) -> CallResult:
        """What became of the call; what did not go by the book is noted."""
        try:
            result = call.wait(30)
        except TimeoutError as error:
            call.hang_up()
            raise Unmeasured(str(error)) from error
        if not result.completed:
            self.problems.append(
                f"a call did not end as it should: ended by {result.ended_by}, cause {result.cause}, "
                f"{result.error}"
            )
        outcomes = [n.properties.get("outcome") for n in self.lab.ameyo.requests_for(call.crt_object_id)]
        if result.completed and outcomes != ["bot_ended"]:
            self.problems.append(f"a call was handed off with outcome {outcomes} instead of one 'bot_ended'")
        if call._session is not None and call._session.left_out:
            self.problems.append(
                f"this machine was too busy: the PBX left out {call._session.left_out} of the caller's "
                "frames; they count as lost in the uplink"
            )
        return result

    @contextmanager
    def conversations(self, count: int, stagger: float = 0.1) -> Iterator[list[Conversation]]:
        """``count`` calls that are up; they are ended behind the block."""
        calls = []
        for _ in range(count):
            calls.append(self.place())
            time.sleep(stagger)
        try:
            joined = [self.join(call) for call in calls]
            yield joined
        except BaseException:
            for call in calls:
                call.hang_up()
            raise
        self.finish(joined)

    def speak(self, talks: Sequence[Talk]) -> None:
        """Send all chunks; it is noted where they were later than meant."""
        latest = speak(talks)
        if latest > LATE:
            self.problems.append(
                "this machine was too busy: a chunk was sent more than 20 ms later than meant"
            )

    # -- speech -----------------------------------------------------------------------------------

    def utterance(
        self, conversation: Conversation, name: str, talk: Talk, seconds: float, step: int
    ) -> Utterance:
        """What became of ``talk``, the only one of its call; ``step`` is its chunk in samples."""
        begin = talk.sent[0]
        track = conversation.track.between(begin, float("inf"))
        speech = heard(track.samples)
        packets = track.speech_packets()
        sent = [(at, index * step) for index, at in enumerate(talk.sent)]
        burst = talk.offsets[-1] == 0.0
        up = conversation.uplink()
        loss = _losses(up, [(float(packets[0]), float(packets[-1]))] if len(packets) else [])
        inside = (
            track.at[(track.at >= packets[0]) & (track.at <= packets[-1])] if len(packets) else track.at[:0]
        )
        first = first_packet(track, begin, float("inf"))
        return Utterance(
            name=name,
            sent=seconds,
            heard_seconds=speech.seconds,
            gaps=len(speech.gaps),
            silence=sum(gap.length for gap in speech.gaps) / RATE,
            jumps=len(speech.jumps),
            dry=len(dry(track)),
            pauses=len(pauses(inside)),
            first=first - begin if first is not None else None,
            steady=[] if burst else latencies(track, speech, sent),
            up_edges=sum(loss.edges),
            up_within=loss.within,
            up_outside=loss.outside,
            up_late=up.late,
            packets_lost=conversation.call.recording.lost(),
            faults=_faults(speech),
        )

    def speech(self, cases: Sequence[tuple[int, bool]], seconds: float, at_once: int) -> list[Utterance]:
        """One utterance of ``seconds`` a case, (chunk in ms, burst); ``at_once`` calls at the same time."""
        found = []
        for start in range(0, len(cases), at_once):
            some = cases[start : start + at_once]
            with self.conversations(len(some)) as conversations:
                talks = []
                for conversation, (chunk_ms, burst) in zip(conversations, some, strict=True):
                    texts = signals.chunks(signals.speech(seconds), chunk_ms, self.kind)
                    offsets = [0.0] * len(texts) if burst else paced(chunk_ms, len(texts), self.rng)
                    talks.append(Talk(conversation.bot, texts, offsets))
                _rest(self.rng)
                self.speak(talks)
                for conversation, talk in zip(conversations, talks, strict=True):
                    conversation.wait_heard(talk.sent[0], seconds, seconds + PLAY_LIMIT)
                time.sleep(REST)
                for conversation, talk, (chunk_ms, burst) in zip(conversations, talks, some, strict=True):
                    name = f"{chunk_ms} ms {'burst' if burst else 'paced'}"
                    step = chunk_ms * RATE // 1000
                    found.append(self.utterance(conversation, name, talk, seconds, step))
        return found

    # -- latency ----------------------------------------------------------------------------------

    def latency(self, chunk_ms: int, count: int, seconds: float = 0.3) -> Latency:
        """``count`` utterances of ``seconds``, one after the other, in chunks of ``chunk_ms``."""
        rng = random.Random(self.rng.random())
        texts = signals.chunks(signals.speech(seconds), chunk_ms, self.kind)
        sendings: list[float] = []
        with self.conversations(1) as (conversation,):
            for _ in range(count):
                _rest(rng)
                talk = Talk(conversation.bot, texts, paced(chunk_ms, len(texts), rng))
                self.speak([talk])
                sendings.append(talk.sent[0])
                conversation.wait_heard(talk.sent[0], seconds, seconds + 5)
            time.sleep(REST)
            track, up = conversation.track, conversation.uplink()
        first, seconds_heard, spoken = [], [], []
        missed = broken = 0
        for begin, end in zip(sendings, [*sendings[1:], float("inf")], strict=True):
            came = first_packet(track, begin, end)
            if came is None:
                missed += 1
                continue
            first.append(came - begin)
            speech = heard(track.between(begin, end).samples)
            seconds_heard.append(speech.seconds)
            broken += not speech.whole
            last = last_packet(track, begin, end)
            assert last is not None
            spoken.append((came, last))
        return Latency(
            chunk_ms, seconds, count, first, seconds_heard, missed, broken, _losses(up, spoken), up
        )

    # -- barge-in ---------------------------------------------------------------------------------

    def barge_in(self, count: int, seconds: float = 3.0, chunk_ms: int = 100) -> BargeIn:
        """``count`` times a burst of speech that is cleared after 0.5 to 1.5 s."""
        rng = random.Random(self.rng.random())
        texts = signals.chunks(signals.speech(seconds), chunk_ms, self.kind)
        found = BargeIn(count)
        begins: list[tuple[float, float]] = []
        with self.conversations(1) as (conversation,):
            bot = conversation.bot
            for number in range(count):
                answered = len(bot.messages_of("cleared"))
                talk = Talk(bot, texts, [0.0] * len(texts))
                self.speak([talk])
                time.sleep(rng.uniform(0.5, 1.5))
                at = time.time()
                bot.clear()
                try:
                    bot.wait(lambda call, had=answered: len(call.messages_of("cleared")) > had, 1.0)
                    found.cleared.append(bot.messages_of("cleared")[-1].at - at)
                except TimeoutError:
                    found.unanswered += 1
                conversation.wait_heard(talk.sent[0], 0.0, seconds + 3)
                begins.append((talk.sent[0], at))
                if found.unanswered > 2 and not found.cleared:
                    found.tried = number + 1
                    break  # it is not going to
                _rest(rng)
            else:
                found.tried = count
            time.sleep(REST)
            track = conversation.track
        ends = [begin for begin, _ in begins[1:]] + [float("inf")]
        for (begin, at), end in zip(begins, ends, strict=True):
            first, last = first_packet(track, begin, end), last_packet(track, begin, end)
            if first is None or last is None or first > at:
                found.not_speaking += 1
                continue
            found.first.append(first - begin)
            found.stopped.append(max(0.0, last - at))
        return found

    # -- the event socket -------------------------------------------------------------------------

    def traffic(self, chunk_sizes: Sequence[int], seconds: float) -> list[Traffic]:
        """The event socket's bytes a second of speech, a call a chunk size, all at the same time."""
        found = []
        with (
            TcpProxy(self.proxy, self.lab.listen) as proxy,
            self.conversations(len(chunk_sizes)) as conversations,
        ):
            talks, passages = [], []
            for conversation, chunk_ms in zip(conversations, chunk_sizes, strict=True):
                texts = signals.chunks(signals.speech(seconds), chunk_ms, self.kind)
                talks.append(Talk(conversation.bot, texts, paced(chunk_ms, len(texts), self.rng)))
                passage = proxy.find(conversation.call.crt_object_id)
                if passage is None:
                    raise Unmeasured("the switch did not use the counting proxy's port")
                passages.append(passage)
            time.sleep(1.0)  # set-up is over
            before = [passage.counts for passage in passages]
            self.speak(talks)
            for conversation, talk in zip(conversations, talks, strict=True):
                conversation.wait_heard(talk.sent[0], seconds, seconds + PLAY_LIMIT)
            for chunk_ms, passage, (down, up) in zip(chunk_sizes, passages, before, strict=True):
                found.append(
                    Traffic(
                        chunk_ms,
                        (passage.from_client - down) / seconds / 1000,
                        (passage.from_server - up) / seconds / 1000,
                    )
                )
        return found

    # -- many calls -------------------------------------------------------------------------------

    def crowd(self, count: int, seconds: float, chunk_ms: int = 100, idle: float = 3.0) -> Crowd:
        """``count`` calls that all speak at the same time; and the processor time of that."""
        assert self.lab.service is not None
        workers = children(self.lab.service.pid)
        switch = self.lab.real_switch
        texts = signals.chunks(signals.speech(seconds), chunk_ms, self.kind)
        with self.conversations(count) as conversations:
            talks = [Talk(c.bot, texts, paced(chunk_ms, len(texts), self.rng)) for c in conversations]
            time.sleep(1.0)  # set-up is over
            resting = Cpu(workers)
            time.sleep(idle)
            idle_cores = resting.cores()
            speaking, of_switch = Cpu(workers), Cpu([switch.pid] if switch else [])
            self.speak(talks)
            speaking_cores, switch_cores = speaking.cores(), of_switch.cores()
            for conversation, talk in zip(conversations, talks, strict=True):
                conversation.wait_heard(talk.sent[0], seconds, seconds + PLAY_LIMIT)
            time.sleep(REST)
            utterances = [
                self.utterance(conversation, f"call {number}", talk, seconds, chunk_ms * RATE // 1000)
                for number, (conversation, talk) in enumerate(zip(conversations, talks, strict=True), 1)
            ]
        return Crowd(
            utterances, speaking_cores / count, idle_cores / count, switch_cores / count if switch else None
        )

    # -- a whole call -----------------------------------------------------------------------------

    def whole_call(self, down: float = 3.0, bye_delay: float = 2.0) -> list[Stage]:
        """The longest time without RTP in each stage of a call; Ameyo is away for ``down`` seconds of it."""
        with Pbx(self.lab.sip, ameyo=self.lab.ameyo, bye_delay=bye_delay) as pbx:
            call = self.place(pbx=pbx)
            conversation = self.join(call)
            marks = [("connecting", 0.0)]
            for name, seconds, rest in (("greeting", 1.0, 2.0), ("speech", 2.0, 0.0)):
                texts = signals.chunks(signals.speech(seconds), 100, self.kind)
                talk = Talk(conversation.bot, texts, paced(100, len(texts), self.rng))
                self.speak([talk])
                marks.append((name, talk.sent[0]))
                last = conversation.wait_heard(talk.sent[0], seconds, seconds + PLAY_LIMIT)
                if rest and last is not None:
                    marks.append(("pause", last))
                    time.sleep(rest)
            self.lab.ameyo.down()
            try:
                conversation.bot.end({})
                marks.append(("ended, Ameyo away", time.time()))
                time.sleep(down)
            finally:
                self.lab.ameyo.up()
            accepted = self.lab.ameyo.wait_accepted(call.crt_object_id, 30)
            marks.append(("accepted, waiting for BYE", accepted.answered_at or accepted.at))
            result = self.result(call)
        if result.answered_at is None or result.bye_at is None:
            raise Unmeasured("the call has no answer or no BYE")
        marks[0] = ("connecting", result.answered_at)
        times = conversation.track.at
        ends = [begin for _, begin in marks[1:]] + [result.bye_at]
        return [
            Stage(name, end - begin, longest_silence(times, begin, end))
            for (name, begin), end in zip(marks, ends, strict=True)
        ]

    # -- the last word ----------------------------------------------------------------------------

    def last_words(self, count: int, stagger: float = 0.25) -> list[tuple[float, float]]:
        """Of each call of a bot that says all in one breath: seconds heard of 0.7 s, and of the last 0.3."""
        calls = []
        for _ in range(count):
            calls.append(self.place(LAST_WORD))
            time.sleep(stagger)
        found = []
        for call in calls:
            samples = Track.of(self.result(call).recording.arrivals).samples
            found.append((tone_seconds(samples, GREETING), tone_seconds(samples, GOODBYE)))
        return found

    def together(self, *cases: Callable[[], object]) -> list[object]:
        """Run several cases at the same time; the first failure is raised when all are over."""
        with ThreadPoolExecutor(len(cases)) as pool:
            return [future.result() for future in [pool.submit(case) for case in cases]]


@dataclass(frozen=True)
class Latency:
    """Utterances of ``seconds`` in chunks of ``chunk_ms``.

    ``first``: seconds from sending the first chunk to the first packet with speech. ``heard``: seconds of
    each. ``missed`` were not heard at all, ``broken`` had gaps or jumps.
    """

    chunk_ms: int
    seconds: float
    count: int
    first: list[float]
    heard: list[float]
    missed: int
    broken: int
    loss: UplinkLoss
    up: Uplink


@dataclass
class BargeIn:
    """``cleared``: seconds until the answer; ``stopped``: until the last packet with speech.

    ``first`` is the latency of the bursts, which all but the first time follow a ``clear``.
    """

    count: int
    tried: int = 0
    cleared: list[float] = field(default_factory=list)
    unanswered: int = 0
    not_speaking: int = 0
    first: list[float] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Traffic:
    """Kilobytes (1,000 bytes) a second of speech, from the switch and from eslbot."""

    chunk_ms: int
    from_switch: float
    from_eslbot: float

    @property
    def total(self) -> float:
        """Both directions."""
        return self.from_switch + self.from_eslbot


@dataclass(frozen=True)
class Crowd:
    """Many calls at once; processor time in cores a call."""

    utterances: list[Utterance]
    worker_cores: float
    idle_cores: float
    switch_cores: float | None


@dataclass(frozen=True)
class Stage:
    """A stage of a call: how long it was, and its longest time without a packet; seconds."""

    name: str
    length: float
    silence: float


def _faults(speech: Heard, most: int = 20) -> list[tuple[float, float | None]]:
    gaps: list[tuple[int, int | None]] = [(gap.start, gap.length) for gap in speech.gaps]
    found = sorted(gaps + [(jump, None) for jump in speech.jumps], key=lambda fault: fault[0])
    return [
        ((start - speech.first) / RATE, length / RATE if length is not None else None)
        for start, length in found[:most]
    ]


def _losses(up: Uplink, spoken: Sequence[tuple[float, float]]) -> UplinkLoss:
    return assign_losses(up.lost, spoken)


def _rest(rng: random.Random) -> None:
    """A bot's pause, whatever the 20 ms of the switch."""
    time.sleep(REST + rng.uniform(0.0, 0.2))

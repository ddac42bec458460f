"""The scenarios. Each returns what it measured, the unflattering figures included."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from signal import SIGABRT, SIGKILL, SIGTERM
from uuid import uuid4

from websockets.exceptions import ConnectionClosed

from benchmarks.reliability.measures import Gap, spoken
from benchmarks.reliability.results import (
    Away,
    Death,
    Deploys,
    Kill,
    Storm,
    TakeOvers,
    Unmeasured,
    uplink_losses,
)
from benchmarks.speech import signals
from eslbot.sim.audio import tone
from eslbot.sim.bot import GOODBYE, GREETING, Bot, BotCall
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import Answer, PbxCall, Stall
from eslbot.sim.pbx.voices import Voices
from eslbot.sim.service import send, wait_gone
from tests.support.audit import Ending
from tests.support.chaos.faults import Faults
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab
from tests.support.proxy import Passage

#: Bots that do what the benchmark says; that say one tone without a break and end; and that say one, listen,
#: and say another; that say one for a long time.
ORDERED, SPEAKS, CONVERSES, DRONES = "ordered", "speaks", "converses", "drones"
#: Seconds of each tone that a bot says, and milliseconds by which it is sent ahead: its own late chunks are
#: not heard.
SAID = {SPEAKS: {GREETING: 4.0}, CONVERSES: {GREETING: 2.0, GOODBYE: 2.0}}
AHEAD_MS = 500

#: Seconds that the last say their tone.
DRONE = 40.0
#: Seconds: for a call to come up, for another controller to have it, for a call to end by its own.
SET_UP_LIMIT, TAKE_OVER_LIMIT, END_LIMIT = 15.0, 15.0, 60.0
#: Seconds for all calls to end behind a storm: long enough to see the slowest.
STORM_LIMIT = 120.0
#: Seconds between a worker's being there and the next kill: at any phase of FreeSWITCH's 20 ms.
BEFORE_KILL = (0.05, 0.25)
_LOOK = 0.0005
#: What calls are at when FreeSWITCH dies; each a process of its own, so not too many.
DEATHS = {
    "listening": (1, SIGKILL),
    "speaking": (10, SIGABRT),
    "held by the PBX": (10, SIGKILL),
    "handing off": (10, SIGKILL),
    "waiting for the agent": (10, SIGKILL),
}
#: The same of many calls, which one SIPp places and whose RTP is another process's.
CROWDS = {"parked": (ORDERED, SIGKILL), "whose bots speak": (DRONES, SIGABRT)}


class Bench:
    """The cases; each starts a lab of its own.

    Args:
        folder: for configurations and logs.
        switch: as of :class:`Lab`.
        workers: of eslbot.
        rng: of all that chance decides.
        say: told what goes on.
    """

    def __init__(
        self, folder: Path, switch: str, workers: int, rng: random.Random, say: Callable[[str], None]
    ) -> None:
        self.folder, self.switch, self.workers, self.rng, self.say = folder, switch, workers, rng, say
        self.switch_name = ""

    @contextmanager
    def lab(self, name: str, *, proxied: bool) -> Iterator[tuple[Lab, Witness]]:
        """A lab and its witness. With ``proxied`` it is known which call a killed worker had."""
        keys = {"first_audio_timeout": "120s"}
        tenants = [
            Tenant(ORDERED, "hold?greeting_ms=200", bot_keys=keys),
            Tenant(SPEAKS, f"drone?seconds=4&ahead_ms={AHEAD_MS}", bot_keys=keys),
            Tenant(
                CONVERSES,
                f"talk?greeting_ms=2000&listen_ms=2500&goodbye_ms=2000&ahead_ms={AHEAD_MS}",
                bot_keys=keys,
            ),
            Tenant(DRONES, f"drone?seconds={DRONE:g}&ahead_ms={AHEAD_MS}", bot_keys=keys),
        ]
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        lab = Lab(folder, tenants, switch=self.switch, workers=self.workers, proxied=proxied, refreshes=True)
        lab.bot = Bot(keep_audio=900.0)
        self.switch_name = lab.switch_name
        with lab:
            yield lab, Witness(lab)

    # -- kills in one call --------------------------------------------------------------------------------

    def take_overs(self, count: int, *, speaking: bool, spacing: float = 0.0) -> TakeOvers:
        """``count`` kills of the worker that has a call, one at a time; another one is always up.

        They are as close together as the workers come up, and ``spacing`` seconds more.
        """
        found = TakeOvers(count, speaking)
        with self.lab("kills-speaking" if speaking else "kills-parked", proxied=True) as (lab, witness):
            crt = f"kills-{uuid4().hex[:12]}"
            # Whatever the take-over does, the call ends by order: not before its last kill.
            lab.ameyo.script(crt, [503], repeat_last=True)
            call = self._place(witness, ORDERED, crt, 1200.0)
            bot = _join(lab, call)
            with _speech(bot) if speaking else contextlib.nullcontext():
                for number in range(count):
                    time.sleep(spacing)
                    try:
                        found.kills.append(self._kill(lab, witness, call, bot))
                    except (TimeoutError, Unmeasured) as error:
                        found.error = f"after {number} kills: {error}"
                        break
                    if number % 50 == 49:
                        self.say(f"  {number + 1} kills")
            found.bots = len(_bots(lab, crt))
            if not speaking:
                time.sleep(1.0)  # the last frames
                found.left_out = call.session.left_out if call.session is not None else 0
                found.lost, found.lost_elsewhere = uplink_losses(bot, found.kills)
            lab.ameyo.script(crt, [])
            _end_all(lab, [crt])
            with contextlib.suppress(TimeoutError):
                found.handed_off = call.wait(END_LIMIT).cause == "accepted"
            lab.services[0].wait_serving()
            found.account = witness.account()
        return found

    def _kill(self, lab: Lab, witness: Witness, call: PbxCall, bot: BotCall) -> Kill:
        lab.services[0].wait_serving()
        time.sleep(self.rng.uniform(*BEFORE_KILL))
        passage, pid = _holder(lab, witness, call)
        known = set(lab.proxies[0].passages)
        with witness.fault("kill worker", "controller", [call.crt_object_id], f"worker {pid}"):
            at, begun = time.time(), time.monotonic()
            send(pid, SIGKILL)
        deadline = begun + TAKE_OVER_LIMIT
        while True:
            if call.result is not None:
                raise Unmeasured(f"the call is over: {call.result.ended_by}, {call.result.cause}")
            if time.monotonic() > deadline:
                raise Unmeasured(f"no new controller within {TAKE_OVER_LIMIT:g} s")
            for new in [p for p in list(lab.proxies[0].passages) if p not in known]:
                connected, answered = new.first_from_server, new.first_from_client
                released = passage.closed
                if connected is not None and answered is not None and released is not None:
                    times = (released, new.opened, connected, answered)
                    return Kill(at, *(when - begun for when in times), bot_stays=not bot.closed)
            time.sleep(_LOOK)

    # -- nobody there -------------------------------------------------------------------------------------

    def away(self, seconds: float, count: int) -> Away:
        """No eslbot at all in mid-call, then back."""
        with self.lab("away", proxied=False) as (lab, witness):
            calls = [
                self._place(witness, ORDERED, f"away-{n}-{uuid4().hex[:8]}", 180.0) for n in range(count)
            ]
            for call in calls:
                _join(lab, call)
            ids = {call.crt_object_id for call in calls}
            with witness.fault("eslbot away", "controller"):
                lab.services[0].kill()
                time.sleep(seconds)
                alive = sum(call.result is None for call in calls)
                back = time.time()
                lab.services[0].start()
            took = _wait_taken_over(lab, ids, back, END_LIMIT)
            _end_all(lab, sorted(ids))
            witness.wait_over(END_LIMIT)
            return Away(seconds, count, alive, took, witness.account())

    def storm(self, count: int, every: float, seconds: float) -> Storm:
        """``count`` calls up; a random worker is killed ``every`` so many seconds, for ``seconds``."""
        with self.lab("storm", proxied=True) as (lab, witness):
            calls = []
            for number in range(count):
                calls.append(self._place(witness, ORDERED, f"storm-{number:03d}", seconds + 150.0))
                time.sleep(0.1)
            for call in calls:
                _join(lab, call)
            faults = Faults(witness, self.rng)
            ends = sorted((self.rng.uniform(0.0, seconds), call.crt_object_id) for call in calls)
            begun, kills = time.monotonic(), 0
            for step in range(round(seconds / every)):
                time.sleep(max(0.0, begun + step * every - time.monotonic()))
                kills += faults.kill_worker() is not None
                while ends and ends[0][0] <= time.monotonic() - begun:
                    _end_all(lab, [ends.pop(0)[1]])
            lab.services[0].wait_serving()
            _end_all(lab, [call.crt_object_id for call in calls])
            witness.wait_over(STORM_LIMIT)
            return Storm(kills, witness.account())

    # -- FreeSWITCH itself --------------------------------------------------------------------------------

    def death(self, stage: str, most: int) -> Death:
        """FreeSWITCH dies once, and is started at once, as its unit does."""
        count, signum = DEATHS[stage]
        count = min(count, most)
        with self.lab(f"death-{stage.replace(' ', '-')}-{count}", proxied=False) as (lab, witness):
            lab.pbx.bye_delay = 6.0 if stage == "waiting for the agent" else lab.pbx.bye_delay
            calls = []
            for number in range(count):
                crt = f"death-{number:03d}"
                if stage == "handing off":  # the first POST is under way when FreeSWITCH dies, or the second
                    lab.ameyo.script(crt, [503] * (number % 2) + [Stall(4.0, Answer(200))])
                calls.append(self._place(witness, ORDERED, crt, 180.0))
                time.sleep(0.1)
            bots = [_join(lab, call) for call in calls]
            ids = [call.crt_object_id for call in calls]
            if stage == "held by the PBX":
                for call in calls:
                    call.offer("sendonly")
            if stage in ("handing off", "waiting for the agent"):
                _end_all(lab, ids)
                _wait_logged(lab, "bot_part_over" if stage == "handing off" else "hand_off_accepted", ids)
            with contextlib.ExitStack() as speech:
                if stage == "speaking":
                    for bot in bots:
                        speech.enter_context(_speech(bot))
                time.sleep(1.0)  # the youngest call's row is written
                at = _crash(lab, witness, calls, signum)
                time.sleep(1.0)  # of what comes behind it
                unbroken = sum(not bot.closed for bot in bots)
            _end_all(lab, ids)
            witness.wait_over(END_LIMIT)
            posts = [post for post in lab.ameyo.requests if post.crt_object_id in ids]
            outcomes = Counter(str(post.properties.get("outcome")) for post in posts if post.accepted)
            account = witness.account()
            over = stage in ("handing off", "waiting for the agent")  # with the bots
            return Death(
                stage,
                count,
                sorted(_first_packets(calls, at)),
                0 if over else unbroken,
                0 if over else count,
                len(posts),
                dict(outcomes),
                account.count(Ending.HANDED_OFF),
                account.byes,
                account,
            )

    def crowd_dies(self, name: str, count: int) -> Death:
        """The same under ``count`` calls; each call's longest time without a packet is FreeSWITCH's death."""
        tenant, signum = CROWDS[name]
        with self.lab(f"crowd-{tenant}", proxied=False) as (lab, _), Voices() as voices:
            load = lab.pbx.begin_load(
                count, 4.0, workspace_id=lab.tenants[tenant].id, crt_prefix="crowd", voices=voices
            )
            bots = _bots_of(lab, load.crt_object_ids)
            time.sleep(1.0)  # the youngest call's row is written
            lab.crash_switch(signum)
            lab.wait_switch_ready()
            if tenant == ORDERED:
                time.sleep(3.0)  # of what comes behind it
                unbroken = sum(not bot.closed for bot in bots)
                _end_all(lab, load.crt_object_ids)
            result = load.finish(DRONE + END_LIMIT)
            if tenant != ORDERED:
                unbroken = sum(bot.close_code in (None, 1000) for bot in bots)
            report = load.voices_report()
            posts = [post for post in lab.ameyo.requests if post.crt_object_id in load.crt_object_ids]
            outcomes = Counter(str(post.properties.get("outcome")) for post in posts if post.accepted)
            back = [voice.longest for voice in report.voices.values() if voice.longest > 0.5]
            return Death(
                name,
                count,
                sorted(back),
                unbroken,
                len(bots),
                len(posts),
                dict(outcomes),
                result.completed,
                result.unexpected_byes,
            )

    # -- deploys ------------------------------------------------------------------------------------------

    def deploys(self, name: str, rate: float, seconds: float, pause: float) -> Deploys:
        """``rate`` calls a second of speaking bots under ``name``: ``hup``, ``rolling`` or ``calm``.

        ``pause`` seconds lie between two deploys.
        """
        with self.lab(name, proxied=False) as (lab, witness):
            over = threading.Event()
            made: list[float] = []
            failures: list[BaseException] = []
            deploy = {"hup": self._hup, "rolling": self._rolling, "calm": None}[name]

            def work() -> None:
                try:
                    while deploy is not None and not over.wait(pause):
                        deploy(lab, witness, over, made)
                except BaseException as error:
                    failures.append(error)
                    raise

            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            begun = time.monotonic()
            for number in range(round(rate * seconds)):
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
                tenant = (SPEAKS, CONVERSES)[number % 2]
                self._place(witness, tenant, f"{name}-{tenant}-{number:04d}", 90.0)
            over.set()
            thread.join(END_LIMIT)
            lab.services[0].wait_serving()
            witness.wait_over(END_LIMIT)
            if failures:
                raise Unmeasured(f"a deploy could not be made: {failures[0]!r}")
            account = witness.account()
            gaps, cut = _heard(witness.calls)
            return Deploys(name, seconds, made, gaps, cut, account)

    def _hup(self, lab: Lab, witness: Witness, over: threading.Event, made: list[float]) -> None:
        before = lab.services[0].worker_pids()
        with witness.fault("HUP", "reload"):
            made.append(time.time())
            lab.services[0].hup()
            # All old ones gone: the next one must not come upon this one.
            if not wait_gone(before, 45.0):
                raise TimeoutError("the workers before HUP are still there after 45 s")
            lab.services[0].wait_serving()

    def _rolling(self, lab: Lab, witness: Witness, over: threading.Event, made: list[float]) -> None:
        for pid in lab.services[0].wait_serving():
            if over.is_set():
                return
            with witness.fault("TERM of a worker", "reload", detail=f"worker {pid}"):
                made.append(time.time())
                send(pid, SIGTERM)
                if not wait_gone([pid], 45.0):
                    raise TimeoutError("a worker is still there 45 s after TERM")
                lab.services[0].wait_serving()

    def _place(self, witness: Witness, tenant: str, crt: str, timeout: float) -> PbxCall:
        call = witness.lab.pbx.call(
            crt_object_id=crt,
            workspace_id=witness.lab.tenants[tenant].id,
            caller_tone=signals.numbered_frames(),
            timeout=timeout,
        )
        return witness.placed(call, tenant)


@contextmanager
def _speech(bot: BotCall) -> Iterator[None]:
    """While in the block the bot talks, without a pause, until its connection is gone."""
    over = threading.Event()

    def talk() -> None:
        with contextlib.suppress(ConnectionClosed):
            while not over.is_set():
                bot.say(tone(GREETING, 1.0))

    thread = threading.Thread(target=talk, name="speech", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def _join(lab: Lab, call: PbxCall) -> BotCall:
    """The bot's end of a call, once the bot hears the caller."""
    try:
        call.wait_answered(SET_UP_LIMIT)
        bot = lab.bot.wait_for_call(
            lambda c: c.headers.get("X-CRT-Object-ID") == call.crt_object_id, SET_UP_LIMIT
        )
        bot.wait(lambda c: c.audio_frames > 10 and bool(c.said), SET_UP_LIMIT)
    except (TimeoutError, RuntimeError) as error:
        raise Unmeasured(f"a call did not come up: {error}") from error
    return bot


def _bots(lab: Lab, crt: str) -> list[BotCall]:
    return [bot for bot in lab.bot.calls if bot.headers.get("X-CRT-Object-ID") == crt]


def _end_all(lab: Lab, crts: Sequence[str]) -> None:
    """The bots of these calls are finished, where they are still asked; each says so once."""
    wanted = set(crts)
    for bot in lab.bot.calls:
        if bot.headers.get("X-CRT-Object-ID") in wanted and not (bot.closed or bot.end_message):
            with contextlib.suppress(ConnectionClosed):
                bot.end({})


def _holder(lab: Lab, witness: Witness, call: PbxCall) -> tuple[Passage, int]:
    """The call's connection and the worker that has it."""
    deadline = time.monotonic() + TAKE_OVER_LIMIT
    while time.monotonic() < deadline:
        if call.result is not None:
            raise Unmeasured(f"the call is over: {call.result.ended_by}, {call.result.cause}")
        for pid in lab.services[0].worker_pids():
            for passage in witness.passages_of(pid):
                if witness.call_of(passage) == call.crt_object_id:
                    return passage, pid
        time.sleep(0.005)
    raise Unmeasured("no worker has the call")


def _crash(lab: Lab, witness: Witness, calls: Sequence[PbxCall], signum: int) -> float:
    """FreeSWITCH dies, and is back with its calls; when it died."""
    with witness.fault("crash FreeSWITCH", "crash", [call.crt_object_id for call in calls]):
        at = time.time()
        lab.crash_switch(signum)
        for call in calls:
            with contextlib.suppress(TimeoutError):
                call.wait_taken_up(1, 0.1 if call.result is not None else 20.0)
        lab.wait_switch_ready()
    return at


def _bots_of(lab: Lab, crts: Sequence[str]) -> list[BotCall]:
    """The bots of all these calls, once they are there and hear their callers."""
    deadline = time.monotonic() + END_LIMIT
    wanted = set(crts)
    while True:
        bots = [bot for bot in lab.bot.calls if bot.headers.get("X-CRT-Object-ID") in wanted]
        if len(bots) == len(wanted) and all(bot.audio_frames > 10 for bot in bots):
            return bots
        if time.monotonic() > deadline:
            raise Unmeasured(f"{len(bots)} of {len(wanted)} calls came up")
        time.sleep(0.05)


def _wait_logged(lab: Lab, event: str, crts: Sequence[str]) -> None:
    """Wait until eslbot has told ``event`` of each of them."""
    deadline = time.monotonic() + END_LIMIT
    missing = set(crts)
    while missing and time.monotonic() < deadline:
        missing -= {str(line.get("crt_object_id")) for line in lab.log_lines() if line["event"] == event}
        time.sleep(0.05)
    if missing:
        raise Unmeasured(f"{len(missing)} calls did not come to {event}")


def _first_packets(calls: Sequence[PbxCall], died: float) -> Iterator[float]:
    """Seconds from FreeSWITCH's death to each call's next packet; those of the old one are over in 100 ms."""
    for call in calls:
        later = (arrival.at - died for arrival in call.recording.arrivals if arrival.at > died + 0.1)
        if (first := next(later, None)) is not None:
            yield first


def _wait_taken_over(lab: Lab, crts: set[str], since: float, timeout: float) -> list[float]:
    """Seconds from ``since`` until each call was taken over, by eslbot's log, which is polled."""
    deadline = time.monotonic() + timeout
    seen: dict[str, float] = {}
    while seen.keys() != crts and time.monotonic() < deadline:
        for line in lab.log_lines():
            if line.get("event") == "call_taken_over" and line.get("crt_object_id") in crts:
                told = datetime.fromisoformat(line["timestamp"]).timestamp()
                seen.setdefault(line["crt_object_id"], told - since)
        time.sleep(0.05)
    return sorted(seen.values())


def _heard(calls: Sequence[PbxCall]) -> tuple[list[tuple[str, Gap]], list[tuple[str, float]]]:
    gaps: list[tuple[str, Gap]] = []
    cut: list[tuple[str, float]] = []
    for call in calls:
        if not call.answered:
            continue
        said = SAID[call.crt_object_id.split("-")[1]]
        found = spoken(call.recording.arrivals, tuple(said))
        gaps += [(call.crt_object_id, gap) for gap in found.gaps]
        missing = sum(said.values()) - sum(found.seconds)
        if missing > 0.060 * len(said) + 1e-9:
            cut.append((call.crt_object_id, missing))
    return gaps, cut

"""Carries a plan out on a lab, and gives the account of it and what grew."""

from __future__ import annotations

import dataclasses
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak.bots import BotProcess
from benchmarks.soak.callers import NOTIFIED, Batch, Callers, Heard
from benchmarks.soak.clock import Drift, drift, windows
from benchmarks.soak.faults import SoakFaults
from benchmarks.soak.growth import JUDGED_FROM, WARM, Growth, Limit, growth
from benchmarks.soak.log import Log
from benchmarks.soak.picture import COLOURS
from benchmarks.soak.plan import batches, faults
from benchmarks.soak.samples import CALLS, CLOCK, LEAST, LINES, PERIOD, Samples, read, series
from benchmarks.soak.tally import TOLD, Tally
from eslbot.sim.pbx import Voices
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.service import LabError
from tests.support.audit import Account, Fault, Leftovers, Placed, account
from tests.support.chaos.plan import PlannedFault
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab

#: Seconds between two looks, and two lines of progress.
LOOK, PROGRESS = 0.5, 15.0
#: Seconds for all calls to end behind the last fault, and behind Ctrl-C.
END_LIMIT, STOP_LIMIT = 75.0, 15.0
#: Seconds in which a relay sweeps the line files of one that was killed (eslbot/relay/worker.py), and some.
SWEPT_DUE = 165.0
#: Seconds before and behind FreeSWITCH's death in which nobody is held and no key pressed: it would be lost.
QUIET = (10.0, 5.0)
#: Seconds of a long call.
ANCHOR_SECONDS = (15.0, 300.0)
#: Seconds before and behind a call in which a fault may have hit it.
AROUND = 90.0
#: How much a process may grow over the last half, and how much its RTP clock may drift.
LIMITS = {
    "rss_kb": ("memory", Limit(2048, 0.0, "kB")),
    "descriptors": ("descriptors", Limit(5, 0.02, "")),
    "threads": ("threads", Limit(5, 0.02, "")),
}
#: Seconds in which FreeSWITCH fills up: left alone with 16 calls up it grew for seven minutes, then no more.
SWITCH_WARM = 420.0
FILES, DRIFT_PPM, DRIFT_FROM = Limit(5, 0.02, ""), 20.0, 120.0

#: Calls whose line files are known by name when all is over: those of two hours.
NAMED = 20_000

Say = Callable[[str], None]


@dataclass
class Result:
    """All of a run. ``seconds``: of calls and faults; ``stopped`` says why it ended before its plan."""

    seed: int
    seconds: float = 0.0
    stopped: str | None = None
    tally: Tally = field(default_factory=Tally)
    faults: list[Fault] = field(default_factory=list)
    left: Leftovers = field(default_factory=Leftovers)
    heard: Heard = field(default_factory=Heard)
    content: Counter[str] = field(default_factory=Counter)
    up: list[int] = field(default_factory=list)
    complaints: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    grown: list[Growth] = field(default_factory=list)
    drift: Drift | None = None
    judged: bool = False

    @property
    def broken(self) -> list[str]:
        """Every broken promise, a line each."""
        told = list(self.tally.guilty)
        if self.judged:
            told += [str(one) for one in self.grown if one.broken]
            if (
                self.drift is not None
                and self.drift.seconds >= DRIFT_FROM
                and abs(self.drift.ppm) > DRIFT_PPM
            ):
                told.append(f"the RTP clock drifts by {self.drift.ppm:+.1f} ppm")
        return told


class Soak:
    """One run.

    Args:
        lab: started, its tenants those of :func:`benchmarks.soak.plan.tenants`.
        wanted: calls to be up at a time.
        csv: where the samples go.
    """

    def __init__(
        self,
        lab: Lab,
        bot: BotProcess,
        seed: int,
        seconds: float,
        wanted: int,
        names: Sequence[str],
        disk: bool,
        clock: Path | None,
        csv: Path,
        voices: Voices,
        say: Say,
    ) -> None:
        self._lab, self._bot, self._seed, self._seconds, self._say = lab, bot, seed, seconds, say
        self._wanted, self._csv, self._voices = wanted, csv, voices
        self.witness = Witness(lab)
        self._faults = SoakFaults(self.witness, bot, random.Random(f"whom {seed}"), disk, clock)
        self._planned = faults(seed, seconds, [name for name in names if name in self._faults.by_name])
        self._log = Log(lab.log_file)
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._clocks: dict[int, list[tuple[float, float]]] = {}
        #: The last calls, whose line files may be left to be swept.
        self._named: deque[Placed] = deque(maxlen=NAMED)
        self._crash_at: list[float] = []
        #: The epoch second of the first sample.
        self.begun = time.time()
        self.result = Result(seed)

    @property
    def names(self) -> list[str]:
        """The faults that will be done."""
        return list(self._planned)

    def run(self) -> Result:
        """Calls and faults, until the time is over, Ctrl-C, or a fault cannot be done; then the account."""
        result, lab = self.result, self._lab
        anchor = min(ANCHOR_SECONDS[1], max(ANCHOR_SECONDS[0], self._seconds / 4))
        callers = Callers(
            lab, self._seed, self._wanted, batches(self._seed), anchor, self._voices, self._anchored
        )

        def counts() -> dict[str, float]:
            return {CALLS: callers.up, LINES: sum(1 for _ in lab.lines.iterdir())}

        period = min(PERIOD, max(0.25, self._seconds / LEAST))
        with Samples(self._csv, self._processes, counts, period) as samples:
            self._samples, self.begun = samples, samples.begun
            begun = time.monotonic()
            threads = self._start_faults(begun)
            try:
                self._drive(callers, begun)
            except KeyboardInterrupt:
                result.stopped = "interrupted"
            except (RuntimeError, OSError, LabError) as error:  # hours are not lost with it
                result.stopped = f"it could not go on: {error}"
                self._find_guilty([result.stopped])
            result.seconds = time.monotonic() - begun
            self._over.set()
            self._end(callers, threads)
        self._growth()
        return result

    # -- while it runs ------------------------------------------------------------------------------------

    def _start_faults(self, begun: float) -> list[threading.Thread]:
        threads = []
        for name, planned in self._planned.items():
            if name == "crash FreeSWITCH":
                at = begun
                for fault in planned:
                    at += fault.pause
                    self._crash_at.append(at)
            threads.append(
                threading.Thread(target=self._havoc, args=(planned, begun), name=name, daemon=True)
            )
            threads[-1].start()
        return threads

    def _havoc(self, planned: Sequence[PlannedFault], begun: float) -> None:
        due = begun
        try:
            for fault in planned:
                due += fault.pause
                if self._over.wait(max(0.0, due - time.monotonic())):
                    return
                if fault.name != "kill worker":
                    self._say(f"{fault.name}" + (f" ({fault.seconds:.1f} s)" if fault.seconds else ""))
                self._faults.by_name[fault.name](fault.seconds)
        except BaseException as error:
            self._failures.append(error)
            raise

    def _drive(self, callers: Callers, begun: float) -> None:
        tell = begun + PROGRESS
        while (now := time.monotonic()) - begun < self._seconds:
            if self._failures:
                raise RuntimeError(f"a fault could not be done: {self._failures[0]!r}") from self._failures[0]
            callers.look(busy=not self._crash_near(now))
            self._settle(callers)
            self.result.up.append(callers.up)
            callers.place()
            if now >= tell:
                tell += PROGRESS
                self._progress(callers, now - begun)
            time.sleep(LOOK)

    def _crash_near(self, now: float) -> bool:
        before, behind = QUIET
        return any(-behind <= at - now <= before for at in self._crash_at)

    def _settle(self, callers: Callers, *, all_of_them: bool = False) -> None:
        self._log.read()
        for batch in callers.settled(all_of_them=all_of_them):
            self._judge(batch)

    def _judge(self, batch: Batch) -> None:
        calls, content = [], self.result.content
        for call in batch.calls:
            told, saw = self._log.take(call.crt_object_id), self._bot.take(call.crt_object_id)
            calls.append(
                dataclasses.replace(
                    call,
                    bot_ended_at=saw.ended_at or saw.closed_at,
                    promised={"agent_group": "soak"} if saw.reached else None,
                    dispositions=told.dispositions,
                    take_overs=told.take_overs,
                    call_id=told.call_id,
                )
            )
            if batch.planned.keys and call.answered:
                content["keys pressed"] += len(batch.planned.keys)
                content["keys told"] += len(saw.keys)
            if batch.held and call.answered:
                content["holds"] += 1
                content["holds told"] += saw.holds
        self._named.extend(call for call in calls if call.call_id)
        begin = min((call.invited_at for call in calls if call.invited_at), default=time.time() - AROUND)
        near = [fault for fault in list(self.witness.faults) if fault.until >= begin - AROUND]
        posts = [self.witness.post(request) for request in self._lab.ameyo.take(batch.crts)]
        found = account(calls, posts, near, Leftovers(), patience=NOTIFIED)
        self.result.tally.add(found)
        self._tell(found.guilty)

    def _find_guilty(self, texts: Sequence[str]) -> None:
        """Promises that were broken."""
        self.result.tally.find_guilty(texts)
        self._tell(texts)

    def _tell(self, guilty: Sequence[str]) -> None:
        """At once, not only in the account: somebody may want to look while it is fresh."""
        if self.result.tally.broken <= TOLD:
            for text in guilty:
                self._say(f"GUILTY {text}")

    def _progress(self, callers: Callers, seconds: float) -> None:
        tally = self.result.tally
        told = f"{tally.calls} calls accounted for, {tally.broken} broken promises"
        self._say(f"{callers.up} calls up; {told}; {len(self.witness.faults)} faults")

    def _anchored(self, number: int, arrivals: Sequence[Arrival]) -> None:
        told = windows(arrivals)
        self._samples.windows(number, told)

    def _processes(self) -> Mapping[str, Sequence[int]]:
        service = self._lab.services[0]
        found: dict[str, list[int | None]] = {
            "arbiter": [service.process.pid if service.process is not None else None],
            "worker": list(service.worker_pids()),
            "page": [service.page_pid()],
            "relay parent": [service.relay_parent_pid()],
            "relay": list(service.relay_pids()),
            "FreeSWITCH": [self._lab.switch_pid],
        }
        return {what: [pid for pid in pids if pid is not None] for what, pids in found.items()}

    # -- when it is over ----------------------------------------------------------------------------------

    def _end(self, callers: Callers, threads: Sequence[threading.Thread]) -> None:
        result = self.result
        limit = END_LIMIT
        callers.end_anchor()
        if result.stopped is not None:
            limit = STOP_LIMIT
            callers.hang_up()
        self._say("the calls end")
        for thread in threads:
            thread.join(limit)
        for service in self._lab.services:  # a killed worker's successor may still be on its way
            try:
                service.wait_serving()
            except TimeoutError as error:
                self._find_guilty([f"eslbot does not serve any more: {str(error).splitlines()[0]}"])
        deadline = time.monotonic() + limit
        while callers.under_way and time.monotonic() < deadline:
            callers.look()
            self._settle(callers)
            time.sleep(LOOK)
        for batch in callers.under_way:
            batch.overdue = True
        callers.hang_up()
        callers.look()
        left = self._left()
        self._settle(callers, all_of_them=True)
        result.heard = callers.heard
        result.left = dataclasses.replace(left, internal_errors=self._log.exceptions)
        result.complaints, result.tracebacks = self._log.events, self._log.tracebacks
        result.content.update(self._bot.totals)
        result.content["re-INVITEs of a new FreeSWITCH answered"] = callers.taken_up
        result.content["holds without an answer"] = callers.unanswered_holds
        result.faults = list(self.witness.faults)
        late = [self.witness.post(request) for request in self._lab.ameyo.requests]
        rest = account([], late, self.witness.faults, dataclasses.replace(result.left, files=[]))
        swept = self._files_left()
        self._find_guilty([*rest.general, *swept.general])
        self._find_guilty([f"{crt}: never over" for batch in callers.under_way for crt in batch.crts])

    def _files_left(self) -> Account:
        """What is to be said of the line files, those of relays that were killed having been swept."""
        deadline = time.monotonic() + (SWEPT_DUE if self.result.stopped is None else 0.0)
        while True:
            files = self._left().files
            found = account(self._named, [], self.witness.faults, Leftovers(files=files))
            if not found.general or time.monotonic() > deadline:
                self.result.left = dataclasses.replace(self.result.left, files=files)
                return found
            time.sleep(LOOK)

    def _left(self) -> Leftovers:
        try:
            return self.witness.left()
        except OSError as error:
            self._find_guilty([f"eslbot does not say what is left: {error}"])
            return Leftovers()

    def _growth(self) -> None:
        rows, result = read(self._csv), self.result
        end = result.seconds
        begin = end / 2
        result.judged = end - begin >= JUDGED_FROM
        for what in COLOURS:
            warm = SWITCH_WARM if what == "FreeSWITCH" else WARM
            for column, (name, limit) in LIMITS.items():
                points = series(rows, what, column)
                found = growth(f"{what}, {name}", points, begin, end, limit, warm=warm)
                result.grown += [found] if found is not None else []
        lines = growth(LINES, series(rows, LINES, "count"), begin, end, FILES, warm=0.0)
        result.grown += [lines] if lines is not None else []
        clocks = series(rows, CLOCK, "count").values()
        last = [[(at, ms / 1000) for at, ms in points if at >= begin] for points in clocks]
        result.drift = drift([points for points in last if points])


def document(result: Result) -> str:
    """All of it as JSON."""

    def plain(value: Any) -> Any:
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}

    return json.dumps({"broken": result.broken, **plain(result)}, indent=1, default=plain)

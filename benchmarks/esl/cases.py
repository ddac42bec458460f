"""What is measured at the event socket. Each case returns what the generator told, by subject and round."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from benchmarks.esl.generator import Generator, GeneratorError, Result
from benchmarks.esl.subjects import (
    TENANT_HOST,
    TOKEN,
    Running,
    Subject,
    SubjectError,
    cpu_seconds,
    eslbot_service,
    running,
    subjects,
)
from benchmarks.outcome import CannotRun, Data
from benchmarks.plan import Plan
from eslbot.sim.addresses import free_port
from eslbot.sim.pbx import AmeyoServer
from eslbot.sim.pbx.notification import Notification

#: What Ameyo does in a storm, as the generator names it.
AWAY = {"refused": "connection refused", "hanging": "accepts, never answers", "503": "503 at once"}
#: Seconds that held calls are left alone before their memory is taken, and between two looks at a storm.
SETTLE, LOOK = 2.0, 0.25
#: Seconds for which a controller that is slow may still bring calls to where they are held.
HOLD_PATIENCE = 30.0
#: Calls whose spread over two workers is counted, and how fast they come.
SPREAD, SPREAD_RATE = 400, 100


class EventSocketCases:
    """The cases. ``names`` are the subjects wanted, all where it is empty; ``say`` is told what goes on."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        genesis: Path | None,
        names: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.folder = plan, folder
        self._genesis, self._names, self._say = genesis, names, say
        self._port, self._ameyo_port, self._relay_port = free_port(), free_port(), free_port()
        self._cores = sorted(os.sched_getaffinity(0))

    @cached_property
    def _generator(self) -> Generator:
        for program, package in (("cc", "gcc, libc6-dev"), ("taskset", "util-linux")):
            if shutil.which(program) is None:
                raise CannotRun(f"there is no {program} (Debian: {package})")
        if len(self._cores) < 2:
            raise CannotRun("one core: the load generator would measure itself; it needs a core of its own")
        return Generator(self.folder, self._cores[-1], self._ameyo_port, self._relay_port)

    @cached_property
    def _subjects(self) -> list[Subject]:
        found = subjects(self.folder, self._port, self._ameyo_port, self._relay_port, self._genesis)
        return [subject for subject in found if not self._names or subject.name in self._names]

    @property
    def _eslbot(self) -> Subject:
        return eslbot_service(
            self.folder, self._port, f"http://127.0.0.1:{self._ameyo_port}", self._relay_port
        )

    # -- beside others ------------------------------------------------------------------------------------

    def throughput(self) -> Data:
        """As many calls as each can do, a fixed number in flight."""
        plan = self.plan
        return self._in_turns(
            "throughput",
            lambda run: _with_cpu(run, lambda: self._throughput(plan.seconds)),
            in_flight=plan.in_flight,
        )

    def paced(self) -> Data:
        """Latencies at a rate that all can do."""
        return self._in_turns("paced", self._paced, rate=self.plan.rate)

    def burst(self) -> Data:
        """Many calls in one moment."""

        def measure(run: Running) -> Result:
            self._warm_up()
            burst = self.plan.burst
            return _with_cpu(
                run, lambda: self._generator.run("burst", self._port, calls=burst, talk=self.plan.talk_ms)
            )

        return self._in_turns("burst", measure, calls=self.plan.burst)

    def hold(self) -> Data:
        """Memory and idle processor time of held calls. C is left out: its buffers are of a fixed size."""
        generator = self._generator
        counts: dict[str, dict[str, Result]] = {}
        failures: list[list[str]] = []
        for count in self.plan.held:
            for subject in [subject for subject in self._subjects if subject.name != "C"]:
                self._say(f"hold {count:,}: {subject.name}")
                try:
                    with running(subject, self.folder, self._cores[:1], self._port) as run:
                        found = self._hold(run, generator, count)
                except (GeneratorError, SubjectError) as error:
                    failures.append([subject.name, f"{count:,} held: {error}"])
                    continue
                counts.setdefault(str(count), {})[subject.name] = found
        return {"counts": counts, "rate": self.plan.held_rate, "failures": failures}

    def _in_turns(self, case: str, measure: Callable[[Running], Result], **about: object) -> Data:
        _ = self._generator  # what is missing is told before anything is started
        rounds: dict[str, list[Result]] = {}
        failures: list[list[str]] = []
        for number in range(self.plan.rounds):
            # Nobody is always the one behind the same other.
            for subject in self._subjects[:: -1 if number % 2 else 1]:
                self._say(f"{case}, round {number + 1}: {subject.name}")
                try:
                    with running(subject, self.folder, self._cores[:1], self._port) as run:
                        rounds.setdefault(subject.name, []).append(measure(run))
                except (GeneratorError, SubjectError) as error:
                    failures.append([subject.name, f"round {number + 1}: {error}"])
        return {**about, "rounds": rounds, "failures": failures}

    # -- eslbot alone -------------------------------------------------------------------------------------

    def workers(self) -> Data:
        """One worker and two, on the same cores; how the kernel spreads calls over two."""
        generator, plan = self._generator, self.plan
        apart = len(self._cores) >= 3
        rounds: dict[str, list[Result]] = {"1": [], "2": []}
        spread: list[list[int]] = []
        url = f"http://127.0.0.1:{self._ameyo_port}"
        for number in range(plan.rounds):
            for count in (1, 2):
                self._say(f"workers, round {number + 1}: {count}")
                subject = eslbot_service(self.folder, self._port, url, self._relay_port, workers=count)
                with running(subject, self.folder, self._cores[:2], self._port) as run:
                    before = [cpu_seconds(pid) for pid in run.workers()]
                    result = _with_cpu(run, lambda: self._throughput(plan.seconds))
                    result["worker_cpu_seconds"] = [
                        cpu_seconds(pid) - used for pid, used in zip(run.workers(), before, strict=True)
                    ]
                    rounds[str(count)].append(result)
                    if count == 2:
                        generator.run(
                            "hold",
                            self._port,
                            partial(_note_spread, run, self._port, spread),
                            calls=SPREAD,
                            rate=SPREAD_RATE,
                            seconds=0.5,
                            talk=plan.talk_ms,
                        )
        return {"cores": len(self._cores), "apart": apart, "rounds": rounds, "spread": spread}

    def handoff(self) -> Data:
        """From the bot's `end` to the POST: Ameyo in the generator by plain HTTP, and by TLS in Python."""
        _ = self._generator
        found: dict[str, list[list[float]]] = {"plain HTTP": [], "TLS": []}
        for number in range(self.plan.rounds):
            self._say(f"hand-off, round {number + 1}: plain HTTP")
            with running(self._eslbot, self.folder, self._cores[:1], self._port) as run:
                found["plain HTTP"].append(self._paced(run)["end_to_post_ms_all"])
            self._say(f"hand-off, round {number + 1}: TLS")
            with AmeyoServer({TENANT_HOST: TOKEN}) as ameyo:
                subject = eslbot_service(
                    self.folder, self._port, ameyo.url, self._relay_port, ca_file=ameyo.ca_file
                )
                with running(subject, self.folder, self._cores[:1], self._port) as run:
                    result = self._paced(run)
                    found["TLS"].append(_delays(dict(result["ends"]), ameyo.requests))
        return {"rate": self.plan.rate, "rounds": found}

    def storm(self) -> Data:
        """Ameyo is away while many calls wait for it, and comes back."""
        generator, plan = self._generator, self.plan
        variants: dict[str, Result] = {}
        for away in AWAY:
            self._say(f"storm: {AWAY[away]}")
            with running(self._eslbot, self.folder, self._cores[:1], self._port) as run:
                calm = self._paced(run)
                with _watched(run) as used:
                    result = generator.run(
                        "storm",
                        self._port,
                        calls=plan.waiting,
                        rate=100,
                        talk=plan.talk_ms,
                        away=away,
                        down=plan.down,
                        seconds=plan.back,
                        fresh=plan.rate,
                    )
            result["cpu"] = [[at - result["began"], seconds] for at, seconds in used]
            result["calm_answer_ms"] = calm["answer_ms"]
            variants[away] = result
        return {"waiting": plan.waiting, "down": plan.down, "fresh": plan.rate, "variants": variants}

    # -- runs ---------------------------------------------------------------------------------------------

    def _throughput(self, seconds: float) -> Result:
        return self._generator.run(
            "throughput",
            self._port,
            calls=self.plan.in_flight,
            seconds=seconds,
            talk=self.plan.talk_ms,
            warmup=self.plan.warm_up,
        )

    def _warm_up(self) -> None:
        """What is made at the first call."""
        plan = self.plan
        self._generator.run("paced", self._port, rate=plan.rate, seconds=1, talk=plan.talk_ms)

    def _paced(self, run: Running) -> Result:
        self._warm_up()
        plan = self.plan
        return _with_cpu(
            run,
            lambda: self._generator.run(
                "paced", self._port, rate=plan.rate, seconds=plan.seconds, talk=plan.talk_ms
            ),
        )

    def _hold(self, run: Running, generator: Generator, calls: int) -> Result:
        generator.run("paced", self._port, rate=50, seconds=2, talk=self.plan.talk_ms)
        before = run.memory()
        found: Result = {}

        def measure() -> None:
            time.sleep(SETTLE)
            found["kb_per_call"] = (run.memory() - before) / calls / 1000
            began, used = time.monotonic(), run.cpu_seconds()
            time.sleep(self.plan.idle)
            found["idle_core_percent"] = 100 * (run.cpu_seconds() - used) / (time.monotonic() - began)

        result = generator.run(
            "hold",
            self._port,
            measure,
            calls=calls,
            rate=self.plan.held_rate,
            seconds=SETTLE + self.plan.idle + 1,
            talk=self.plan.talk_ms,
            patience=HOLD_PATIENCE,
        )
        return {**result, **found}


def _with_cpu(run: Running, measure: Callable[[], Result]) -> Result:
    """The result, and the processor time that the controller has used: for each call, and of a core."""
    before, began = run.cpu_seconds(), time.monotonic()
    result = measure()
    used, lasted = run.cpu_seconds() - before, time.monotonic() - began
    result["cpu_us_per_call"] = 1e6 * used / max(1, result["completed"])
    result["cores_used"] = used / lasted
    return result


def _delays(ends: Mapping[str, float], requests: Iterable[Notification]) -> list[float]:
    """Milliseconds from each bot's end to the notification, by CRT Object ID. Those before are a warm-up's.

    Raises RuntimeError where a call was not accepted exactly once.
    """
    came: dict[str, list[float]] = {crt: [] for crt in ends}
    for request in requests:
        crt = request.crt_object_id
        if crt is not None and crt in ends and request.at >= ends[crt] and request.accepted:
            came[crt].append(request.at)
    if wrong := {crt: len(times) for crt, times in came.items() if len(times) != 1}:
        raise RuntimeError(f"of {len(ends)} calls these were not accepted exactly once: {wrong}")
    return [(came[crt][0] - at) * 1000 for crt, at in ends.items()]


def _note_spread(run: Running, port: int, spread: list[list[int]]) -> None:
    spread.append(run.connections(port))


@contextmanager
def _watched(run: Running) -> Iterator[list[tuple[float, float]]]:
    """Moments on the monotonic clock, and the processor time used so far, while the block runs."""
    found: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            found.append((time.monotonic(), run.cpu_seconds()))

    thread = threading.Thread(target=watch, name="processor time", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()

"""What :mod:`tests.support.chaos.faults` does not do: relay, FreeSWITCH, disk, Ameyo's moods, clock."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.soak.bots import BotProcess
from eslbot.sim.pbx.steps import Answer, Stall, Step
from eslbot.sim.service import send, wait_listening
from tests.support.chaos.faults import Faults
from tests.support.chaos.witness import Witness
from tests.support.unkind_ameyo import unkind_answer

#: Bytes of the file system of the line files: enough for all calls, and little to fill up.
DISK = 96 << 20
#: Seconds by which the clock of eslbot's processes is wrong behind a step.
STEPS = (-3600, -30, -2, 2, 30, 3600)
#: Seconds for a relay to be there again.
_RELAY_LIMIT = 30.0
_LOOK = 0.05


class SoakFaults(Faults):
    """All of them. ``disk``: the line files have a small file system; ``clock`` steps eslbot's."""

    def __init__(
        self, witness: Witness, bot: BotProcess, rng: random.Random, disk: bool, clock: Path | None
    ) -> None:
        super().__init__(witness, rng)
        self._bot, self._clock = bot, clock
        own: dict[str, Callable[[float], object]] = {
            "kill worker": lambda seconds: self.kill_worker(),
            "kill relay": lambda seconds: self.kill_relay(),
            "crash FreeSWITCH": lambda seconds: self.crash_switch(),
            "HUP": lambda seconds: self.hup(),
            "bot away": self.bot_away,
            "Ameyo away": self.ameyo_away,
            "Ameyo errors": lambda seconds: self.ameyo_mood("Ameyo errors", [503], seconds),
            "Ameyo slow": lambda seconds: self.ameyo_mood("Ameyo slow", [Stall(2.0, Answer(200))], seconds),
            "Ameyo drips": lambda seconds: self.ameyo_mood(
                "Ameyo drips", [unkind_answer("text drips")], seconds
            ),
        }
        if disk:
            own["full disk"] = self.full_disk
        if clock is not None:
            own["clock step"] = lambda seconds: self.clock_step()
        self.by_name = own

    def kill_relay(self) -> int | None:
        """KILL of a random relay; over when another one listens. Its id, None where there was none."""
        pids = self._lab.relay_pids()
        if not pids:
            return None
        pid = self._rng.choice(pids)
        with self._witness.fault("kill relay", "relay", detail=f"relay {pid}"):
            send(pid, signal.SIGKILL)
            deadline = time.monotonic() + _RELAY_LIMIT
            while not set(self._lab.relay_pids()) - {pid} and time.monotonic() < deadline:
                time.sleep(_LOOK)
            wait_listening(self._lab.relay, _RELAY_LIMIT)
        return pid

    def crash_switch(self) -> None:
        """KILL of FreeSWITCH, and its start as its unit does it; over when it takes calls again."""
        with self._witness.fault("crash FreeSWITCH", "crash"):
            self._lab.crash_switch()
            self._lab.wait_switch_ready()

    def bot_away(self, seconds: float) -> None:
        """The bot's process is killed, and is back on the same port after a while."""
        with self._witness.fault("bot away", "bot"):
            self._bot.kill()
            time.sleep(seconds)
            self._bot.start()

    def ameyo_mood(self, kind: str, steps: Sequence[Step], seconds: float) -> None:
        """Ameyo does this with every notification for a while, save those that have a script."""
        with self._witness.fault(kind, "ameyo"):
            self._lab.ameyo.script(None, steps, repeat_last=True)
            time.sleep(seconds)
            self._lab.ameyo.script(None, [])

    def full_disk(self, seconds: float) -> None:
        """No room for line files for a while."""
        ballast = self._lab.lines / "ballast"
        with self._witness.fault("full disk", "disk"):
            try:
                fill(ballast)
                time.sleep(seconds)
            finally:
                ballast.unlink(missing_ok=True)

    def clock_step(self) -> None:
        """eslbot's processes, and only they, see another time of day; their monotonic clock goes on."""
        assert self._clock is not None
        step = self._rng.choice(STEPS)
        with self._witness.fault("clock step", "clock", detail=f"{step:+d} s"):
            step_clock(self._clock, step)


def fill(path: Path) -> None:
    """Take all room there is on the file system of ``path``."""
    with path.open("wb", buffering=0) as file:
        block = bytes(1 << 16)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2] if len(block) > 4096 else b""


def step_clock(file: Path, seconds: int) -> None:
    """Step the clock of the processes that ``step.c`` was preloaded into."""
    with file.open("r+b") as opened:
        opened.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def fake_clock(folder: Path) -> tuple[Path, list[str]] | None:
    """A file that steps a clock, and a command that runs another with it; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library, file = folder / "step.so", folder / "clock"
    source = Path(__file__).with_name("step.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    file.write_bytes(bytes(8))
    return file, ["env", f"LD_PRELOAD={library}", f"SOAK_CLOCK={file}"]


@contextmanager
def small_disk(lines: Path) -> Iterator[str | None]:
    """A file system of its own for the line files, or why there is none."""
    lines.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0770", "tmpfs", str(lines)]
    told = subprocess.run(mount, capture_output=True, text=True, check=False)
    if told.returncode:
        yield told.stderr.strip() or f"mount ended with {told.returncode}"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "--lazy", str(lines)], check=True)

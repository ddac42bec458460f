"""One fault at a time, done to a lab and written down. Each method returns when the fault is over."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from eslbot.sim.service import send
from tests.support.chaos.witness import Witness
from tests.support.service import LabService


class Faults:
    """What can be done to the lab of ``witness``; ``rng`` chooses whom."""

    def __init__(self, witness: Witness, rng: random.Random) -> None:
        self._witness, self._rng = witness, rng
        self._lab = witness.lab
        #: All of them by name; each takes the seconds it lasts.
        self.by_name: dict[str, Callable[[float], object]] = {
            "kill worker": lambda seconds: self.kill_worker(),
            "kill arbiter": lambda seconds: self.kill_arbiter(),
            "stop worker": self.stop_worker,
            "stall event socket": self.stall,
            "half-open event socket": self.half_open,
            "reset event socket": lambda seconds: self.reset(),
            "bot away": self.bot_away,
            "Ameyo away": self.ameyo_away,
            "HUP": lambda seconds: self.hup(),
        }
        if self._lab.proxies == []:
            for name in ("stall event socket", "half-open event socket", "reset event socket"):
                del self.by_name[name]
        if self._lab.real_switch is not None:
            self.by_name["reloadxml"] = lambda seconds: self.switch_command("reloadxml")
            self.by_name["reloadacl"] = lambda seconds: self.switch_command("reloadacl")
            self.by_name["profile rescan"] = lambda seconds: self.switch_command(
                "sofia profile ameyo rescan", "profile rescan"
            )

    # -- eslbot -------------------------------------------------------------------------------------------

    def kill_worker(self, pid: int | None = None) -> int | None:
        """KILL of a worker, by default any; its id, or None where there was none."""
        pid = self._worker() if pid is None else pid
        if pid is None:
            return None
        hit = self._hit(pid)
        with self._witness.fault("kill worker", "controller", hit, f"worker {pid}"):
            send(pid, signal.SIGKILL)
        return pid

    def kill_arbiter(self) -> None:
        """KILL of an arbiter, and the restart of its service as systemd does it."""
        service = self._service()
        with self._witness.fault("kill arbiter", "controller", detail=str(service.listen)):
            service.kill_arbiter()
            service.start()

    def stop_worker(self, seconds: float, pid: int | None = None) -> None:
        """A worker hangs for a while: STOP and CONT."""
        pid = self._worker() if pid is None else pid
        if pid is None:
            return
        with self._witness.fault("stop worker", "controller", self._hit(pid), f"worker {pid}"):
            send(pid, signal.SIGSTOP)
            try:
                time.sleep(seconds)
            finally:
                send(pid, signal.SIGCONT)

    def away(self, seconds: float) -> None:
        """No eslbot at all for a while: all killed at once, and started again."""
        with self._witness.fault("eslbot away", "controller"):
            for service in self._lab.services:
                service.kill()
            time.sleep(seconds)
            for service in self._lab.services:
                service.start()

    def hup(self) -> None:
        """The configuration is read again, by new workers."""
        with self._witness.fault("HUP", "reload"):
            for service in self._lab.services:
                service.hup()

    # -- the event socket ---------------------------------------------------------------------------------

    def stall(self, seconds: float) -> None:
        """Nothing is passed on between the switch and eslbot, and nothing is lost."""
        with self._witness.fault("stall event socket", "controller"):
            for proxy in self._lab.proxies:
                proxy.stall()
            try:
                time.sleep(seconds)
            finally:
                for proxy in self._lab.proxies:
                    proxy.go_on()

    def half_open(self, seconds: float) -> None:
        """What both sides say is lost, and then the connections are reset."""
        with self._witness.fault("half-open event socket", "controller"):
            for proxy in self._lab.proxies:
                proxy.swallow()
            try:
                time.sleep(seconds)
            finally:
                for proxy in self._lab.proxies:
                    hit = proxy.open_passages()
                    proxy.go_on()
                    proxy.reset(hit)

    def reset(self) -> int:
        """RST to both sides of every connection; how many there were."""
        with self._witness.fault("reset event socket", "controller"):
            return sum(proxy.reset() for proxy in self._lab.proxies)

    # -- the others ---------------------------------------------------------------------------------------

    def bot_away(self, seconds: float) -> None:
        """The bot dies with all its calls, and is back on the same port after a while."""
        with self._witness.fault("bot away", "bot"):
            self._lab.bot.stop()
            time.sleep(seconds)
            self._lab.bot.start()

    def ameyo_away(self, seconds: float) -> None:
        """Ameyo dies with all its requests, and is back on the same port after a while."""
        with self._witness.fault("Ameyo away", "ameyo"):
            self._lab.ameyo.down()
            time.sleep(seconds)
            self._lab.ameyo.up()

    def switch_command(self, command: str, kind: str | None = None) -> str:
        """A command to the real FreeSWITCH, which must not harm a call."""
        assert self._lab.real_switch is not None
        with self._witness.fault(kind or command, "switch"):
            return self._lab.real_switch.api(command)

    # -- whom ---------------------------------------------------------------------------------------------

    def _service(self) -> LabService:
        return self._rng.choice(self._lab.services)

    def _worker(self) -> int | None:
        pids = [pid for service in self._lab.services for pid in service.worker_pids()]
        return self._rng.choice(pids) if pids else None

    def _hit(self, pid: int) -> list[str] | None:
        return self._witness.calls_of(pid) if self._lab.proxies else None

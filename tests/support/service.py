"""``eslbot serve`` in a process of its own, and whatever can befall it."""

from __future__ import annotations

import signal
import time

from eslbot.sim.processes import children, relays, tells
from eslbot.sim.service import START_LIMIT, STOP_LIMIT, EslbotService, send, wait_gone

#: Seconds that orphaned workers get between TERM and KILL when the arbiter was killed.
ORPHANS_LIMIT = 5.0
#: Seconds between two looks at a process: there is no event to wait for.
LOOK = 0.01


class LabService(EslbotService):
    """One of a laboratory of the tests."""

    def kill_arbiter(self) -> list[int]:
        """KILL of the arbiter; then what systemd does: TERM to who is left, KILL where that takes too long.

        Returns the workers' ids when all are gone; :meth:`start` brings the service back.
        """
        if self.process is None:
            return []
        orphans = self.children()
        self.process.kill()
        self.process.wait(STOP_LIMIT)
        self.process = None
        for pid in orphans:
            send(pid, signal.SIGTERM)
        if not wait_gone(orphans, ORPHANS_LIMIT):
            for pid in orphans:
                send(pid, signal.SIGKILL)
            wait_gone(orphans, STOP_LIMIT)
        return orphans

    def hup(self) -> None:
        """Reload: new workers come, the old ones leave."""
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def relay_pids(self) -> list[int]:
        """The relays, without their parent."""
        return [relay for pid in self.children() if relays(pid) for relay in children(pid)]

    def relay_parent_pid(self) -> int | None:
        """The relays' parent, where the service starts them."""
        return next((pid for pid in self.children() if relays(pid)), None)

    def page_pid(self) -> int | None:
        """The page process, while there is one."""
        return next((pid for pid in self.children() if tells(pid)), None)

    def wait_serving(self, count: int | None = None, timeout: float = START_LIMIT) -> list[int]:
        """The serving workers, once there are ``count``, by default all of the configuration.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
        """
        wanted = self.workers if count is None else count
        deadline = time.monotonic() + timeout
        while len(found := self.serving()) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(found)} of {wanted} workers serve after {timeout:g} s:\n{self.log_end()}"
                )
            time.sleep(LOOK)
        return found

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 where it has not been counted. Raises OSError."""
        lines = self.http("/metrics")[1].splitlines()
        own = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in own)

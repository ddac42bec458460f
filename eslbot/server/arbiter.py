"""gunicorn's arbiter, with deploys that no caller hears.

At a HUP gunicorn's own tells the old workers to leave as soon as the new ones are forked, binds addresses
again that the old workers still hold, and ends the whole service when a new worker cannot boot. Here the new
workers first accept; only then the old ones leave. When they do not come to that, the old ones stay, and with
them the configuration and the listeners they have.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn import systemd
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.sock import TCP6Socket, TCPSocket

from eslbot.server.status_file import CHANGING, FAILED, REFUSED, UP
from eslbot.server.worker import LEAVING, ORDERS

if TYPE_CHECKING:
    from eslbot.config import Config
    from eslbot.server.service import Service
    from eslbot.server.worker import CallWorker

log = structlog.get_logger()

#: Seconds the new workers of a HUP have until they accept.
BOOT = 10.0
#: Seconds between two looks at them.
POLL_INTERVAL = 0.05
#: Seconds until a worker that could not boot is tried again, while others serve.
RETRY = 5.0
#: TTIN adds no more than the configuration allows.
MAX_WORKERS = 64


@dataclass
class Change:
    """A HUP under way: what there was before, for the case that it fails."""

    #: Workers up to this age are the old ones.
    age: int
    cfg: Any
    config: Config | None
    listeners: list[Any]
    deadline: float


class CallArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Arbiter of :class:`eslbot.server.worker.CallWorker` processes."""

    app: Service
    WORKERS: dict[int, CallWorker]
    LISTENERS: list[Any]

    def __init__(self, app: Service) -> None:
        super().__init__(app)
        # For USR2: gunicorn's own would start "python -m eslbot" as a script inside the package.
        self.START_CTX["args"] = again(sys.orig_argv)
        self.START_CTX[0] = self.START_CTX["args"][0]
        self._change: Change | None = None
        self._stopping = False
        self._no_spawn_until = 0.0

    # -- workers ------------------------------------------------------------------------------------------

    def manage_workers(self) -> None:
        """As many workers as wanted. Those that leave do not count; those before a HUP go when it is done."""
        self.app.tend_children()
        self.app.tend_tenants()
        staying = sorted((w for w in self.WORKERS.values() if not w.leaving), key=lambda w: w.age)
        change = self._change
        current = [w for w in staying if change is None or w.age > change.age]
        if change is not None:
            accepting = sum(w.accepting for w in current)
            overdue = time.monotonic() > change.deadline
            if overdue and not accepting:
                self._take_back(f"no new worker accepts after {BOOT:g} s")
                return
            if overdue or accepting >= self.num_workers:
                self._complete(change, [w for w in staying if w.age <= change.age], accepting)
        if time.monotonic() >= self._no_spawn_until:
            for _ in range(self.num_workers - len(current)):
                self.spawn_worker()
        for worker in current[: max(0, len(current) - self.num_workers)]:
            self._dismiss(worker)

    def spawn_worker(self) -> int:
        """Fork one; what it is told before it can hear it waits until it can."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
        pid: int = super().spawn_worker()  # the worker itself never returns from here
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _dismiss(self, worker: CallWorker, signum: int = signal.SIGTERM) -> None:
        worker.show(LEAVING)
        self.kill_worker(worker.pid, signum)

    def reap_workers(self) -> None:
        """A worker that cannot boot ends the service only if no other one serves."""
        known = dict(self.WORKERS)
        try:
            super().reap_workers()
        except HaltServer as halt:
            if not self._stopping and not any(w.accepting for w in self.WORKERS.values()):
                raise
            gone = [known[pid] for pid in known.keys() - self.WORKERS.keys()]
            for worker in gone:  # gunicorn did not come to that
                worker.tmp.close()
                self.cfg.child_exit(self, worker)
            self._cannot_boot([w for w in gone if not w.leaving], halt.reason)
            self.reap_workers()

    def _cannot_boot(self, workers: list[CallWorker], why: str) -> None:
        """Other workers serve: a HUP is given up; otherwise it is tried again, not at once."""
        if self._stopping or not workers:
            return
        if self._change is not None and max(w.age for w in workers) > self._change.age:
            self._take_back(why)
        else:
            self._no_spawn_until = time.monotonic() + RETRY
            log.error(
                "worker_cannot_boot",
                error=why,
                remedy="see the lines above; the other workers continue, and this one is tried again",
            )

    def handle_ttin(self) -> None:
        """One worker more."""
        if self.num_workers < MAX_WORKERS:
            super().handle_ttin()

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Look more often while new workers are about to accept."""
        signals: list[int] = super().wait_for_signals(timeout if self._change is None else POLL_INTERVAL)
        return signals

    def stop(self, graceful: bool = True) -> None:
        """End all workers, and behind them who reads what they have written last."""
        self._stopping = True
        if self.reexec_pid:  # USR2: or systemd takes our end for the service's
            systemd.sd_notify(f"MAINPID={self.reexec_pid}", self.log)
        else:  # who comes by USR2 has been told of them
            self.app.leave_tenants()
        if self._change is not None:
            self._close_all_but(self.LISTENERS, self._change.listeners)
            self._change = None
        super().stop(graceful)
        self.app.end_children(graceful=graceful)

    # -- HUP ----------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration and fork new workers; :meth:`manage_workers` sees the change through."""
        if self._change is not None:
            self._take_back("another HUP came")
        for worker in self.WORKERS.values():  # one generation may drain, not any number
            if worker.leaving:
                self.kill_worker(worker.pid, signal.SIGQUIT)
        change = Change(
            self.worker_age, self.app.cfg, self.app.config, self.LISTENERS, time.monotonic() + BOOT
        )
        self.app.reload()
        try:
            listeners = self._listeners()
        except OSError as error:
            log.error(
                "configuration_refused",
                problems=[str(error)],
                remedy="correct the file and reload; the previous configuration stays in force",
            )
            self.app.cfg, self.app.config = change.cfg, change.config
            self.app.refused = [str(error)]
            listeners = change.listeners
        self.LISTENERS = listeners
        self.setup(self.app)
        self._change = change
        self.app.tell(REFUSED if self.app.refused else CHANGING, self.app.refused)
        self._no_spawn_until = 0.0
        self.manage_workers()

    def _listeners(self) -> list[Any]:
        """Of the configured addresses; those that are open already stay open. Raises OSError."""
        there = {listener.getsockname()[:2]: listener for listener in self.LISTENERS}
        listeners: list[Any] = []
        for address in self.app.cfg.address:
            kind = TCP6Socket if ":" in address[0] else TCPSocket
            try:
                listeners.append(there.get(address) or kind(address, self.app.cfg, self.log))
            except OSError as error:
                self._close_all_but(self.LISTENERS, listeners)
                raise OSError(f"cannot listen at {address[0]}:{address[1]}: {error.strerror}") from error
        return listeners

    def in_worker(self) -> None:
        """A new worker must not keep a listener open on which it does not accept."""
        if self._change is not None:
            self._close_all_but(self.LISTENERS, self._change.listeners)

    @staticmethod
    def _close_all_but(kept: list[Any], listeners: list[Any]) -> None:
        for listener in listeners:
            if not any(listener is one for one in kept):
                listener.close()

    def _complete(self, change: Change, old: list[CallWorker], accepting: int) -> None:
        missing = []
        if accepting < self.num_workers:
            log.error("reload_incomplete", accepting=accepting, workers=self.num_workers, seconds=BOOT)
            missing = [f"{accepting} of {self.num_workers} workers accept after {BOOT:g} s"]
        self.app.tell(REFUSED if self.app.refused else UP, [*self.app.refused, *missing])
        self._change = None
        self._close_all_but(self.LISTENERS, change.listeners)
        for worker in old:
            self._dismiss(worker)

    def _take_back(self, why: str) -> None:
        """The old workers stay, with their configuration and listeners; the new ones go."""
        change, self._change = self._change, None
        assert change is not None
        log.error(
            "reload_failed",
            error=why,
            remedy="see the lines above; the old workers and configuration stay in force",
        )
        for worker in self.WORKERS.values():
            if worker.age > change.age and not worker.leaving:
                self._dismiss(worker)
        self._close_all_but(change.listeners, self.LISTENERS)
        self.LISTENERS = change.listeners
        self.app.cfg, self.app.config = change.cfg, change.config
        self.app.tell(FAILED, [why])
        self.setup(self.app)


def again(argv: list[str]) -> list[str]:
    """The command that starts this program once more, at USR2; ``argv`` is how Python was started.

    A script is started itself, not read by the Python that runs now: behind a symbolic link it may by then be
    that of another release, with an environment of its own.
    """
    arguments = argv[1:]
    if arguments and Path(arguments[0]).is_absolute() and os.access(arguments[0], os.X_OK):
        return arguments
    return [sys.executable, *arguments]
